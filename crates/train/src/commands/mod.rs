//! One file or room for each command of the program, except training and evaluation themselves. Commands return data
//! and report to an `Observer`; they parse no arguments and print nothing.
//!
//! - `check`: what training would find out about config, data and models.
//! - `init`: looks at data and writes a config.
//! - `warm_cache`: computes the features of the locked towers ahead of training.
//! - `embed`: writes embeddings of images and texts.
//! - `export`: writes a directory for transformers or sentence-transformers.
//! - `interpolate`: mixes the weights before and after training.
//! - `inspect`: reports what a directory holds.
//! - `plan`: what a run will take, from a few of its steps.
//! - `pack`: writes data sets as shards or as a folder.
//! - `staged_output`: output that appears when it is complete.

pub(crate) mod check;
pub(crate) mod embed;
pub(crate) mod export;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod interpolate;
pub(crate) mod pack;
pub(crate) mod plan;
mod staged_output;
pub(crate) mod warm_cache;
