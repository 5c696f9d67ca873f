//! Loads a model with its tokenizer and image processor, from a config or from a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::{DataError, ImageProcessor, Limits, Tokenizer, counted};
use dualenc_model::{
    Audit, BuildOptions, BuiltModel, DualEncoder, HeadConfig, LOGIT_SCALE_INIT, Pool, Pooling, TakenLayers, TextTower,
    Tower, TowerSource, build_from_dual_encoder, build_from_sources, parameters,
};
use serde_json::Value;

use crate::config::{DataSection, InitialWeights, LoraSection, ModelSection, RunConfig};
use crate::device::Compute;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::compatibility::check_image_size;
use crate::models::feature_widths::feature_widths;
use crate::models::hub::resolve::resolve;
use crate::models::inputs::{processor_of, recorded_limit, tokenizer_of};
use crate::models::model_dir::{ModelDir, newest_checkpoint};
use crate::models::text_prompt::{
    asked_prompt, pools_without_prompt, prompt_of, recorded_prompt, unused_default_prompt,
};
use crate::run_dir::best::best_of_run;
use crate::run_dir::checkpoint::tower_forms::TowerForms;
use crate::run_dir::checkpoint::{self, Checkpoint};
use crate::run_dir::layout::checkpoints_of;

/// A model with everything that turns files into its inputs.
pub struct LoadedModel {
    /// Trainable parameters are on the autodiff side of the device.
    pub model: DualEncoder,
    /// The text tower's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The image tower's processing, at the configured size.
    pub processor: Arc<ImageProcessor>,
    /// The directory of the tokenizer, for export; empty without a text tower.
    pub text_dir: PathBuf,
    /// `config.json` of the image tower.
    pub image_config: Value,
    /// `config.json` of the text tower.
    pub text_config: Value,
    /// Updates the model has seen, if known.
    pub step: Option<u64>,
    /// The config it was trained with, if known.
    pub config: Option<RunConfig>,
    /// The fingerprint of the pairs it was trained on, if known.
    pub data: Option<String>,
    /// Values of its whole embeddings, if the model gives the first of them only.
    pub truncated_from: Option<usize>,
}

impl LoadedModel {
    /// The model that `config` describes, before its first step. Parameters that train in any stage are in the gradient
    /// graph. The config of a new run has to be settled before (`text_pool`).
    ///
    /// # Errors
    /// [`TrainError::Hub`] when a tower cannot be found; [`TrainError::Model`] or [`TrainError::Data`] when a tower, a
    /// tokenizer or an image processor cannot be loaded; [`TrainError::Usage`] when they do not fit together.
    pub fn from_config(config: &RunConfig, compute: &Compute, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        Self::from_config_of(config, &[], compute, observer)
    }

