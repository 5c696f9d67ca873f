//! The loss of a batch: contrastive, softmax (InfoNCE) or sigmoid, with duplicates and label smoothing, and its terms.
//!
//! The kernels that compute them without a matrix of logits are in `dualenc-kernels`; the loss over the pools of an
//! evaluation is in `eval::metrics::pooled_loss`.
//!
//! - `contrastive`: which pairs of a batch match, and the spread of their embeddings
//! - `targets`: the contrastive loss of a batch, whole or by rows
//! - `slots`: several captions of an image as positives at once
//! - `terms`: what a step minimises: the contrastive loss and what the config adds to it
//! - `matryoshka`: the same loss at several widths
//! - `mixup`: blends of pairs
//! - `structure`: the term that keeps the neighbourhoods of locked features
//! - `teacher`: the divergence from a teacher
//! - `label_smoothing`: the weights of the logits, and the loss of a model that guesses

pub(crate) mod contrastive;
mod label_smoothing;
mod matryoshka;
pub(crate) mod mixup;
#[cfg(test)]
mod slot_tests;
mod slots;
mod structure;
pub(crate) mod targets;
pub(crate) mod teacher;
#[cfg(test)]
mod teacher_tests;
#[cfg(test)]
mod term_tests;
pub(crate) mod terms;
#[cfg(test)]
mod tests;
