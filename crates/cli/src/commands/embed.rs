//! `dualenc embed`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use dualenc_train::{Compute, EmbedRequest};

use crate::args::ModelArgs;
use crate::exit::Ending;
use crate::report::progress::Reporter;

/// Images or texts per forward pass.
const BATCH_SIZE: usize = 64;

/// Write the embeddings of images and texts to a safetensors file
///
/// The file holds `image_embeds` [images, dim], in the order of the sorted paths, and `text_embeds` [texts, dim],
/// in the order of the lines; both are L2-normalised. The metadata entry `image_paths` is a JSON list of paths.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dualenc embed --model runs/first --images photos --texts captions.txt --out embeds.safetensors")]
pub struct EmbedArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Embed one image, or all images below a folder
    #[arg(long, value_name = "FOLDER|FILE", value_hint = ValueHint::AnyPath)]
    pub images: Option<PathBuf>,
    /// Embed the lines of this text file; blank lines are skipped
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub texts: Option<PathBuf>,
    /// Write the embeddings to this safetensors file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Also write the projections before normalisation, as `image_features` and `text_features`
    #[arg(long)]
    pub raw: bool,
    /// Run on this device: cpu, ndarray, wgpu, vulkan, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
}

pub fn run(args: EmbedArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let compute = Compute::select(&args.device, None)?;
    let model = args.model.load(&compute, reporter)?;
    let request = EmbedRequest {
        images: args.images.as_deref(),
        texts: args.texts.as_deref(),
        raw: args.raw,
        batch_size: BATCH_SIZE,
    };
    let done = dualenc_train::embed(&model, &request, &args.out, &compute, reporter)?;
    reporter.finish();
    let mut out = std::io::stdout().lock();
    let (images, texts, dim) = (done.num_images, done.num_texts, done.dim);
    writeln!(out, "wrote {images} image and {texts} text embeddings of {dim} values to {}", args.out.display())?;
    Ok(Ending::Done)
}
