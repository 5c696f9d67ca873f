//! The errors of this crate, and the exit codes' view of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::{DataError, DataErrorCause, Skipped, counted};
use dualenc_model::{DeviceFailure, ModelError, ModelErrorCause};
use dualenc_search::SearchError;
use serde::{Deserialize, Serialize};

use crate::config::{Change, ConfigError};
use crate::models::hub::error::HubError;
use crate::run_dir::checkpoint::pair_counts::PairCounts;

/// An error of this crate. Each message says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model or its weights cannot be used.
    #[error(transparent)]
    Model(ModelError),
    /// The device failed while it computed.
    #[error("the device failed: {failure}{}", device_hint(.failure))]
    DeviceFailed {
        /// Why.
        failure: DeviceFailure,
    },
    /// Embeddings cannot be searched.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A tower cannot be found.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The request does not fit the configuration, the data or the directory.
    #[error("{0}")]
    Usage(String),
    /// What a key of the config names cannot be used.
    #[error("`{key}`: {source}")]
    OfKey {
        /// The key, such as `train.teacher.model`.
        key: &'static str,
        /// Why it cannot be used.
        source: Box<TrainError>,
    },
    /// A rank of a run on several devices has failed, and all others have ended.
    #[error("rank {rank} ({device}): {source}")]
    OfRank {
        /// Its number, from 0.
        rank: usize,
        /// Its device; of several processes, its machine and its device.
        device: String,
        /// Why it failed.
        source: Arc<TrainError>,
    },
    /// The error of another process of the run, as that process reported it.
    #[error("{message}")]
    OfProcess {
        /// What kind of error it is.
        kind: ErrorKind,
        /// Its message, with its causes.
        message: String,
        /// The images that it cannot use, if they are too many.
        skipped: Vec<Skipped>,
    },
    /// The process of a rank does not run any more, and said nothing.
    #[error(
        "its process has ended without a word: it was killed, as the system does when memory runs out, or it crashed; \
         checkpoints are intact, and `--resume` continues from the newest"
    )]
    RankIsGone,
    /// The process of a rank is not heard of.
    #[error(
        "nothing was heard of its process for {seconds} s: it was stopped or killed, or its machine or network failed. \
         To continue, start again with `--resume`"
    )]
    RankIsSilent {
        /// How long.
        seconds: u64,
    },
    /// A rank did not come to where the others wait for it.
    #[error(
        "it has not finished its share of a step, for which the others have waited {seconds} s; check its device and \
         the disk, and use `--resume` to continue"
    )]
    RankIsLate {
        /// How long they waited.
        seconds: u64,
    },
    /// The device is not available.
    #[error("device `{device}` cannot be used: {reason}; devices of this build: {available}")]
    Device {
        /// The requested name.
        device: String,
        /// Why it cannot be used.
        reason: String,
        /// Names that this build supports.
        available: String,
    },
    /// The run directory already holds a run.
    #[error(
        "`{dir}` already holds a run (step {step}); use `--resume` to continue it, or choose another `run.dir` \
         (`--set run.dir=...`)"
    )]
    RunExists {
        /// The run directory.
        dir: PathBuf,
        /// The step of its newest checkpoint; without one, of its log.
        step: u64,
    },
    /// The run directory cannot be written.
    #[error("cannot write to the run directory `{dir}`: {source}; choose another `run.dir`")]
    RunUnwritable {
        /// The run directory.
        dir: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process is using the run directory.
    #[error("`{dir}` is in use by another process; wait for it, or choose another `run.dir`")]
    RunInUse {
        /// The run directory.
        dir: PathBuf,
    },
    /// The configuration of a resumed run has changed in keys that affect what is learned.
    #[error(
        "the run cannot be resumed with a different configuration:\n{}\nrestore the old values, or start a new run in \
         another `run.dir`",
        changes(.0)
    )]
    ConfigChanged(Vec<Change>),
    /// The data of a resumed run have changed.
    #[error(
        "the training data have changed since the run started: {}; restore them, or start a new run in another \
         `run.dir`. Images that were repaired count too: instead of repairing them in mid-run, raise \
         `data.max_bad_fraction`",
        found.change_from(*expected)
    )]
    DataChanged {
        /// Size of the data now.
        found: PairCounts,
        /// Their size when the checkpoint was saved, if it says.
        expected: Option<PairCounts>,
    },
    /// The locked weights differ from those of the checkpoint.
    #[error(
        "the locked weights differ from those that the checkpoint `{checkpoint}` was trained with; restore the tower \
         directories"
    )]
    LockedChanged {
        /// Directory of the checkpoint.
        checkpoint: PathBuf,
    },
    /// A tower computes otherwise than that of the checkpoint, or reads other inputs.
    #[error(
        "the {what} is not the one that the checkpoint `{checkpoint}` was trained with: restore the files in the tower \
         directories"
    )]
    TowersChanged {
        /// What differs, with the files that say it.
        what: &'static str,
        /// Directory of the checkpoint.
        checkpoint: PathBuf,
    },
    /// The teacher differs from that of the checkpoint.
    #[error(
        "the teacher `{teacher}` is not the one that the checkpoint `{checkpoint}` was trained with: its weights, its \
         image processing or its tokenizer differ; restore it or, if it is a run that has gone on, set \
         `train.teacher.model` to its checkpoint of that time"
    )]
    TeacherChanged {
        /// The teacher, as the config names it.
        teacher: String,
        /// Directory of the checkpoint.
        checkpoint: PathBuf,
    },
    /// A checkpoint cannot be used.
    #[error("checkpoint `{path}` cannot be used: {problem}")]
    Checkpoint {
        /// Directory of the checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A run has checkpoints, and none can be used.
    #[error(
        "none of the {} in `{dir}` can be used, and nothing was changed:\n{}\nrestore one of them from a copy, or \
         start a new run in another `run.dir`",
        counted(.problems.len(), "checkpoint"), list(.problems)
    )]
    NoValidCheckpoint {
        /// Directory of the checkpoints.
        dir: PathBuf,
        /// What is wrong with each, the newest first.
        problems: Vec<String>,
    },
    /// A run has logged steps that only a checkpoint can continue, and there is none.
    #[error(
        "`{dir}` has logged {} but holds no checkpoint, and nothing was changed; restore its `checkpoints`, or start a \
         new run in another `run.dir`",
        steps(.step)
    )]
    CheckpointsGone {
        /// The run directory.
        dir: PathBuf,
        /// The last step of `metrics.jsonl`.
        step: u64,
    },
    /// A checkpoint was written by a newer version of the program.
    #[error("checkpoint `{path}` has format {found}, but this program reads formats up to {known}; update the program")]
    NewerFormat {
        /// Directory of the checkpoint.
        path: PathBuf,
        /// Format of the checkpoint.
        found: u32,
        /// Newest format that this program reads.
        known: u32,
    },
    /// Loss or gradients are not finite. The update was not made.
    #[error(
        "{what} is {value} at step {step} (learning rate {learning_rate:.3e}, logit_scale {logit_scale:.4}, a factor \
         of {:.2} on cosines); the weights were not updated, and {saved}. Use `--resume` with a lower \
         `train.learning_rate`, a longer `train.warmup_steps` or another `train.clip_grad_norm`; with `--skip-steps 1` \
         if the batch is to blame; or delete the newest checkpoints first, to go on from an earlier one. The samples \
         of the step {samples}",
        .logit_scale.exp()
    )]
    NotFinite {
        /// `the loss` or `the gradient's norm`.
        what: &'static str,
        /// The value, NaN or infinite.
        value: f64,
        /// The step, from 1.
        step: u64,
        /// Learning rate of the step.
        learning_rate: f64,
        /// `logit_scale` before the step, a logarithm.
        logit_scale: f64,
        /// Which state a resumed run starts from.
        saved: String,
        /// Where the samples of the step are listed.
        samples: String,
    },
    /// An update made a parameter NaN or infinite. It is neither saved nor evaluated.
    #[error(
        "after step {step}, {count} of the {all} values of `{tensor}` are not finite; this state is neither saved nor \
         evaluated. Use `--resume` to go on from the newest checkpoint, with a lower `train.learning_rate`, a longer \
         `train.warmup_steps` or another `train.clip_grad_norm`"
    )]
    SpoiledWeights {
        /// Updates done.
        step: u64,
        /// Path of the parameter, or of an array of the optimiser's state.
        tensor: String,
        /// Number of values that are NaN or infinite.
        count: usize,
        /// Number of values.
        all: usize,
    },
    /// A model computes a value that is not finite, outside of a training step.
    #[error("{what} is not finite: it holds {value}; {advice}")]
    NotFiniteOutput {
        /// What was computed, for which input, such as ``the embedding of image `a.png` ``.
        what: String,
        /// The value, NaN or infinite.
        value: f64,
        /// What to do next.
        advice: String,
    },
    /// A signal interrupted work that can be repeated.
    #[error("stopped by a signal; finished work is saved")]
    Stopped {
        /// Number of the signal.
        signal: usize,
    },
    /// A file of the run was deleted, moved, replaced or changed by someone else while the run was going on.
    #[error(
        "`{path}` was deleted, moved or changed by another program while the run was going on; checkpoints that were \
         written are intact: put the run directory back and use `--resume`"
    )]
    LostFile {
        /// The file.
        path: PathBuf,
    },
    /// An invariant of the program does not hold: a bug. The run ends rather than going on with a wrong state.
    #[error("internal error: {0}; this is a bug in dualenc, please report it with the command and this message")]
    Internal(String),
    /// A file cannot be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The kind of an error, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Usage, configuration or data are invalid: the same command fails again until the user changes something.
    Input,
    /// Training diverged: loss, gradients or weights are not finite.
    NotFinite,
    /// The run failed, as when the disk is full or the network is down: the same command may succeed later.
    Run,
    /// An invariant of the program does not hold.
    Internal,
}

