//! `dualenc check`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use dualenc_train::config::ConfigError;
use dualenc_train::{CONFIG_PROBLEM, CheckOptions, Finding, Inputs, Level, TrainError, counted};

use crate::args::ConfigArgs;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::report::results;
use crate::signals::Signals;

/// Validate a config, its towers and its data without training
///
/// Decodes every image, and prints what training would use, warnings, and every problem: of the config, the data, the
/// towers and the evaluations. A problem of the config hides no other: what can be read is checked. At most three
/// examples of a kind are printed; --json has all. Copies of images, odd captions, and images that training and
/// evaluation share are warnings. Exits with 2 if there is a problem: something that would stop a run or spoil its
/// result.
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
    /// Write all findings to this file as JSON, with every example: bad images, copies, odd captions (`-`: to stdout)
    #[arg(long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
}

pub fn run(args: CheckArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    // It writes nothing but the findings, at its end.
    let _signals = Signals::end_at_once()?;
    let draft = args.config.load_draft()?;
    results::check(args.json.as_deref(), &Inputs::new().config(&args.config.config, &draft.config))?;
    let (found, done) = dualenc_train::check(&draft, CheckOptions { fast: args.fast }, reporter);
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
                match warnings.len() {
                    0 => writeln!(out, "no problems found")?,
                    count => writeln!(out, "no errors, {}", counted(count, "warning"))?,
                }
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
    if !draft.problems.is_empty() {
        // The problems of the config are shown with their lines, before the others.
        let is_other = |finding: &&Finding| finding.level == Level::Problem && finding.code != CONFIG_PROBLEM;
        let others: Vec<String> = found.all.iter().filter(is_other).map(Finding::text).collect();
        let error = anyhow::Error::from(ConfigError::Invalid { path: args.config.config, problems: draft.problems });
        return Err(if others.is_empty() { error } else { error.context(TrainError::Usage(others.join("\n"))) });
    }
    if !problems.is_empty() {
        return Err(TrainError::Usage(problems.join("\n")).into());
    }
    if args.strict && !warnings.is_empty() {
        let what = counted(warnings.len(), "warning");
        return Err(TrainError::Usage(format!("{what}, see above (`--strict` was given)")).into());
    }
    Ok(Ending::Done)
}
