//! What operations take beside tensors, for the host and for devices.

pub mod adamw_step;
pub mod device_parameter;
pub mod dropout_mask;
#[cfg(feature = "flex")]
pub(crate) mod mlp_shape;
pub mod sequences;
pub mod step_limits;
