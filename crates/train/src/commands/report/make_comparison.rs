//! The comparison of several runs.

use std::path::{Path, PathBuf};

use dualenc_report::{ComparedRun, Comparison, PageOptions, render_comparison};

use crate::commands::report::page_file::{MADE_BY, WrittenPage, write_page};
use crate::commands::report::run_files::RunFiles;
use crate::error::TrainError;
use crate::events::{Event, Observer};

/// Writes a page that compares runs by their logs and configs. No model is loaded, and the runs are only read.
///
/// # Errors
/// [`TrainError::Usage`] when a directory is no run, or is named twice; [`TrainError::Read`] when a file cannot be
/// read; [`TrainError::Write`] when the page cannot be written.
pub fn compare(runs: &[PathBuf], out: &Path, observer: &mut dyn Observer) -> Result<WrittenPage, TrainError> {
    let resolved: Vec<PathBuf> = runs.iter().map(|run| run.canonicalize().unwrap_or_else(|_| run.clone())).collect();
    if let Some(at) = (0..resolved.len()).find(|&at| resolved[..at].contains(&resolved[at])) {
        return Err(TrainError::Usage(format!("`{}` is named twice; name each run once", runs[at].display())));
    }
    let files = runs.iter().map(|run| RunFiles::read(run)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = files.iter().map(RunFiles::name).collect();
    let is_unique = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    let compared = files.into_iter().zip(&names).map(|(mut files, name)| {
        let path = files.dir.display().to_string();
        if let Some(problem) = files.config_text.is_none().then_some(files.config.as_ref().err()).flatten() {
            observer.on(Event::Warning(format!("the config of `{path}` is left out: {problem}")));
        }
        for warning in files.log.warnings.iter().filter(|warning| warning.step.is_none()) {
            observer.on(Event::Warning(format!("`{path}`: {}", warning.message)));
        }
        ComparedRun {
            name: if is_unique(name) { name.clone() } else { path },
            config: files.config_entries(),
            state: Some(std::mem::take(&mut files.state)),
            steps: std::mem::take(&mut files.log.steps),
            evaluations: std::mem::take(&mut files.log.evaluations),
            ..ComparedRun::default()
        }
    });
    let comparison = Comparison { runs: compared.collect(), made_by: MADE_BY.to_owned(), ..Comparison::default() };
    write_page(out, &render_comparison(&comparison, &PageOptions::default()))
}
