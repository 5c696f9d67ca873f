//! `dualenc inspect`: reports what a directory holds without loading weights. A problem is listed, and the rest is
//! reported all the same. Printing a report is left to the command line.
//!
//! - `directory`: the kind of a directory; runs and checkpoints.
//! - `towers`: directories of towers and whole models.
//! - `report`: the report as data, which `--json` writes.

pub(crate) mod directory;
pub(crate) mod report;
mod towers;

#[cfg(all(test, feature = "flex"))]
mod tests;
