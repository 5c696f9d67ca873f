//! Commands that write pages about runs.
//!
//! - `report`: one run.
//! - `compare`: several runs.
//! - `written`: the line about a page.

pub(crate) mod compare;
pub(crate) mod report;
pub(crate) mod written;
