//! Root mean square normalisation against its formula.

use super::*;
use crate::ops::rms_norm::{plain as plain_form, rms_norm};

/// The formula, with the gradient that Burn derives.
fn formula(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let inverse = (x.clone().square().mean_dim(1) + epsilon).sqrt().recip();
    x * inverse * weight.unsqueeze::<2>()
}

#[test]
fn rms_norm_matches_formula() {
    for (rows, width) in [(1, 3), (7, 8), (300, 20)] {
        for epsilon in [1e-6, 0.5] {
            for plain in [false, true] {
                compare(
                    &format!("rms norm {rows}x{width}, plain {plain}"),
                    LONG_SUM_TOLERANCE,
                    &[[rows, width]],
                    &[Some(width)],
                    |Inputs { m, v }| {
                        let (x, weight) = (m[0].clone(), v[0].clone().unwrap());
                        if plain { plain_form(x, weight, epsilon) } else { rms_norm(x, weight, epsilon) }
                    },
                    |Inputs { m, v }| formula(m[0].clone(), v[0].clone().unwrap(), epsilon),
                );
            }
        }
    }
}
