//! The towers, and what depends on them: parameter groups, schedules and stages.

use std::path::PathBuf;

use dualenc_data::Dataset;
use dualenc_model::{DualEncoder, LayerNumbers, TowerOptions, image_tower_from, text_tower_from};

use crate::commands::check::findings::{Findings, Level};
use crate::config::{Draft, ModelSection, RunConfig};
use crate::device::Compute;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::features::absent::check_dataset;
use crate::models::hub::resolve::resolve;
use crate::models::load::LoadedModel;
use crate::models::text_pool::settled;
use crate::models::text_prompt::asked_prompt;
use crate::optim::lr_schedule::LrSchedule;
use crate::optim::param_groups::ParamGroups;
use crate::optim::part_summary::summarize_parts;
use crate::teacher::loaded::LoadedTeacher;
use crate::training::stages::Stages;

/// What is known of the text tower: enough to tokenise.
pub(crate) struct TokenSource {
    pub dir: PathBuf,
    /// The most tokens that it takes, if it could be loaded.
    pub positions: Option<usize>,
    /// What is put before every text; empty for nothing.
    pub prompt: String,
}

/// Loads the model of `config` and checks what depends on it. `None`: its text tower is not there.
///
/// # Errors
/// Those that may pass, as when the hub does not answer.
pub(crate) fn check_models(
    draft: &Draft,
    compute: &Compute,
    dataset: Option<&Dataset>,
    findings: &mut Findings,
    observer: &mut dyn Observer,
) -> Result<Option<TokenSource>, TrainError> {
    let config = &draft.config;
    if draft.is_wrong("model") {
        return check_towers(draft, compute, None, findings);
    }
    let mut collector = Collector { observer, warnings: Vec::new() };
    let loaded = settled(config).and_then(|config| LoadedModel::from_config(&config, compute, &mut collector));
    let warnings = collector.warnings;
    for warning in warnings {
        findings.warn("model_warning", "model", warning);
    }
    match loaded {
        Ok(loaded) => {
            check_model(draft, &loaded, compute, dataset, findings, observer)?;
            let positions = Some(loaded.model.text_tower.config().max_tokens());
            let prompt = loaded.tokenizer.prompt().to_owned();
            Ok(Some(TokenSource { dir: loaded.text_dir, positions, prompt }))
        }
        Err(error) => check_towers(draft, compute, Some(error), findings),
    }
}

/// Keeps warnings, and forwards everything else.
struct Collector<'a> {
    observer: &'a mut dyn Observer,
    warnings: Vec<String>,
}

impl Observer for Collector<'_> {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Warning(text) => self.warnings.push(text),
            event => self.observer.on(event),
        }
    }
}

fn check_model(
    draft: &Draft,
    loaded: &LoadedModel,
    compute: &Compute,
    dataset: Option<&Dataset>,
    findings: &mut Findings,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let config = &draft.config;
    if !draft.is_wrong("train") {
        if let Some(groups) =
            findings.keep("parameter_groups", "train", ParamGroups::resolve(&config.train, &loaded.model))?
        {
            observer.on(Event::Parts(&summarize_parts(&loaded.model, &groups, config.train.learning_rate)?));
        }
        if let Some(dataset) = dataset {
            check_schedules(config, dataset, &loaded.model, findings);
        }
        check_teacher(config, compute, dataset, findings, observer)?;
    }
    if !loaded.model.image_tower.is_absent() {
        findings.fact("image_processing", "model", format!("images: {}", loaded.processor.describe()));
    }
    if let Some(tokens) = &loaded.model.image_tokens {
        let (values, width) = (loaded.model.image_tower.width(), tokens.layout().width);
        let bytes = values * config.cache.dtype.bytes();
        let message = format!(
            "image head: {}; it takes {} tokens of {width} values: {:.1} kB of the feature cache an image",
            loaded.model.describe_image_head(),
            values / width,
            bytes as f64 / 1e3
        );
        findings.fact("image_tokens", "model.image_head.tokens", message).value("bytes", bytes);
    }
    if let Some(dataset) = dataset {
        let fits = check_dataset(dataset, &loaded.model, "the training data");
        findings.keep("features", "data.train", fits)?;
    }
    Ok(())
}

