//! `dualenc serve`.
//!
//! - `command`: its options, and what it prints.
//! - `engine`: a model and an index, as the server wants them.

pub(crate) mod command;
mod engine;
