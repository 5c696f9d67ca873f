//! Matrix products of which one factor is packed once for all tasks, in the order that the inner loop reads it, unless
//! the other has few rows.
//!
//! A value of a product is one chain of multiply-adds over each block of the inner dimension, wherever its row is: rows
//! beside it, tasks and threads do not change its bits.
//!
//! - `tile`: the inner loop, which keeps a few rows of sums in registers.
//! - `prefetch`: reads ahead.
//! - `output`: where its sums go.
//! - `panels`: the right factor, such as a weight, packed.
//! - `transpose`: transposes a matrix in registers.
//! - `blocked`: rows of a batch in panels, in which they can be each factor of a product.
//! - `rows`: products of rows with a packed matrix.
//! - `by_columns`: products of few rows, of which each task computes some columns.
//! - `row_sums`: sums over all rows, such as the gradient of a weight.
//! - `weighted_rows`: rows less a shift, with weights, for sums over them.

pub(crate) mod blocked;
pub(crate) mod by_columns;
pub(crate) mod output;
pub(crate) mod panels;
mod prefetch;
pub(crate) mod row_sums;
pub(crate) mod rows;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod tile;
mod transpose;
pub(crate) mod weighted_rows;
