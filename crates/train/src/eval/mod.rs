//! Evaluations: metrics of a model on data it does not train on. This room computes them; when they run, and which one
//! selects the best checkpoint, is decided in the training loop and in `run_dir`.
//!
//! - `evaluation`: the entry: one evaluation of the config, opened before training and run as often as needed.
//! - `open_task`: the data of an evaluation, read and checked.
//! - `encoder`: embeddings of many images or texts.
//! - `fingerprint`: what an evaluation measures, as one hash.
//! - `scores`: cosine similarities tile by tile, and ranks.
//! - `zero_shot`: metrics of zero-shot classification.
//! - `retrieval`: metrics of retrieval in both directions.
//! - `top`: the best columns of every row.
//! - `details`: the answers behind the metrics.
//! - `bootstrap`, `calibration`: intervals of metrics, and whether probabilities mean what they say.
//! - `pooled_loss`: the training loss over pools of a fixed size.

mod bootstrap;
pub(crate) mod calibration;
pub(crate) mod details;
pub(crate) mod encoder;
pub(crate) mod evaluation;
mod fingerprint;
#[cfg(test)]
mod golden_tests;
mod open_task;
mod pooled_loss;
mod retrieval;
mod scores;
mod top;
pub(crate) mod zero_shot;