    /// [`LoadedModel::from_config`] for the config of the last checkpoint of `chain`, each of which started from the
    /// next.
    fn from_config_of(
        config: &RunConfig,
        chain: &[PathBuf],
        compute: &Compute,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let options = build_options(config);
        let device = &compute.device;
        let section = &config.model;
        let mut early_tokenizer = None;
        let (built, image_dir, text_dir) = match config.initial_weights() {
            InitialWeights::Pair { image, text } => {
                let (image_dir, text_dir) = (image.map(resolve).transpose()?, text.map(resolve).transpose()?);
                let widths = feature_widths(config)?;
                let sources = [source_of(image_dir.as_deref(), widths[0])?, source_of(text_dir.as_deref(), widths[1])?];
                let (built, tokenizer) = beside(
                    || text_dir.as_deref().map(|dir| Tokenizer::from_dir(dir, config.data.max_tokens)),
                    || build_from_sources(sources[0], sources[1], &options, device),
                );
                let built = built?;
                early_tokenizer = tokenizer;
                report_audit("image tower", &built.image_audit, observer);
                report_audit("text tower", &built.text_audit, observer);
                if section.text_pool == Pool::Sentence {
                    observer.on(Event::Note(sentence_note(&built.model.text_tower)));
                }
                (built, image_dir, text_dir)
            }
            InitialWeights::Init(init) => match ModelDir::find(&resolve(init)?, observer)? {
                ModelDir::WholeModel(dir) => {
                    let mut built = build_from_dual_encoder(&dir, &options, device)?;
                    built.warnings.drain(..).for_each(|warning| {
                        observer.on(Event::Warning(format!("`{}`: {warning}", dir.display())));
                    });
                    if options.head.logit_bias.is_none() {
                        built.model.logit_bias = None;
                    }
                    report_audit("image tower", &built.image_audit, observer);
                    report_audit("text tower", &built.text_audit, observer);
                    (built, Some(dir.clone()), Some(dir))
                }
                ModelDir::Checkpoint(checkpoint) => {
                    let loaded = Self::from_checkpoint_of(*checkpoint, chain, compute, observer)?;
                    refuse_other_features(loaded.config.as_ref(), config)?;
                    return loaded.restarted(config, compute, observer);
                }
            },
        };
        let prompt = match &text_dir {
            Some(dir) => run_prompt(section, dir, &built.model.text_tower, observer)?,
            None => None,
        };
        let mut loaded = Self::from_built(
            built,
            image_dir,
            (text_dir, early_tokenizer),
            section.image_size,
            config.data.max_tokens,
            observer,
        )?
        .with_prompt(prompt.as_deref())?;
        loaded.set_decoding(&config.data);
        loaded.model = trainable(loaded.with_initial_scale(config), config)?;
        Ok(loaded)
    }

    /// The model in `dir`: a run, a checkpoint or a whole model (VisionTextDualEncoder, CLIP or SigLIP).
    ///
    /// # Errors
    /// As for [`LoadedModel::from_config`]; [`TrainError::Usage`] when `dir` is none of these.
    pub fn from_dir(dir: &Path, compute: &Compute, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        match ModelDir::find(dir, observer)? {
            ModelDir::Checkpoint(checkpoint) => Self::from_checkpoint(*checkpoint, compute, observer),
            ModelDir::WholeModel(dir) => {
                let mut built = build_from_dual_encoder(&dir, &BuildOptions::evaluation(), &compute.device)?;
                let warnings = built.warnings.drain(..);
                warnings.for_each(|warning| observer.on(Event::Warning(format!("`{}`: {warning}", dir.display()))));
                let prompt = recorded_prompt(&dir)?;
                let limit = recorded_limit(&dir, &built.model.text_tower)?;
                Self::from_built(built, Some(dir.clone()), (Some(dir), None), None, limit, observer)?
                    .with_prompt(prompt.as_deref())
            }
        }
    }

    /// The model of the best checkpoint of the run in `dir`, by the metric that `checkpoint.best` names.
    ///
    /// # Errors
    /// As for [`LoadedModel::from_dir`]; [`TrainError::Usage`] when `dir` is not a run or has no best checkpoint.
    pub fn best_of(dir: &Path, compute: &Compute, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        let newest = newest_checkpoint(dir, observer)?.ok_or_else(|| {
            TrainError::Usage(format!("`{}` has no best checkpoint: it is not a run with a checkpoint", dir.display()))
        })?;
        let best = best_of_run(dir, &newest)?.ok_or_else(|| {
            TrainError::Usage(format!(
                "the run `{}` has no best checkpoint: its config has no `checkpoint.best`, or the evaluation it names \
                 has not run yet; omit `--best` to use the newest",
                dir.display()
            ))
        })?;
        let path = checkpoint::path_of(&checkpoints_of(dir), best.step);
        let found = if best.step == newest.progress.step { newest } else { checkpoint::load(&path)? };
        Self::from_checkpoint(found, compute, observer)
    }

    /// The model of a checkpoint: the towers of its run with the saved parameters, averaged if the run averages them.
    ///
    /// # Errors
    /// As for [`LoadedModel::from_config`]; [`TrainError::TowersChanged`] or [`TrainError::LockedChanged`] when towers,
    /// what they read, or the locked parameters have changed;
    /// [`TrainError::Model`] when the saved tensors do not fit.
    pub fn from_checkpoint(
        checkpoint: Checkpoint,
        compute: &Compute,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        Self::from_checkpoint_of(checkpoint, &[], compute, observer)
    }

