//! `dualenc init`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use dualenc_train::{InitColumns, InitReport, InitRequest};

use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::signals::Signals;

/// Look at data, and write a commented config that trains on them
///
/// In a folder, the first of these is taken: tables of images and captions (those named `train` first), tar shards, one
/// folder per class, the folder `train`, images with captions beside them or in their names. The model is evaluated on
/// a split named `validation`, `val` or `dev`: a file, folder or set of shards, or rows with this value in a column
/// `split`. Without one, a share of the images is held out. A test split is named, and not used.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc init photos
  dualenc init captions.csv --out lit.toml
  dualenc init products.parquet --image photo --caption title
  dualenc init 'shards/{000..127}.tar' --image-tower facebook/dinov2-base")]
pub struct InitArgs {
    /// A file, a folder, or a pattern of shards
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
    /// Write the config to this file, which must not exist
    #[arg(long, value_name = "FILE", default_value = "lit.toml", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Column of the table, or key of its objects, with the images [default: `image`, or another usual name]
    #[arg(long, value_name = "COLUMN")]
    pub image: Option<String>,
    /// Column of the table, or key of its objects, with the captions [default: `caption`, or another usual name]
    #[arg(long, value_name = "COLUMN")]
    pub caption: Option<String>,
    /// Image tower: a hub id or a directory [default: facebook/dinov2-small]
    #[arg(long, value_name = "TOWER")]
    pub image_tower: Option<String>,
    /// Text tower: a hub id or a directory [default: sentence-transformers/all-MiniLM-L6-v2]
    #[arg(long, value_name = "TOWER")]
    pub text_tower: Option<String>,
    /// Directory of the run [default: a new one, runs/NAME beside the config]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub run_dir: Option<PathBuf>,
}

pub fn run(args: InitArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    // The config appears at the end, as a whole.
    let _signals = Signals::end_at_once()?;
    let InitArgs { path, out, image, caption, image_tower, text_tower, run_dir } = args;
    let request =
        InitRequest { data: path, columns: InitColumns { image, caption }, out, image_tower, text_tower, run_dir };
    let InitReport { lines, pairs, has_few_pairs } = dualenc_train::init(&request)?;
    reporter.finish();
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{line}")?;
    }
    let config = request.out.display();
    writeln!(stdout, "wrote {config}")?;
    let next = if has_few_pairs { "fit" } else { "train" };
    writeln!(stdout, "next: dualenc check --config {config}, then dualenc {next} --config {config}")?;
    if has_few_pairs {
        // The default heads have one layer: the figure is that of several.
        writeln!(
            stdout,
            "  With few pairs ({pairs} here), a fit alone made the better model, with the commented lines below \
             `lock`.\n  To train as well: dualenc train --config {config} --set run.dir=runs/trained"
        )?;
    }
    Ok(Ending::Done)
}