/// Loads the teacher, and checks that it can look at the data.
fn check_teacher(
    config: &RunConfig,
    compute: &Compute,
    dataset: Option<&Dataset>,
    findings: &mut Findings,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    const KEY: &str = "train.teacher.model";
    let mut collector = Collector { observer, warnings: Vec::new() };
    let teacher = LoadedTeacher::of(config, compute, &mut collector);
    for warning in collector.warnings {
        findings.warn("teacher_warning", KEY, warning);
    }
    if let Some(Some(teacher)) = findings.keep("teacher", KEY, teacher)? {
        findings.fact("teacher", KEY, teacher.describe());
        if let Some(dataset) = dataset {
            findings.keep("teacher", KEY, teacher.check_dataset(dataset))?;
        }
    }
    Ok(())
}

/// Reports which towers cannot be loaded. `error`: that of loading both, if the config names both.
fn check_towers(
    draft: &Draft,
    compute: &Compute,
    error: Option<TrainError>,
    findings: &mut Findings,
) -> Result<Option<TokenSource>, TrainError> {
    let (section, before) = (&without_wrong_layers(draft), findings.count(Level::Problem));
    if section.init.is_some() {
        if let Some(error) = error {
            findings.keep::<()>("model", "model.init", Err(error))?;
        }
        return Ok(None);
    }
    let named = |key: &str, name: &Option<String>| name.clone().filter(|_| !draft.is_wrong(key));
    let load_image = |name: &str| {
        image_tower_from(&resolve(name)?, section.lock.image, section.image_options(), &compute.device)?;
        Ok(())
    };
    let load_text = |dir: &PathBuf| {
        let pool = settled(&draft.config)?.model.text_pool;
        let options = TowerOptions { pool, ..section.text_options() };
        let tower = text_tower_from(dir, section.lock.text, options, &compute.device)?;
        Ok(tower.0.config().max_tokens())
    };
    if let Some(image) = named("model.image_tower", &section.image_tower) {
        findings.keep("image_tower", "model.image_tower", load_image(&image))?;
    }
    let found = match named("model.text_tower", &section.text_tower) {
        Some(text) => findings.keep("text_tower", "model.text_tower", resolve(&text).map_err(TrainError::from))?,
        None => None,
    };
    let positions = match &found {
        Some(dir) => findings.keep("text_tower", "model.text_tower", load_text(dir))?,
        None => None,
    };
    // Each loads alone: they do not fit together, or to the tokenizer or the images.
    if let Some(error) = error.filter(|_| findings.count(Level::Problem) == before) {
        findings.keep::<()>("model", "model", Err(error))?;
    }
    let Some(dir) = found else { return Ok(None) };
    let prompt = findings.keep("text_prompt", "model.text_prompt_name", asked_prompt(section, &dir))?;
    Ok(Some(TokenSource { dir, positions, prompt: prompt.flatten().unwrap_or_default() }))
}

/// The towers with their last layer where the layers that are named are wrong, which is a problem of its own.
fn without_wrong_layers(draft: &Draft) -> ModelSection {
    let mut section = draft.config.model.clone();
    let layers = [("model.image_layer", &mut section.image_layer), ("model.text_layer", &mut section.text_layer)];
    for (_, numbers) in layers.into_iter().filter(|(key, _)| draft.is_wrong(key)) {
        *numbers = LayerNumbers::default();
    }
    section
}

/// Checks the learning-rate schedule and reports the stages: both depend on the number of pairs.
fn check_schedules(config: &RunConfig, dataset: &Dataset, model: &DualEncoder, findings: &mut Findings) {
    let steps_per_epoch = config.plan(dataset).batches_per_epoch() as u64;
    if steps_per_epoch == 0 {
        return;
    }
    let total_steps = config.total_steps(steps_per_epoch);
    if let Err(error) = LrSchedule::new(&config.train, total_steps) {
        findings.problem("schedule", "train", error.to_string());
    }
    match Stages::new(config, model, steps_per_epoch, total_steps) {
        Ok(stages) if stages.len() > 1 => {
            for number in 0..stages.len() {
                findings.fact("stage", "train.stage", stages.describe(number));
            }
        }
        Ok(_) => {}
        Err(error) => {
            findings.problem("stages", "train.stage", error.to_string());
        }
    }
}
