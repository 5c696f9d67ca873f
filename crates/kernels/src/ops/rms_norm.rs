//! Root mean square normalisation (Zhang and Sennrich, 2019, arXiv:1910.07467).

use burn::tensor::{DType, Tensor};

use crate::portable::graph::with_gradients;
use crate::portable::row_products::column_sums;

/// Divides each row of `x` `[rows, width]` by its root mean square, and multiplies by `weight` `[width]`. `epsilon` is
/// added to the mean square.
///
/// # Panics
///
/// If `weight` is not as long as a row of `x`.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(&x)
        && let Some(y) = fused::rms_norm(&x, &weight, epsilon as f32)
    {
        return y;
    }
    // The mean square of a wide row needs more precision than f16 and bf16 have.
    let dtype = x.dtype();
    plain(x.cast(DType::F32), weight.cast(DType::F32), epsilon).cast(dtype)
}

/// The form in Burn's own operations.
pub(crate) fn plain(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let formula = |x: Tensor<2>, weight: Tensor<1>| {
        let inverse = (x.clone().square().mean_dim(1) + epsilon).sqrt().recip();
        x * inverse * weight.unsqueeze::<2>()
    };
    if !x.is_autodiff() && !weight.is_autodiff() {
        return formula(x, weight);
    }
    let (values, factors) = (x.clone().without_autodiff(), weight.clone().without_autodiff().unsqueeze::<2>());
    let inverse = (values.clone().square().mean_dim(1) + epsilon).sqrt().recip();
    let normal = values * inverse.clone();
    let output = normal.clone() * factors.clone();
    let inputs = [x.clone().into_dispatch(), weight.clone().into_dispatch()];
    let tracked = with_gradients(inputs, output, move |gradient: Tensor<2>, needed| {
        let of_x = || {
            let slopes = gradient.clone() * factors.clone();
            let slope = (slopes.clone() * normal.clone()).mean_dim(1);
            (slopes - normal.clone() * slope) * inverse.clone()
        };
        let of_weight = || column_sums(gradient.clone() * normal.clone());
        [needed[0].then(|| of_x().into_dispatch()), needed[1].then(|| of_weight().into_dispatch())]
    });
    tracked.unwrap_or_else(|| formula(x, weight))
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;
    use rayon::prelude::*;

    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
    use crate::cpu::chunks::CHUNK_ROWS;
    use crate::cpu::simd::{sum, vectorised};
    use crate::cpu::uninit::{par_rows, write_copy};

    #[derive(Debug, Clone)]
    struct Saved {
        x: Values,
        weight: Values,
        epsilon: f32,
    }

    pub fn rms_norm(x: &Tensor<2>, weight: &Tensor<1>, epsilon: f32) -> Option<Tensor<2>> {
        let [rows, width] = x.dims();
        assert_eq!(weight.dims(), [width], "length of the weight of a root mean square norm");
        let inputs = [Input::new(x.clone())?, Input::new(weight.clone())?];
        let forward = |[x, weight]: &[Values; 2], _| {
            let values = par_rows(rows, width, |first, out| {
                let out = write_copy(out, &x.get()[first * width..][..out.len()]);
                normalise_rows(&mut *out, weight.get(), epsilon);
                out
            });
            (flex_tensor(values, [rows, width]), Saved { x: x.clone(), weight: weight.clone(), epsilon })
        };
        Some(custom_op(inputs, forward, backward))
    }

    vectorised! {
        fn normalise_rows(rows: &'a mut [f32], weight: &'a [f32], epsilon: f32) {
            for row in rows.chunks_exact_mut(weight.len()) {
                normalise_row(row, epsilon);
                row.iter_mut().zip(weight).for_each(|(value, weight)| *value *= weight);
            }
        }
    }

    /// Divides a row by its root mean square; returns the factor.
    #[inline(always)]
    fn normalise_row(row: &mut [f32], epsilon: f32) -> f32 {
        let inverse = (sum([row], |[value]| value * value) / row.len() as f32 + epsilon).sqrt().recip();
        row.iter_mut().for_each(|value| *value *= inverse);
        inverse
    }

    fn backward(saved: Saved, gradient: Values, needed: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let Saved { x, weight, epsilon } = saved;
        let (weight, width) = (weight.get(), weight.get().len());
        let rows = x.get().len() / width;
        let of_x = || {
            let values = par_rows(rows, width, |first, out| {
                let range = first * width..first * width + out.len();
                let gradient = &gradient.get()[range.clone()];
                let out = write_copy(out, &x.get()[range]);
                to_input_gradients(&mut *out, gradient, weight, epsilon);
                out
            });
            flex_tensor(values, [rows, width])
        };
        let of_weight = || {
            let chunk = CHUNK_ROWS * width;
            let chunks = x.get().par_chunks(chunk).zip(gradient.get().par_chunks(chunk));
            let parts: Vec<Vec<f32>> =
                chunks.map(|(x, gradient)| weight_gradient(x, gradient, width, epsilon)).collect();
            // In the order of the chunks, so that the sum does not depend on which thread finishes first.
            let mut total = vec![0.0; width];
            for part in parts {
                total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
            }
            flex_tensor(total, [width])
        };
        [needed[0].then(of_x), needed[1].then(of_weight)]
    }

    vectorised! {
        /// Replaces rows of the input by the rows of its gradient.
        fn to_input_gradients(rows: &'a mut [f32], gradient: &'a [f32], weight: &'a [f32], epsilon: f32) {
            let width = weight.len();
            for (row, gradient) in rows.chunks_exact_mut(width).zip(gradient.chunks_exact(width)) {
                let inverse = normalise_row(row, epsilon);
                let slope = sum([weight, gradient, row], |[w, g, x]| g * w * x) / width as f32;
                for ((value, gradient), weight) in row.iter_mut().zip(gradient).zip(weight) {
                    *value = inverse * gradient.mul_add(*weight, -*value * slope);
                }
            }
        }
    }

    vectorised! {
        /// The gradient of the weight that a chunk of rows contributes.
        fn weight_gradient(x: &'a [f32], gradient: &'a [f32], width: usize, epsilon: f32) -> Vec<f32> {
            let (mut total, mut row) = (vec![0.0f32; width], vec![0.0f32; width]);
            for (x, gradient) in x.chunks_exact(width).zip(gradient.chunks_exact(width)) {
                row.copy_from_slice(x);
                normalise_row(&mut row, epsilon);
                for (total, (value, gradient)) in total.iter_mut().zip(row.iter().zip(gradient)) {
                    *total = value.mul_add(*gradient, *total);
                }
            }
            total
        }
    }
}
