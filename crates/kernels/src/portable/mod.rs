//! What the plain forms are built from, on every backend without kernels of ours: nodes of Burn's autodiff graph with a
//! backward function of our own in tensor operations. Burn derives the gradient of a gather of rows as a scatter, which
//! runs on a few threads of a GPU; here it is a gather too.
//!
//! - `graph`: wraps a forward and a backward function over tensors as one node.
//! - `products`: products of matrices.
//! - `reads`: copies to the host that are waited for later.
//! - `row_gather`: rows in another order, with rows left out and rows of zeros inserted.
//! - `row_products`: sums over all rows, the gradients of parameters that act on each of them.
//! - `row_sums`: sums of the rows with equal index, the gradient of a table.
//! - `transfers`: copies to devices, counted.
//! - `forms`: which form of an operation a device takes.

pub(crate) mod forms;
pub(crate) mod graph;
pub(crate) mod products;
pub(crate) mod reads;
pub(crate) mod row_gather;
pub(crate) mod row_products;
pub(crate) mod row_sums;
pub(crate) mod transfers;
