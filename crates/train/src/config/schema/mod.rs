//! The keys of a run configuration: what each one sets, its unit, its default and where the default comes from. Each
//! file holds the tables of one part of the TOML.
//!
//! The doc comments are the user documentation: `docs/CONFIG.md` and `docs/config.schema.json` are generated from them.
//! Only names and types are checked here; `validate` holds the rules between keys.
//!
//! - `run`: `[run]`.
//! - `model`: `[model]`, its projections and adapters, and `[fit]`.
//! - `model_heads`: `[model.image_head]` and `[model.text_head]`.
//! - `data`: `[data]` and `[cache]`.
//! - `sources`: how a config names data.
//! - `train`: `[train]`; its choices are in `optimizer` and `loss`, its lists in `stage` and `optimizer`.
//! - `eval`: `[eval.NAME]` and `[checkpoint]`.
//! - `default`: the default values.
//! - `data_docs`, `model_docs`: documentation of the key types that other crates define.

pub(crate) mod data;
mod data_docs;
pub(crate) mod default;
pub(crate) mod eval;
pub(crate) mod loss;
pub(crate) mod model;
mod model_docs;
pub(crate) mod model_heads;
pub(crate) mod optimizer;
pub(crate) mod run;
pub(crate) mod sources;
pub(crate) mod stage;
pub(crate) mod train;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use data::{CacheSection, DataSection};
use eval::{CheckpointSection, EvalSection};
use model::{FitSection, ModelSection};
use run::RunSection;
use train::TrainSection;

/// The configuration of a run. A loaded one has every default filled in and every path absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The run directory, the device and the numeric precision.
    pub run: RunSection,
    /// The two towers, their projections, and which of their parameters train.
    pub model: ModelSection,
    /// Heads in closed form: for `dualenc fit` and `model.head_init`.
    #[serde(default, skip_serializing_if = "FitSection::is_default")]
    pub fit: FitSection,
    /// The image-text pairs to train on.
    pub data: DataSection,
    /// The length of the run, its batches, optimiser, learning-rate schedule and loss.
    pub train: TrainSection,
    /// When checkpoints are written, which ones are retained, and when the run stops early.
    #[serde(default)]
    pub checkpoint: CheckpointSection,
    /// The feature cache of locked towers.
    #[serde(default)]
    pub cache: CacheSection,
    /// Evaluations by name. A name consists of `a-z`, `0-9`, `_` and `-`.
    ///
    /// Default: none.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z0-9_-]+$" }))]
    pub eval: BTreeMap<String, EvalSection>,
}
