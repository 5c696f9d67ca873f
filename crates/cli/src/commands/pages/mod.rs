//! Commands that write about runs.
//!
//! - `report`: one run.
//! - `compare`: several runs.
//! - `metrics`: the metrics of one run, for other programs.
//! - `written`: the line about a page.

pub(crate) mod compare;
pub(crate) mod metrics;
pub(crate) mod report;
pub(crate) mod written;
