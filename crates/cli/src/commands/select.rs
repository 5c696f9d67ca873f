//! `dualenc select`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use dualenc_data::{DataError, read_templates};
use dualenc_train::{
    ClassQuota, ClusterCap, Compute, Inputs, LeftOutBy, SelectRequest, Selected, TrainError, counted,
    parse_class_names, select,
};

use crate::args::{ConfigArgs, parse_count, parse_fraction};
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::report::results;
use crate::signals::Signals;

/// Images or texts per forward pass.
const BATCH_SIZE: usize = 64;

/// Classes that the table shows.
const SHOWN_CLASSES: usize = 10;

/// Choose which training images are worth training on
///
/// Writes a list of images for the key `only` of `[data.train]`. Nothing is copied, and the data stay as they are.
///
/// Stages run in this order, those that are asked for: images that an evaluation has, too, are left out; then images
/// that look like one of an evaluation, or like another training image (`--near`); then those with poor captions
/// (`--keep`, `--min-score`); then all but the best of each class (`--per-class`); then all but some of each cluster
/// (`--clusters`). An image is taken with all its captions.
///
/// Images are compared by the features of the config's image tower, which are cached as in training. Scores come from
/// an aligned model, `--model`: the cosine of an image and its best caption. A selection by scores takes over the
/// preferences of that model.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc select --config lit.toml --near 0.95 --out rows.txt
  dualenc select --config lit.toml --model clip/ --keep 0.5 --out rows.txt
  dualenc select --config lit.toml --clusters 1000 --cap 50 --out rows.txt
  dualenc select --config lit.toml --model clip/ --classnames classes.txt --per-class 2000 --out rows.txt")]
pub struct SelectArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Write the list to this file, which must not exist; with several sources, a list for each, such as `rows-1.txt`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Leave out images that look like one of an evaluation or like another: the cosine of their centred features is at
    /// least this. The time grows with the square of the number of images
    #[arg(long, value_name = "COSINE", value_parser = parse_cosine)]
    pub near: Option<f64>,
    /// Keep images that an evaluation has, too
    #[arg(long)]
    pub keep_overlap: bool,
    /// Score images by this aligned model: a run, a checkpoint, or a whole model such as CLIP or SigLIP
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub model: Option<PathBuf>,
    /// Keep this fraction of the images, those with the best scores
    #[arg(long, value_name = "FRACTION", value_parser = parse_share, requires = "model", allow_negative_numbers = true)]
    pub keep: Option<f64>,
    /// Keep images with at least this score
    #[arg(long, value_name = "COSINE", value_parser = parse_cosine, requires = "model", allow_hyphen_values = true)]
    pub min_score: Option<f64>,
    /// Keep this many images of each class of --classnames; rare classes choose first
    #[arg(long, value_name = "N", requires_all = ["model", "classnames"], value_parser = parse_count)]
    pub per_class: Option<usize>,
    /// Classes: a file with a name per line, or names separated by commas
    #[arg(long, value_name = "NAMES", requires = "per_class", value_hint = ValueHint::FilePath)]
    pub classnames: Option<String>,
    /// File of prompt templates for the classes, one per line, with `{c}` in place of the name
    #[arg(long, value_name = "FILE", requires = "per_class", value_hint = ValueHint::FilePath)]
    pub templates: Option<PathBuf>,
    /// Group the images into this many clusters
    #[arg(long, value_name = "N", requires = "cap", value_parser = parse_count)]
    pub clusters: Option<usize>,
    /// Keep at most this many images of each cluster: the best by score, or drawn ones
    #[arg(long, value_name = "N", requires = "clusters", value_parser = parse_count)]
    pub cap: Option<usize>,
    /// Also take the images of this list of an earlier selection
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub union: Option<PathBuf>,
    /// Write the counts as JSON to this file; `-` prints JSON instead of the summary
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
}

fn parse_cosine(text: &str) -> Result<f64, String> {
    let cosine = text.parse().ok().filter(|cosine| (-1.0..=1.0).contains(cosine));
    cosine.ok_or_else(|| "expected a cosine from -1 to 1".to_owned())
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = parse_fraction(text).ok().filter(|&share| share > 0.0);
    share.ok_or_else(|| "expected a fraction above 0, at most 1".to_owned())
}

