//! `dualenc search`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use dualenc_train::{Answer, Compute, Event, Hit, Index, Inputs, Observer, Part, Query, SearchRequest, TrainError};
use serde_json::json;

use crate::args::{DimArgs, ModelArgs};
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::report::results;
use crate::signals::Signals;

/// Images or texts per forward pass.
const BATCH_SIZE: usize = 64;

/// Find the images or texts that are most similar to a query
///
/// Compares each query with every row of the index, and prints the nearest rows with their cosine similarity. The
/// search is exact; equal scores are in order of rows. The model must be the one that wrote the embeddings, with the
/// same `--dim`.
#[derive(Debug, Args)]
#[command(
    override_usage = "dualenc search [OPTIONS] --index <FILE> --model <DIR> [TEXT]... [--image <FILE>]...",
    after_help = "\
Examples:
  dualenc embed --model runs/first --images photos --out photos.safetensors
  dualenc search --model runs/first --index photos.safetensors \"a dog on the beach\"
  dualenc search --model runs/first --index photos.safetensors --image dog.jpg --top 20 --json -
  dualenc search --model runs/first --index photos.safetensors \"a dog on the beach\" --html found.html"
)]
pub struct SearchArgs {
    /// Search for these texts; each is a query
    #[arg(value_name = "TEXT", required_unless_present = "images", value_parser = parse_text)]
    pub texts: Vec<String>,
    /// Search for what is like this image (repeatable)
    #[arg(long = "image", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub images: Vec<PathBuf>,
    /// Search in this file: an index of `index`, a safetensors file of `embed`, or a numpy array [rows, dim]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub index: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub dim: DimArgs,
    /// Number of hits of a query
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
    /// Which embeddings of the file [default: those of images if there are any, else those of texts]
    #[arg(long, value_enum)]
    pub among: Option<Among>,
    /// Write the hits as JSON to this file; `-` prints JSON instead of the tables
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
    /// Write the hits as an HTML page of thumbnails to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub html: Option<PathBuf>,
    /// Run on this device: cpu, ndarray, wgpu, vulkan, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
}

/// Reads a text that is not blank, which no text is similar to.
fn parse_text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is blank; give a text, or `--image FILE`".to_owned());
    }
    Ok(text.to_owned())
}

/// Which embeddings of a file are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Among {
    /// Those of images
    Images,
    /// Those of texts
    Texts,
}

impl Among {
    pub fn part(among: Option<Self>) -> Part {
        match among {
            None => Part::Any,
            Some(Self::Images) => Part::Images,
            Some(Self::Texts) => Part::Texts,
        }
    }
}

pub fn run(args: SearchArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let signals = Signals::end_at_once()?;
    let inputs = Inputs::new()
        .data("--index", [args.index.as_path()])
        .data("--image", args.images.iter().map(PathBuf::as_path))
        .models("--model", [args.model.model.as_path()]);
    results::check(args.json.as_deref(), &inputs)?;
    inputs.keep([("--json", args.json.as_deref()), ("--html", args.html.as_deref())])?;
    // Before the model, which takes longer to load.
    let index = Index::open(&args.index, Among::part(args.among)).map_err(TrainError::from)?;
    if !index.has_names() {
        let path = args.index.display();
        reporter.on(Event::Note(format!("`{path}` does not name its rows; hits have the number of the row, from 0")));
    }
    let compute = Compute::select(&args.device, None)?;
    let model = args.dim.cut(args.model.load(&compute, reporter)?, reporter)?;
    let texts = args.texts.into_iter().map(Query::Text);
    let queries: Vec<Query> = texts.chain(args.images.into_iter().map(Query::Image)).collect();
    let request = SearchRequest { queries: &queries, top: args.top as usize, batch_size: BATCH_SIZE };
    let answers = dualenc_train::search(&model, &index, &request, &compute, signals.begin_work(), reporter)?;
    if let Some(out) = &args.html {
        let facts = [
            ("index", args.index.display().to_string()),
            ("model", args.model.model.display().to_string()),
            ("hits of a query", format!("up to {}", args.top)),
        ];
        let page = dualenc_train::write_results(&answers, &facts, model.processor.limits(), out, reporter)?;
        // Stdout may be JSON.
        reporter.on(Event::Note(format!("wrote {}", page.path.display())));
    }
    reporter.finish();
    results::write(args.json.as_deref(), || json!(answers), |out| print(out, &answers))?;
    Ok(Ending::Done)
}

/// Prints a table for each query.
fn print(out: &mut impl Write, answers: &[Answer]) -> io::Result<()> {
    for (number, answer) in answers.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        match &answer.query {
            Query::Text(text) => writeln!(out, "{}", on_one_line(text))?,
            Query::Image(path) => writeln!(out, "{}", path.display())?,
        }
        let what = match answer.hits.first() {
            Some(Hit { path: Some(_), .. }) => "path",
            Some(Hit { text: Some(_), .. }) => "text",
            _ => "row",
        };
        writeln!(out, "{:>6}  {:>7}  {what}", "rank", "score")?;
        for hit in &answer.hits {
            let name = hit.path.as_ref().or(hit.text.as_ref());
            let name = name.map_or_else(|| hit.row.to_string(), |name| on_one_line(name));
            writeln!(out, "{:>6}  {:>7.4}  {name}", hit.rank, hit.score)?;
        }
    }
    Ok(())
}

/// `text` without characters that move the cursor or change the terminal.
pub fn on_one_line(text: &str) -> String {
    let shown = |letter: char| match letter {
        letter if letter.is_control() => letter.escape_default().to_string(),
        letter => letter.to_string(),
    };
    text.chars().map(shown).collect()
}
