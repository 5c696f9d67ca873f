//! `dualenc check`.

use std::io::Write;

use clap::Args;
use dualenc_train::TrainError;

use crate::args::ConfigArgs;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::signals::Signals;

/// Validate a config, its towers and its data without training
///
/// Prints what training would use, and every problem: of the config, the data, the towers and the evaluations.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dualenc check --config lit.toml")]
pub struct CheckArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
}

pub fn run(args: CheckArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    // It writes nothing.
    let _signals = Signals::end_at_once()?;
    let config = args.config.load()?;
    let found = dualenc_train::check(&config, reporter)?;
    reporter.finish();
    let mut out = std::io::stdout().lock();
    for line in &found.facts {
        writeln!(out, "{line}")?;
    }
    if found.problems.is_empty() {
        writeln!(out, "no problems found")?;
        return Ok(Ending::Done);
    }
    Err(TrainError::Usage(found.problems.join("\n")).into())
}
