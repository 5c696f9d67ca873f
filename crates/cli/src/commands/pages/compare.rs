//! `dualenc compare`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use dualenc_train::Inputs;

use crate::commands::pages::written;
use crate::exit::Ending;
use crate::report::progress::Reporter;

/// Compare runs on an HTML page
///
/// Shows the figures of all runs in one table with their intervals, the keys of their configs that differ, and their
/// curves overlaid. No model is loaded, and the runs are only read.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dualenc compare runs/first runs/second --out first-second.html")]
pub struct CompareArgs {
    /// Compare the runs in these directories, at least 2
    #[arg(value_name = "RUN", num_args = 2.., required = true, value_hint = ValueHint::DirPath)]
    pub runs: Vec<PathBuf>,
    /// Write the page to this file
    #[arg(long, value_name = "FILE", default_value = "compare.html", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
}

pub fn run(args: CompareArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let runs = args.runs.iter().map(PathBuf::as_path);
    Inputs::new().models("RUN", runs).keep([("--out", Some(args.out.as_path()))])?;
    let page = dualenc_train::compare(&args.runs, &args.out, reporter)?;
    reporter.finish();
    written::print(&mut std::io::stdout().lock(), &page)?;
    Ok(Ending::Done)
}
