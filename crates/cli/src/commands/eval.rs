//! One function a command. Results go to stdout, everything else to the [`Reporter`].

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dualenc_train::config::{EvalSection, RunConfig, Task};
use dualenc_train::{
    Assembly, Compute, EmbedRequest, Encoder, EvalRecord, Evaluation, Event, LockedFingerprints, LockedTowers,
    Objective, Observer, Outcome, StopFlag, TrainError, cache_of,
};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::{
    ConfigArguments, EmbedArguments, EvalArguments, EvalTask, ExportArguments, InspectArguments, TrainArguments,
};
use crate::progress::Reporter;
use crate::{figures, inspection};

/// The signal that stopped a command, if one did.
pub type Stopped = Option<u8>;

/// Texts and images of one pass when no config says otherwise.
const BATCH_SIZE: usize = 64;

fn load_config(arguments: &ConfigArguments) -> anyhow::Result<RunConfig> {
    let mut overrides = arguments.overrides.clone();
    overrides.extend(arguments.device.iter().map(|device| format!("run.device={device}")));
    Ok(RunConfig::load(&arguments.config, &overrides)?)
}

pub fn train(arguments: TrainArguments, reporter: &mut Reporter) -> anyhow::Result<Stopped> {
    let config = load_config(&arguments.config)?;
    reporter.log_every_steps(config.run.log_every_steps);
    let stop = catch_signals()?;
    let outcome = match dualenc_train::train(&config, arguments.resume, &stop, reporter) {
        Err(TrainError::Stopped { signal }) => Outcome::Stopped { step: 0, signal },
        outcome => outcome?,
    };
    reporter.finish();
    match outcome {
        Outcome::Finished { step } => {
            let mut out = std::io::stdout().lock();
            for record in reporter.last_evals() {
                figures::print(&mut out, record)?;
            }
            if let Some(best) = reporter.best() {
                writeln!(out, "best checkpoint: step {}, {} {:.4}", best.step, best.goal, best.value)?;
            }
            writeln!(out, "trained {step} steps: {}", config.run.dir.display())?;
            Ok(None)
        }
        Outcome::Stopped { step, signal } => {
            reporter.on(Event::Note(format!("stopped by a signal after step {step}; `--resume` goes on from there")));
            Ok(Some(u8::try_from(signal).unwrap_or(u8::MAX)))
        }
    }
}

/// The first signal asks the run to save and stop, the second ends it at once.
fn catch_signals() -> anyhow::Result<StopFlag> {
    let stop = StopFlag::default();
    for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
        let seen = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&seen))?;
        signal_hook::flag::register(signal, seen)?;
        signal_hook::flag::register_usize(signal, stop.shared(), usize::try_from(signal)?)?;
    }
    Ok(stop)
}

pub fn eval(arguments: EvalArguments, reporter: &mut Reporter) -> anyhow::Result<Stopped> {
    let device = arguments.device.as_deref();
    let found = match (&arguments.config, &arguments.model, arguments.task) {
        (Some(config), _, _) => {
            let config = RunConfig::load(config, &arguments.overrides)?;
            let evaluations = open_evaluations(&config)?;
            let compute = Compute::select(device.unwrap_or(&config.run.device), config.run.threads)?;
            let dir = arguments.checkpoint.as_deref().unwrap_or(&config.run.dir);
            let assembly = load_model(dir, arguments.best, &compute, reporter)?;
            evaluate(&evaluations, &assembly, Some(&config), &compute, reporter)?
        }
        (None, Some(dir), Some(task)) => {
            let section = EvalSection {
                task: match task {
                    EvalTask::ZeroShot => Task::ZeroShot,
                    EvalTask::Retrieval => Task::Retrieval,
                    EvalTask::Loss => Task::Loss,
                },
                images: arguments.images,
                classnames: arguments.classnames,
                templates: arguments.templates,
                data: arguments.data,
                pool_size: arguments.pool_size.map(|size| size as usize),
                every_epochs: None,
                every_steps: None,
                batch_size: BATCH_SIZE,
            };
            let evaluation = Evaluation::open(section.task.name(), &section)?;
            let compute = Compute::select(device.unwrap_or("cpu"), None)?;
            let assembly = load_model(dir, arguments.best, &compute, reporter)?;
            let objective = assembly.config.as_ref().map(Objective::from).unwrap_or_default();
            let evaluation = evaluation.with_objective(objective);
            evaluate(&[evaluation], &assembly, assembly.config.as_ref(), &compute, reporter)?
        }
        // clap asks for one of the two, and for a task with a model.
        _ => Vec::new(),
    };
    reporter.finish();
    print_results(
        arguments.json.as_deref(),
        || figures_json(&found, arguments.config.is_some()),
        |out| found.iter().try_for_each(|record| figures::print(out, record)),
    )?;
    Ok(None)
}

