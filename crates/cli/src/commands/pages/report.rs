//! `dualenc report`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use dualenc_train::{Inputs, ReportRequest};

use crate::commands::pages::written;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::signals::Signals;

/// Write a report on a run as an HTML page
///
/// Works while the run trains, after it was killed, and when it has finished; the run is only read. The page shows the
/// figures against those before training, curves, and, from the newest checkpoint, classes, retrieval examples,
/// embeddings, and the worst and best training pairs. It is one file that makes no request to the network.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc report runs/first
  dualenc report runs/first --no-model --out first.html")]
pub struct ReportArgs {
    /// Report on the run in this directory: `run.dir` of its config
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub run: PathBuf,
    /// Write the page to this file [default: report.html in RUN]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// Use the best checkpoint, by `checkpoint.best`, instead of the newest
    #[arg(long, conflicts_with = "no_model")]
    pub best: bool,
    /// Load no model: leave out classes, examples, embeddings and training pairs
    #[arg(long)]
    pub no_model: bool,
    /// Run on this device: cpu, ndarray, wgpu, vulkan, cuda or cuda:N [default: `run.device`]
    #[arg(long, value_name = "DEVICE", conflicts_with = "no_model")]
    pub device: Option<String>,
}

pub fn run(args: ReportArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let signals = Signals::end_at_once()?;
    Inputs::new().run("RUN", &args.run).keep([("--out", args.out.as_deref())])?;
    let request = ReportRequest {
        run: &args.run,
        out: args.out.as_deref(),
        with_model: !args.no_model,
        best: args.best,
        device: args.device.as_deref(),
    };
    let page = dualenc_train::report(&request, signals.begin_work(), reporter)?;
    reporter.finish();
    written::print(&mut std::io::stdout().lock(), &page)?;
    Ok(Ending::Done)
}
