//! How an evaluation was described, so that its messages name what the user can change.

use crate::config::Task;
use crate::error::TrainError;
use crate::in_flags::Flags;

/// What to do about keys that have no flag.
const WAY_OUT: &str = "set it in a config, below `[eval.NAME.data]`, and use `dualenc eval --config FILE`";

/// What described an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenBy {
    /// A section of a config.
    Config,
    /// The flags of `dualenc eval --model`, for this task.
    Flags(Task),
}

impl GivenBy {
    /// The name of a setting in a message: the key of the config, or the flag for it.
    pub fn name(self, key: &str) -> String {
        match self {
            Self::Config => format!("`{key}`"),
            Self::Flags(_) => format!("`--{}`", key.rsplit('.').next().unwrap_or(key).replace('_', "-")),
        }
    }

    /// A message about the data, with flags in place of keys.
    pub fn message(self, message: &str) -> String {
        self.flags().map_or_else(|| message.to_owned(), |flags| flags.translate(message))
    }

    /// An error of the data, with flags in place of keys.
    pub fn error(self, error: TrainError) -> TrainError {
        match self.flags() {
            Some(flags) => flags.translate_error(error),
            None => error,
        }
    }

    fn flags(self) -> Option<Flags> {
        let known: &[&str] = match self {
            Self::Config => return None,
            Self::Flags(Task::ZeroShot | Task::Knn | Task::LinearProbe) => &["classnames", "root"],
            Self::Flags(Task::Retrieval | Task::Loss) => &["root"],
        };
        Some(Flags { known, way_out: WAY_OUT })
    }

    /// The error of labelled data that are not named.
    pub(crate) fn no_labelled_data(self, name: &str) -> TrainError {
        let (images, data) = (self.name("images"), self.name("data"));
        TrainError::Usage(format!("evaluation `{name}` needs {images} or {data}"))
    }
}
