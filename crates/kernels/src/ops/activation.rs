//! Activation functions and their derivatives.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::tensor::Tensor;
use burn::tensor::activation;
use serde::{Deserialize, Serialize};

use crate::portable::graph::with_gradient;

/// An activation function, by its name in transformers' `ACT2FN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// Exact GELU, with the error function (Hendrycks and Gimpel, arXiv:1606.08415).
    #[serde(rename = "gelu", alias = "gelu_python")]
    Gelu,
    /// The tanh approximation of GELU.
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
    /// `max(0, x)`.
    #[serde(rename = "relu")]
    Relu,
    /// `x * sigmoid(x)`.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
}

impl Activation {
    /// Every activation function.
    pub const ALL: [Self; 5] = [Self::Gelu, Self::GeluTanh, Self::QuickGelu, Self::Relu, Self::Silu];

    /// Applies the function element-wise, to a tensor of any shape.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        #[cfg(feature = "flex")]
        if let Some(y) = fused::activate(self, &x) {
            return y;
        }
        self.plain(x)
    }

    /// The reference form in Burn's own operations.
    pub(crate) fn plain<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => {
                // Burn's slope on most backends is that of the tanh approximation.
                let input = x.clone().without_autodiff();
                with_gradient(x, activation::gelu, move |gradient| gradient * gelu_slope(input.clone()))
            }
            Self::GeluTanh => activation::gelu_approximate(x),
            // transformers: activations.py, QuickGELUActivation.
            Self::QuickGelu => x.clone() * activation::sigmoid(x * QUICK_GELU_FACTOR),
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
        }
    }
}

/// The derivative of the exact GELU, `cdf(x) + x pdf(x)` of the normal distribution.
fn gelu_slope<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let cdf = (x.clone() * FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    // 1 / sqrt(2 pi)
    let density = (x.clone().square() * -0.5).exp() * (0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI);
    cdf + x * density
}

/// The factor of QuickGELU.
const QUICK_GELU_FACTOR: f32 = 1.702;

#[cfg(feature = "flex")]
pub(crate) mod fused {
    use burn::tensor::Tensor;
    use rayon::prelude::*;

