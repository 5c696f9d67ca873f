//! `dualenc plan`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use dualenc_train::Inputs;

use crate::args::ConfigArgs;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::report::{plan_text, results};
use crate::signals::Signals;

/// Predict time, memory and disk space of a run from a few of its steps
///
/// Makes a few real steps on the real data, in about a minute, and prints where their time goes, how long an epoch and
/// the run will take, what memory they need, the size of the feature cache, and which key to change first. Writes
/// nothing to `run.dir` or the feature cache.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc plan --config lit.toml
  dualenc plan --config lit.toml --set train.batch_size=512 --json plan.json")]
pub struct PlanArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Measure this number of steps, fewer if they take longer than a minute
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// Write the plan as JSON to this file; `-` prints JSON instead of the table
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
}

pub fn run(args: PlanArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let config = args.config.load()?;
    results::check(args.json.as_deref(), &Inputs::new().config(&args.config.config, &config))?;
    let signals = Signals::end_at_once()?;
    // From the start, so that a signal does not leave its temporary directory behind.
    let plan = dualenc_train::make_plan(&config, args.steps, signals.begin_work(), reporter)?;
    reporter.finish();
    let value = serde_json::to_value(&plan)?;
    results::write(args.json.as_deref(), || value, |out| plan_text::print(out, &plan))?;
    Ok(Ending::Done)
}
