//! `dualenc export`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use dualenc_train::Compute;

use crate::args::ModelArgs;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::signals::Signals;

/// Export a model for Hugging Face transformers
///
/// Writes a directory that VisionTextDualEncoderModel and VisionTextDualEncoderProcessor load with `from_pretrained`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dualenc export --model runs/first --best --out hf")]
pub struct ExportArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Write to this directory, which must be new or empty
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
}

pub fn run(args: ExportArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let signals = Signals::end_at_once()?;
    let compute = Compute::select("cpu", None)?;
    let model = args.model.load(&compute, reporter)?;
    dualenc_train::export(&model, &args.out, signals.begin_work(), reporter)?;
    reporter.finish();
    let mut out = std::io::stdout().lock();
    writeln!(out, "wrote a VisionTextDualEncoder to {}", args.out.display())?;
    Ok(Ending::Done)
}
