//! The errors of this crate. Each message names the file, what was found, what was expected, and what to do.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::conversions::of_file;
use crate::skipped::Skipped;

/// An error of this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or directory could not be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file of a data index could not be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file that a key of a source, or an option, names cannot be used.
    #[error("`{key}`: {source}")]
    OfKey {
        /// The key, such as `data.train.only`, or the option.
        key: String,
        /// Why it cannot be used.
        source: Box<DataError>,
    },
    /// A path is not a regular file.
    #[error("`{path}` is not a regular file; write what it holds to one")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A source has no samples.
    #[error("`{path}` holds no samples: found {found}; expected {expected}")]
    Empty {
        /// The file or directory.
        path: PathBuf,
        /// What is there instead.
        found: String,
        /// What a sample consists of.
        expected: &'static str,
    },
    /// A column is not in the header of a table.
    #[error("`{path}` has no column `{column}`; its columns are {}{}", quoted(.found), .hint.as_deref().unwrap_or(""))]
    Column {
        /// The table.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns of the header.
        found: Vec<String>,
        /// What to do, starting with `; `.
        hint: Option<String>,
    },
    /// A tensor is not in a file of tensors.
    #[error("`{path}` has no tensor `{name}`; its tensors are {}", quoted(.found))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor asked for.
        name: String,
        /// The tensors of the file.
        found: Vec<String>,
    },
    /// One row (record, line, annotation) is malformed.
    #[error("`{path}`, {unit} {row}: {reason}")]
    Row {
        /// The file.
        path: PathBuf,
        /// What `row` counts: `line` or `annotation`.
        unit: &'static str,
        /// 1-based number; in tables, of the line where the record starts.
        row: u64,
        /// What was found and what was expected.
        reason: String,
    },
    /// A whole file is malformed.
    #[error("`{path}` is malformed: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// The extension of a data file does not say how to read it.
    #[error(
        "`{path}` has {}; expected `csv`, `tsv`, `txt` (a table), `jsonl`, `json`, `tar` (also as a pattern such as \
         `{{000..127}}.tar`) or `parquet`, or a folder of images or shards{}",
        if found.is_empty() { "no extension".to_owned() } else { format!("the extension `{found}`") },
        of_file(found).map_or_else(String::new, |way_out| format!("; {way_out}"))
    )]
    UnknownExtension {
        /// The file.
        path: PathBuf,
        /// The extension, empty if there is none.
        found: String,
    },
    /// A tar shard is damaged or hostile.
    #[error(
        "shard `{path}` is damaged at byte {offset}: {reason}; {kept} samples before the damage are intact (set \
         `strict = false` to use them and continue)"
    )]
    Shard {
        /// The shard.
        path: PathBuf,
        /// Start of the unreadable part in bytes.
        offset: u64,
        /// Number of samples before the damage.
        kept: usize,
        /// What is wrong.
        reason: String,
    },
    /// A folder that should have one folder per class has none.
    #[error("`{path}` holds no class folders: found {found}; expected one folder per class, with its images inside")]
    NoClassFolders {
        /// The folder.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// An image cannot be read or decoded.
    #[error("image `{key}`: {source}")]
    Image {
        /// The path, or `shard.tar/entry.jpg`.
        key: String,
        /// What is wrong with it.
        source: ImageError,
    },
    /// More images are unreadable than the policy allows.
    #[error(
        "{}{bad} of {images} images cannot be used, more than `data.max_bad_fraction` = {max_fraction} allows: \
         {causes}\n{}\nrepair or remove them (`dualenc check --config FILE` decodes all and names each), or raise \
         `data.max_bad_fraction`",
        if *.is_all { "" } else { "at least " },
        .first.join("\n")
    )]
    TooManyBad {
        /// Number of distinct unreadable images found so far.
        bad: usize,
        /// Number of images of the data set.
        images: usize,
        /// Whether every image was looked at; otherwise there may be more unreadable ones.
        is_all: bool,
        /// The limit, from 0 to 1.
        max_fraction: f64,
        /// Their causes with counts, such as `not found (2), damaged (1)`.
        causes: String,
        /// The first of them, each `key: reason`.
        first: Vec<String>,
        /// All of them.
        found: Vec<Skipped>,
    },
    /// A worker thread panicked.
    #[error("a loader thread failed on {job}: {message}")]
    Worker {
        /// What the thread was working on.
        job: String,
        /// The message of the panic.
        message: String,
    },
    /// The configuration of an image processor is missing, unsupported or contradictory.
    #[error("`{path}`: `{key}` is {found}; expected {expected}")]
    Processor {
        /// The configuration file, or the directory that has none.
        path: PathBuf,
        /// The key.
        key: String,
        /// The value of the key.
        found: String,
        /// What is supported.
        expected: String,
    },
    /// A list of texts (class names, templates, texts to embed) is in no form that is read.
    #[error("`{path}`: {problem}")]
    TextList {
        /// The file.
        path: PathBuf,
        /// The line, what was found, and what was expected.
        problem: String,
    },
    /// A tokenizer cannot be built, or refuses a text.
    #[error("tokenizer `{path}`: {reason}")]
    Tokenizer {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The options of a loader contradict the data.
    #[error("loader: {reason}")]
    Loader {
        /// What is wrong and what to do.
        reason: String,
    },
}

