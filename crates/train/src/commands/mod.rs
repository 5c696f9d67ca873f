//! One file or room for each command of the program, except training and evaluation themselves. Commands return data
//! and report to an `Observer`; they parse no arguments and print nothing.
//!
//! - `check`: what training would find out about config, data and models.
//! - `init`: looks at data and writes a config.
//! - `warm_cache`: computes the features of the locked towers ahead of training.
//! - `answering`: embeddings, labels, hits and pictures for a server.
//! - `classify`: labels of images, with probabilities.
//! - `embed`: writes embeddings of images and texts.
//! - `export`: writes a directory for transformers or sentence-transformers.
//! - `evaluated_run`: fits evaluations of another config to the run that they evaluate.
//! - `kept_inputs`: inputs that no output may replace.
//! - `listed_images`: the images at a path, for commands that take one.
//! - `interpolate`: mixes the weights before and after training.
//! - `fit`: aligns two towers in closed form.
//! - `inspect`: reports what a directory holds.
//! - `metrics`: the log of a run in the formats of other programs.
//! - `plan`: what a run will take, from a few of its steps.
//! - `pack`: writes data sets as shards or as a folder.
//! - `report`: pages about runs and searches.
//! - `search`: the nearest images or texts of a query.
//! - `select`: which training images are worth training on.
//! - `with_encoder`: a model that encodes, for the commands that need one.
//! - `probe`: which towers fit together, before training.
//! - `staged_output`: output that appears when it is complete.

pub(crate) mod answering;
pub(crate) mod check;
pub(crate) mod classify;
pub(crate) mod embed;
pub(crate) mod evaluated_run;
pub(crate) mod export;
pub(crate) mod fit;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod interpolate;
pub(crate) mod kept_inputs;
pub(crate) mod listed_images;
pub(crate) mod metrics;
pub(crate) mod pack;
pub(crate) mod plan;
pub(crate) mod probe;
pub(crate) mod report;
pub(crate) mod search;
pub(crate) mod select;
pub(crate) mod staged_output;
pub(crate) mod warm_cache;
mod with_encoder;
