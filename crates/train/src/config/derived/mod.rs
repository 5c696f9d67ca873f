//! What follows from the keys of a configuration without reading any other file.
//!
//! - `run_length`: epochs and steps, and how an epoch is split.
//! - `initial_weights`: the towers or the whole model that a new run starts from.
//! - `stage_plan`: which parameters train from which step on.
//! - `caption_slots`: how many captions of an image a pair has.
//! - `feature_sides`: which sides of the data are features.
//! - `feature_cache`: directory and views of the feature cache.
//! - `image_limits`: how large an image may be.
//! - `part_size`: how large the parts of a step are.
//! - `eval_interval`: when an evaluation runs.
//! - `best_metric`: the metric that `checkpoint.best` names.

pub(crate) mod best_metric;
mod caption_slots;
pub(crate) mod eval_interval;
mod feature_cache;
mod feature_sides;
mod image_limits;
pub(crate) mod initial_weights;
mod part_size;
pub(crate) mod run_length;
pub(crate) mod stage_plan;
