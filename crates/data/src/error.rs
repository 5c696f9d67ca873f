//! What can go wrong with data. Each error names the file, what was found, what was expected, and what to do.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error of this crate.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file or directory could not be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A path does not name a regular file.
    #[error("`{path}` is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A source gave no sample at all.
    #[error("`{path}` holds no samples: {found}; expected {expected}")]
    Empty {
        /// The file or directory.
        path: PathBuf,
        /// What stands there instead.
        found: String,
        /// What makes a sample.
        expected: &'static str,
    },
    /// The named column is not in the header.
    #[error("`{path}` has no column `{column}`; its columns are {}{}", quoted(.found), .hint.as_deref().unwrap_or(""))]
    Column {
        /// The table.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns of the header.
        found: Vec<String>,
        /// The way out, starting with `; `.
        hint: Option<String>,
    },
    /// One row (record, line, annotation) is malformed.
    #[error("`{path}`, {unit} {row}: {reason}")]
    Row {
        /// The file.
        path: PathBuf,
        /// What `row` counts: `row`, `line`, `annotation`.
        unit: &'static str,
        /// 1-based number; for tables the line in the file where the record starts.
        row: u64,
        /// What was found and expected.
        reason: String,
    },
    /// A whole file is not of the expected form.
    #[error("`{path}` is malformed: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was found and expected.
        reason: String,
    },
    /// A data file whose extension says nothing.
    #[error("`{path}` has the extension `{found}`; expected one of `csv`, `tsv`, `jsonl`")]
    UnknownExtension {
        /// The file.
        path: PathBuf,
        /// Its extension, empty if none.
        found: String,
    },
    /// A tar shard is damaged or hostile.
    #[error(
        "shard `{path}` is damaged at byte {offset}: {reason}; {kept} samples before it are intact (set `strict = false` to keep them and go on)"
    )]
    Shard {
        /// The shard.
        path: PathBuf,
        /// Where the unreadable part starts.
        offset: u64,
        /// Number of entries read before the damage.
        kept: usize,
        /// What is wrong.
        reason: String,
    },
    /// A folder given as one folder a class has none.
    #[error("`{path}` holds no class folders: found {found}; expected one folder a class, with its images inside")]
    NoClassFolders {
        /// The folder.
        path: PathBuf,
        /// What stands there instead.
        found: String,
    },
    /// An image could not be used.
    #[error("image `{key}`: {source}")]
    Image {
        /// The image as users know it.
        key: String,
        /// Why.
        source: ImageError,
    },
    /// More images were unusable than the policy allows.
    #[error("{bad} of {images} images cannot be used, more than `data.max_bad_fraction` = {max_fraction} allows:\n{}\nrepair or remove them, or raise `data.max_bad_fraction`", .first.join("\n"))]
    TooManyBad {
        /// Distinct bad images so far.
        bad: usize,
        /// Images of the data set.
        images: usize,
        /// The limit.
        max_fraction: f64,
        /// The first of them, each `key: reason`.
        first: Vec<String>,
    },
    /// A worker thread panicked on a job.
    #[error("a loader thread failed on {job}: {message}")]
    Worker {
        /// The sample or job.
        job: String,
        /// The panic's message.
        message: String,
    },
    /// The image processor's configuration asks for what is not supported, or contradicts itself.
    #[error("`{path}`: `{key}` is {found}; expected {expected}")]
    Processor {
        /// The configuration file, or the directory where it was looked for.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What is supported.
        expected: String,
    },
    /// The tokenizer cannot be built or used.
    #[error("tokenizer `{path}`: {reason}")]
    Tokenizer {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The loader was asked for something impossible.
    #[error("loader: {reason}")]
    Loader {
        /// What is wrong and what to do.
        reason: String,
    },
}

/// Why an image could not be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// No bytes.
    #[error("the file is empty")]
    Empty,
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The bytes are no image format known here.
    #[error("not a jpeg, png, webp or gif: {looks_like}")]
    UnknownFormat {
        /// What the first bytes look like.
        looks_like: String,
    },
    /// The header announces more than the limits allow.
    #[error("{width}x{height} pixels is over the limit of {limit}")]
    TooLarge {
        /// Announced width.
        width: u32,
        /// Announced height.
        height: u32,
        /// The limit in words.
        limit: String,
    },
    /// The file is larger than any image is expected to be.
    #[error("{found} bytes is over the limit of {limit} bytes an encoded image")]
    FileTooLarge {
        /// Size found.
        found: u64,
        /// Largest size read.
        limit: u64,
    },
    /// The decoder gave up.
    #[error("damaged {format}: {reason}")]
    Damaged {
        /// The format by its signature.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

impl DataError {
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
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
