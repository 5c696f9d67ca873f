//! `dualenc train`.

use std::io::Write;

use clap::Args;
use dualenc_train::{ErrorKind, Event, Observer, Outcome, Processes, Start, TrainError, counted, join_thread_pool};

use crate::args::ConfigArgs;
use crate::exit::Ending;
use crate::report::metrics;
use crate::report::progress::Reporter;
use crate::signals::{BeginWork, Signals};

/// Train a dual encoder from a config
///
/// Writes checkpoints and `metrics.jsonl` to `run.dir`. At the end, prints the newest metrics of each evaluation.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc train --config lit.toml
  dualenc train --config lit.toml --set train.epochs=3 --set run.dir=runs/short
  dualenc train --config lit.toml --resume
  dualenc train --config lit.toml --resume --skip-steps 1
  mpirun -n 2 dualenc train --config lit.toml    (a build with the feature `mpi`)")]
pub struct TrainArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Resume from the newest valid checkpoint in `run.dir`; start a new run if there is none
    #[arg(long)]
    pub resume: bool,
    /// Pass over the next N steps without an update, such as one with a batch that makes the loss NaN [default: 0]
    #[arg(long, value_name = "N", requires = "resume", value_parser = clap::value_parser!(u64).range(1..))]
    pub skip_steps: Option<u64>,
}

pub fn run(args: TrainArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    // Until the first step, nothing is lost by ending at once.
    let mut signals = Signals::end_at_once()?;
    let processes = Processes::join()?;
    if processes.are_several() {
        signals.launched();
    }
    if !processes.is_first() {
        reporter.mute();
        signals.mute();
    }
    let config = args.config.load().inspect_err(|error| {
        let kind = error.downcast_ref().map_or(ErrorKind::Input, TrainError::kind);
        processes.fail(kind, error.as_ref());
    })?;
    if config.run.device.all().len() == 1 && !processes.are_several() {
        join_thread_pool(config.run.threads);
    }
    reporter.log_every_steps(config.run.log_every_steps);
    let start = if args.resume { Start::Resume { skip_steps: args.skip_steps.unwrap_or(0) } } else { Start::New };
    let outcome = match dualenc_train::train(
        &config,
        start,
        signals.flag(),
        &mut BeginWork { signals: &signals, observer: reporter },
    ) {
        Err(TrainError::Stopped { signal }) => {
            reporter.finish();
            reporter.on(Event::Note("stopped by a signal before the first step".to_owned()));
            return Ok(Ending::Stopped(signal));
        }
        outcome => outcome?,
    };
    reporter.finish();
    match outcome {
        Outcome::Finished { .. } if !processes.is_first() => Ok(Ending::Done),
        Outcome::Finished { step } => {
            let mut out = std::io::stdout().lock();
            for record in reporter.last_evals() {
                metrics::print(&mut out, record)?;
            }
            if let Some(best) = reporter.best() {
                writeln!(out, "best checkpoint: step {}, {} {:.4}", best.step, best.metric, best.value)?;
            }
            writeln!(out, "trained {}: {}", counted(step as usize, "step"), config.run.dir.display())?;
            Ok(Ending::Done)
        }
        Outcome::Stopped { step, signal } => {
            reporter.on(Event::Note(format!("stopped by a signal after step {step}; use `--resume` to continue")));
            Ok(Ending::Stopped(signal))
        }
        outcome => anyhow::bail!("training ended in a way that this command does not know: {outcome:?}"),
    }
}
