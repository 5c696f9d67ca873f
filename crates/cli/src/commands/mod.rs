//! One file per command: its options, what it runs, and what it prints. The work itself is done by `dualenc_train`.
//!
//! - `train`: trains from a config.
//! - `fit`: aligns two towers in closed form.
//! - `eval`: evaluates a model.
//! - `apply`: searches and classifies with a model.
//! - `embed`: writes embeddings.
//! - `interpolate`: mixes a trained model with its starting point.
//! - `export`: writes a model for other libraries.
//! - `cache`: computes features of locked towers ahead of training.
//! - `init`: writes a config for data.
//! - `data`: writes data sets in other forms.
//! - `check`: validates a config with its towers and data.
//! - `plan`: predicts time, memory and disk space of a run.
//! - `probe`: which towers fit together, before training.
//! - `select`: which training images are worth training on.
//! - `pages`: reports on runs, comparisons, and metrics for other programs.
//! - `inspect`: describes a directory.
//! - `about`: schema of the config, shell completion scripts, manual page.

pub(crate) mod about;
pub(crate) mod apply;
pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod data;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod fit;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod interpolate;
pub(crate) mod pages;
pub(crate) mod plan;
pub(crate) mod probe;
pub(crate) mod select;
pub(crate) mod train;