pub fn run(args: SelectArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let signals = Signals::end_at_once()?;
    let config = args.config.load()?;
    let inputs = Inputs::new()
        .config(&args.config.config, &config)
        .data("--classnames", args.classnames.as_deref().map(Path::new))
        .data("--templates", args.templates.as_deref())
        .data("--union", args.union.as_deref())
        .models("--model", args.model.as_deref());
    inputs.keep([("--out", Some(args.out.as_path())), ("--json", args.json.as_deref())])?;
    results::check(args.json.as_deref(), &inputs)?;
    let compute = Compute::select(config.run.device.first(), config.run.threads)?.computing_as(&config.run)?;
    let classes = match (&args.classnames, args.per_class) {
        (Some(names), Some(per_class)) => {
            let templates = args.templates.as_deref().map(read_templates).transpose();
            let templates = templates.map_err(DataError::of_key("--templates")).map_err(TrainError::from)?;
            Some(ClassQuota { names: parse_class_names(names)?, templates: templates.unwrap_or_default(), per_class })
        }
        _ => None,
    };
    let request = SelectRequest {
        out: args.out,
        keep_overlap: args.keep_overlap,
        near: args.near,
        model: args.model.as_deref(),
        min_score: args.min_score,
        keep: args.keep,
        classes,
        clusters: args.clusters.zip(args.cap).map(|(clusters, cap)| ClusterCap { clusters, cap }),
        union: args.union.as_deref(),
        batch_size: BATCH_SIZE,
    };
    let found = select(&request, &config, &compute, signals.begin_work(), reporter)?;
    reporter.finish();
    let value = serde_json::to_value(&found)?;
    results::write(args.json.as_deref(), || value, |out| print(out, &found, &args.config.config))?;
    Ok(Ending::Done)
}

fn print(out: &mut impl Write, found: &Selected, config: &Path) -> io::Result<()> {
    writeln!(out, "{} of {} are selected", found.selected, counted(found.images, "training image"))?;
    if found.unreadable > 0 {
        writeln!(out, "  {:>8} cannot be used", found.unreadable)?;
    }
    for left_out @ LeftOutBy { images, such_as, .. } in &found.left_out {
        let such_as = if such_as.is_empty() { String::new() } else { format!(", such as {}", such_as.join(", ")) };
        writeln!(out, "  {images:>8} left out: {}{such_as}", left_out.reason())?;
    }
    if found.added > 0 {
        writeln!(out, "  {:>8} taken again: the earlier list has them", found.added)?;
    }
    if let Some(scores) = &found.scores {
        let [p5, p25, p50, p75, p95] = scores.percentiles;
        write!(out, "scores: mean {:.3}; 5 % are below {p5:.3}, 25 % {p25:.3}, 50 % {p50:.3}", scores.mean)?;
        write!(out, ", 75 % {p75:.3}, 95 % {p95:.3}")?;
        match scores.threshold {
            Some(threshold) => writeln!(out, "; the lowest that is taken is {threshold:.3}")?,
            None => writeln!(out)?,
        }
    }
    if !found.classes.is_empty() {
        writeln!(out, "classes with the fewest images:")?;
        let mut classes: Vec<_> = found.classes.iter().collect();
        classes.sort_by_key(|class| class.supply);
        for class in classes.iter().take(SHOWN_CLASSES) {
            writeln!(out, "  {:>8} taken, {} resemble it most: {}", class.images, class.supply, class.name)?;
        }
    }
    if let (Some(largest), Some(smallest)) = (found.cluster_sizes.first(), found.cluster_sizes.last()) {
        let count = counted(found.cluster_sizes.len(), "cluster");
        let sizes = match smallest == largest {
            true => format!("{} each", counted(*largest, "image")),
            false => format!("{smallest} to {largest} images"),
        };
        writeln!(out, "{count} of {sizes} before the limit")?;
    }
    if found.held_out > 0 {
        let held_out = counted(found.held_out, "held-out image");
        writeln!(out, "{held_out} of `data.validation_fraction` are in the lists, and stay held out")?;
    }
    for list in &found.lists {
        match &list.path {
            Some(path) => writeln!(
                out,
                "\nwrote {} with {}; in {}:\n[{}]\nonly = {:?}",
                path.display(),
                counted(list.images, "image"),
                config.display(),
                list.source,
                path_for(config, path)
            )?,
            None => writeln!(out, "\nno image of `{}` is selected: remove it from the config", list.source)?,
        }
    }
    Ok(())
}

/// How a config refers to a file: relative to its folder, where that is short.
fn path_for(config: &Path, path: &Path) -> PathBuf {
    let folder = |path: &Path| {
        path.parent().map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it }.canonicalize())
    };
    match (folder(config), folder(path), path.file_name()) {
        (Some(Ok(config)), Some(Ok(list)), Some(name)) => {
            list.strip_prefix(&config).map_or_else(|_| list.join(name), |below| below.join(name))
        }
        _ => path.to_owned(),
    }
}
