//! From the bytes of a file and the `--set` arguments to a checked [`RunConfig`].

use std::path::{Path, PathBuf};

use super::deserialize::{self, covers};
use super::resolve_paths;
use super::toml_tree::{self, Document};
use crate::config::error::{ConfigError, Problem};
use crate::config::schema::RunConfig;
use crate::config::schema::model::HeadInit;
use crate::config::validate;
use crate::config::validate::rules::Violation;

/// The rules of one command.
type MoreRules = fn(&RunConfig) -> Vec<Violation>;

fn no_more_rules(_: &RunConfig) -> Vec<Violation> {
    Vec::new()
}

impl RunConfig {
    /// Loads the config file `path`, overridden by the `KEY=VALUE` arguments of `--set`. Relative paths, also those in
    /// `--set`, are relative to the directory of the file.
    ///
    /// A `--set` value is read as TOML, or as a bare string if it is not valid TOML. An empty value removes the key.
    ///
    /// # Errors
    /// [`ConfigError::Read`] if the file cannot be read, [`ConfigError::Invalid`] with all problems if the
    /// configuration is wrong.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let Draft { config, problems } = Draft::load(path, overrides)?;
        match problems.is_empty() {
            true => Ok(config),
            false => Err(ConfigError::Invalid { path: path.to_owned(), problems }),
        }
    }

    /// As [`RunConfig::load`], for `dualenc fit`: heads are fitted, by canonical correlation analysis unless
    /// `model.head_init` says otherwise.
    ///
    /// # Errors
    /// As for [`RunConfig::load`], also for keys that do not allow a fit.
    pub fn load_for_fit(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let Draft { mut config, problems } = Draft::load_with(path, overrides, validate::violations_of_fit)?;
        if !problems.is_empty() {
            return Err(ConfigError::Invalid { path: path.to_owned(), problems });
        }
        if config.model.head_init == HeadInit::Random {
            config.model.head_init = HeadInit::Cca;
        }
        Ok(config)
    }

    /// The configuration as TOML, with every default and absolute paths. [`RunConfig::load`] reads it back to an equal
    /// value.
    ///
    /// # Errors
    /// [`ConfigError::Write`] if a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string(self)?)
    }

    /// As [`RunConfig::load`]; `path` only names the file, and relative paths are relative to `directory`.
    pub(crate) fn from_bytes(
        bytes: &[u8],
        path: &Path,
        directory: &Path,
        overrides: &[String],
    ) -> Result<Self, Vec<Problem>> {
        let Draft { config, problems } = Draft::from_bytes(bytes, path, directory, overrides, no_more_rules)?;
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }
}

/// A config as far as it can be read. Entries with a problem have their default, or a value that is never used.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The config.
    pub config: RunConfig,
    /// Its problems, in the order of the file and the `--set` arguments.
    pub problems: Vec<Problem>,
}

impl Draft {
    /// As [`RunConfig::load`], but returns the problems beside what could be read.
    ///
    /// # Errors
    /// [`ConfigError::Read`] if the file cannot be read, [`ConfigError::Invalid`] if it is not TOML, or too little can
    /// be read.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        Self::load_with(path, overrides, no_more_rules)
    }

    /// As [`Draft::load`]; `more_rules`: what a command refuses beside what every command does.
    fn load_with(path: &Path, overrides: &[String], more_rules: MoreRules) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(read)?;
        let directory = std::path::absolute(path).map_err(read)?.parent().map(PathBuf::from).unwrap_or_default();
        let directory = directory.canonicalize().map_err(read)?;
        Self::from_bytes(&bytes, path, &directory, overrides, more_rules)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// Whether a problem is about `key`, a table around it, or a key below it.
    pub(crate) fn is_wrong(&self, key: &str) -> bool {
        let is_below = |key: &str, table: &str| {
            key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.problems.iter().any(|problem| is_below(&problem.key, key) || is_below(key, &problem.key))
    }

    fn from_bytes(
        bytes: &[u8],
        path: &Path,
        directory: &Path,
        overrides: &[String],
        more_rules: MoreRules,
    ) -> Result<Self, Vec<Problem>> {
        if directory.to_str().is_none() {
            // `to_toml` and `changed_keys` write absolute paths as TOML, which is UTF-8.
            return Err(vec![not_utf8(
                b"",
                0,
                path,
                "the path of the config is not UTF-8",
                "move it to a directory with a UTF-8 path",
            )]);
        }
        let text = str::from_utf8(bytes).map_err(|error| {
            vec![not_utf8(
                bytes,
                error.valid_up_to(),
                path,
                "the file is not UTF-8",
                "save it as UTF-8, the only encoding of TOML",
            )]
        })?;
        let mut document = Document::parse(path, text)?;
        let mut problems = Vec::new();
        for argument in overrides {
            problems.extend(document.set(argument).err().map(|problem| *problem));
        }
        let (config, reported) = deserialize::deserialize(&mut document, &mut problems);
        let Some(mut config) = config else {
            return Err(sorted(problems, overrides));
        };
        config.model.expand_short_init();
        resolve_paths::resolve(&mut config, directory);
        for violation in validate::violations(&config).into_iter().chain(more_rules(&config)) {
            let mut concerned = std::iter::once(&violation.key).chain(&violation.others);
            if concerned.all(|key| !covers(&reported, key)) {
                let place = document.place_of(&violation.key);
                problems.push(Problem { key: violation.key, message: violation.message, help: violation.help, place });
            }
        }
        config.fill_defaults();
        Ok(Self { config, problems: sorted(problems, overrides) })
    }
}

/// Sorts by place: the file from top to bottom, then the `--set` arguments.
fn sorted(mut problems: Vec<Problem>, overrides: &[String]) -> Vec<Problem> {
    let origins: Vec<String> = overrides.iter().map(|argument| toml_tree::origin_of(argument)).collect();
    problems.sort_by_key(|problem| {
        let argument = origins.iter().position(|origin| *origin == problem.place.origin);
        let start = problem.place.span.as_ref().map_or(usize::MAX, |span| span.start);
        (argument, start)
    });
    problems
}

fn not_utf8(bytes: &[u8], at: usize, path: &Path, message: &str, help: &str) -> Problem {
    let mut map = toml_tree::SourceMap::default();
    map.add(path.display().to_string(), &String::from_utf8_lossy(bytes));
    Problem {
        key: String::new(),
        message: message.to_owned(),
        help: Some(help.to_owned()),
        // The lossy copy has the same bytes up to here.
        place: map.place(Some(at..at + 1)),
    }
}
