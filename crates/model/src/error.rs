//! The errors of building, loading and reading a model.

use std::path::PathBuf;

use crate::device_failure::DeviceFailure;
use crate::tower::Tower;

/// An error of this crate. Every message says where it occurred, what was found, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A required file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A config is malformed or describes something that is not supported.
    #[error("`{path}`: {problem}")]
    Config {
        /// The config file.
        path: PathBuf,
        /// What was found, and what is supported.
        problem: String,
    },
    /// The family of a tower is not supported.
    #[error("`{path}`: `model_type` is `{found}`, which is not a supported {kind} tower; supported: {supported}")]
    UnsupportedFamily {
        /// The config file.
        path: PathBuf,
        /// `image`, `text` or `image or text`.
        kind: &'static str,
        /// The `model_type` found.
        found: String,
        /// The supported ones, separated by commas.
        supported: String,
    },
    /// A directory holds no config of a model.
    #[error("`{dir}` holds no `config.json`{hint}")]
    NoConfig {
        /// The directory.
        dir: PathBuf,
        /// What is there instead, and what to do, if known; may be empty.
        hint: String,
    },
    /// A directory holds no safetensors weights.
    #[error("`{dir}` holds no `model.safetensors` and no `model.safetensors.index.json`{hint}")]
    NoWeights {
        /// The directory.
        dir: PathBuf,
        /// What to do, if known; may be empty.
        hint: String,
    },
    /// A weight file is malformed.
    #[error("`{path}` is not a readable safetensors file: {problem}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Stored weights are NaN or infinite.
    #[error(
        "`{path}`: {} NaN or infinite values:\n{}\nthe training that wrote the file has diverged, or its type is too \
         narrow; use an earlier checkpoint, or convert the weights again",
        hold(.tensors.len()), list(.tensors)
    )]
    NonFiniteWeights {
        /// The file.
        path: PathBuf,
        /// One line per tensor: its name, and how many values are not finite.
        tensors: Vec<String>,
    },
    /// Stored tensors do not have the shapes that the config requires.
    #[error(
        "`{dir}`: {} of the model have another shape in the weights:\n{}",
        count_tensors(.mismatches.len()), list(.mismatches)
    )]
    Shapes {
        /// The directory of the tower.
        dir: PathBuf,
        /// One line per tensor: name, expected shape, found shape.
        mismatches: Vec<String>,
    },
    /// A locked tower would keep randomly initialised weights.
    #[error(
        "`{dir}`: the {tower} is locked, but the weights lack {} of it, which would stay random:\n{}\n{hint}",
        count_tensors(.missing.len()), list(.missing)
    )]
    LockedRandom {
        /// The directory of the tower.
        dir: PathBuf,
        /// The locked tower.
        tower: Tower,
        /// Names of the missing tensors.
        missing: Vec<String>,
        /// What to do.
        hint: String,
    },
    /// The weights of a pretrained tower lack more than its pooler.
    #[error("`{dir}`: the weights lack {} of the tower:\n{}\n{hint}", count_tensors(.missing.len()), list(.missing))]
    Incomplete {
        /// The directory of the tower.
        dir: PathBuf,
        /// Names of the missing tensors.
        missing: Vec<String>,
        /// What to check.
        hint: String,
    },
    /// An input or option does not fit the model.
    #[error("{0}")]
    Input(String),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(DeviceFailure),
    /// An invariant of this crate does not hold: a bug.
    #[error("internal error: {0}; this is a bug in dualenc, please report it with the command and this message")]
    Internal(String),
    /// A saved state does not fit this model.
    #[error("{} do not fit this model:\n{}", count_tensors(.problems.len()), list(.problems))]
    State {
        /// One line per tensor.
        problems: Vec<String>,
    },
    /// The model cannot be exported to the layout of the reference.
    #[error("{0}")]
    Export(String),
}

/// Why a [`ModelError`] occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelErrorCause {
    /// The files, the options or the inputs are wrong.
    Input,
    /// The system could not read a file.
    System(std::io::ErrorKind),
    /// The device failed.
    Device,
    /// A fault of the program.
    Internal,
}

impl ModelError {
    /// Why this error occurred.
    pub fn cause(&self) -> ModelErrorCause {
        match self {
            Self::Read { source, .. } => ModelErrorCause::System(source.kind()),
            Self::Device(_) => ModelErrorCause::Device,
            Self::Internal(_) => ModelErrorCause::Internal,
            Self::Config { .. }
            | Self::UnsupportedFamily { .. }
            | Self::NoConfig { .. }
            | Self::NoWeights { .. }
            | Self::Weights { .. }
            | Self::NonFiniteWeights { .. }
            | Self::Shapes { .. }
            | Self::LockedRandom { .. }
            | Self::Incomplete { .. }
            | Self::Input(_)
            | Self::State { .. }
            | Self::Export(_) => ModelErrorCause::Input,
        }
    }
}

/// Number of tensors listed before the rest is only counted.
const MAX_LISTED: usize = 10;

fn count_tensors(count: usize) -> String {
    if count == 1 { "1 tensor".to_owned() } else { format!("{count} tensors") }
}

fn hold(count: usize) -> String {
    let verb = if count == 1 { "holds" } else { "hold" };
    format!("{} {verb}", count_tensors(count))
}

fn list(lines: &[String]) -> String {
    let mut text: Vec<String> = lines.iter().take(MAX_LISTED).map(|line| format!("  {line}")).collect();
    if lines.len() > MAX_LISTED {
        text.push(format!("  ... and {} more", lines.len() - MAX_LISTED));
    }
    text.join("\n")
}
