//! `dualenc metrics`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use dualenc_train::{Inputs, MetricsFormat, MetricsRequest, WrittenMetrics};

use crate::exit::Ending;
use crate::report::progress::Reporter;

/// Write the metrics of a run for other programs
///
/// Works while the run trains, after it was killed, and when it has finished; the run is only read. To follow a run in
/// TensorBoard while it trains, set `run.tensorboard = true` in its config.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc metrics runs/first > first.csv
  dualenc metrics runs/first --format mlflow --out mlruns")]
pub struct MetricsArgs {
    /// Write the metrics of the run in this directory: `run.dir` of its config
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub run: PathBuf,
    /// Format of the metrics
    #[arg(long, value_name = "FORMAT", default_value = "csv")]
    pub format: Format,
    /// Write to this file, for mlflow and tensorboard to this directory [default: stdout]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub out: Option<PathBuf>,
}

/// A format for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table with one row per step
    Csv,
    /// The same table, one JSON object per row
    Jsonl,
    /// A directory in the layout of MLflow's file store; several runs may share it
    Mlflow,
    /// A TensorBoard event file in a directory, in place of an earlier one, which is emptied
    Tensorboard,
}

pub fn run(args: MetricsArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let format = match args.format {
        Format::Csv => MetricsFormat::Csv,
        Format::Jsonl => MetricsFormat::Jsonl,
        Format::Mlflow => MetricsFormat::Mlflow,
        Format::Tensorboard => MetricsFormat::Tensorboard,
    };
    Inputs::new().models("RUN", [args.run.as_path()]).keep([("--out", args.out.as_deref())])?;
    let request = MetricsRequest { run: &args.run, format, out: args.out.as_deref() };
    let written = dualenc_train::write_metrics(&request, reporter)?;
    reporter.finish();
    let mut out = std::io::stdout().lock();
    match written {
        WrittenMetrics::Text(text) => out.write_all(text.as_bytes())?,
        WrittenMetrics::Path(path) => writeln!(out, "wrote {}", path.display())?,
    }
    Ok(Ending::Done)
}
