//! The names of weight files.

/// All weights in one file.
pub(crate) const SINGLE: &str = "model.safetensors";

/// The index of weights that are split into shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
