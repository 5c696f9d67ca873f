//! Layer normalisation (Ba et al., 2016).

use burn::tensor::DType;
use burn::tensor::{Tensor, module};

/// `[rows, width]` to rows of mean 0 and variance 1, times `weight` and plus `bias` `[width]`.
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Option<Tensor<1>>, epsilon: f64) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::record::is_fused(&x)
        && let Some(y) = fused::layer_norm(&x, &weight, bias.as_ref(), epsilon as f32)
    {
        return y;
    }
    // Variances of wide rows need more digits than half precision has.
    let (precision, wide) = (x.dtype(), |tensor: Tensor<1>| tensor.cast(DType::F32));
    module::layer_norm(x.cast(DType::F32), wide(weight), bias.map(wide), epsilon).cast(precision)
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;
    use rayon::prelude::*;

    use crate::buffer::{CHUNK_ROWS, by_rows, copy};
    use crate::linear::fused::optional;
    use crate::record::{Input, Values, record, tensor};
    use crate::simd::{sum, vectorised};

    #[derive(Debug, Clone)]
    struct Kept {
        x: Values,
        weight: Values,
        epsilon: f32,
    }

    pub fn layer_norm(x: &Tensor<2>, weight: &Tensor<1>, bias: Option<&Tensor<1>>, epsilon: f32) -> Option<Tensor<2>> {
        let [rows, width] = x.dims();
        let biased = bias.is_some();
        let inputs = [Input::of(x.clone())?, Input::of(weight.clone())?, optional(bias)?];
        let forward = |[x, weight, bias]: &[Values; 3], _| {
            let (weights, bias) = (weight.get(), bias.get());
            let values = by_rows(rows, width, |first, out| {
                let out = copy(out, &x.get()[first * width..][..out.len()]);
                normalise(&mut *out, weights, biased.then_some(bias), epsilon);
                out
            });
            (tensor(values, [rows, width]), Kept { x: x.clone(), weight: weight.clone(), epsilon })
        };
        Some(record(inputs, forward, backward))
    }

    vectorised! {
        fn normalise(rows: &'a mut [f32], weight: &'a [f32], bias: Option<&'a [f32]>, epsilon: f32) {
            for row in rows.chunks_exact_mut(weight.len()) {
                standardise(row, epsilon);
                match bias {
                    Some(bias) => {
                        let affine = row.iter_mut().zip(weight.iter().zip(bias));
                        affine.for_each(|(value, (weight, bias))| *value = value.mul_add(*weight, *bias));
                    }
                    None => row.iter_mut().zip(weight).for_each(|(value, weight)| *value *= weight),
                }
            }
        }
    }

    /// Gives a row mean 0 and variance 1; gives the inverse of what its deviation was.
    #[inline(always)]
    fn standardise(row: &mut [f32], epsilon: f32) -> f32 {
        let count = row.len() as f32;
        let mean = sum(row.len(), |i| row[i]) / count;
        row.iter_mut().for_each(|value| *value -= mean);
        let inverse = (sum(row.len(), |i| row[i] * row[i]) / count + epsilon).sqrt().recip();
        row.iter_mut().for_each(|value| *value *= inverse);
        inverse
    }

    fn backward(kept: Kept, gradient: Values, needed: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Kept { x, weight, epsilon } = kept;
        let (weight, width) = (weight.get(), weight.get().len());
        let rows = x.get().len() / width;
        let chunk = CHUNK_ROWS * width;
        let x_gradient = || {
            let values = by_rows(rows, width, |first, out| {
                let place = first * width..first * width + out.len();
                let gradient = &gradient.get()[place.clone()];
                let out = copy(out, &x.get()[place]);
                input_gradients(&mut *out, gradient, weight, epsilon);
                out
            });
            tensor(values, [rows, width])
        };
        let [weight_gradient, bias_gradient] = match needed[1] || needed[2] {
            false => [const { Vec::new() }; 2],
            true => {
                let chunks = x.get().par_chunks(chunk).zip(gradient.get().par_chunks(chunk));
                sum_in_order(chunks.map(|(x, gradient)| parameter_gradients(x, gradient, width, epsilon)).collect())
            }
        };
        [
            needed[0].then(x_gradient),
            needed[1].then(|| tensor(weight_gradient, [width])),
            needed[2].then(|| tensor(bias_gradient, [width])),
        ]
    }

    vectorised! {
        /// Turns rows of the input into rows of its gradient.
        fn input_gradients(rows: &'a mut [f32], gradient: &'a [f32], weight: &'a [f32], epsilon: f32) {
            let width = weight.len();
            for (row, gradient) in rows.chunks_exact_mut(width).zip(gradient.chunks_exact(width)) {
                let inverse = standardise(row, epsilon);
                let mean = sum(width, |i| gradient[i] * weight[i]) / width as f32;
                let slope = sum(width, |i| gradient[i] * weight[i] * row[i]) / width as f32;
                for ((value, gradient), weight) in row.iter_mut().zip(gradient).zip(weight) {
                    *value = inverse * (gradient.mul_add(*weight, -mean) - *value * slope);
                }
            }
        }
    }

    vectorised! {
        /// The sums over some rows of the gradient times the standardised rows, and of the gradient.
        fn parameter_gradients(x: &'a [f32], gradient: &'a [f32], width: usize, epsilon: f32) -> [Vec<f32>; 2] {
            let [mut of_weight, mut of_bias, mut row] = [const { Vec::new() }; 3].map(|mut values: Vec<f32>| {
                values.resize(width, 0.0);
                values
            });
            for (x, gradient) in x.chunks_exact(width).zip(gradient.chunks_exact(width)) {
                row.copy_from_slice(x);
                standardise(&mut row, epsilon);
                let sums = of_weight.iter_mut().zip(&mut of_bias);
                for ((of_weight, of_bias), (value, gradient)) in sums.zip(row.iter().zip(gradient)) {
                    *of_weight = value.mul_add(*gradient, *of_weight);
                    *of_bias += gradient;
                }
            }
            [of_weight, of_bias]
        }
    }

    fn sum_in_order(parts: Vec<[Vec<f32>; 2]>) -> [Vec<f32>; 2] {
        let add = |mut total: Vec<f32>, part: Vec<f32>| {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
            total
        };
        let sum = parts.into_iter().reduce(|[weight, bias], part| {
            let [more_weight, more_bias] = part;
            [add(weight, more_weight), add(bias, more_bias)]
        });
        sum.unwrap_or_default()
    }
}
