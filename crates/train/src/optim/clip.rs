//! Clipping by the global norm, and what keeps a step that is not finite from changing anything.

use burn::tensor::{Device, Tensor};

/// Added to the gradient norm before dividing by it, as in PyTorch's `clip_grad_norm_`.
pub(crate) const CLIP_EPSILON: f64 = 1e-6;

/// How a step changes parameters.
#[derive(Debug, Clone)]
pub enum Clip {
    /// The factor of gradients.
    Known(f64),
    /// `[2]`, that of [`step_control`](dualenc_kernels::step_control): the device decides.
    OnDevice(Box<Tensor<1>>),
}

impl Clip {
    /// That of gradients with the global L2 norm `norm`, under the limit `max_norm`; 0: no limit.
    pub fn of_norm(norm: f64, max_norm: f64) -> Self {
        Self::Known(if max_norm > 0.0 { (max_norm / (norm + CLIP_EPSILON)).min(1.0) } else { 1.0 })
    }

    /// For an update on `device`.
    pub(crate) fn control(self, device: &Device) -> Tensor<1> {
        match self {
            Self::Known(factor) => Tensor::from_floats([factor as f32, 1.0], device),
            Self::OnDevice(control) => *control,
        }
    }
}

/// `new`, or `old` where the control says that nothing changes. Flat.
pub(crate) fn changed(control: &Tensor<1>, new: Tensor<1>, old: Tensor<1>) -> Tensor<1> {
    let stays = control.clone().narrow(0, 1, 1).equal_elem(0.0).expand(new.shape());
    new.mask_where(stays, old)
}
