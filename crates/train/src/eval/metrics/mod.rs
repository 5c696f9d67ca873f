//! From embeddings to figures. Nothing here knows where images and texts come from.
//!
//! - `scores`: cosine similarities tile by tile, and ranks.
//! - `zero_shot`, `multi_label`: metrics of zero-shot classification with one class an image, and with several.
//! - `retrieval`, `right_answers`: metrics of retrieval in both directions.
//! - `top`: the best columns of every row.
//! - `details`: the answers behind the metrics.
//! - `bootstrap`, `calibration`: intervals of metrics, and whether probabilities mean what they say.
//! - `pooled_loss`: the training loss over pools of a fixed size.

pub(crate) mod bootstrap;
pub(crate) mod calibration;
pub(crate) mod details;
#[cfg(test)]
mod golden_tests;
pub(crate) mod multi_label;
pub(crate) mod pooled_loss;
pub(crate) mod retrieval;
pub(crate) mod right_answers;
pub(crate) mod scores;
pub(crate) mod top;
pub(crate) mod zero_shot;
