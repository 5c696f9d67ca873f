//! `dualenc classify`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use dualenc_data::{parse_template, read_templates};
use dualenc_train::{Classification, ClassifyRequest, Compute, Inputs, TrainError, counted, parse_labels};
use serde_json::{Value, json};

use crate::args::{DimArgs, ModelArgs};
use crate::commands::apply::search::on_one_line;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::report::results;
use crate::signals::Signals;

/// Images or texts per forward pass.
const BATCH_SIZE: usize = 64;

/// Label images by the texts they are most similar to, with probabilities
///
/// The probabilities of an image are the softmax over all labels of exp(logit_scale) times the cosine similarity, as
/// transformers computes from `logits_per_image`. A model with a `logit_bias` (SigLIP) also gives the sigmoid of each
/// label by itself.
///
/// Labels are texts as they are, as in `eval --task zero-shot`. With templates, the embeddings of all prompts of a
/// label are averaged; the pipeline `zero-shot-image-classification` of transformers uses "This is a photo of {c}.".
///
/// Images that cannot be used are named, and make the exit code 2.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc classify --model runs/first --labels \"a cat,a dog,a bird\" photo.jpg
  dualenc classify --model runs/first --labels labels.txt --template \"This is a photo of {c}.\" photos --json -")]
pub struct ClassifyArgs {
    /// Images, folders of images with their subfolders, or data as `embed --images` takes it
    #[arg(value_name = "IMAGE", required = true, value_hint = ValueHint::AnyPath)]
    pub images: Vec<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub dim: DimArgs,
    /// The labels, with commas between them; or a file with one label a line, a JSON list of labels, or a JSON
    /// object from the numbers 0, 1, 2, .. to labels
    #[arg(long, value_name = "LABELS", value_hint = ValueHint::FilePath)]
    pub labels: String,
    /// Put labels into this prompt template, at `{c}` (repeatable)
    #[arg(long = "template", value_name = "TEXT", value_parser = parse_template)]
    pub template: Vec<String>,
    /// Put labels into the prompt templates of this file, one per line or as a JSON list; `builtin:name`,
    /// `builtin:photo`, `builtin:photos` and `builtin:pictures` are sets of this program
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "template")]
    pub templates: Option<PathBuf>,
    /// Number of labels of an image, the most similar first; probabilities are over all labels
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
    /// Write the labels as JSON to this file; `-` prints JSON instead of the tables
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
    /// Maximum number of pixels of an image; larger ones are skipped [default: that of the model's run, or 178956970]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pixels: Option<u64>,
    /// Run on this device: cpu, ndarray, wgpu, vulkan, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
}

pub fn run(args: ClassifyArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let signals = Signals::end_at_once()?;
    let inputs = Inputs::new()
        .data("IMAGE", args.images.iter().map(PathBuf::as_path))
        .data("--labels", [Path::new(&args.labels)])
        .data("--templates", args.templates.as_deref())
        .models("--model", [args.model.model.as_path()]);
    results::check(args.json.as_deref(), &inputs)?;
    let labels = parse_labels(&args.labels)?;
    let templates = match &args.templates {
        Some(path) => read_templates(path).map_err(TrainError::from)?,
        None => args.template,
    };
    let compute = Compute::select(&args.device, None)?;
    let mut model = args.dim.cut(args.model.load(&compute, reporter)?, reporter)?;
    if let Some(pixels) = args.max_pixels {
        model.limit_pixels(pixels);
    }
    let request = ClassifyRequest {
        images: &args.images,
        labels: &labels,
        templates: &templates,
        top: args.top as usize,
        batch_size: BATCH_SIZE,
    };
    let found = dualenc_train::classify(&model, &request, &compute, signals.begin_work(), reporter)?;
    reporter.finish();
    results::write(args.json.as_deref(), || to_json(&found), |out| print(out, &found))?;
    Ok(if found.skipped.is_empty() { Ending::Done } else { Ending::Problems })
}

fn to_json(found: &Classification) -> Value {
    let skipped: Vec<Value> =
        found.skipped.iter().map(|bad| json!({ "image": bad.key, "reason": bad.reason })).collect();
    json!({ "images": found.images, "skipped": skipped, "left_out": found.left_out.count() })
}

/// Prints a table for each image, and what has none.
fn print(out: &mut impl Write, found: &Classification) -> io::Result<()> {
    for (number, image) in found.images.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}", on_one_line(&image.image))?;
        let has_sigmoid = image.labels.iter().any(|label| label.sigmoid.is_some());
        let sigmoid = if has_sigmoid { format!("  {:>7}", "sigmoid") } else { String::new() };
        writeln!(out, "  {:>7}{sigmoid}  {:>7}  label", "softmax", "score")?;
        for label in &image.labels {
            let sigmoid = label.sigmoid.map_or_else(String::new, |sigmoid| format!("  {sigmoid:>7.4}"));
            writeln!(out, "  {:>7.4}{sigmoid}  {:>7.4}  {}", label.softmax, label.score, on_one_line(&label.label))?;
        }
    }
    let skipped = match found.skipped.len() {
        0 => None,
        1 => Some("1 image was skipped".to_owned()),
        count => Some(format!("{} were skipped", counted(count, "image"))),
    };
    let notes: Vec<String> = skipped.into_iter().chain(found.left_out.describe()).collect();
    if !notes.is_empty() {
        writeln!(out, "\n{}", notes.join("; "))?;
    }
    Ok(())
}
