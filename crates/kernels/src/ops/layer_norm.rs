//! Layer normalisation (Ba et al., 2016, arXiv:1607.06450).

use burn::tensor::{DType, Tensor, module};

use crate::portable::graph::with_gradients;
use crate::portable::row_products::column_sums;

/// Normalises each row of `x` `[rows, width]` to mean 0 and variance 1, multiplies by `weight` `[width]` and adds
/// `bias` `[width]`. `epsilon` is added to the variance.
///
/// # Panics
///
/// If `weight` or `bias` is not as long as a row of `x`.
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Option<Tensor<1>>, epsilon: f64) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(&x)
        && let Some(y) = fused::layer_norm(&x, &weight, bias.as_ref(), epsilon as f32)
    {
        return y;
    }
    #[cfg(feature = "cube")]
    if let Some(y) = crate::cube::layer_norm::layer_norm(&x, &weight, bias.as_ref(), epsilon) {
        return y;
    }
    // The variance of a wide row needs more precision than f16 and bf16 have.
    let (dtype, to_f32) = (x.dtype(), |tensor: Tensor<1>| tensor.cast(DType::F32));
    plain(x.cast(DType::F32), to_f32(weight), bias.map(to_f32), epsilon).cast(dtype)
}

/// The form in Burn's own operations. Burn would derive a gradient of some twenty operations.
pub(crate) fn plain(x: Tensor<2>, weight: Tensor<1>, bias: Option<Tensor<1>>, epsilon: f64) -> Tensor<2> {
    if ![Some(&weight), bias.as_ref()].into_iter().flatten().any(Tensor::is_autodiff) && !x.is_autodiff() {
        return module::layer_norm(x, weight, bias, epsilon);
    }
    let (values, factors) = (x.clone().without_autodiff(), weight.clone().without_autodiff().unsqueeze::<2>());
    let centred = values.clone() - values.mean_dim(1);
    let inverse = (centred.clone().square().mean_dim(1) + epsilon).sqrt().recip();
    let normal = centred * inverse.clone();
    let output = normal.clone() * factors.clone();
    let output = match &bias {
        Some(bias) => output + bias.clone().without_autodiff().unsqueeze(),
        None => output,
    };
    let biased = bias.is_some();
    // A weight stands in for an absent bias, since the number of inputs is part of the type.
    let last = bias.as_ref().unwrap_or(&weight).clone();
    let inputs = [x.clone().into_dispatch(), weight.clone().into_dispatch(), last.into_dispatch()];
    let tracked = with_gradients(inputs, output, move |gradient: Tensor<2>, needed| {
        let of_x = || {
            let slopes = gradient.clone() * factors.clone();
            let mean = slopes.clone().mean_dim(1);
            let slope = (slopes.clone() * normal.clone()).mean_dim(1);
            (slopes - mean - normal.clone() * slope) * inverse.clone()
        };
        let column_sums = |values| column_sums(values).into_dispatch();
        [
            needed[0].then(|| of_x().into_dispatch()),
            needed[1].then(|| column_sums(gradient.clone() * normal.clone())),
            (biased && needed[2]).then(|| column_sums(gradient.clone())),
        ]
    });
    tracked.unwrap_or_else(|| module::layer_norm(x, weight, bias, epsilon))
}

#[cfg(feature = "flex")]
pub(crate) mod fused {
    use std::sync::OnceLock;

    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;

    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
    use crate::cpu::chunks::CHUNK_ROWS;
    use crate::cpu::simd::{sum, sums, vectorised};
    use crate::cpu::uninit::{par_rows, write_copy};

    #[derive(Debug, Clone)]
    struct Saved {
        x: Values,
        weight: Values,
        epsilon: f32,
    }

    pub fn layer_norm(x: &Tensor<2>, weight: &Tensor<1>, bias: Option<&Tensor<1>>, epsilon: f32) -> Option<Tensor<2>> {
        let [rows, width] = x.dims();
        assert_eq!(weight.dims(), [width], "length of the weight of a layer norm");
        assert!(bias.is_none_or(|bias| bias.dims() == [width]), "length of the bias of a layer norm");
        let biased = bias.is_some();
        let inputs = [Input::new(x.clone())?, Input::new(weight.clone())?, Input::optional(bias)?];
        let forward = |[x, weight, bias]: &[Values; 3], _| {
            let values = par_rows(rows, width, |first, out| {
                let out = write_copy(out, &x.get()[first * width..][..out.len()]);
                normalise_rows(&mut *out, weight.get(), biased.then(|| bias.get()), epsilon);
                out
            });
            (flex_tensor(values, [rows, width]), Saved { x: x.clone(), weight: weight.clone(), epsilon })
        };
        Some(custom_op(inputs, forward, backward))
    }

    /// Rows that are normalised at once: sums of one row wait for each other.
    const ROWS: usize = 4;

    vectorised! {
        /// Normalises rows in place, on this thread.
        pub fn normalise_rows(rows: &'a mut [f32], weight: &'a [f32], bias: Option<&'a [f32]>, epsilon: f32) {
            let width = weight.len();
            let mut groups = rows.chunks_exact_mut(ROWS * width);
            for group in &mut groups {
                let (first, rest) = group.split_at_mut(width);
                let (second, rest) = rest.split_at_mut(width);
                let (third, fourth) = rest.split_at_mut(width);
                normalise([&mut *first, &mut *second, &mut *third, &mut *fourth], epsilon);
                for row in [first, second, third, fourth] {
                    multiply_add(row, weight, bias);
                }
            }
            for row in groups.into_remainder().chunks_exact_mut(width) {
                normalise([&mut *row], epsilon);
                multiply_add(row, weight, bias);
            }
        }
    }

