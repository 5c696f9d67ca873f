//! Evaluations: metrics of a model on data it does not train on. This room computes them; when they run, and which one
//! selects the best checkpoint, is decided in the training loop and in `run_dir`.
//!
//! - `evaluation`: the entry: one evaluation of the config, opened before training and run as often as needed.
//! - `given_by`: whether a config or flags describe it, for messages.
//! - `open_task`: the data of an evaluation, read and checked.
//! - `labelled_images`: the data of zero-shot classification.
//! - `measure`: from embeddings to metrics, for every task.
//! - `encoder`: embeddings of many images or texts.
//! - `fingerprint`: what an evaluation measures, as one hash.
//! - `usable`: what remains of its data: embeddings of usable images and their captions.
//! - `scores`: cosine similarities tile by tile, and ranks.
//! - `zero_shot`, `multi_label`: metrics of zero-shot classification with one class an image, and with several.
//! - `retrieval`, `right_answers`: metrics of retrieval in both directions.
//! - `top`: the best columns of every row.
//! - `details`: the answers behind the metrics.
//! - `bootstrap`, `calibration`: intervals of metrics, and whether probabilities mean what they say.
//! - `probes`: k-NN and linear classifiers of image features.
//! - `pooled_loss`: the training loss over pools of a fixed size.

mod bootstrap;
pub(crate) mod calibration;
pub(crate) mod details;
pub(crate) mod encoder;
pub(crate) mod evaluation;
mod fingerprint;
mod given_by;
#[cfg(test)]
mod golden_tests;
mod labelled_images;
mod measure;
mod multi_label;
mod open_task;
mod pooled_loss;
pub(crate) mod probes;
mod retrieval;
pub(crate) mod right_answers;
pub(crate) mod scores;
pub(crate) mod top;
mod usable;
mod zero_shot;
