//! `dualenc eval`.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, ValueEnum, ValueHint};
use dualenc_data::Skipped;
use dualenc_train::config::{EvalData, EvalSection, RunConfig, Task};
use dualenc_train::{
    Compute, CutTexts, Details, Encoder, EvalRecord, Evaluation, Event, Inputs, LoadedModel, LockedFingerprints,
    LockedTowers, Objective, Observer, StopFlag, TrainError, feature_cache_of, fit_to_run,
};

use serde_json::{Map, Value, json};

use crate::args::{DimArgs, load_model, parse_fraction};
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::report::{details, metrics, results};
use crate::signals::Signals;

const WITH_CONFIG: &str = "With --config";
const WITH_MODEL: &str = "With --model";

/// Images or texts per forward pass if no config says otherwise.
const BATCH_SIZE: usize = 64;

/// Evaluate a model: zero-shot, k-NN, linear probe, retrieval, loss
///
/// Runs every `[eval.NAME]` of a config (`--config`), or of the config of a run (`--model` alone), or one task on one
/// model (`--model` and `--task`).
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("subject").required(true).multiple(true).args(["config", "model"]), after_help = "\
Examples:
  dualenc eval --config lit.toml
  dualenc eval --model runs/first
  dualenc eval --model runs/first --task zero-shot --images photos --json -
  dualenc eval --model runs/first --task linear-probe --train-images photos/train --images photos/val
  dualenc eval --model runs/first --task retrieval --data pairs.csv
  dualenc eval --model runs/first --task loss --data lists/val.csv --root photos")]
pub struct EvalArgs {
    /// Run every `[eval.NAME]` of this config, on the newest checkpoint in its `run.dir`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Override a config key (repeatable); an empty value removes the key
    ///
    /// Example: --set run.dir=runs/other
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = WITH_CONFIG)]
    pub overrides: Vec<String>,
    /// Evaluate this checkpoint, run or whole model instead of the newest checkpoint in `run.dir`
    #[arg(
        long,
        value_name = "DIR",
        value_hint = ValueHint::DirPath,
        help_heading = WITH_CONFIG
    )]
    pub checkpoint: Option<PathBuf>,
    /// Load the model from this directory
    ///
    /// A run directory (its newest checkpoint), a single checkpoint, or a whole model in Hugging Face format
    /// (VisionTextDualEncoder, CLIP, SigLIP) or open_clip format. Without `--task`, a run or a checkpoint is evaluated
    /// by every `[eval.NAME]` of its own config.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub model: Option<PathBuf>,
    /// Use the best checkpoint of a run, by its `checkpoint.best`, instead of the newest
    #[arg(long)]
    pub best: bool,
    #[command(flatten, next_help_heading = WITH_MODEL)]
    pub dim: DimArgs,
    /// What to measure
    #[arg(long, value_enum, help_heading = WITH_MODEL)]
    pub task: Option<EvalTask>,
    /// Zero-shot, knn, linear-probe: folder with one folder of images per class
    #[arg(
        long,
        value_name = "FOLDER",
        value_hint = ValueHint::DirPath,
        conflicts_with = "data",
        help_heading = WITH_MODEL
    )]
    pub images: Option<PathBuf>,
    /// Zero-shot, knn, linear-probe: file of class names, one per line, in the sorted order of the folders or of the
    /// numbers that are labels [default: folder names; for --data, `classnames.txt` beside the data, or the labels]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = WITH_MODEL)]
    pub classnames: Option<PathBuf>,
    /// Zero-shot: file of prompt templates, one per line or as a JSON list, with `{c}` in place of the class name;
    /// `builtin:name`, `builtin:photo`, `builtin:photos` and `builtin:pictures` are sets of this program
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = WITH_MODEL)]
    pub templates: Option<PathBuf>,
    /// Images and captions (zero-shot, knn, linear-probe: images and classes): a table, JSON, parquet, tar shards or a
    /// folder
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        help_heading = WITH_MODEL
    )]
    pub data: Option<PathBuf>,
    /// Knn, linear-probe: folder with one folder of images per class, to learn from [default: half of the images of
    /// each class of --images or --data, and the others are tested]
    #[arg(
        long,
        value_name = "FOLDER",
        value_hint = ValueHint::DirPath,
        conflicts_with = "train_data",
        help_heading = WITH_MODEL
    )]
    pub train_images: Option<PathBuf>,
    /// Knn, linear-probe: images and classes to learn from, in the forms of --data, instead of --train-images
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = WITH_MODEL)]
    pub train_data: Option<PathBuf>,
    /// Knn: number of nearest images that vote [default: 20]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = WITH_MODEL
    )]
    pub neighbors: Option<u32>,
    /// Folder at which the relative image paths in --data and --train-data start [default: the folder of that file]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, help_heading = WITH_MODEL)]
    pub root: Option<PathBuf>,
    /// Loss: number of pairs that are contrasted with each other, at least 2 [default: 256]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(2..),
        help_heading = WITH_MODEL
    )]
    pub pool_size: Option<u32>,
    /// Largest fraction of the images that may be unreadable, from 0 to 1; above it, the evaluation fails [default:
    /// 0.01]
    #[arg(long, value_name = "FRACTION", value_parser = parse_fraction, help_heading = WITH_MODEL)]
    pub max_bad_fraction: Option<f64>,
    /// Maximum number of pixels of an image; larger ones are unreadable [default: that of the model's run, or
    /// 178956970]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = WITH_MODEL)]
    pub max_pixels: Option<u64>,
    /// Zero-shot: print the result of every class and the most confused classes, too; `--json` has all of them
    #[arg(long)]
    pub details: bool,
    /// Write the metrics, and the images that cannot be used, as JSON to this file; `-` prints JSON instead of the
    /// table
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
    /// Run on this device: cpu, ndarray, wgpu, vulkan, cuda or cuda:N [default: `run.device`, or cpu]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EvalTask {
    /// Classify images by the similarity to texts that name the classes
    ZeroShot,
    /// Classify images by the nearest of other labelled images, by features of the image tower
    Knn,
    /// Classify images by a linear classifier of features of the image tower, fitted to other labelled images
    LinearProbe,
    /// Find texts by image and images by text
    Retrieval,
    /// Contrastive loss of image-text pairs
    Loss,
}

