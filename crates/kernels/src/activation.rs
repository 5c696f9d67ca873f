//! The nonlinearities of MLPs and their slopes.

use burn::tensor::Tensor;
use burn::tensor::activation as plain;
use serde::{Deserialize, Serialize};

/// The nonlinearity inside an MLP, by its name in transformers' `ACT2FN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// Exact, with erf.
    #[serde(rename = "gelu", alias = "gelu_python")]
    Gelu,
    /// The tanh approximation.
    #[serde(
        rename = "gelu_new",
        alias = "gelu_pytorch_tanh",
        alias = "gelu_fast",
        alias = "gelu_accurate",
        alias = "gelu_python_tanh"
    )]
    GeluTanh,
    /// `x * sigmoid(1.702 x)`, as in CLIP.
    #[serde(rename = "quick_gelu")]
    QuickGelu,
    /// max(0, x).
    #[serde(rename = "relu")]
    Relu,
    /// `x * sigmoid(x)`.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
}

impl Activation {
    /// Of any shape.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        #[cfg(feature = "flex")]
        if let Some(y) = fused::activate(self, &x) {
            return y;
        }
        self.plain(x)
    }

    /// In Burn's own operations.
    pub(crate) fn plain<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => plain::gelu(x),
            Self::GeluTanh => plain::gelu_approximate(x),
            // transformers: activations.py, QuickGELUActivation.
            Self::QuickGelu => x.clone() * plain::sigmoid(x * QUICK),
            Self::Relu => plain::relu(x),
            Self::Silu => plain::silu(x),
        }
    }
}

/// The factor in QuickGELU.
const QUICK: f32 = 1.702;

#[cfg(feature = "flex")]
pub(crate) mod fused {
    use burn::tensor::Tensor;
    use rayon::prelude::*;

    use super::{Activation, QUICK};
    use crate::buffer::{Blank, by_groups, ends_of, write};
    use crate::record::{Input, Values, is_fused, record, tensor};
    use crate::simd::{normal, sigmoid, vectorised};

    /// Values that one task works on.
    const BLOCK: usize = 1 << 14;

    /// `activation(x)`, recorded; `None` where Burn's operations are to be used.
    pub fn activate<const D: usize>(activation: Activation, x: &Tensor<D>) -> Option<Tensor<D>> {
        if !is_fused(x) {
            return None;
        }
        let dims = x.dims();
        let forward = |[x]: &[Values; 1], _| {
            let [values] = by_groups(&ends_of(x.get().len(), BLOCK), [1], |first, [out]| {
                let x = &x.get()[first..][..out.len()];
                [activation.map(out, x)]
            });
            (tensor(values, dims), (activation, x.clone(), dims))
        };
        Some(record([Input::of(x.clone())?], forward, |(activation, x, dims), gradient, _| {
            let mut gradient = gradient.into_vec();
            let blocks = gradient.par_chunks_mut(BLOCK).zip(x.get().par_chunks(BLOCK));
            blocks.for_each(|(gradient, x)| activation.multiply_slope(gradient, x));
            [Some(tensor(gradient, dims))]
        }))
    }

    impl Activation {
        /// `out = activation(x)`.
        pub fn map<'o>(self, out: &'o mut Blank, x: &[f32]) -> &'o mut [f32] {
            map(self, out, x)
        }

        /// `gradient *= activation'(x)`.
        pub fn multiply_slope(self, gradient: &mut [f32], x: &[f32]) {
            multiply_slope(self, gradient, x);
        }
    }

    vectorised! {
        fn map(activation: Activation, out: &'o mut Blank, x: &'a [f32]) -> &'o mut [f32] {
            match activation {
                Activation::Gelu => write(out, |i| x[i] * normal(x[i]).0),
                Activation::GeluTanh => write(out, |i| x[i] * sigmoid(2.0 * tanh_argument(x[i]))),
                Activation::QuickGelu => write(out, |i| x[i] * sigmoid(QUICK * x[i])),
                Activation::Relu => write(out, |i| x[i].max(0.0)),
                Activation::Silu => write(out, |i| x[i] * sigmoid(x[i])),
            }
        }
    }

    vectorised! {
        fn multiply_slope(activation: Activation, gradient: &'a mut [f32], x: &'a [f32]) {
            // x * gate(x) has the slope gate + x * gate', and a sigmoid's slope is gate * (1 - gate).
            let gated = |x: f32, gate: f32, inner: f32| gate + x * gate * (1.0 - gate) * inner;
            match activation {
                Activation::Gelu => each(gradient, x, |x| {
                    let (cdf, density) = normal(x);
                    x.mul_add(density, cdf)
                }),
                Activation::GeluTanh => each(gradient, x, |x| {
                    // tanh_argument'(x) = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)
                    let inner = 2.0 * ROOT_2_OVER_PI * (3.0 * CUBIC * x).mul_add(x, 1.0);
                    gated(x, sigmoid(2.0 * tanh_argument(x)), inner)
                }),
                Activation::QuickGelu => each(gradient, x, |x| gated(x, sigmoid(QUICK * x), QUICK)),
                Activation::Relu => each(gradient, x, |x| if x > 0.0 { 1.0 } else { 0.0 }),
                Activation::Silu => each(gradient, x, |x| gated(x, sigmoid(x), 1.0)),
            }
        }
    }

    /// sqrt(2 / pi) and the cubic's factor: Hendrycks and Gimpel, arXiv:1606.08415, sec. 2.
    const ROOT_2_OVER_PI: f32 = 0.797_884_6;
    const CUBIC: f32 = 0.044_715;

    /// tanh y = 2 sigmoid(2 y) - 1, so that (1 + tanh y) / 2 = sigmoid(2 y).
    #[inline(always)]
    fn tanh_argument(x: f32) -> f32 {
        ROOT_2_OVER_PI * x * (CUBIC * x).mul_add(x, 1.0)
    }

    #[inline(always)]
    fn each(gradient: &mut [f32], x: &[f32], slope: impl Fn(f32) -> f32) {
        gradient.iter_mut().zip(x).for_each(|(gradient, x)| *gradient *= slope(*x));
    }
}
