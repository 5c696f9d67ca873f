//! Evaluations: metrics of a model on data it does not train on. This room computes them; when they run, and which one
//! selects the best checkpoint, is decided in the training loop and in `run_dir`.
//!
//! - `evaluation`: the entry: one evaluation of the config, opened before training and run as often as needed.
//! - `given_by`: whether a config or flags describe it, for messages.
//! - `open_task`: the data of an evaluation, read and checked.
//! - `data_report`: what an evaluation says about its data.
//! - `encoder`: embeddings of many images or texts.
//! - `fingerprint`: what an evaluation measures, as one hash.
//! - `usable`: what remains of its data: embeddings of usable images and their captions.
//! - `scores`: cosine similarities tile by tile, and ranks.
//! - `zero_shot`: metrics of zero-shot classification.
//! - `retrieval`: metrics of retrieval in both directions.
//! - `pooled_loss`: the training loss over pools of a fixed size.

mod data_report;
pub(crate) mod encoder;
pub(crate) mod evaluation;
mod fingerprint;
mod given_by;
mod open_task;
mod pooled_loss;
mod retrieval;
mod scores;
mod usable;
mod zero_shot;