pub fn run(args: EvalArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let signals = Signals::end_at_once()?;
    refuse_unused(&args)?;
    results::check(args.json.as_deref(), &inputs_of(&args))?;
    reporter.list_skipped(match args.json.as_deref() {
        None => "`--json FILE` lists all".to_owned(),
        Some(path) if path == Path::new("-") => "the JSON lists all".to_owned(),
        Some(path) => format!("`{}` lists all", path.display()),
    });
    let device = args.device.as_deref();
    let records = match (&args.config, &args.model, args.task) {
        (Some(path), _, _) => {
            let config = RunConfig::load(path, &args.overrides)?;
            results::check(args.json.as_deref(), &Inputs::new().config(path, &config))?;
            let evaluations = open_evaluations(&config)?;
            let compute = Compute::select(device.unwrap_or(config.run.device.first()), config.run.threads)?;
            let dir = args.checkpoint.as_deref().unwrap_or(&config.run.dir);
            let mut model = load_model(dir, args.best, &compute, reporter)?;
            match model.config {
                Some(_) => model.limit_pixels(config.data.max_pixels),
                // A model without a run gets its images as this config says.
                None => model.set_decoding(&config.data),
            }
            let evaluations = fit_to_run(evaluations, &config, &model, dir, reporter)?;
            evaluate(&evaluations, &model, Some(&config), &compute, signals.begin_work(), reporter)?
        }
        (None, Some(dir), Some(task)) => {
            let section = EvalSection {
                task: match task {
                    EvalTask::ZeroShot => Task::ZeroShot,
                    EvalTask::Knn => Task::Knn,
                    EvalTask::LinearProbe => Task::LinearProbe,
                    EvalTask::Retrieval => Task::Retrieval,
                    EvalTask::Loss => Task::Loss,
                },
                images: args.images,
                image_features: None,
                labels: None,
                class_features: None,
                class_of: None,
                classnames: args.classnames,
                templates: args.templates,
                data: args.data.map(EvalData::Path),
                train_images: args.train_images,
                train_data: args.train_data.map(EvalData::Path),
                neighbors: args.neighbors.map(|count| count as usize),
                pool_size: args.pool_size.map(|size| size as usize),
                every_epochs: None,
                every_steps: None,
                at_start: false,
                batch_size: BATCH_SIZE,
            };
            let evaluation = Evaluation::from_flags(&section, args.root.as_deref())?;
            let evaluation = match args.max_bad_fraction {
                Some(fraction) => evaluation.with_max_bad_fraction(fraction),
                None => evaluation,
            };
            let compute = Compute::select(device.unwrap_or("cpu"), None)?;
            let mut model = args.dim.cut(load_model(dir, args.best, &compute, reporter)?, reporter)?;
            if let Some(pixels) = args.max_pixels {
                model.limit_pixels(pixels);
            }
            let objective = model.config.as_ref().map(Objective::from).unwrap_or_default();
            let evaluation = evaluation.with_objective(objective);
            evaluate(&[evaluation], &model, model.config.as_ref(), &compute, signals.begin_work(), reporter)?
        }
        (None, Some(dir), None) => {
            let config = config_of_run(dir)?;
            results::check(args.json.as_deref(), &Inputs::new().run("--model", dir))?;
            let evaluations = open_evaluations(&config)?.into_iter().map(|evaluation| match args.max_bad_fraction {
                Some(fraction) => evaluation.with_max_bad_fraction(fraction),
                None => evaluation,
            });
            let evaluations: Vec<Evaluation> = evaluations.collect();
            let compute = Compute::select(device.unwrap_or(config.run.device.first()), config.run.threads)?;
            let mut model = args.dim.cut(load_model(dir, args.best, &compute, reporter)?, reporter)?;
            model.limit_pixels(args.max_pixels.unwrap_or(config.data.max_pixels));
            evaluate(&evaluations, &model, Some(&config), &compute, signals.begin_work(), reporter)?
        }
        // clap requires one of the two.
        (None, None, _) => Vec::new(),
    };
    for (record, _) in records.iter().filter(|(_, found)| args.details && !matches!(found, Details::Classes(_))) {
        let EvalRecord { name, task, .. } = record;
        reporter.on(Event::Note(format!(
            "evaluation `{name}`: `--details` has nothing on the task {task}; it shows the classes of zero-shot \
             evaluations"
        )));
    }
    reporter.finish();
    let to_json = |record: &EvalRecord, found: &Details| {
        let metrics =
            with_skipped(metrics::to_json(record), reporter.skipped_of(&format!("evaluation `{}`", record.name)));
        if args.details { with_details(metrics, found) } else { metrics }
    };
    results::write(
        args.json.as_deref(),
        || match (args.task, records.as_slice()) {
            (Some(_), [(record, found)]) => {
                with_model(to_json(record, found), record.step, args.model.as_deref(), args.dim)
            }
            _ => {
                let evaluation =
                    |(record, found): &(EvalRecord, Details)| (record.name.clone(), to_json(record, found));
                let step = records.first().map(|(record, _)| record.step);
                let all = json!({"step": step, "evaluations": records.iter().map(evaluation).collect::<Map<_, _>>()});
                match step {
                    Some(step) => with_model(all, step, args.model.as_deref(), args.dim),
                    None => all,
                }
            }
        },
        |out| {
            records.iter().try_for_each(|(record, found)| {
                metrics::print_of_width(out, record, args.dim.dim)?;
                if args.details { details::print(out, found) } else { Ok(()) }
            })
        },
    )?;
    Ok(Ending::Done)
}

