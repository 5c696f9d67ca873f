//! `dualenc serve`.
//!
//! - `command`: its options, and what it prints.
//! - `engine`: a model and an index, as the server wants them.
//! - `pictures`: whether the images of an index can be shown.

pub(crate) mod command;
mod engine;
mod pictures;