    /// [`LoadedModel::from_checkpoint`] for a checkpoint that those of `chain` started from.
    fn from_checkpoint_of(
        checkpoint: Checkpoint,
        chain: &[PathBuf],
        compute: &Compute,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let chain = extended(chain, &checkpoint.path)?;
        let config = checkpoint.run_config()?;
        let mut loaded = Self::from_config_of(&config, &chain, compute, &mut WarningsOnly(observer))?;
        checkpoint.refuse_other_towers(&loaded.tower_forms())?;
        loaded.verify_locked(&checkpoint)?;
        loaded.model = parameters::restore(loaded.model, parameters::ParamFilter::Trainable, checkpoint.weights())?;
        loaded.step = Some(checkpoint.progress.step);
        loaded.data = Some(checkpoint.progress.data.clone());
        loaded.config = Some(config);
        Ok(loaded)
    }

    /// Sets the maximum number of pixels of an image: `data.max_pixels`.
    pub fn limit_pixels(&mut self, max_pixels: u64) {
        self.processor = Arc::new(ImageProcessor::clone(&self.processor).with_limits(Limits { max_pixels }));
    }

    /// Sets how images are decoded: `data.max_pixels` and `data.fast_decode`.
    pub fn set_decoding(&mut self, data: &DataSection) {
        self.limit_pixels(data.max_pixels);
        self.processor = Arc::new(ImageProcessor::clone(&self.processor).with_fast_decode(data.fast_decode));
    }

    /// Compares the locked parameters with those that the checkpoint was trained with.
    ///
    /// # Errors
    /// [`TrainError::LockedChanged`] when they differ; [`TrainError::Model`] when the device cannot return its data.
    pub fn verify_locked(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        if parameters::fingerprint(&self.model, parameters::ParamFilter::Locked)? == checkpoint.progress.locked {
            Ok(())
        } else {
            Err(TrainError::LockedChanged { checkpoint: checkpoint.path.clone() })
        }
    }

    /// What determines the outputs beside the weights.
    pub(crate) fn tower_forms(&self) -> TowerForms {
        TowerForms::of(&self.model, &self.tokenizer, &self.processor)
    }

    fn from_built(
        built: BuiltModel,
        image_dir: Option<PathBuf>,
        (text_dir, early_tokenizer): (Option<PathBuf>, Option<Result<Tokenizer, DataError>>),
        image_size: Option<usize>,
        max_tokens: usize,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let tokenizer = match &text_dir {
            Some(dir) => tokenizer_of(&built.model.text_tower, dir, (max_tokens, early_tokenizer), observer)?,
            None => Tokenizer::absent(),
        };
        let processor = match &image_dir {
            Some(dir) => processor_of(&built.model.image_tower, dir, image_size, observer)?,
            None => ImageProcessor::absent(),
        };
        Ok(Self {
            model: for_images(built.model, &processor),
            tokenizer: Arc::new(tokenizer),
            processor: Arc::new(processor),
            text_dir: text_dir.unwrap_or_default(),
            image_config: built.image_config,
            text_config: built.text_config,
            step: None,
            config: None,
            data: None,
            truncated_from: None,
        })
    }

    /// The model with `prompt` before every text, if it is given.
    fn with_prompt(self, prompt: Option<&str>) -> Result<Self, TrainError> {
        match prompt {
            None => Ok(self),
            Some(prompt) => {
                let tokenizer = Arc::new(Tokenizer::clone(&self.tokenizer).with_prompt(prompt)?);
                Ok(Self { tokenizer, ..self })
            }
        }
    }

