//! The layers that every tower is built from. They work on rows, `[rows, width]`.
//!
//! - `linear`: a linear layer, with or without an adapter.

pub(crate) mod linear;
