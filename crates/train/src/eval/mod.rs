//! Evaluations: metrics of a model on data it does not train on. This room computes them; when they run, and which one
//! selects the best checkpoint, is decided in the training loop and in `run_dir`.
//!
//! - `evaluation`: the entry: one evaluation of the config, opened before training and run as often as needed.
//! - `given_by`: whether a config or flags describe it, for messages.
//! - `open_task`: the data of an evaluation, read and checked.
//! - `data_report`: what an evaluation says about its data.
//! - `labelled_images`: the data of zero-shot classification.
//! - `measure`: from embeddings to metrics, for every task.
//! - `narrower`: the figures of the first values of embeddings.
//! - `encoder`: embeddings of many images or texts.
//! - `shared`: several ranks encode what one of them evaluates.
//! - `fingerprint`: what an evaluation measures, as one hash.
//! - `usable`: what remains of its data: embeddings of usable images and their captions.
//! - `checks`: refuses evaluations without enough images.
//! - `metrics`: from embeddings to figures.
//! - `probes`: k-NN and linear classifiers of image features.

mod checks;
mod class_rows;
mod data_report;
pub(crate) mod encoder;
pub(crate) mod evaluation;
mod fingerprint;
mod given_by;
mod labelled_images;
mod measure;
pub(crate) mod metrics;
mod narrower;
mod open_task;
pub(crate) mod probes;
pub(crate) mod shared;
mod usable;
