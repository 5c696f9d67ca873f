//! TODO

pub(crate) mod contrastive;
pub(crate) mod label_smoothing;
#[cfg(test)]
mod tests;