/// Why an image cannot be read or decoded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// There is no such file.
    #[error("cannot be read: {0}")]
    Absent(String),
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The bytes are in no supported image format.
    #[error("not a jpeg, png, webp, gif, bmp, tiff, qoi or pnm: {looks_like}")]
    UnknownFormat {
        /// What the first bytes look like.
        looks_like: String,
    },
    /// The dimensions in the header exceed the limit.
    #[error(
        "{width}x{height} pixels is over the limit of {limit} (`data.max_pixels`, or `--max-pixels` without a config); \
         raise it or resize the image"
    )]
    TooLarge {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// The limit, in pixels.
        limit: u64,
    },
    /// The file is larger than the limit.
    #[error("{found} bytes is over the limit of {limit} bytes per encoded image")]
    FileTooLarge {
        /// Size of the file in bytes.
        found: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The format is known, but not this variant.
    #[error(
        "a {format} of a kind that is not supported: {reason}; convert it to png or jpeg, for example with \
         ImageMagick: `magick FILE out.png`"
    )]
    Unsupported {
        /// The format, by the signature of the file.
        format: &'static str,
        /// What is not supported.
        reason: String,
    },
    /// The decoder failed.
    #[error("damaged {format}: {reason}")]
    Damaged {
        /// The format, by the signature of the file.
        format: &'static str,
        /// The error of the decoder.
        reason: String,
    },
    /// A row of features holds NaN or an infinity.
    #[error("value {column} is {value}; expected finite numbers: compute the row again, or leave it out")]
    NotFinite {
        /// Number of the value in the row, 1-based.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A row of features holds zeros only.
    #[error("all values are 0, so that it has no direction: compute the row again, or leave it out")]
    ZeroFeature,
}

impl ImageError {
    /// A few fixed words that errors of one kind share, such as `not found`.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Empty => "empty file",
            Self::Absent(_) => "not found",
            Self::Unreadable(_) => "not readable",
            Self::UnknownFormat { .. } => "not an image",
            Self::TooLarge { .. } | Self::FileTooLarge { .. } => "too large",
            Self::Unsupported { .. } => "not supported",
            Self::Damaged { .. } => "damaged",
            Self::NotFinite { .. } => "not finite",
            Self::ZeroFeature => "all values 0",
        }
    }
}

/// Why a [`DataError`] occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataErrorCause {
    /// The data, their files or the options are wrong.
    Input,
    /// The system could not read a file.
    System(std::io::ErrorKind),
    /// A fault of the program.
    Internal,
}

impl DataError {
    /// Why this error occurred.
    #[must_use]
    pub fn cause(&self) -> DataErrorCause {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => DataErrorCause::System(source.kind()),
            Self::OfKey { source, .. } => source.cause(),
            Self::Worker { .. } => DataErrorCause::Internal,
            Self::NotAFile { .. }
            | Self::Empty { .. }
            | Self::Column { .. }
            | Self::Tensor { .. }
            | Self::Row { .. }
            | Self::Malformed { .. }
            | Self::UnknownExtension { .. }
            | Self::Shard { .. }
            | Self::NoClassFolders { .. }
            | Self::Image { .. }
            | Self::TooManyBad { .. }
            | Self::Processor { .. }
            | Self::TextList { .. }
            | Self::Tokenizer { .. }
            | Self::Loader { .. } => DataErrorCause::Input,
        }
    }

    /// For `map_err`: the error of the file that `key` names.
    pub fn of_key(key: &str) -> impl FnOnce(Self) -> Self {
        let key = key.to_owned();
        move |error| Self::OfKey { key, source: Box::new(error) }
    }

    /// The error with the table `table` before its key, if it names one.
    #[must_use]
    pub fn in_table(self, table: &str) -> Self {
        match self {
            Self::OfKey { key, source } => Self::OfKey { key: format!("{table}.{key}"), source },
            error => error,
        }
    }

    /// For `map_err`: the error that `path` could not be read.
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }

    /// For `map_err`: the error that `path` could not be written.
    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }

    pub(crate) fn row(path: &Path, unit: &'static str, row: u64, reason: impl Into<String>) -> Self {
        Self::Row { path: path.to_owned(), unit, row, reason: reason.into() }
    }
}

fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
