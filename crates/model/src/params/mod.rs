//! The parameters of a model, by path: how they are made, and how they are read, replaced and frozen afterwards.
//!
//! It knows neither towers nor families. Which parameters of a dual encoder train is decided in `dual_encoder/lock.rs`.
//!
//! - `audit`: what loading a tower found.
//! - `builder`: reads each parameter from weight files, or draws it at random.
//! - `fingerprint`: a hash of the values.
//! - `grad`: freezing, unfreezing and casting.
//! - `inventory`: paths, shapes and counts, without reading values.
//! - `path`: the path of a parameter during a walk over the model.
//! - `random`: random numbers as pure functions of a seed and a name.
//! - `values`: reading values to the host, and replacing them.

pub(crate) mod audit;
pub(crate) mod builder;
pub(crate) mod fingerprint;
pub(crate) mod grad;
pub(crate) mod inventory;
pub(crate) mod path;
pub(crate) mod random;
pub(crate) mod values;
