//! What operations take beside tensors, for the host and for devices.

pub mod adamw_step;
pub mod device_parameter;
pub mod dropout_mask;
pub mod sequences;
pub mod step_limits;
