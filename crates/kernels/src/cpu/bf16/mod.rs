//! Matrix products of factors that are rounded to bf16, with sums in f32, by the processor's own instructions. A weight
//! is rounded and packed once.
//!
//! - `tile`: what a tile register holds.
//! - `packing`: rounding, and the order in which numbers are packed.
//! - `pairs`: rows of tiles as pairs of numbers, and their transpose.
//! - `amx`: products by AMX (Intel, from Sapphire Rapids on).
//! - `avx512`: products by AVX512_BF16 (AMD, from Zen 4 on, and Intel).
//! - `portable`: the same products in plain Rust, for tests.
//! - `unit`: which of them this processor has.
//! - `product`: products of any size, from blocks of 32 rows and 32 columns.
//! - `layer`: linear layers, alone, side by side, and with an activation between.
//! - `attention`: a head of attention.
//! - `weights`: weights of a training step.
//! - `row_sums`: gradients of weights.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod layer;
pub(crate) mod packing;
mod pairs;
mod portable;
pub(crate) mod product;
pub(crate) mod row_sums;
#[cfg(test)]
mod tests;
pub(crate) mod tile;
pub(crate) mod unit;
pub(crate) mod weights;
