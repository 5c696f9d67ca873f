//! TODO

pub(crate) mod encoder;
pub(crate) mod evaluation;
pub(crate) mod pooled_loss;
pub(crate) mod retrieval;
pub(crate) mod zero_shot;
