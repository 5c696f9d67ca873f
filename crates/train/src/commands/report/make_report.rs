//! The report on one run.

use std::path::PathBuf;

use dualenc_report::{Evaluation, PageOptions, Report, Warning, render_report};

use crate::commands::report::page_file::{MADE_BY, ReportRequest, WrittenPage, leave_out, model_parts, write_page};
use crate::commands::report::run_files::RunFiles;
use crate::commands::report::with_model::add_model_parts;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::stop_flag::StopFlag;

/// Keys of the config that stand above the whole config.
const SUMMARY: [&str; 18] = [
    "model.image_tower",
    "model.text_tower",
    "model.init",
    "model.lock",
    "model.embed_dim",
    "model.image_head.kind",
    "model.text_head.kind",
    "model.image_size",
    "train.epochs",
    "train.steps",
    "train.batch_size",
    "train.loss",
    "train.optimizer",
    "train.learning_rate",
    "train.weight_decay",
    "train.schedule",
    "run.seed",
    "run.device",
];

/// Writes a report on a run that trains, was killed or has finished. The run is only read. What the model is needed for
/// is left out when it cannot be loaded: the page and a warning say why.
///
/// # Errors
/// [`TrainError::Usage`] when `request.run` is no run, or has no best checkpoint and `request.best` asks for it;
/// [`TrainError::Device`] when there is no such device; [`TrainError::Read`] when one of its files cannot be read;
/// [`TrainError::Write`] when the page cannot be written; [`TrainError::Stopped`] when `stop` is set.
pub fn report(
    request: &ReportRequest<'_>,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<WrittenPage, TrainError> {
    let mut files = RunFiles::read(request.run)?;
    let out = request.out.map_or_else(|| request.run.join("report.html"), PathBuf::from);
    let entries = files.config_entries();
    let mut report = Report {
        title: files.name(),
        run_dir: files.dir.display().to_string(),
        state: Some(std::mem::take(&mut files.state)),
        best: files.best.take(),
        steps: std::mem::take(&mut files.log.steps),
        evaluations: std::mem::take(&mut files.log.evaluations),
        config: entries.into_iter().filter(|entry| SUMMARY.contains(&entry.key.as_str())).collect(),
        config_text: files.config_text.take(),
        warnings: std::mem::take(&mut files.log.warnings),
        bad_samples: std::mem::take(&mut files.bad_samples),
        made_by: MADE_BY.to_owned(),
        ..Report::default()
    };
    match &files.config {
        Ok(config) => {
            for (name, section) in &config.eval {
                if report.evaluations.iter().all(|evaluation| evaluation.name != *name) {
                    let task = section.task.name().to_owned();
                    report.evaluations.push(Evaluation { name: name.clone(), task, ..Evaluation::default() });
                }
            }
            if request.with_model {
                add_model_parts(&mut report, config, request, stop, observer)?;
            } else {
                let parts = model_parts(&report);
                leave_out(&mut report, &parts, "What the model is needed for was left out by `--no-model`.");
            }
        }
        Err(problem) => {
            let message = format!("`config.toml` of the run cannot be used: {problem}");
            observer.on(Event::Warning(message.clone()));
            let parts = model_parts(&report);
            leave_out(&mut report, &parts, &message);
            report.warnings.push(Warning { step: None, name: "config".to_owned(), message });
        }
    }
    write_page(&out, &render_report(&report, &PageOptions::default()))
}
