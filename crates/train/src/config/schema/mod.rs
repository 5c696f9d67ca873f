//! The keys of a run configuration: what each one sets, its unit, its default and where the default comes from. Each file
//! holds the tables of one part of the TOML.
//!
//! The doc comments are the user documentation: `docs/CONFIG.md` and `docs/config.schema.json` are generated from them.
//! Only names and types are checked here; `validate` holds the rules between keys.
//!
//! - `run`: `[run]`.
//! - `model`: `[model]`, its projections and adapters.
//! - `data`: `[data]` and `[cache]`.
//! - `train`: `[train]`; its choices are in `optimizer` and `loss`, its lists in `stage` and `optimizer`.
//! - `eval`: `[eval.NAME]` and `[checkpoint]`.
//! - `default`: the default values.

pub(crate) mod data;
pub(crate) mod default;
pub(crate) mod eval;
pub(crate) mod loss;
pub(crate) mod model;
pub(crate) mod optimizer;
pub(crate) mod run;
pub(crate) mod stage;
pub(crate) mod train;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use data::{CacheSection, DataSection};
use eval::{CheckpointSection, EvalSection};
use model::ModelSection;
use run::RunSection;
use train::TrainSection;

/// The whole configuration of a run: the TOML, with every default filled in and every path absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Where the run writes, and what it runs on.
    pub run: RunSection,
    /// The two towers, their projections, and what of them trains.
    pub model: ModelSection,
    /// The image-text pairs to train on.
    pub data: DataSection,
    /// The optimiser, its schedule and the loss.
    pub train: TrainSection,
    /// When the state of the run is saved.
    #[serde(default)]
    pub checkpoint: CheckpointSection,
    /// The cache of a locked tower's features.
    #[serde(default)]
    pub cache: CacheSection,
    /// Evaluations by name; a name is made of `a-z`, `0-9`, `_` and `-`. Default: none.
    #[serde(default)]
    pub eval: BTreeMap<String, EvalSection>,
}
