//! `dualenc check`.

use std::io::Write;

use clap::Args;
use dualenc_train::TrainError;

use crate::args::ConfigArgs;
use crate::exit::Ending;
use crate::report::progress::Reporter;

/// Validate a config, its towers and its data without training
///
/// Prints what training would use, every problem in the config, and the first unusable file.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dualenc check --config lit.toml")]
pub struct CheckArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
}

pub fn run(args: CheckArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
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