    use super::{Activation, QUICK_GELU_FACTOR};
    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor, supports_fused};
    use crate::cpu::chunks::{CHUNK, chunk_ends};
    use crate::cpu::simd::{normal_cdf_pdf, sigmoid, vectorised};
    use crate::cpu::uninit::{Uninit, par_groups, write};

    /// `None` if `x` is not for the fused operations.
    pub fn activate<const D: usize>(activation: Activation, x: &Tensor<D>) -> Option<Tensor<D>> {
        if !supports_fused(x) {
            return None;
        }
        let dims = x.dims();
        let forward = |[x]: &[Values; 1], _| {
            let [values] = par_groups(&chunk_ends(x.get().len(), CHUNK), [1], |first, [out]| {
                let x = &x.get()[first..][..out.len()];
                [activation.map(out, x)]
            });
            (flex_tensor(values, dims), (activation, x.clone(), dims))
        };
        Some(custom_op([Input::new(x.clone())?], forward, |(activation, x, dims), gradient, _| {
            let mut gradient = gradient.into_vec();
            let chunks = gradient.par_chunks_mut(CHUNK).zip(x.get().par_chunks(CHUNK));
            chunks.for_each(|(gradient, x)| activation.multiply_slope(gradient, x));
            [Some(flex_tensor(gradient, dims))]
        }))
    }

    impl Activation {
        /// Writes `activation(x)` to `out`, on this thread.
        pub fn map<'o>(self, out: &'o mut Uninit, x: &[f32]) -> &'o mut [f32] {
            map(self, out, x)
        }

        /// Replaces each value by `activation(x)`, on this thread. That of the exact GELU is within 9e-6 above
        /// -4.5 (6e-6 of values above 4.5) and within 3e-5 below: little beside the error of rounding rows to bf16.
        pub fn replace(self, x: &mut [f32]) {
            replace(self, x);
        }

        /// Multiplies `gradient` by `activation'(x)`, on this thread.
        pub fn multiply_slope(self, gradient: &mut [f32], x: &[f32]) {
            multiply_slope(self, gradient, x);
        }

        /// Both [`Activation::map`] and [`Activation::multiply_slope`], to the same bits, in one pass.
        pub fn map_and_multiply_slope<'o>(self, out: &'o mut Uninit, gradient: &mut [f32], x: &[f32]) -> &'o mut [f32] {
            map_and_multiply_slope(self, out, gradient, x)
        }
    }

    /// `$body` with `$function`, which takes `x` to the values of an activation and of its derivative there. What the
    /// body does not use of them is not computed.
    macro_rules! with_function {
        ($activation:expr, |$function:ident| $body:expr) => {
            match $activation {
                Activation::Gelu => with_function!(@of gelu, $function, $body),
                Activation::GeluTanh => with_function!(@of gelu_tanh, $function, $body),
                Activation::QuickGelu => with_function!(@of quick_gelu, $function, $body),
                Activation::Relu => with_function!(@of relu, $function, $body),
                Activation::Silu => with_function!(@of silu, $function, $body),
            }
        };
        (@of $activation:ident, $function:ident, $body:expr) => {{
            use $activation as $function;
            $body
        }};
    }

    vectorised! {
        fn map(activation: Activation, out: &'o mut Uninit, x: &'a [f32]) -> &'o mut [f32] {
            with_function!(activation, |function| write(out, |i| function(x[i]).0))
        }
    }

    vectorised! {
        fn replace(activation: Activation, x: &'a mut [f32]) {
            if activation == Activation::Gelu {
                return x.iter_mut().for_each(|x| *x = rounded_gelu(*x));
            }
            with_function!(activation, |function| x.iter_mut().for_each(|x| *x = function(*x).0));
        }
    }

    /// `x cdf(x)` with an odd polynomial as the cdf of the normal distribution less 1/2, without exponential and
    /// division; scripts/gelu_coefficients.py fits it. Below -4.5, where `x cdf(x)` is above -2e-5, it is constant.
    #[inline(always)]
    fn rounded_gelu(x: f32) -> f32 {
        const LAST: f32 = 4.5;
        /// In `2 (x / LAST)^2 - 1`.
        const ODD: [f32; 10] = [
            -0.001_565_571_6,
            0.004_655_224_3,
            -0.006_683_000_4,
            0.010_140_61,
            -0.018_159_144,
            0.028_623_898,
            -0.040_295_802,
            0.054_671_86,
            -0.077_183_366,
            0.156_905_3,
        ];
        // Comparisons that keep NaN.
        let x = if x < -LAST { -LAST } else { x };
        let inner = if x > LAST { LAST } else { x };
        let t = (inner * inner).mul_add(2.0 / (LAST * LAST), -1.0);
        let odd = ODD.into_iter().reduce(|sum, next| sum.mul_add(t, next)).unwrap_or(0.0);
        x * inner.mul_add(odd, 0.5)
    }

    vectorised! {
        fn multiply_slope(activation: Activation, gradient: &'a mut [f32], x: &'a [f32]) {
            with_function!(activation, |function| {
                gradient.iter_mut().zip(x).for_each(|(gradient, x)| *gradient *= function(*x).1);
            });
        }
    }

    vectorised! {
        fn map_and_multiply_slope(
            activation: Activation,
            out: &'o mut Uninit,
            gradient: &'a mut [f32],
            x: &'a [f32],
        ) -> &'o mut [f32] {
            let (gradient, x) = (&mut gradient[..out.len()], &x[..out.len()]);
            with_function!(activation, |function| {
                write(out, |i| {
                    let (value, slope) = function(x[i]);
                    gradient[i] *= slope;
                    value
                })
            })
        }
    }

    #[inline(always)]
    fn gelu(x: f32) -> (f32, f32) {
        let (cdf, density) = normal_cdf_pdf(x);
        (x * cdf, x.mul_add(density, cdf))
    }

    #[inline(always)]
    fn gelu_tanh(x: f32) -> (f32, f32) {
        // x (1 + tanh y) / 2 = x sigmoid(2 y), with y' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2).
        let y = ROOT_2_OVER_PI * x * (CUBIC * x).mul_add(x, 1.0);
        let inner = 2.0 * ROOT_2_OVER_PI * (3.0 * CUBIC * x).mul_add(x, 1.0);
        gated(x, sigmoid(2.0 * y), inner)
    }

    #[inline(always)]
    fn quick_gelu(x: f32) -> (f32, f32) {
        gated(x, sigmoid(QUICK_GELU_FACTOR * x), QUICK_GELU_FACTOR)
    }

    #[inline(always)]
    fn relu(x: f32) -> (f32, f32) {
        (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 })
    }

    #[inline(always)]
    fn silu(x: f32) -> (f32, f32) {
        gated(x, sigmoid(x), 1.0)
    }

    /// `x * gate` and its derivative, of a sigmoid of something with the derivative `inner`.
    #[inline(always)]
    fn gated(x: f32, gate: f32, inner: f32) -> (f32, f32) {
        (x * gate, gate + x * gate * (1.0 - gate) * inner)
    }

    /// sqrt(2 / pi).
    const ROOT_2_OVER_PI: f32 = 0.797_884_6;

    /// Factor of the cubic term in the tanh approximation (Hendrycks and Gimpel, arXiv:1606.08415, sec. 2).
    const CUBIC: f32 = 0.044_715;

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Measured: 7.4e-6 between -4.5 and 4.5, 2.2e-5 below, and 5.1e-6 of the value above.
        #[test]
        fn rounded_gelu_is_close_to_the_exact_one() {
            let coarse = (-40_000..=40_000).map(|n| n as f32 / 2000.0);
            let fine = (-20_000..=20_000).map(|n| n as f32 / 1e5).flat_map(|x| [x - 4.5, x + 4.5]);
            let x: Vec<f32> = coarse.chain(fine).chain([-1e30, 1e30]).collect();
            let mut found = x.clone();
            Activation::Gelu.replace(&mut found);
            for (x, found) in x.into_iter().zip(found) {
                let bound = match x {
                    x if x < -4.5 => 3e-5,
                    x if x > 4.5 => 6e-6 * x,
                    _ => 9e-6,
                };
                assert!((found - gelu(x).0).abs() <= bound, "gelu({x}) = {found}, expected {}", gelu(x).0);
            }
            let mut bounds = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
            Activation::Gelu.replace(&mut bounds);
            assert!(bounds[0].is_nan() && bounds[1] == f32::INFINITY && bounds[2].abs() < 5e-5 && bounds[3] == 0.0);
        }
    }
}
