//! Sums over all rows of a batch of the products of two columns, of factors that are rounded to bf16: the gradients of
//! weights.
//!
//! - `panels`: both factors, in chunks of 128 rows.
//! - `sums`: sums of any size, from blocks of 32 columns of both.
//! - `amx`: such a block by AMX.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
pub(crate) mod panels;
pub(crate) mod sums;
#[cfg(test)]
mod tests;