/// The metrics of an evaluation with the model, its step, which is 0 for a model without a run, and `dim` if embeddings
/// are cut.
fn with_model(mut value: Value, step: u64, model: Option<&Path>, dim: DimArgs) -> Value {
    if let (Some(object), Some(model)) = (value.as_object_mut(), model) {
        object.insert("model".to_owned(), json!(model.display().to_string()));
        object.insert("step".to_owned(), json!(step));
        object.extend(dim.dim.map(|dim| ("dim".to_owned(), json!(dim))));
    }
    value
}

/// The metrics of an evaluation with the images that cannot be used, if there are any, in the form of `classify`.
fn with_skipped(mut value: Value, skipped: &[Skipped]) -> Value {
    if let (Some(object), false) = (value.as_object_mut(), skipped.is_empty()) {
        let skipped = skipped.iter().map(|bad| json!({ "image": bad.key, "reason": bad.reason }));
        object.insert("skipped".to_owned(), skipped.collect());
    }
    value
}

/// The metrics of an evaluation with the results of its classes.
fn with_details(mut value: Value, found: &Details) -> Value {
    if let (Some(object), Some(Value::Object(details))) = (value.as_object_mut(), details::to_json(found)) {
        object.extend(details);
    }
    value
}

/// What the options name.
fn inputs_of(args: &EvalArgs) -> Inputs {
    Inputs::new()
        .data("--config", args.config.as_deref())
        .data("--images", args.images.as_deref())
        .data("--data", args.data.as_deref())
        .data("--train-images", args.train_images.as_deref())
        .data("--train-data", args.train_data.as_deref())
        .data("--classnames", args.classnames.as_deref())
        .data("--templates", args.templates.as_deref())
        .models("--model", args.model.as_deref())
        .models("--checkpoint", args.checkpoint.as_deref())
}

