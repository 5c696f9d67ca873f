//! Problems of a configuration and their places.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a configuration could not be loaded or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the config `{path}`")]
    Read {
        /// The path as given.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The configuration is wrong. All of its problems, in the order of the file and the `--set` arguments.
    #[error("{}", Listing { path, problems })]
    Invalid {
        /// The path as given.
        path: PathBuf,
        /// One or more problems.
        problems: Vec<Problem>,
    },
    /// The configuration cannot be written as TOML: a path is not UTF-8.
    #[error("cannot write the config as TOML")]
    Write(#[from] toml::ser::Error),
}

/// One problem of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, such as `train.batch_size`; empty for a syntax error.
    pub key: String,
    /// What was found and what was expected, on one line.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
    /// Its place.
    pub place: Place,
}

/// A place in the config file or in a `--set` argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path as given, or `--set KEY=VALUE`.
    pub origin: String,
    /// The whole text of the file, or `KEY=VALUE`.
    pub text: Arc<str>,
    /// Byte range of `text`; `None`: the file as a whole, such as for a missing table.
    pub span: Option<Range<usize>>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Place {
    pub(super) fn new(origin: &str, text: Arc<str>, span: Option<Range<usize>>) -> Self {
        let before = span.as_ref().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { origin: origin.to_owned(), text, span, line, column }
    }

    /// Whether the place is a `--set` argument.
    pub fn is_argument(&self) -> bool {
        self.origin.starts_with("--set ")
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new("", Arc::from(""), None)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_argument() || self.span.is_none() {
            write!(formatter, "{}", self.origin)
        } else {
            write!(formatter, "{}:{}:{}", self.origin, self.line, self.column)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)?;
        match &self.help {
            Some(help) => write!(formatter, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Displays all problems, one after the other.
struct Listing<'a> {
    path: &'a PathBuf,
    problems: &'a [Problem],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.problems.len() == 1 { "" } else { "s" };
        write!(formatter, "{} problem{plural} in the config `{}`", self.problems.len(), self.path.display())?;
        self.problems.iter().try_for_each(|problem| write!(formatter, "\n{problem}"))
    }
}

/// The help line that suggests `name` for a misspelt one.
pub(super) fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}
