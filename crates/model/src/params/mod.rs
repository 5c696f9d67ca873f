//! The parameters of a model, by path.
//!
//! - `builder`: reads each parameter from weight files, or draws it at random.
//! - `random`: random numbers as pure functions of a seed and a name.
//! - `values`: reads, restores, hashes and counts the parameters of a model that exists.

pub(crate) mod builder;
pub(crate) mod random;
pub mod values;