/// Refuses options that the task, or an evaluation by config, does not read.
fn refuse_unused(args: &EvalArgs) -> Result<(), TrainError> {
    use EvalTask::{Knn, LinearProbe, Loss, Retrieval, ZeroShot};
    let all = EvalTask::value_variants();
    let labelled: &[EvalTask] = &[ZeroShot, Knn, LinearProbe];
    let probes: &[EvalTask] = &[Knn, LinearProbe];
    if args.config.is_some() && args.model.is_none() && args.task.is_some() {
        return Err(TrainError::Usage(
            "`--task` is an option of `--model DIR`, but `--config` is given, which has a task for each evaluation; \
             remove it"
                .to_owned(),
        ));
    }
    let options: [(&str, bool, &[EvalTask]); 12] = [
        ("--dim", args.dim.dim.is_some(), all),
        ("--max-pixels", args.max_pixels.is_some(), all),
        ("--max-bad-fraction", args.max_bad_fraction.is_some(), all),
        ("--images", args.images.is_some(), labelled),
        ("--classnames", args.classnames.is_some(), labelled),
        ("--templates", args.templates.is_some(), &[ZeroShot]),
        ("--data", args.data.is_some(), all),
        ("--root", args.root.is_some(), all),
        ("--train-images", args.train_images.is_some(), probes),
        ("--train-data", args.train_data.is_some(), probes),
        ("--neighbors", args.neighbors.is_some(), &[Knn]),
        ("--pool-size", args.pool_size.is_some(), &[Loss]),
    ];
    if args.config.is_some() && args.model.is_some() {
        return Err(TrainError::Usage(
            "`--config` and `--model` each name a model and its evaluations: for the evaluations of a config on \
             another model, use `--config FILE --checkpoint DIR`; for those of a run's own config, `--model RUN`"
                .to_owned(),
        ));
    }
    let needs_config = [("--set", !args.overrides.is_empty()), ("--checkpoint", args.checkpoint.is_some())];
    if let Some((name, _)) = needs_config.iter().find(|(_, given)| *given && args.config.is_none()) {
        return Err(TrainError::Usage(format!("`{name}` changes a config; use it with `--config FILE`, or remove it")));
    }
    if args.data.is_none()
        && let Some(task @ (Retrieval | Loss)) = args.task
    {
        let name = task.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let instead = if args.images.is_some() { " instead of `--images`" } else { "" };
        return Err(TrainError::Usage(format!(
            "`--task {name}` needs images and captions: give `--data FILE`{instead}"
        )));
    }
    // What every task takes, the evaluations of a run take too, but for the data.
    let is_of_run = |name: &str| {
        args.model.is_some() && args.task.is_none() && ["--dim", "--max-pixels", "--max-bad-fraction"].contains(&name)
    };
    let is_used =
        |name: &str, tasks: &[EvalTask]| is_of_run(name) || args.task.is_some_and(|task| tasks.contains(&task));
    let Some((name, _, tasks)) = options.iter().find(|(name, given, tasks)| *given && !is_used(name, tasks)) else {
        return Ok(());
    };
    if args.config.is_some() {
        let instead = match *name {
            "--dim" => "; for figures of narrower embeddings, train with `train.matryoshka`",
            _ => "; a config has a key for it in `[eval.NAME]` or `[data]`",
        };
        return Err(TrainError::Usage(format!(
            "`{name}` is an option of `--model DIR`, but `--config` is given; remove it{instead}"
        )));
    }
    let names = tasks.iter().filter_map(ValueEnum::to_possible_value).map(|task| format!("`{}`", task.get_name()));
    let names = names.collect::<Vec<_>>().join(" or ");
    if args.task.is_none() {
        return Err(TrainError::Usage(format!(
            "`{name}` is an option of one task, and without `--task` the evaluations of the run's own config run; add \
             `--task` {names}, or remove `{name}`"
        )));
    }
    Err(TrainError::Usage(format!("`{name}` is an option of `--model DIR` with `--task` {names}; remove it")))
}

