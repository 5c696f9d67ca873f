//! What is asked of a page, and writing it under its name when it is complete.

use std::io::Write;
use std::path::{Path, PathBuf};

use dualenc_report::{Entry, Evaluation, Report};

use crate::commands::staged_output::StagedFile;
use crate::config::Task;
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
pub(super) fn leave_out<S: AsRef<str>>(report: &mut Report, parts: &[S], why: &str) {
    let entry = |part: &S| Entry { key: part.as_ref().to_owned(), value: why.to_owned() };
    report.absent.extend(parts.iter().map(entry));
}

/// The part of a report that shows the answers of an evaluation.
pub(super) fn answers_of(evaluation: &str) -> String {
    format!("eval.{evaluation}")
}

/// The parts of a report that embeddings are needed for.
pub(super) fn embedded_parts(report: &Report) -> Vec<String> {
    let has_answers =
        |evaluation: &&Evaluation| [Task::ZeroShot, Task::Retrieval].map(Task::name).contains(&&*evaluation.task);
    let answers = report.evaluations.iter().filter(has_answers).map(|evaluation| answers_of(&evaluation.name));
    ["embeddings", "pairs", "data"].map(str::to_owned).into_iter().chain(answers).collect()
}

/// The parts of a report that the model is needed for.
pub(super) fn model_parts(report: &Report) -> Vec<String> {
    [vec!["model".to_owned()], embedded_parts(report)].concat()
}
