//! `dualenc embed`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use dualenc_train::{Compute, EmbedRequest, Inputs};

use crate::args::{DimArgs, ModelArgs, parse_fraction};
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::signals::Signals;

/// Images or texts per forward pass.
const BATCH_SIZE: usize = 64;

/// Write the embeddings of images and texts to a safetensors file
///
/// The file holds `image_embeds` [images, dim], in the order of the sorted paths or of the rows of a table, and
/// `text_embeds` [texts, dim], in the order of the lines; both are L2-normalised. The metadata entries `image_paths`
/// and `texts` are JSON lists, and so is `skipped_images`, the images that cannot be used with the reason of each.
///
/// An existing file is replaced when everything is computed. Images that cannot be used have no row; the first are
/// named on stderr too, and too many of them are an error (`--max-bad-fraction`).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc embed --model runs/first --images photos --texts captions.txt --out embeds.safetensors
  dualenc embed --model runs/first --images pairs.csv --out embeds.safetensors
  dualenc embed --model runs/first --dim 64 --images photos --out narrow.safetensors
  dualenc embed --model runs/first --images 'shards/{000..127}.tar' --out embeds.safetensors")]
pub struct EmbedArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub dim: DimArgs,
    /// Embed one image, all images below a folder, or the images of a table, of shards or of a pattern of shards, as
    /// `eval --data` takes them, each once. For a model without an image tower, a file of features
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub images: Option<PathBuf>,
    /// Folder at which the relative image paths in a table start [default: the folder of the table]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, requires = "images")]
    pub root: Option<PathBuf>,
    /// Embed the lines of this text file; line n becomes row n, so a blank line is an error. A `.json` file is a list
    /// of strings. For a model without a text tower, a file of features
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub texts: Option<PathBuf>,
    /// Write the embeddings to this safetensors file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Maximum fraction of the images that may be skipped because they cannot be used, from 0 to 1
    #[arg(long, value_name = "FRACTION", default_value_t = 0.01, value_parser = parse_fraction)]
    pub max_bad_fraction: f64,
    /// Maximum number of pixels of an image; larger ones are skipped [default: that of the model's run, or 178956970]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pixels: Option<u64>,
    /// Also write the projections before normalisation, as `image_features` and `text_features`
    #[arg(long)]
    pub raw: bool,
    /// Run on this device: cpu, ndarray, wgpu, vulkan, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
}

pub fn run(args: EmbedArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let signals = Signals::end_at_once()?;
    Inputs::new()
        .data("--images", args.images.as_deref())
        .data("--texts", args.texts.as_deref())
        .models("--model", [args.model.model.as_path()])
        .keep([("--out", Some(args.out.as_path()))])?;
    let compute = Compute::select(&args.device, None)?;
    let mut model = args.dim.cut(args.model.load(&compute, reporter)?, reporter)?;
    if let Some(pixels) = args.max_pixels {
        model.limit_pixels(pixels);
    }
    let request = EmbedRequest {
        images: args.images.as_deref(),
        root: args.root.as_deref(),
        texts: args.texts.as_deref(),
        raw: args.raw,
        batch_size: BATCH_SIZE,
        max_bad_fraction: args.max_bad_fraction,
    };
    let done = dualenc_train::embed(&model, &request, &args.out, &compute, signals.begin_work(), reporter)?;
    reporter.finish();
    let mut out = std::io::stdout().lock();
    let (images, texts, dim) = (done.num_images, done.num_texts, done.dim);
    let skipped = match done.skipped.len() {
        0 => String::new(),
        1 => "; 1 image was skipped (metadata entry `skipped_images`)".to_owned(),
        count => format!("; {count} images were skipped (metadata entry `skipped_images`)"),
    };
    let left_out = done.left_out.describe().map_or_else(String::new, |left_out| format!("; {left_out}"));
    let rows = match done.skipped_rows {
        0 => String::new(),
        1 => "; 1 row was left out".to_owned(),
        count => format!("; {count} rows were left out"),
    };
    let (path, left_out) = (args.out.display(), rows + &left_out);
    writeln!(out, "wrote {images} image and {texts} text embeddings of {dim} values to {path}{skipped}{left_out}")?;
    Ok(Ending::Done)
}
