//! The kernels, in CubeCL. Each computes in `f32`, from tensors of any float type.
//!
//! - `attention`: packed attention and its gradient.
//! - `columns`: three matrices side by side in one, and back.
//! - `dropout`: dropout, alone and in a residual sum, and the hash of its mask.
//! - `heads`: rows of heads side by side to heads one after the other, and back.
//! - `rows`: layer norm and softmax.
//! - `row_sums`: the gradient of a table.
//! - `update`: an optimiser's step.

pub mod attention;
pub mod columns;
pub mod dropout;
pub mod heads;
pub mod row_sums;
pub mod rows;
pub mod update;