impl TrainError {
    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFinite { .. } | Self::NotFiniteOutput { .. } | Self::SpoiledWeights { .. } => ErrorKind::NotFinite,
            Self::Internal(_) => ErrorKind::Internal,
            Self::Write { .. }
            | Self::LostFile { .. }
            | Self::Stopped { .. }
            | Self::DeviceFailed { .. }
            | Self::RankIsLate { .. }
            | Self::RankIsGone
            | Self::RankIsSilent { .. } => ErrorKind::Run,
            Self::OfProcess { kind, .. } => *kind,
            Self::OfKey { source, .. } => source.kind(),
            Self::OfRank { source, .. } => source.kind(),
            Self::Data(error) => of_data(error),
            Self::Model(error) => of_model(error),
            Self::Hub(error) => of_hub(error),
            Self::Search(SearchError::Read { source, .. }) => of_io(source.kind()),
            Self::Read { source, .. } | Self::RunUnwritable { source, .. } => of_io(source.kind()),
            Self::Config(_)
            | Self::Usage(_)
            | Self::Search(_)
            | Self::Device { .. }
            | Self::RunExists { .. }
            | Self::RunInUse { .. }
            | Self::ConfigChanged(_)
            | Self::DataChanged { .. }
            | Self::LockedChanged { .. }
            | Self::TowersChanged { .. }
            | Self::TeacherChanged { .. }
            | Self::Checkpoint { .. }
            | Self::NoValidCheckpoint { .. }
            | Self::CheckpointsGone { .. }
            | Self::NewerFormat { .. } => ErrorKind::Input,
        }
    }

    /// For `map_err`: [`TrainError::OfKey`] of `key`.
    pub(crate) fn of_key<E: Into<Self>>(key: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::OfKey { key, source: Box::new(error.into()) }
    }

    /// The error without the key of the config, for a message that names the key itself.
    pub(crate) fn without_key(self) -> Self {
        match self {
            Self::OfKey { source, .. } => *source,
            error => error,
        }
    }

    /// The error without the rank that it is of.
    pub(crate) fn of_one_rank(&self) -> &Self {
        match self {
            Self::OfRank { source, .. } => source,
            error => error,
        }
    }

    /// The images that cannot be used, if they are too many.
    pub(crate) fn bad_images(&self) -> &[Skipped] {
        match self {
            Self::Data(DataError::TooManyBad { found, .. }) | Self::OfProcess { skipped: found, .. } => found,
            _ => &[],
        }
    }

    /// For `map_err`: [`TrainError::Write`] of `path`.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }

    /// For `map_err`: [`TrainError::Read`] of `path`.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}

