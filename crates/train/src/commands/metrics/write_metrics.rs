//! Writing the metrics of a run.

use std::fs;
use std::io::Write;
use std::path::Path;

use dualenc_data::counted;

use crate::commands::metrics::request::{MetricsFormat, MetricsRequest, WrittenMetrics};
use crate::commands::metrics::rows::Rows;
use crate::commands::metrics::{mlflow, tables};
use crate::commands::report::run_files::RunFiles;
use crate::commands::staged_output::StagedFile;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::run_dir::layout::metrics_of;
use crate::run_dir::log_points::Damage;
use crate::run_dir::tensorboard::event_file::write_events;

/// Writes the metrics of a run that trains, was killed or has finished in another format. The run is only read.
///
/// # Errors
/// [`TrainError::Usage`] when `request.run` is no run, has no metrics, or the format needs a directory and none is
/// named; [`TrainError::Read`] when a file cannot be read; [`TrainError::Write`] when the metrics cannot be written.
pub fn write_metrics(request: &MetricsRequest<'_>, observer: &mut dyn Observer) -> Result<WrittenMetrics, TrainError> {
    let run = RunFiles::read(request.run)?;
    let log = metrics_of(request.run);
    if fs::metadata(&log).map_or(0, |file| file.len()) == 0 {
        return Err(TrainError::Usage(format!(
            "`{}` has no metrics yet: `metrics.jsonl` is missing or empty",
            request.run.display()
        )));
    }
    let directory = |format| {
        let message = format!("the format `{format}` is a directory; name one with `--out DIR`");
        request.out.ok_or(TrainError::Usage(message))
    };
    let (written, damage) = match request.format {
        MetricsFormat::Tensorboard => {
            let dir = directory("tensorboard")?;
            fs::create_dir_all(dir).map_err(TrainError::write(dir))?;
            refuse_written_run(&run, dir)?;
            let config = run.config_text.as_deref().unwrap_or_default();
            let written = write_events(dir, config, &log)?;
            (WrittenMetrics::Path(written.path), written.damage)
        }
        MetricsFormat::Mlflow => {
            let (dir, rows) = (directory("mlflow")?, Rows::read(&log)?);
            (WrittenMetrics::Path(mlflow::write(dir, &run, &rows)?), rows.damage)
        }
        MetricsFormat::Csv => table(&log, tables::csv, request.out)?,
        MetricsFormat::Jsonl => table(&log, tables::jsonl, request.out)?,
    };
    if damage.lines > 0 {
        let (lines, log) = (counted(damage.lines, "line"), log.display());
        observer.on(Event::Warning(format!("{lines} of `{log}` cannot be read and are left out")));
    }
    Ok(written)
}

fn table(log: &Path, text: fn(&Rows) -> String, out: Option<&Path>) -> Result<(WrittenMetrics, Damage), TrainError> {
    let rows = Rows::read(log)?;
    let text = text(&rows);
    let written = match out {
        Some(path) => {
            let staged = StagedFile::new(path)?;
            staged.file().write_all(text.as_bytes()).map_err(TrainError::write(path))?;
            staged.commit()?;
            WrittenMetrics::Path(path.to_owned())
        }
        None => WrittenMetrics::Text(text),
    };
    Ok((written, rows.damage))
}

/// Refuses the directory of a run that writes an event file itself, since it would be replaced.
fn refuse_written_run(run: &RunFiles, dir: &Path) -> Result<(), TrainError> {
    let is_same = dir.canonicalize().ok() == run.dir.canonicalize().ok();
    if is_same && run.config.as_ref().is_ok_and(|config| config.run.tensorboard) {
        return Err(TrainError::Usage(format!(
            "`{}` has an event file already, which the run writes (`run.tensorboard`); name another directory",
            dir.display()
        )));
    }
    Ok(())
}
