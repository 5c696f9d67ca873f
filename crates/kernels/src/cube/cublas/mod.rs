//! Products of matrices by NVIDIA's cuBLASLt, on CUDA devices of machines that have it: up to four times as fast on a
//! Hopper GPU as the kernels that Burn generates, and without tuning at the first start.
//!
//! - `products`: what the rest of the crate multiplies with.
//! - `extension`: a product as an operation of Burn's backend.
//! - `library`: the library of a device, and what it needs to know of a product.
//! - `queue`: a product in the order of the device's other work.

mod extension;
mod library;
pub(crate) mod products;
mod queue;