impl From<ModelError> for TrainError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Device(failure) => Self::DeviceFailed { failure },
            error => Self::Model(error),
        }
    }
}

/// What to do about a failure of the device.
fn device_hint(failure: &DeviceFailure) -> &'static str {
    match failure {
        DeviceFailure::OutOfMemory { .. } => {
            "; lower `train.micro_batch_size`, which keeps the batch, or `batch_size` of the evaluation that ran, or \
             end other processes that use the device, then `--resume` continues from the newest checkpoint; a smaller \
             `train.batch_size` needs a new run"
        }
        DeviceFailure::Lost(_) => "; checkpoints are intact, and `--resume` continues from the newest in a new process",
        DeviceFailure::Unsupported(_) => {
            "; choose `f32` as `run.precision` and `run.locked_precision`, or another `--device`"
        }
        DeviceFailure::Other(_) => "; checkpoints are intact, and `--resume` continues from the newest",
    }
}

/// A file that cannot be opened as named is the user's to mend; any other failure of the system may pass.
fn of_io(error: io::ErrorKind) -> ErrorKind {
    use io::ErrorKind as Io;
    match error {
        Io::NotFound
        | Io::PermissionDenied
        | Io::AlreadyExists
        | Io::NotADirectory
        | Io::IsADirectory
        | Io::ReadOnlyFilesystem
        | Io::InvalidFilename
        | Io::InvalidInput
        | Io::InvalidData
        | Io::UnexpectedEof => ErrorKind::Input,
        _ => ErrorKind::Run,
    }
}

