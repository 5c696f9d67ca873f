//! Writes a page under its name when it is complete.

use std::io::Write;
use std::path::{Path, PathBuf};

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
