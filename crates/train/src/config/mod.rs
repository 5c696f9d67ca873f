//! The configuration of a run: from a TOML file and `--set` arguments to a checked [`RunConfig`].
//!
//! - `schema/`: the keys, their types, defaults and documentation; a file for each part of the TOML.
//! - `loading/`: reads a file into a [`RunConfig`] and reports every problem with its place.
//! - `validate/`: the rules that types cannot express: ranges, and keys that contradict each other.
//! - `derived/`: what follows from the keys, such as the stages of the run.
//! - `reference/`: the reference of all keys, as JSON schema and Markdown.
//! - `tower_reference`: how a tower can be named: a path or a hub id.
//! - `warnings`: settings that have no effect.
//! - `resume_diff`: which keys may change when a run is resumed.
//! - `eval_diff`: which keys do not fit the run that a config evaluates.
//! - `error`: problems and their places.
//!
//! Whether the files and towers exist is not checked here.

mod derived;
mod error;
mod eval_diff;
mod loading;
mod reference;
mod resume_diff;
mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod tower_reference;
mod validate;
mod warnings;

pub use dualenc_model::Pool;

pub use derived::best_metric::BestMetric;
pub(crate) use derived::best_metric::narrower_metric;
pub use derived::eval_interval::EvalInterval;
pub use derived::initial_weights::InitialWeights;
pub use derived::run_length::RunLength;
pub use derived::stage_plan::{Stage, StageStart};
pub use error::{ConfigError, Place, Problem};
pub(crate) use eval_diff::{EvalChanges, eval_changes};
pub use loading::load::Draft;
pub use reference::json_schema::json_schema;
pub use reference::markdown::markdown_reference;
pub use resume_diff::{Change, changed_keys};
pub use schema::RunConfig;
pub use schema::data::{CacheDtype, CacheSection, DataSection};
pub(crate) use schema::default;
pub use schema::eval::{CheckpointSection, EvalSection, Task};
pub use schema::loss::{Duplicates, LogitBiasInit, Loss, TeacherSection};
pub use schema::model::{FitSection, HeadInit, ImageProjectionSection, LoraSection, ModelSection, ProjectionSection};
pub use schema::model_heads::{HeadChoice, HeadSection};
pub use schema::optimizer::{GroupSection, OptimizerKind, Schedule};
pub use schema::run::{Devices, Precision, RunSection};
pub use schema::sources::{EvalData, TrainSources};
pub use schema::stage::StageSection;
pub use schema::train::TrainSection;
