//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Align a pretrained image tower with a pretrained text tower by contrastive training (LiT), then classify and retrieve
/// without labels.
#[derive(Debug, Parser)]
#[command(name = "dualenc", version, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// How to tell what happens on stderr.
    #[arg(long, global = true, value_enum, default_value_t = Log::Auto)]
    pub log: Log,
}

/// The form of what is told on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// A progress bar on a terminal, plain lines elsewhere.
    Auto,
    /// Plain lines.
    Plain,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a dual encoder as a config says.
    Train(TrainArguments),
    /// Measure zero-shot classification and retrieval.
    Eval(EvalArguments),
    /// Write embeddings of images and texts as safetensors.
    Embed(EmbedArguments),
    /// Mix a trained model with where it started (WiSE-FT): figures at each share, or the mixed model.
    Interpolate(InterpolateArguments),
    /// Write a model as a directory that transformers loads.
    Export(ExportArguments),
    /// Compute the features of the locked towers ahead of training, and keep them.
    Cache(ConfigArguments),
    /// Validate config, towers and data without training.
    Check(ConfigArguments),
    /// Tell what a directory holds: towers, whole models, runs and checkpoints.
    Inspect(InspectArguments),
}

#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// The config, a TOML file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Lay a value over the config, such as `train.epochs=3`; may be given again. An empty value takes the key out.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// cpu, ndarray, wgpu, vulkan, cuda or cuda:N; overrides the config.
    #[arg(long, value_name = "DEV")]
    pub device: Option<String>,
}

#[derive(Debug, Args)]
pub struct TrainArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Go on from the newest valid checkpoint of `run.dir`, or start if there is none.
    #[arg(long)]
    pub resume: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["config", "model"]))]
pub struct EvalArguments {
    /// Run every `[eval.*]` of this config on the run's newest checkpoint.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Lay a value over the config, such as `run.dir=runs/other`; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    pub overrides: Vec<String>,
    /// With `--config`: another checkpoint, run, or whole model (VisionTextDualEncoder, CLIP, SigLIP, open_clip).
    #[arg(long, value_name = "DIR", requires = "config")]
    pub checkpoint: Option<PathBuf>,
    /// A run directory, a checkpoint, or a whole model (VisionTextDualEncoder, CLIP, SigLIP, open_clip).
    #[arg(long, value_name = "DIR", requires = "task")]
    pub model: Option<PathBuf>,
    /// Of a run directory: the best checkpoint by its `checkpoint.best`, instead of the newest.
    #[arg(long)]
    pub best: bool,
    /// What to measure.
    #[arg(long, value_enum, requires = "model")]
    pub task: Option<EvalTask>,
    /// Zero-shot: a folder that holds one folder of images a class.
    #[arg(long, value_name = "FOLDER", required_if_eq("task", "zero-shot"))]
    pub images: Option<PathBuf>,
    /// Zero-shot: one class name a line, in the sorted order of the folders.
    #[arg(long, value_name = "FILE")]
    pub classnames: Option<PathBuf>,
    /// Zero-shot: one prompt template a line, `{c}` standing for the class name.
    #[arg(long, value_name = "FILE")]
    pub templates: Option<PathBuf>,
    /// Retrieval and loss: a csv, tsv or jsonl of image and caption.
    #[arg(long, value_name = "FILE", required_if_eq_any([("task", "retrieval"), ("task", "loss")]))]
    pub data: Option<PathBuf>,
    /// Loss: pairs in a pool.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub pool_size: Option<u32>,
    /// Write the figures as JSON; `-`: to stdout.
    #[arg(long, value_name = "OUT")]
    pub json: Option<PathBuf>,
    /// cpu, ndarray, wgpu, vulkan, cuda or cuda:N.
    #[arg(long, value_name = "DEV")]
    pub device: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EvalTask {
    ZeroShot,
    Retrieval,
    Loss,
}

#[derive(Debug, Args)]
pub struct EmbedArguments {
    /// A run directory, a checkpoint, or a whole model (VisionTextDualEncoder, CLIP, SigLIP, open_clip).
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Of a run directory: the best checkpoint by its `checkpoint.best`, instead of the newest.
    #[arg(long)]
    pub best: bool,
    /// A folder of images (its subfolders too) or one image.
    #[arg(long, value_name = "FOLDER_OR_FILE")]
    pub images: Option<PathBuf>,
    /// One text a line.
    #[arg(long, value_name = "FILE")]
    pub texts: Option<PathBuf>,
    /// Where to write.
    #[arg(long, value_name = "OUT.safetensors")]
    pub out: PathBuf,
    /// Also write the un-normalised projections.
    #[arg(long)]
    pub raw: bool,
    /// cpu, ndarray, wgpu, vulkan, cuda or cuda:N.
    #[arg(long, value_name = "DEV", default_value = "cpu")]
    pub device: String,
}

#[derive(Debug, Args)]
pub struct ExportArguments {
    /// A run directory, a checkpoint, or a whole model (VisionTextDualEncoder, CLIP, SigLIP, open_clip).
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Of a run directory: the best checkpoint by its `checkpoint.best`, instead of the newest.
    #[arg(long)]
    pub best: bool,
    /// The directory to write; new or empty.
    #[arg(long, value_name = "HFDIR")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct InterpolateArguments {
    /// A run directory, a checkpoint, or a whole model (VisionTextDualEncoder, CLIP, SigLIP, open_clip).
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Of a run directory: the best checkpoint by its `checkpoint.best`, instead of the newest.
    #[arg(long)]
    pub best: bool,
    /// The other end: a run, a checkpoint or a whole model of the same form. Default: where the run started.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Shares of the trained weights, each from 0 (the base) to 1 (the model), such as `0,0.25,0.5,0.75,1`.
    #[arg(long, value_name = "A[,A..]", value_delimiter = ',', required = true, value_parser = share)]
    pub alpha: Vec<f64>,
    /// Run the `[eval.*]` of this config. Default: those of the model's run.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    pub config: Option<PathBuf>,
    /// Lay a value over the config; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    pub overrides: Vec<String>,
    /// Write all figures as JSON; `-`: to stdout.
    #[arg(long, value_name = "OUT", conflicts_with = "out")]
    pub json: Option<PathBuf>,
    /// Measure nothing, and write the model at the one `--alpha` as a directory that transformers loads; new or empty.
    #[arg(long, value_name = "HFDIR")]
    pub out: Option<PathBuf>,
    /// cpu, ndarray, wgpu, vulkan, cuda or cuda:N.
    #[arg(long, value_name = "DEV")]
    pub device: Option<String>,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.trim().parse().map_err(|_| "expected a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("expected a number from 0 to 1".to_owned()) }
}

#[derive(Debug, Args)]
pub struct InspectArguments {
    /// An image tower, a text tower, a VisionTextDualEncoder or CLIP, a run directory or a checkpoint.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Write what was found as JSON; `-`: to stdout.
    #[arg(long, value_name = "OUT")]
    pub json: Option<PathBuf>,
}