    #[inline(always)]
    fn multiply_add(row: &mut [f32], weight: &[f32], bias: Option<&[f32]>) {
        match bias {
            Some(bias) => {
                let affine = row.iter_mut().zip(weight.iter().zip(bias));
                affine.for_each(|(value, (weight, bias))| *value = value.mul_add(*weight, *bias));
            }
            None => row.iter_mut().zip(weight).for_each(|(value, weight)| *value *= weight),
        }
    }

    /// Normalises a row to mean 0 and variance 1; returns the reciprocal of its former standard deviation.
    #[inline(always)]
    fn normalise_row(row: &mut [f32], epsilon: f32) -> f32 {
        let [inverse] = normalise([row], epsilon);
        inverse
    }

    /// The same for rows of the same length at once, with the same bits.
    #[inline(always)]
    fn normalise<const N: usize>(rows: [&mut [f32]; N], epsilon: f32) -> [f32; N] {
        let width = rows[0].len();
        let mut rows = rows.map(|row| &mut row[..width]);
        let totals = sums(rows.each_ref().map(|row| [&**row]), |[value]| value);
        for (row, total) in rows.iter_mut().zip(totals) {
            let mean = total / width as f32;
            row.iter_mut().for_each(|value| *value -= mean);
        }
        let mut inverses = sums(rows.each_ref().map(|row| [&**row]), |[value]| value * value);
        for (row, inverse) in rows.iter_mut().zip(&mut inverses) {
            let factor = (*inverse / width as f32 + epsilon).sqrt().recip();
            row.iter_mut().for_each(|value| *value *= factor);
            *inverse = factor;
        }
        inverses
    }

    fn backward(saved: Saved, gradient: Values, needed: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let Saved { x, weight, epsilon } = saved;
        let (weight, width) = (weight.get(), weight.get().len());
        let rows = x.get().len() / width;
        let params_needed = needed[1] || needed[2];
        let parts: Vec<OnceLock<ParamGradients>> = vec![OnceLock::new(); rows.div_ceil(CHUNK_ROWS)];
        let values = par_rows(rows, width, |first, out| {
            let range = first * width..first * width + out.len();
            let gradient = &gradient.get()[range.clone()];
            let out = write_copy(out, &x.get()[range]);
            let mut part = params_needed.then(|| ParamGradients::zeros(width));
            to_gradients(&mut *out, gradient, weight, part.as_mut(), epsilon);
            if let Some(part) = part {
                let is_first = parts[first / CHUNK_ROWS].set(part).is_ok();
                assert!(is_first, "a chunk of rows has one task");
            }
            out
        });
        // In the order of the chunks, so that the sums do not depend on which thread finishes first.
        let mut params = ParamGradients::zeros(width);
        parts.into_iter().filter_map(OnceLock::into_inner).for_each(|part| params.add(&part));
        let ParamGradients { of_weight, of_bias } = params;
        [
            needed[0].then(|| flex_tensor(values, [rows, width])),
            needed[1].then(|| flex_tensor(of_weight, [width])),
            needed[2].then(|| flex_tensor(of_bias, [width])),
        ]
    }

    /// What some rows contribute to the gradients of weight and bias.
    #[derive(Debug, Clone)]
    struct ParamGradients {
        of_weight: Vec<f32>,
        of_bias: Vec<f32>,
    }

    impl ParamGradients {
        fn zeros(width: usize) -> Self {
            Self { of_weight: vec![0.0; width], of_bias: vec![0.0; width] }
        }

        fn add(&mut self, other: &Self) {
            let add = |values: &mut [f32], others: &[f32]| {
                values.iter_mut().zip(others).for_each(|(value, other)| *value += other);
            };
            add(&mut self.of_weight, &other.of_weight);
            add(&mut self.of_bias, &other.of_bias);
        }

        /// Adds the contribution of a normalised row.
        #[inline(always)]
        fn add_row(&mut self, row: &[f32], gradient: &[f32]) {
            let sums = self.of_weight.iter_mut().zip(&mut self.of_bias);
            for ((of_weight, of_bias), (value, gradient)) in sums.zip(row.iter().zip(gradient)) {
                *of_weight = value.mul_add(*gradient, *of_weight);
                *of_bias += gradient;
            }
        }
    }

    vectorised! {
        /// Replaces rows of the input by the rows of its gradient, and adds up those of the parameters.
        fn to_gradients(
            rows: &'a mut [f32],
            gradient: &'a [f32],
            weight: &'a [f32],
            params: Option<&'a mut ParamGradients>,
            epsilon: f32,
        ) {
            let (width, mut params) = (weight.len(), params);
            for (row, gradient) in rows.chunks_exact_mut(width).zip(gradient.chunks_exact(width)) {
                let inverse = normalise_row(row, epsilon);
                if let Some(params) = &mut params {
                    params.add_row(row, gradient);
                }
                let mean = sum([weight, gradient], |[w, g]| g * w) / width as f32;
                let slope = sum([weight, gradient, row], |[w, g, x]| g * w * x) / width as f32;
                for ((value, gradient), weight) in row.iter_mut().zip(gradient).zip(weight) {
                    *value = inverse * (gradient.mul_add(*weight, -mean) - *value * slope);
                }
            }
        }
    }
}
