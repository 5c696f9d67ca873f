//! What is asked of a page, and writing it under its name when it is complete.

use std::io::Write;
use std::path::{Path, PathBuf};

use dualenc_report::{Entry, Report};

use crate::commands::staged_output::StagedFile;
use crate::error::TrainError;

/// What made a page, shown at its foot.
pub(super) const MADE_BY: &str = concat!("dualenc ", env!("CARGO_PKG_VERSION"));

/// A page that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenPage {
    /// The file.
    pub path: PathBuf,
    /// Its size, in bytes.
    pub bytes: usize,
}

/// Writes a page to `path`, which is replaced when the page is complete.
///
/// # Errors
/// As for [`StagedFile::new`] and [`StagedFile::commit`].
pub(super) fn write_page(path: &Path, page: &str) -> Result<WrittenPage, TrainError> {
    let staged = StagedFile::new(path)?;
    staged.file().write_all(page.as_bytes()).map_err(TrainError::write(path))?;
    staged.commit()?;
    Ok(WrittenPage { path: path.to_owned(), bytes: page.len() })
}

/// Which run to report on, and how.
#[derive(Debug, Clone)]
pub struct ReportRequest<'a> {
    /// The run directory.
    pub run: &'a Path,
    /// The file to write; `None`: `report.html` in the run directory.
    pub out: Option<&'a Path>,
    /// Whether to load the model, for classes, examples, embeddings and pairs.
    pub with_model: bool,
    /// Whether to load the best checkpoint in place of the newest.
    pub best: bool,
    /// The device; `None`: `run.device` of the config.
    pub device: Option<&'a str>,
}

/// Notes why parts of the page are missing.
pub(super) fn leave_out(report: &mut Report, parts: &[&str], why: &str) {
    let entry = |part: &&str| Entry { key: (*part).to_owned(), value: why.to_owned() };
    report.absent.extend(parts.iter().map(entry));
}
