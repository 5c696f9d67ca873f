//! What a run reports while it works, and the trait that receives it. This crate prints nothing itself.

use std::path::Path;
use std::time::Duration;

use dualenc_data::Skipped;
use dualenc_model::Audit;

use crate::optim::part_summary::PartSummary;
use crate::run_dir::best::Best;
use crate::run_dir::metrics_log::{EvalRecord, TrainRecord};

/// Something that happened in a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Information for people.
    Note(String),
    /// Something that is probably not intended.
    Warning(String),
    /// A tower was loaded.
    Audit {
        /// `image tower` or `text tower`.
        part: &'static str,
        /// Which tensors were loaded, missing and unused.
        audit: &'a Audit,
    },
    /// What trains and what is locked, part by part.
    Parts(&'a [PartSummary]),
    /// Training starts, or continues after `step`.
    Start {
        /// Updates so far.
        step: u64,
        /// Updates of the whole run.
        total_steps: u64,
        /// Updates per epoch.
        steps_per_epoch: u64,
    },
    /// An update was made.
    Step(&'a TrainRecord),
    /// An image cannot be used and is skipped.
    Skipped {
        /// The image, and why.
        image: &'a Skipped,
        /// What it belongs to, such as ``evaluation `x` `` or a path in backticks.
        of: &'a str,
        /// The file that lists all such images.
        listed_in: Option<&'a Path>,
    },
    /// Progress of lengthy work other than training.
    Work {
        /// Name of the work, such as `features of the locked image tower`.
        name: &'a str,
        /// Items done so far.
        done: usize,
        /// Items in total.
        total: usize,
    },
    /// An evaluation finished.
    Eval(&'a EvalRecord),
    /// An evaluation is the best so far.
    Best(&'a Best),
    /// A checkpoint was written.
    Saved {
        /// Directory of the checkpoint.
        path: &'a Path,
        /// Time it took to write.
        took: Duration,
    },
}

/// Receives the events of a run.
pub trait Observer: Send {
    /// Called for each event, on the thread that trains; for warnings of other devices than the first, on theirs.
    fn on(&mut self, event: Event<'_>);
}

/// Reports nothing.
pub(crate) struct Silent;

impl Observer for Silent {
    fn on(&mut self, _: Event<'_>) {}
}
