//! TODO

pub(crate) mod check;
pub(crate) mod embed;
pub(crate) mod export;
pub(crate) mod inspect;
pub(crate) mod interpolate;
pub(crate) mod warm_cache;
