//! `dualenc check`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use dualenc_train::{CheckOptions, Level, TrainError};

use crate::args::ConfigArgs;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::report::results;
use crate::signals::Signals;

/// Validate a config, its towers and its data without training
///
/// Decodes every image, and prints what training would use, warnings, and every problem: of the config, the data, the
/// towers and the evaluations. Copies of images, odd captions, and images that training and evaluation share are
/// warnings. Exits with 2 if there is a problem: something that would stop a run or spoil its result.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc check --config lit.toml
  dualenc check --config lit.toml --json findings.json")]
pub struct CheckArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Read only the start of each image: its format and its size
    ///
    /// Damaged images and copies are not found then.
    #[arg(long)]
    pub fast: bool,
    /// Exit with 2 for warnings too
    #[arg(long)]
    pub strict: bool,
    /// Write all findings to this file as JSON, every bad image included (`-`: to stdout)
    #[arg(long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
}

pub fn run(args: CheckArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    // It writes nothing but the findings, at its end.
    let _signals = Signals::end_at_once()?;
    let config = args.config.load()?;
    let (found, done) = dualenc_train::check(&config, CheckOptions { fast: args.fast }, reporter);
    reporter.finish();
    let problems = found.texts(Level::Problem);
    let warnings = found.texts(Level::Warning);
    results::write(
        args.json.as_deref(),
        || found.to_json(),
        |out| {
            for line in found.texts(Level::Fact) {
                writeln!(out, "{line}")?;
            }
            for line in &warnings {
                writeln!(out, "warning: {line}")?;
            }
            if problems.is_empty() && done.is_ok() {
                writeln!(out, "no problems found")?;
            }
            Ok(())
        },
    )?;
    if let Err(error) = done {
        let error = anyhow::Error::from(error);
        return Err(match problems.is_empty() {
            true => error.context("the check could not be finished"),
            false => {
                error.context(format!("the check could not be finished; it found before:\n{}", problems.join("\n")))
            }
        });
    }
    if !problems.is_empty() {
        return Err(TrainError::Usage(problems.join("\n")).into());
    }
    if args.strict && !warnings.is_empty() {
        let count = warnings.len();
        let what = if count == 1 { "1 warning" } else { &format!("{count} warnings") };
        return Err(TrainError::Usage(format!("{what}, see above (`--strict` was given)")).into());
    }
    Ok(Ending::Done)
}
