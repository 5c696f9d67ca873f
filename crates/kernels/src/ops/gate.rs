//! A product of two matrices of values, one of which is a gate.

use burn::tensor::{DType, Tensor};

use crate::portable::graph::with_gradients;

/// The largest value of a gate (ReLU6, Krizhevsky, 2010).
const GATE_MAX: f32 = 6.0;

/// The largest absolute value of what a gate lets through in half precision, so that sums of products stay far below
/// the largest f16 (SAIL, Zhang et al., 2025, arXiv:2412.04616).
const HALF_MAX: f32 = 1e3;

/// `min(max(gate, 0), 6) * up`, of tensors of the same shape. Below single precision, `up` is limited to +-1000.
///
/// # Panics
///
/// If the shapes differ.
pub fn gated<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "shape of a gate");
    #[cfg(feature = "flex")]
    if let Some(y) = fused::gated(&gate, &up) {
        return y;
    }
    plain(gate, up)
}

/// The form in Burn's own operations.
pub(crate) fn plain<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    if !gate.is_autodiff() && !up.is_autodiff() {
        return open(gate) * limited(up);
    }
    let (gate_values, up_values) = (gate.clone().without_autodiff(), up.clone().without_autodiff());
    let output = open(gate_values.clone()) * limited(up_values.clone());
    let inputs = [gate.clone().into_dispatch(), up.clone().into_dispatch()];
    let tracked = with_gradients(inputs, output, move |gradient: Tensor<D>, needed| {
        let of_gate = || {
            let shut = gate_values.clone().lower_equal_elem(0.0);
            let shut = shut.bool_or(gate_values.clone().greater_equal_elem(GATE_MAX));
            (gradient.clone() * limited(up_values.clone())).mask_fill(shut, 0.0)
        };
        let of_up = || {
            let slope = gradient.clone() * open(gate_values.clone());
            if up_values.dtype() == DType::F32 {
                slope
            } else {
                slope.mask_fill(up_values.clone().abs().greater_elem(HALF_MAX), 0.0)
            }
        };
        [needed[0].then(|| of_gate().into_dispatch()), needed[1].then(|| of_up().into_dispatch())]
    });
    tracked.unwrap_or_else(|| open(gate) * limited(up))
}

/// What a gate lets through of 1.
fn open<const D: usize>(gate: Tensor<D>) -> Tensor<D> {
    gate.clamp(0.0, GATE_MAX)
}

fn limited<const D: usize>(up: Tensor<D>) -> Tensor<D> {
    if up.dtype() == DType::F32 { up } else { up.clamp(-HALF_MAX, HALF_MAX) }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::tensor::Tensor;

    use super::GATE_MAX;
    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor, supports_fused};
    use crate::cpu::chunks::{CHUNK, chunk_ends};
    use crate::cpu::simd::vectorised;
    use crate::cpu::uninit::{Uninit, par_groups, write};

    /// `None` if the tensors are not for the fused operations.
    pub fn gated<const D: usize>(gate: &Tensor<D>, up: &Tensor<D>) -> Option<Tensor<D>> {
        if !supports_fused(gate) || !supports_fused(up) {
            return None;
        }
        let dims = gate.dims();
        let forward = |[gate, up]: &[Values; 2], _| {
            let [values] = par_groups(&chunk_ends(gate.get().len(), CHUNK), [1], |first, [out]| {
                let (gate, up) = (&gate.get()[first..][..out.len()], &up.get()[first..][..out.len()]);
                [multiply(out, gate, up)]
            });
            (flex_tensor(values, dims), (gate.clone(), up.clone(), dims))
        };
        let inputs = [Input::new(gate.clone())?, Input::new(up.clone())?];
        Some(custom_op(inputs, forward, |(gate, up, dims), gradient, needed| {
            let ends = chunk_ends(gate.get().len(), CHUNK);
            let cols = needed.map(usize::from);
            let [of_gate, of_up] = par_groups(&ends, cols, |first, [gate_out, up_out]| {
                let len = gate_out.len().max(up_out.len());
                let [gate, up, gradient] = [&gate, &up, &gradient].map(|values| &values.get()[first..][..len]);
                [gate_slope(gate_out, gate, up, gradient), multiply(up_out, gate, gradient)]
            });
            [needed[0].then(|| flex_tensor(of_gate, dims)), needed[1].then(|| flex_tensor(of_up, dims))]
        }))
    }

    vectorised! {
        fn multiply(out: &'o mut Uninit, gate: &'a [f32], up: &'a [f32]) -> &'o mut [f32] {
            write(out, |i| gate[i].clamp(0.0, GATE_MAX) * up[i])
        }
    }

    vectorised! {
        fn gate_slope(out: &'o mut Uninit, gate: &'a [f32], up: &'a [f32], gradient: &'a [f32]) -> &'o mut [f32] {
            write(out, |i| if gate[i] > 0.0 && gate[i] < GATE_MAX { gradient[i] * up[i] } else { 0.0 })
        }
    }
}
