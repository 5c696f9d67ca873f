//! `dualenc export`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use dualenc_train::{Compute, ExportFormat, ExportRequest};

use crate::args::{DimArgs, ModelArgs};
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::signals::Signals;

/// Export a model for other libraries
///
/// Writes a directory that the library of `--format` loads, with a model card (`README.md`).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc export --model runs/first --best --out hf
  dualenc export --model runs/first --format sentence-transformers --out st")]
pub struct ExportArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub dim: DimArgs,
    /// Write to this directory, which must be new or empty
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// Library that loads the directory
    #[arg(long, value_name = "FORMAT", default_value = "transformers")]
    pub format: Format,
}

/// A library that loads exported models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `VisionTextDualEncoderModel.from_pretrained` and `VisionTextDualEncoderProcessor.from_pretrained`
    Transformers,
    /// `SentenceTransformer`, for texts and images
    SentenceTransformers,
    /// The heads alone, for programs that have features of images and texts
    Heads,
}

pub fn run(args: ExportArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let signals = Signals::end_at_once()?;
    let compute = Compute::select("cpu", None)?;
    let model = args.dim.cut(args.model.load(&compute, reporter)?, reporter)?;
    let (format, kind) = match args.format {
        Format::Transformers => (ExportFormat::Transformers, "VisionTextDualEncoder"),
        Format::SentenceTransformers => (ExportFormat::SentenceTransformers, "SentenceTransformer"),
        Format::Heads => (ExportFormat::Heads, "pair of heads"),
    };
    let request = ExportRequest { format, origin: Some(&args.model.model), ..ExportRequest::new(&args.out) };
    dualenc_train::export(&model, &request, signals.begin_work(), reporter)?;
    reporter.finish();
    let mut out = std::io::stdout().lock();
    writeln!(out, "wrote a {kind} to {}", args.out.display())?;
    Ok(Ending::Done)
}