    /// Turns a trained model into the start of a new run, with the locks and the token limit of the new config.
    fn restarted(
        mut self,
        config: &RunConfig,
        compute: &Compute,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let heads = [config.model.image_head.form(), config.model.text_head.form()];
        let model = self.model.with_adapters_merged().with_heads(heads, config.run.seed)?;
        let scalar = |bias| parameters::scalar(bias, &compute.device);
        let logit_bias = build_options(config).head.logit_bias;
        self.model = DualEncoder {
            logit_bias: logit_bias.map(|bias| model.logit_bias.clone().unwrap_or_else(|| scalar(bias))),
            ..model
        };
        if let Some(size) = config.model.image_size {
            self.processor = Arc::new(self.processor.with_image_size(u32::try_from(size).unwrap_or(u32::MAX)));
            check_image_size(&self.processor, &self.model.image_tower)?;
            self.model = for_images(self.model, &self.processor);
        }
        self.set_decoding(&config.data);
        self.model = trainable(self.with_initial_scale(config), config)?;
        (self.step, self.config, self.data) = (None, None, None);
        if self.text_dir.as_os_str().is_empty() {
            return Ok(self);
        }
        let prompt = asked_prompt(&config.model, &self.text_dir)?;
        let prompt = prompt.unwrap_or_else(|| self.tokenizer.prompt().to_owned());
        let limit = (config.data.max_tokens, None);
        let tokenizer = tokenizer_of(&self.model.text_tower, &self.text_dir, limit, observer)?;
        self.tokenizer = Arc::new(tokenizer);
        self.with_prompt(Some(&prompt))
    }

    /// The model with the initial `logit_scale` of the config, if it sets one.
    fn with_initial_scale(&self, config: &RunConfig) -> DualEncoder {
        let mut model = self.model.clone();
        if let Some(scale) = config.model.logit_scale_init {
            model.logit_scale = parameters::scalar(scale, &model.device());
        }
        model
    }
}

/// `model` for the images of `processor`.
fn for_images(model: DualEncoder, processor: &ImageProcessor) -> DualEncoder {
    let (height, width) = processor.output_size();
    DualEncoder { image_tower: model.image_tower.for_images(height as usize, width as usize), ..model }
}

/// The prompt of a run, with what may surprise about it.
fn run_prompt(
    section: &ModelSection,
    dir: &Path,
    tower: &TextTower,
    observer: &mut dyn Observer,
) -> Result<Option<String>, TrainError> {
    let prompt = prompt_of(section, dir)?;
    if prompt.is_none()
        // Only a note: a malformed file matters where a prompt is asked for.
        && let Ok(Some(note)) = unused_default_prompt(dir)
    {
        observer.on(Event::Note(format!("text tower: {note}")));
    }
    let is_prompted = prompt.as_ref().is_some_and(|prompt| !prompt.is_empty());
    if is_prompted && tower.pooling() == Pooling::Mean && pools_without_prompt(dir) {
        observer.on(Event::Warning(
            "sentence-transformers leaves the prompt out of this text tower's mean (`include_prompt`), dualenc does \
             not: features differ from those of `SentenceTransformer.encode`"
                .to_owned(),
        ));
    }
    Ok(prompt)
}

/// The tower in `dir` or, without one, what stands in its place: features of this width.
fn source_of(dir: Option<&Path>, width: Option<usize>) -> Result<TowerSource<'_>, TrainError> {
    match (dir, width) {
        (Some(dir), _) => Ok(TowerSource::Dir(dir)),
        (None, Some(width)) => Ok(TowerSource::Absent(width)),
        (None, None) => Err(TrainError::Internal("a side has neither a tower nor features".to_owned())),
    }
}

