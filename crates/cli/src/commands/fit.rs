//! `dualenc fit`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use dualenc_train::config::RunConfig;
use dualenc_train::{Event, FitReport, HeldOutReport, Inputs, Observer, TrainError, counted};

use crate::args::ConfigArgs;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::report::{metrics, results};
use crate::signals::{BeginWork, Signals};

/// Align two towers in closed form, in seconds and without training
///
/// Fits the two heads to the features of all training pairs by canonical correlation analysis, sets `logit_scale`, and
/// runs every evaluation. Towers stay as they are, whatever `model.lock` says. Features are read from the cache, or
/// computed and cached.
///
/// The ridge and the weight of the directions (`[fit]`) are chosen by recall on images that are held out; the heads are
/// then fitted to all pairs. `logit_scale` is the one with the lowest loss on held-out pairs, which have known captions
/// as often as new images will.
///
/// `run.dir` becomes a run at step 0, for every command that takes a run: `dualenc train --resume` with the same config
/// trains on from there, as with `model.head_init = "cca"`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc fit --config lit.toml --set run.dir=runs/fit
  dualenc train --config lit.toml --set run.dir=runs/fit --resume
  dualenc fit --config lit.toml --set run.dir=runs/ridge --method ridge --json fit.json")]
pub struct FitArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How to fit [default: `model.head_init`, or cca]
    #[arg(long, value_name = "METHOD", value_enum)]
    pub method: Option<MethodArg>,
    /// Write what was chosen, and the figures behind it, as JSON to this file; `-` prints JSON instead of the table
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodArg {
    /// Canonical correlation analysis
    Cca,
    /// Ridge regression from text features to image features
    Ridge,
}

/// Largest logarithm of a scale that counts as 0, the lowest of the search, which ends closer to it.
const LOWEST: f64 = 1e-3;

/// Directions of which the table has the correlation.
const SHOWN: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

pub fn run(mut args: FitArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let method = args.method.map(|method| match method {
        MethodArg::Cca => "cca",
        MethodArg::Ridge => "ridge",
    });
    args.config.overrides.extend(method.map(|method| format!("model.head_init={method}")));
    let config = args.config.load_for_fit()?;
    results::check(args.json.as_deref(), &Inputs::new().config(&args.config.config, &config))?;
    let signals = Signals::end_at_once()?;
    let mut observer = BeginWork { signals: &signals, observer: reporter };
    let found = match dualenc_train::fit(&config, signals.flag(), &mut observer) {
        Err(TrainError::Stopped { signal }) => {
            reporter.finish();
            reporter.on(Event::Note("stopped by a signal; features computed so far are cached".to_owned()));
            return Ok(Ending::Stopped(signal));
        }
        found => found?,
    };
    reporter.finish();
    let value = serde_json::to_value(&found)?;
    let evals: Vec<_> = reporter.last_evals().cloned().collect();
    results::write(
        args.json.as_deref(),
        || value,
        |out| {
            print(out, &found)?;
            for record in &evals {
                metrics::print(out, record)?;
            }
            print_end(out, &found, &config)
        },
    )?;
    Ok(Ending::Done)
}

fn print(out: &mut impl Write, found: &FitReport) -> io::Result<()> {
    if let Some(held_out) = &found.held_out {
        print_choice(out, held_out, found.method == "cca")?;
    }
    let (name, strengths) = found.strengths();
    let shown: Vec<usize> = SHOWN.into_iter().filter(|&at| at < found.directions).chain([found.directions]).collect();
    let (mut numbers, mut values) = (format!("{:<12}", "direction"), format!("{name:<12}"));
    for at in shown {
        numbers += &format!("{at:>8}");
        values += &format!("{:>8.3}", strengths[at - 1]);
    }
    writeln!(out, "{numbers}\n{values}")
}

/// The recall of each candidate, ridges by powers.
fn print_choice(out: &mut impl Write, held_out: &HeldOutReport, has_powers: bool) -> io::Result<()> {
    let mut powers: Vec<f64> = held_out.candidates.iter().map(|candidate| candidate.power).collect();
    let mut ridges: Vec<f64> = held_out.candidates.iter().map(|candidate| candidate.ridge).collect();
    for values in [&mut powers, &mut ridges] {
        values.sort_by(f64::total_cmp);
        values.dedup();
    }
    writeln!(
        out,
        "mean recall at 1, 5 and 10, both ways, of {} that were held out:",
        counted(held_out.images, "image")
    )?;
    let title = if has_powers { "ridge, power" } else { "ridge" };
    let header: String = powers.iter().filter(|_| has_powers).map(|power| format!("{power:>9}")).collect();
    writeln!(out, "{title:<12}{header}")?;
    for ridge in ridges {
        let mut line = format!("{ridge:<12}");
        for power in &powers {
            let is_here = |at: &usize| {
                let candidate = held_out.candidates[*at];
                candidate.ridge == ridge && candidate.power == *power
            };
            if let Some(at) = (0..held_out.candidates.len()).find(is_here) {
                let mark = if at == held_out.chosen { "*" } else { " " };
                line += &format!("{:>8.4}{mark}", held_out.candidates[at].mean_recall());
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    let best = held_out.best();
    let recall = |recalls: [f64; 3]| recalls.map(|recall| format!("{recall:.4}")).join(" ");
    writeln!(out, "text to image at 1, 5, 10: {}", recall(best.image_retrieval_recall))?;
    writeln!(out, "image to text at 1, 5, 10: {}", recall(best.text_retrieval_recall))
}

fn print_end(out: &mut impl Write, found: &FitReport, config: &RunConfig) -> io::Result<()> {
    let (scale, factor) = (found.logit_scale, found.logit_scale.exp());
    let bias = found.logit_bias.map_or_else(String::new, |bias| format!("; logit_bias {bias:.2}"));
    let images = match found.scale_images {
        0 => String::new(),
        images => format!(", by the loss on {} that were held out", counted(images, "image")),
    };
    writeln!(out, "logit_scale {scale:.4}, a factor of {factor:.1} on cosines{bias}{images}")?;
    if scale < LOWEST && found.scale_images > 0 {
        let why = "the heads hardly tell the pairs apart that were held out; fit on more pairs, or check that captions \
                   and images belong together";
        writeln!(out, "this is the lowest scale: {why}")?;
    }
    let seconds: Vec<String> = found.seconds.iter().map(|(part, seconds)| format!("{part} {seconds:.1} s")).collect();
    writeln!(out, "{}", seconds.join(", "))?;
    writeln!(out, "fitted to {}: {}", counted(found.pairs, "pair"), config.run.dir.display())
}
