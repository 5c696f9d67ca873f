//! Why training or evaluation stopped, and whose fault it is.

use std::io;
use std::path::{Path, PathBuf};

use dualenc_data::DataError;
use dualenc_model::ModelError;

use crate::config::{Change, ConfigError};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model or its weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tower could not be found.
    #[error(transparent)]
    Hub(#[from] crate::models::hub::error::HubError),
    /// What was asked for cannot be done with this configuration, data or directory.
    #[error("{0}")]
    Usage(String),
    /// The device is not there.
    #[error("device `{device}` cannot be used: {reason}; this build and machine have: {available}")]
    Device {
        /// The name asked for.
        device: String,
        /// Why not.
        reason: String,
        /// What there is.
        available: String,
    },
    /// The run directory holds a run already.
    #[error(
        "`{dir}` holds a run already (step {step}); go on with it by `--resume`, or choose another `run.dir` \
         (`--set run.dir=...`)"
    )]
    RunExists {
        /// The run directory.
        dir: PathBuf,
        /// Its newest checkpoint's step.
        step: u64,
    },
    /// The run directory cannot be written.
    #[error("the run directory `{dir}` cannot be written: {source}; choose another `run.dir`")]
    RunUnwritable {
        /// The run directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process trains in the run directory.
    #[error("`{dir}` is in use by another process; wait for it, or choose another `run.dir`")]
    RunInUse {
        /// The run directory.
        dir: PathBuf,
    },
    /// The configuration of a resumed run differs in a way that changes what is learned.
    #[error("the run cannot go on with another configuration:\n{}\nrestore the old values, or start a new run in another `run.dir`", changes(.0))]
    ConfigChanged(Vec<Change>),
    /// The data of a resumed run differ.
    #[error(
        "the training data are not those the run was started with (fingerprint `{found}`, expected `{expected}`); \
         restore them, or start a new run in another `run.dir`"
    )]
    DataChanged {
        /// Of the data now.
        found: String,
        /// Of the checkpoint.
        expected: String,
    },
    /// The locked parts are not those of the checkpoint.
    #[error(
        "the locked weights are not those the checkpoint `{checkpoint}` was trained with; restore the tower directories"
    )]
    LockedChanged {
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// A checkpoint cannot be used.
    #[error("checkpoint `{path}` cannot be used: {problem}")]
    Checkpoint {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A checkpoint was written by a newer program.
    #[error("checkpoint `{path}` has the format {found}, this program reads up to {known}; update the program")]
    NewerFormat {
        /// Its directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// Loss or gradient is not finite; nothing was updated.
    #[error(
        "{what} is {value} at step {step} (learning rate {learning_rate:.3e}, logit_scale {logit_scale:.4}); the weights are \
         still those of the step before. Lower `train.learning_rate`, lengthen `train.warmup_steps` or set \
         `train.clip_grad_norm`; the samples of the step are in `{dump}`"
    )]
    NotFinite {
        /// `the loss` or `the gradient's norm`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step, from 1.
        step: u64,
        /// At that step.
        learning_rate: f64,
        /// At that step, a logarithm.
        logit_scale: f64,
        /// The file that lists them.
        dump: PathBuf,
    },
    /// A signal came during work that can be begun again.
    #[error("stopped by a signal; what was computed is kept")]
    Stopped {
        /// Its number.
        signal: usize,
    },
    /// A file could not be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Whose fault an error is: it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Usage, configuration or data.
    Input,
    /// Training diverged.
    NotFinite,
    /// The run or the machine.
    Run,
}

impl TrainError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFinite { .. } => Fault::NotFinite,
            Self::Write { .. } => Fault::Run,
            _ => Fault::Input,
        }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}

fn changes(changes: &[Change]) -> String {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(not given)".to_owned());
    let line = |change: &Change| {
        format!("  {}: {} -> {} ({})", change.key, shown(&change.old), shown(&change.new), change.why)
    };
    changes.iter().map(line).collect::<Vec<_>>().join("\n")
}