/// The config of a run or a checkpoint, with its evaluations.
fn config_of_run(dir: &Path) -> anyhow::Result<RunConfig> {
    let path = dir.join("config.toml");
    if !dir.exists() {
        let dir = dir.display();
        return Err(
            TrainError::Usage(format!("`{dir}` does not exist; expected a run directory or a checkpoint")).into()
        );
    }
    if !path.is_file() {
        return Err(TrainError::Usage(format!(
            "`--model {}` is no run or checkpoint, which would have evaluations in its `config.toml`; say what to \
             measure with `--task`, such as `--task retrieval --data pairs.csv`",
            dir.display()
        ))
        .into());
    }
    let config = RunConfig::load(&path, &[])?;
    if config.eval.is_empty() {
        return Err(TrainError::Usage(format!(
            "the config of the run, `{}`, has no `[eval.NAME]` section; say what to measure with `--task`, such as \
             `--task retrieval --data pairs.csv`, or name a config that has one with `--config FILE --checkpoint {}`",
            path.display(),
            dir.display()
        ))
        .into());
    }
    Ok(config)
}

/// Opens every `[eval.NAME]` of a config, of which there must be one.
pub fn open_evaluations(config: &RunConfig) -> anyhow::Result<Vec<Evaluation>> {
    if config.eval.is_empty() {
        return Err(TrainError::Usage(
            "the config has no `[eval.NAME]` section; add one, or use `--model DIR --task ...`".to_owned(),
        )
        .into());
    }
    Ok(Evaluation::open_alone(config)?)
}

/// Runs evaluations, with features from the cache of `config` if there is one. Features are stored by tower, so the
/// cache serves any model.
fn evaluate(
    evaluations: &[Evaluation],
    loaded: &LoadedModel,
    config: Option<&RunConfig>,
    compute: &Compute,
    stop: &StopFlag,
    reporter: &mut Reporter,
) -> anyhow::Result<Vec<(EvalRecord, Details)>> {
    let model = loaded.model.valid();
    let workers = compute.threads;
    let locked = LockedTowers::new(&model, &loaded.processor, compute, workers, stop);
    // The cache is not created here: a run may be evaluated where nothing can be written.
    let cache = config.and_then(|config| Some((config.ever_trains(), feature_cache_of(config)?)));
    let locked = match cache.filter(|(_, (dir, _))| dir.is_dir()) {
        Some((training, cache)) => {
            let restricted = locked.clone().restricted_to(&training);
            match restricted.with_cache(Some(cache), &LockedFingerprints::of(&model)?) {
                Err(error @ TrainError::Write { .. }) => {
                    reporter.on(Event::Warning(format!("the feature cache is not used: {error}")));
                    locked
                }
                cached => cached?,
            }
        }
        None => locked,
    };
    let mut records = Vec::new();
    for evaluation in evaluations {
        let encoder = Encoder {
            model: &model,
            tokenizer: &loaded.tokenizer,
            locked: &locked,
            compute,
            workers,
            stop,
            batch_size: evaluation.batch_size,
            others: None,
            cut: CutTexts::default(),
        };
        let step = loaded.step.unwrap_or(0);
        records.push(evaluation.record_in_detail(step, &encoder, &loaded.processor, reporter)?);
    }
    Ok(records)
}
