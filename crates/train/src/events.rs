//! What a run tells whoever watches it. This crate prints nothing.

use std::path::Path;
use std::time::Duration;

use dualenc_data::Skipped;
use dualenc_model::Audit;

use crate::optim::part_summary::ParamGroup;
use crate::run_dir::best::Best;
use crate::run_dir::metrics_log::{EvalRecord, TrainRecord};

/// Something that happened in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// A fact about the run, for people.
    Note(String),
    /// Something that may surprise.
    Warning(String),
    /// What loading a tower found out.
    Audit {
        /// `image tower` or `text tower`.
        part: &'static str,
        /// Missing, unused, loaded.
        audit: &'a Audit,
    },
    /// What trains and what does not.
    Groups(&'a [ParamGroup]),
    /// Training starts, or goes on after `step`.
    Start {
        /// Updates done before.
        step: u64,
        /// Updates of the whole run.
        total_steps: u64,
        /// Updates of an epoch.
        steps_per_epoch: u64,
    },
    /// One update.
    Step(&'a TrainRecord),
    /// An image that cannot be used.
    Skipped(&'a Skipped),
    /// Long work beside training has come to `done` of `total`.
    Work {
        /// Such as `features of the locked image tower`.
        name: &'a str,
        /// Items done.
        done: usize,
        /// Items in all.
        total: usize,
    },
    /// An evaluation's figures.
    Eval(&'a EvalRecord),
    /// A checkpoint is the best so far.
    Best(&'a Best),
    /// A checkpoint stands.
    Saved {
        /// Where.
        path: &'a Path,
        /// How long it took.
        took: Duration,
    },
}

/// Who watches a run.
pub trait Observer {
    /// Hears of `event`.
    fn on(&mut self, event: Event<'_>);
}
