//! The contrastive losses of a batch: softmax (InfoNCE) and sigmoid, with duplicates and label smoothing.
//!
//! The kernels that compute them without a matrix of logits are in `dualenc-kernels`; the loss over the pools of an
//! evaluation is in `eval::metrics::pooled_loss`.
//!
//! - `contrastive`: the loss of a batch, which of its pairs match, and the spread of its embeddings
//! - `slots`: several captions of an image as positives at once
//! - `label_smoothing`: the weights of the logits, and the loss of a model that guesses

pub(crate) mod contrastive;
mod label_smoothing;
#[cfg(test)]
mod slot_tests;
mod slots;
#[cfg(test)]
mod tests;
