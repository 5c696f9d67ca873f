//! TODO

pub(crate) mod hub;
pub(crate) mod load;