/// The model in `dir`: of a run, its newest checkpoint or its best.
pub fn load_model(dir: &Path, best: bool, compute: &Compute, reporter: &mut Reporter) -> Result<Assembly, TrainError> {
    match best {
        true => Assembly::best_of(dir, compute, reporter),
        false => Assembly::from_dir(dir, compute, reporter),
    }
}

/// Results for a person on stdout, as JSON in the file that `--json` names, or as JSON on stdout instead (`-`).
pub fn print_results(
    json: Option<&Path>,
    value: impl FnOnce() -> Value,
    print: impl FnOnce(&mut std::io::StdoutLock<'_>) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let to_stdout = json == Some(Path::new("-"));
    if !to_stdout {
        print(&mut out)?;
    }
    if let Some(path) = json {
        let text = format!("{:#}\n", value());
        match to_stdout {
            true => out.write_all(text.as_bytes())?,
            false => std::fs::write(path, text)
                .map_err(|source| anyhow::anyhow!("cannot write `{}`: {source}", path.display()))?,
        }
    }
    Ok(())
}

/// Of a config: every evaluation by its name. Of one task: its figures.
pub fn figures_json(found: &[EvalRecord], by_name: bool) -> Value {
    let figures = |record: &EvalRecord| {
        let mut value = json!({"task": record.task});
        if let Some(object) = value.as_object_mut() {
            object.extend(record.metrics.clone());
        }
        value
    };
    match (by_name, found) {
        (false, [record]) => figures(record),
        _ => {
            let by_name: serde_json::Map<String, Value> =
                found.iter().map(|record| (record.name.clone(), figures(record))).collect();
            json!({"step": found.first().map(|record| record.step), "evaluations": by_name})
        }
    }
}

pub fn open_evaluations(config: &RunConfig) -> anyhow::Result<Vec<Evaluation>> {
    if config.eval.is_empty() {
        return Err(TrainError::Usage(
            "the config has no `[eval.NAME]` section; add one, or use `--model DIR --task ...`".to_owned(),
        )
        .into());
    }
    Ok(Evaluation::open_all(config)?)
}

/// Features come from the cache of `config`, where there is one: a feature is found by its tower, so any model may ask.
fn evaluate(
    evaluations: &[Evaluation],
    assembly: &Assembly,
    config: Option<&RunConfig>,
    compute: &Compute,
    reporter: &mut Reporter,
) -> anyhow::Result<Vec<EvalRecord>> {
    let model = assembly.model.valid();
    let (stop, workers) = (StopFlag::default(), compute.threads);
    // Not begun here: a run may be evaluated where nothing can be written.
    let cache = config.and_then(|config| Some((config.ever_trains(), cache_of(config)?)));
    let locked = LockedTowers::new(&model, &assembly.processor, compute, workers, &stop);
    let locked = match cache.filter(|(_, (dir, _))| dir.is_dir()) {
        Some((training, cache)) => locked.under(&training).kept_in(Some(cache), &LockedFingerprints::of(&model)?)?,
        None => locked,
    };
    let mut found = Vec::new();
    for evaluation in evaluations {
        let encoder = Encoder {
            model: &model,
            tokenizer: &assembly.tokenizer,
            locked: &locked,
            compute,
            workers,
            stop: &stop,
            batch_size: evaluation.batch_size,
        };
        found.push(evaluation.record(assembly.step.unwrap_or(0), &encoder, &assembly.processor, reporter)?);
    }
    Ok(found)
}

pub fn embed(arguments: EmbedArguments, reporter: &mut Reporter) -> anyhow::Result<Stopped> {
    let compute = Compute::select(&arguments.device, None)?;
    let assembly = load_model(&arguments.model, arguments.best, &compute, reporter)?;
    let request = EmbedRequest {
        images: arguments.images.as_deref(),
        texts: arguments.texts.as_deref(),
        raw: arguments.raw,
        batch_size: BATCH_SIZE,
    };
    let done = dualenc_train::embed(&assembly, &request, &arguments.out, &compute, reporter)?;
    reporter.finish();
    let mut out = std::io::stdout().lock();
    let (images, texts, dim) = (done.num_images, done.num_texts, done.dim);
    writeln!(out, "wrote {images} image and {texts} text embeddings of {dim} values to {}", arguments.out.display())?;
    Ok(None)
}

pub fn export(arguments: ExportArguments, reporter: &mut Reporter) -> anyhow::Result<Stopped> {
    let compute = Compute::select("cpu", None)?;
    let assembly = load_model(&arguments.model, arguments.best, &compute, reporter)?;
    dualenc_train::export(&assembly, &arguments.out, reporter)?;
    reporter.finish();
    let mut out = std::io::stdout().lock();
    writeln!(out, "wrote a VisionTextDualEncoder to {}", arguments.out.display())?;
    Ok(None)
}

pub fn inspect(arguments: InspectArguments, reporter: &mut Reporter) -> anyhow::Result<Stopped> {
    let compute = Compute::select("cpu", None)?;
    let found = dualenc_train::inspect(&arguments.dir, &compute.device)?;
    reporter.finish();
    let value = serde_json::to_value(&found)?;
    print_results(arguments.json.as_deref(), || value, |out| inspection::print(out, &found))?;
    Ok(None)
}

pub fn cache(arguments: ConfigArguments, reporter: &mut Reporter) -> anyhow::Result<Stopped> {
    let config = load_config(&arguments)?;
    let stop = catch_signals()?;
    let filled = match dualenc_train::fill(&config, &stop, reporter) {
        Err(TrainError::Stopped { signal }) => {
            reporter.on(Event::Note("stopped by a signal; what was computed is kept".to_owned()));
            return Ok(Some(u8::try_from(signal).unwrap_or(u8::MAX)));
        }
        filled => filled?,
    };
    reporter.finish();
    let mut out = std::io::stdout().lock();
    for tower in &filled {
        let (what, total, computed, kept) = (tower.what, tower.total, tower.counts.computed, tower.counts.kept);
        let bad = if tower.bad > 0 { format!(", {} cannot be used", tower.bad) } else { String::new() };
        let (bytes, path) = (tower.bytes, tower.path.display());
        writeln!(out, "{total} {what}: {computed} computed, {kept} already there{bad}; {bytes} bytes in {path}")?;
    }
    Ok(None)
}

pub fn check(arguments: ConfigArguments, reporter: &mut Reporter) -> anyhow::Result<Stopped> {
    let config = load_config(&arguments)?;
    let found = dualenc_train::check(&config, reporter)?;
    reporter.finish();
    let mut out = std::io::stdout().lock();
    for line in &found.facts {
        writeln!(out, "{line}")?;
    }
    if found.problems.is_empty() {
        writeln!(out, "no problems found")?;
        return Ok(None);
    }
    Err(TrainError::Usage(found.problems.join("\n")).into())
}
