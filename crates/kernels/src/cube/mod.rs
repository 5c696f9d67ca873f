//! Operations that Burn's GPU backends would run as many kernels with many passes over memory, as one or two CubeCL
//! kernels each.
//!
//! - `attention`, `columns`, `dropout`, `layer_norm`, `row_sums`, `softmax`, `update`: the operations, with gradients.
//!   `None` says that the device or the shape is not for the kernels: the plain form then runs.
//! - `cublas`: products of matrices by NVIDIA's library.
//! - `reads`: copies to the host, queued.
//! - `bundle`: several tensors as one argument.
//! - `extension`: the kernels as operations of Burn's backend; `launch`: how they are launched.
//! - `kernels`: the kernels.
//! - `support`: what a device has room for.

pub(crate) mod attention;
mod bundle;
pub(crate) mod columns;
#[cfg(feature = "cuda")]
pub(crate) mod cublas;
pub(crate) mod dropout;
pub(crate) mod extension;
mod kernels;
mod launch;
pub(crate) mod layer_norm;
pub(crate) mod reads;
pub(crate) mod row_sums;
pub(crate) mod softmax;
pub(crate) mod support;
pub(crate) mod update;

#[cfg(all(test, any(feature = "wgpu", feature = "cubecl-cpu")))]
mod tests;