/// Runs both at once: `first`, which uses one core, on a thread of its own.
fn beside<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (B, A) {
    std::thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        (second, first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// `chain` with the checkpoint at `path`.
///
/// # Errors
/// [`TrainError::Usage`] when the checkpoint is in the chain already.
fn extended(chain: &[PathBuf], path: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let path = path.canonicalize().map_err(TrainError::read(path))?;
    let leads_back = chain.contains(&path);
    let chain = [chain, &[path]].concat();
    if leads_back {
        let names: Vec<String> = chain.iter().map(|path| format!("  `{}`", path.display())).collect();
        return Err(TrainError::Usage(format!(
            "`model.init` leads back to itself; each of these checkpoints is of a run that started from the next:\n\
             {}\nset `model.init` of one of these runs to a model from which no other of them started",
            names.join("\n")
        )));
    }
    Ok(chain)
}

/// Adds the adapters of `config`, and puts every parameter that trains in any stage into the gradient graph.
fn trainable(model: DualEncoder, config: &RunConfig) -> Result<DualEncoder, TrainError> {
    let [image, text] =
        [&config.model.image_lora, &config.model.text_lora].map(|lora| lora.as_ref().map(LoraSection::adapters));
    let model = model.with_adapters([image.as_ref(), text.as_ref()], config.run.seed)?;
    Ok(config.ever_trains().of(model)?)
}

fn build_options(config: &RunConfig) -> BuildOptions {
    BuildOptions {
        lock: config.model.lock,
        image: config.model.image_options(),
        text: config.model.text_options(),
        image_projection_locked: config.model.image_projection.locked,
        text_projection_locked: config.model.text_projection.locked,
        head: HeadConfig {
            embed_dim: config.model.embed_dim.unwrap_or_default(),
            logit_scale: config.model.logit_scale_init.unwrap_or(LOGIT_SCALE_INIT),
            logit_bias: config.initial_logit_bias(),
            image: config.model.image_head.form(),
            text: config.model.text_head.form(),
            image_tokens: config.model.image_head.token_form(),
        },
        seed: config.run.seed,
    }
}

/// Refuses layers and poolings that the towers of a checkpoint were not trained with. `trained`: its config.
fn refuse_other_features(trained: Option<&RunConfig>, config: &RunConfig) -> Result<(), TrainError> {
    let trained = trained.map(|trained| &trained.model);
    let model = &config.model;
    for tower in Tower::ALL {
        let layers = model.taken_layers(tower);
        let is_other_layer =
            layers != TakenLayers::default() && trained.is_none_or(|trained| trained.taken_layers(tower) != layers);
        let (pool, of_trained) = match tower {
            Tower::Image => (model.image_pool, trained.map(|trained| trained.image_pool)),
            Tower::Text => (model.text_pool, trained.map(|trained| trained.text_pool)),
        };
        let is_other_pool =
            matches!(pool, Pool::ClsMean | Pool::PatchMean | Pool::Sentence) && of_trained != Some(pool);
        let key = match (is_other_layer, is_other_pool) {
            (true, _) => "layer",
            (_, true) => "pool",
            _ => continue,
        };
        let kind = tower.kind();
        return Err(TrainError::Usage(format!(
            "`model.{kind}_{key}` is not what the checkpoint of `model.init` was trained with: its {tower} keeps its \
             pooled output; remove the key, or start from two towers"
        )));
    }
    Ok(())
}

/// Says what `text_pool = "sentence"` takes from the tower.
fn sentence_note(tower: &TextTower) -> String {
    let pooled = tower.config().describe_pooling(tower.pooling());
    let dense = match tower.dense_layers().len() {
        0 => String::new(),
        count => format!(", then {}", counted(count, "`Dense` layer")),
    };
    format!(
        "text tower: it is pooled by {pooled}{dense}, as sentence-transformers trained it (`text_pool = \"sentence\"`)"
    )
}

fn report_audit(part: &'static str, audit: &Audit, observer: &mut dyn Observer) {
    for note in &audit.notes {
        observer.on(Event::Note(format!("{part}: {note}")));
    }
    if !audit.missing.is_empty() || !audit.unused.is_empty() {
        observer.on(Event::Audit { part, audit });
    }
}

/// Forwards warnings and weights that are missing, and drops the notes that a run reports when it starts.
pub(crate) struct WithoutNotes<'a>(pub &'a mut dyn Observer);

impl Observer for WithoutNotes<'_> {
    fn on(&mut self, event: Event<'_>) {
        let is_kept = match &event {
            Event::Audit { audit, .. } => !audit.missing.is_empty(),
            event => matches!(event, Event::Warning(_)),
        };
        if is_kept {
            self.0.on(event);
        }
    }
}

/// Forwards warnings, and drops what the run reported when it started.
struct WarningsOnly<'a>(&'a mut dyn Observer);

impl Observer for WarningsOnly<'_> {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Warning(_) = event {
            self.0.on(event);
        }
    }
}
