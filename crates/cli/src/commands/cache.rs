//! `dualenc cache`.

use std::io::Write;

use clap::Args;
use dualenc_train::{Event, Observer, TrainError};

use crate::args::ConfigArgs;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::signals::{BeginWork, Signals};

/// Compute and cache the features of the locked towers before training
///
/// Covers the training data and all evaluations, and skips features that are cached already. If interrupted, run the
/// command again to continue.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dualenc cache --config lit.toml")]
pub struct CacheArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
}

pub fn run(args: CacheArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let config = args.config.load()?;
    let signals = Signals::end_at_once()?;
    let mut observer = BeginWork { signals: &signals, observer: reporter };
    let filled = match dualenc_train::warm_cache(&config, signals.flag(), &mut observer) {
        Err(TrainError::Stopped { signal }) => {
            reporter.finish();
            reporter.on(Event::Note("stopped by a signal; the features computed so far are saved".to_owned()));
            return Ok(Ending::Stopped(signal));
        }
        filled => filled?,
    };
    reporter.finish();
    let mut out = std::io::stdout().lock();
    for tower in &filled {
        let (what, total, computed, kept) = (tower.what, tower.total, tower.counts.computed, tower.counts.kept);
        let repeats = if tower.repeats > 0 { format!(", {} repeated", tower.repeats) } else { String::new() };
        let bad = if tower.bad > 0 { format!(", {} cannot be used", tower.bad) } else { String::new() };
        let (bytes, path) = (tower.bytes, tower.path.display());
        writeln!(
            out,
            "{total} {what}: {computed} computed, {kept} already there{repeats}{bad}; {bytes} bytes in {path}"
        )?;
    }
    Ok(Ending::Done)
}
