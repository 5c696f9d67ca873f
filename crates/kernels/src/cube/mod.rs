//! Operations that Burn's GPU backends would run as many kernels with many passes over memory, as one CubeCL kernel each.
//! Every number is computed in `f32`, from tensors of any float type.
//!
//! - `attention`, `layer_norm`, `dropout`, `softmax`: the operations, with gradients. `None` says that the device or the
//!   shape is not for the kernels: the plain form then runs.
//! - `extension`: the kernels as operations of Burn's backend, and how they are launched.
//! - `attention_kernels`, `row_kernels`, `dropout_kernels`: the kernels.

pub(crate) mod attention;
mod attention_kernels;
pub(crate) mod dropout;
mod dropout_kernels;
mod extension;
pub(crate) mod layer_norm;
mod row_kernels;
pub(crate) mod softmax;
mod support;

#[cfg(all(test, feature = "wgpu"))]
mod tests;