fn of_data(error: &DataError) -> ErrorKind {
    match error.cause() {
        DataErrorCause::Input => ErrorKind::Input,
        DataErrorCause::System(error) => of_io(error),
        DataErrorCause::Internal => ErrorKind::Internal,
    }
}

fn of_model(error: &ModelError) -> ErrorKind {
    match error.cause() {
        ModelErrorCause::Input => ErrorKind::Input,
        ModelErrorCause::System(error) => of_io(error),
        ModelErrorCause::Device => ErrorKind::Run,
        ModelErrorCause::Internal => ErrorKind::Internal,
    }
}

fn of_hub(error: &HubError) -> ErrorKind {
    match error {
        HubError::Download { .. } | HubError::Size { .. } | HubError::Hash { .. } => ErrorKind::Run,
        HubError::Cache { source, .. } => of_io(source.kind()),
        HubError::NotAReference { .. }
        | HubError::NotFound { .. }
        | HubError::MissingFile { .. }
        | HubError::Offline { .. }
        | HubError::NoDownload { .. }
        | HubError::Index { .. }
        | HubError::NoHome => ErrorKind::Input,
    }
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn steps(count: &u64) -> String {
    counted(usize::try_from(*count).unwrap_or(usize::MAX), "step")
}

/// One line per change.
fn changes(changes: &[Change]) -> String {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(not set)".to_owned());
    let line = |change: &Change| {
        format!("  {}: {} -> {} ({})", change.key, shown(&change.old), shown(&change.new), change.why)
    };
    changes.iter().map(line).collect::<Vec<_>>().join("\n")
}
