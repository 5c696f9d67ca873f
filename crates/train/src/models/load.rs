//! From a configuration, or from a directory, to a model with its tokenizer and image processing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::{ImageProcessor, Tokenizer};
use dualenc_model::{
    Audit, BuildOptions, Built, DualEncoder, HeadConfig, ImageTower, LOGIT_SCALE_INIT, TextTower, TowerOptions,
    build_from_dual_encoder, build_from_towers, dual_encoder_types, is_dual_encoder_dir, parameters,
};
use serde_json::Value;

use crate::config::{LoraSection, Loss, ModelSection, RunConfig, Towers};
use crate::device::Compute;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::hub;
use crate::run_dir::best::best_of_run;
use crate::run_dir::checkpoint::{self, Checkpoint};
use crate::run_dir::layout::checkpoints_of;

/// A model with everything around it that turns files into its inputs.
pub struct Assembly {
    /// What trains is on the autodiff side of the device.
    pub model: DualEncoder,
    /// The text tower's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The image tower's processing, at the size asked for.
    pub processor: Arc<ImageProcessor>,
    /// Where the tokenizer came from, for export.
    pub text_dir: PathBuf,
    /// `config.json` of the image tower.
    pub image_config: Value,
    /// `config.json` of the text tower.
    pub text_config: Value,
    /// Updates the model has seen, where that is known.
    pub step: Option<u64>,
    /// The configuration it was trained with, where that is known.
    pub config: Option<RunConfig>,
}

/// A directory that holds a model.
enum ModelDir {
    DualEncoder(PathBuf),
    Checkpoint(Box<Checkpoint>),
}

impl ModelDir {
    /// A run directory (its newest valid checkpoint), a checkpoint, or the directory of a whole model.
    fn find(dir: &Path, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        if dir.join("manifest.json").is_file() {
            return Ok(Self::Checkpoint(Box::new(checkpoint::load(dir)?)));
        }
        let checkpoints = checkpoints_of(dir);
        if checkpoints.is_dir() {
            let found = checkpoint::newest_valid(&checkpoints, |error| observer.on(Event::Warning(error.to_string())))?;
            return match found {
                Some(checkpoint) => Ok(Self::Checkpoint(Box::new(checkpoint))),
                None => Err(TrainError::Usage(format!("the run `{}` has no valid checkpoint yet", dir.display()))),
            };
        }
        if is_dual_encoder_dir(dir) {
            return Ok(Self::DualEncoder(dir.to_owned()));
        }
        Err(TrainError::Usage(format!(
            "`{}` is no model: expected a run directory (with `checkpoints/`), a checkpoint (with `manifest.json`) or the \
             directory of a whole model, whose `config.json` says one of these as `model_type`: {}",
            dir.display(),
            dual_encoder_types()
        )))
    }
}

impl Assembly {
    /// The model that `config` describes, before its first step; what trains in any of its stages is in the gradient graph.
    ///
    /// # Errors
    /// When a tower, a tokenizer or an image processor cannot be had or does not fit.
    pub fn from_config(config: &RunConfig, compute: &Compute, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        let options = build_options(config);
        let device = &compute.device;
        let section = &config.model;
        let (built, image_dir, text_dir) = match config.towers() {
            Towers::Pair { image, text } => {
                let (image_dir, text_dir) = (hub::resolve(image)?, hub::resolve(text)?);
                let built = build_from_towers(&image_dir, &text_dir, &options, device)?;
                tell_audit("image tower", &built.image_audit, observer);
                tell_audit("text tower", &built.text_audit, observer);
                (built, image_dir, text_dir)
            }
            Towers::Init(init) => match ModelDir::find(&hub::resolve(init)?, observer)? {
                ModelDir::DualEncoder(dir) => {
                    let mut built = build_from_dual_encoder(&dir, &options, device)?;
                    if options.head.logit_bias.is_none() {
                        built.model.logit_bias = None;
                    }
                    tell_audit("image tower", &built.image_audit, observer);
                    tell_audit("text tower", &built.text_audit, observer);
                    (built, dir.clone(), dir)
                }
                ModelDir::Checkpoint(checkpoint) => {
                    let assembly = Self::from_checkpoint(*checkpoint, compute, observer)?;
                    return assembly.started_again(config, compute);
                }
            },
        };
        let mut assembly =
            Self::around(built, &image_dir, text_dir, section.image_size, config.data.max_tokens, observer)?;
        assembly.model = trainable(assembly.with_config_scale(config), config)?;
        Ok(assembly)
    }

    /// The model in `dir`, which may be a run, a checkpoint or a whole model: a VisionTextDualEncoder, CLIP or SigLIP.
    ///
    /// # Errors
    /// As [`Assembly::from_config`], and when `dir` is none of the three.
    pub fn from_dir(dir: &Path, compute: &Compute, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        match ModelDir::find(dir, observer)? {
            ModelDir::Checkpoint(checkpoint) => Self::from_checkpoint(*checkpoint, compute, observer),
            ModelDir::DualEncoder(dir) => {
                let built = build_from_dual_encoder(&dir, &BuildOptions::evaluation(), &compute.device)?;
                Self::around(built, &dir, dir.clone(), None, usize::MAX, observer)
            }
        }
    }

    /// The model of the best checkpoint of the run in `dir`, by its `checkpoint.best`.
    ///
    /// # Errors
    /// As [`Assembly::from_dir`], and when `dir` is no run, or has no best checkpoint.
    pub fn best_of(dir: &Path, compute: &Compute, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        let checkpoints = checkpoints_of(dir);
        let newest = checkpoint::newest_valid(&checkpoints, |error| observer.on(Event::Warning(error.to_string())))?;
        let newest = newest.ok_or_else(|| {
            TrainError::Usage(format!("`{}` is no run with a valid checkpoint, so it has no best one", dir.display()))
        })?;
        let best = best_of_run(dir, &newest)?.ok_or_else(|| {
            TrainError::Usage(format!(
                "the run `{}` has no best checkpoint: its config has no `checkpoint.best`, or the evaluation that it names has \
                 not run yet; leave `--best` out to take the newest",
                dir.display()
            ))
        })?;
        let path = checkpoint::path_of(&checkpoints, best.step);
        let found = if best.step == newest.progress.step { newest } else { checkpoint::load(&path)? };
        Self::from_checkpoint(found, compute, observer)
    }

    /// The model of a checkpoint: its run's towers with the saved parameters in them, averaged where the run averages them.
    ///
    /// # Errors
    /// As [`Assembly::from_config`], and when the saved tensors or the locked ones do not fit.
    pub fn from_checkpoint(
        checkpoint: Checkpoint,
        compute: &Compute,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let config_path = checkpoint.path.join("config.toml");
        let config = RunConfig::load(&config_path, &[])?;
        let mut assembly = Self::from_config(&config, compute, &mut Silent(observer))?;
        assembly.verify_locked(&checkpoint)?;
        assembly.model = parameters::restore(assembly.model, parameters::Which::Trainable, checkpoint.weights())?;
        assembly.step = Some(checkpoint.progress.step);
        assembly.config = Some(config);
        Ok(assembly)
    }

    /// Compares the locked parameters with those a checkpoint was trained with.
    ///
    /// # Errors
    /// [`TrainError::LockedChanged`].
    pub fn verify_locked(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        match parameters::fingerprint(&self.model, parameters::Which::Locked)? == checkpoint.progress.locked {
            true => Ok(()),
            false => Err(TrainError::LockedChanged { checkpoint: checkpoint.path.clone() }),
        }
    }

    fn around(
        built: Built,
        image_dir: &Path,
        text_dir: PathBuf,
        image_size: Option<usize>,
        max_tokens: usize,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let tower = built.model.text_tower.config();
        let room = tower.max_tokens();
        if max_tokens > room && max_tokens != usize::MAX {
            observer.on(Event::Note(format!(
                "captions are cut at {room} tokens: the text tower has no more positions (`data.max_tokens` is {max_tokens})"
            )));
        }
        let tokenizer = Tokenizer::from_dir(&text_dir, max_tokens.min(room))?;
        let tokenizer = match tower.pad_to {
            Some(len) => tokenizer.with_padding_to(len)?,
            None => tokenizer,
        };
        check_vocabulary(&tokenizer, &built.model.text_tower, &text_dir)?;
        let mut processor = ImageProcessor::from_dir(image_dir)?;
        if processor.is_default() {
            observer.on(Event::Warning(format!(
                "`{}` has no `preprocessor_config.json`; images are processed as its family usually is: {}",
                image_dir.display(),
                processor.describe()
            )));
        }
        if let Some(size) = image_size {
            processor = processor.with_image_size(u32::try_from(size).unwrap_or(u32::MAX));
        }
        check_image_size(&processor, &built.model.image_tower)?;
        Ok(Self {
            model: built.model,
            tokenizer: Arc::new(tokenizer),
            processor: Arc::new(processor),
            text_dir,
            image_config: built.image_config,
            text_config: built.text_config,
            step: None,
            config: None,
        })
    }

    /// A trained model as the start of a new run: locks as the new configuration says.
    fn started_again(mut self, config: &RunConfig, compute: &Compute) -> Result<Self, TrainError> {
        let model = self.model.with_adapters_merged();
        let scalar = |bias| parameters::scalar(bias, &compute.device);
        let logit_bias = build_options(config).head.logit_bias;
        self.model = DualEncoder {
            logit_bias: logit_bias.map(|bias| model.logit_bias.clone().unwrap_or_else(|| scalar(bias))),
            ..model
        };
        if let Some(size) = config.model.image_size {
            self.processor = Arc::new(self.processor.with_image_size(u32::try_from(size).unwrap_or(u32::MAX)));
        }
        self.model = trainable(self.with_config_scale(config), config)?;
        (self.step, self.config) = (None, None);
        Ok(self)
    }

    /// The model with the initial temperature that the configuration names, if it names one.
    fn with_config_scale(&self, config: &RunConfig) -> DualEncoder {
        let mut model = self.model.clone();
        if let Some(scale) = config.model.logit_scale_init {
            model.logit_scale = parameters::scalar(scale, &model.device());
        }
        model
    }
}

/// Refuses a tokenizer that the text tower has too few words for.
pub(crate) fn check_vocabulary(tokenizer: &Tokenizer, tower: &TextTower, dir: &Path) -> Result<(), TrainError> {
    let rows = tower.config().vocab_size;
    match tokenizer.vocab_size() > rows {
        false => Ok(()),
        true => Err(TrainError::Usage(format!(
            "the tokenizer in `{}` has ids up to {}, but the text tower's word table has {rows} rows; take the tokenizer that \
             belongs to the tower",
            dir.display(),
            tokenizer.vocab_size() - 1,
        ))),
    }
}

/// Refuses images that the image tower cannot take.
pub(crate) fn check_image_size(processor: &ImageProcessor, tower: &ImageTower) -> Result<(), TrainError> {
    let (patch, smallest) = (tower.side_multiple() as u32, tower.smallest_side() as u32);
    let (height, width) = processor.output_size();
    if height % patch != 0 || width % patch != 0 {
        return Err(TrainError::Usage(format!(
            "images of {width}x{height} px do not divide into the image tower's patches of {patch} px; set `model.image_size` \
             to a multiple of {patch}"
        )));
    }
    if height.min(width) < smallest {
        return Err(TrainError::Usage(format!(
            "images of {width}x{height} px leave nothing of the image tower's last feature map; set `model.image_size` to at \
             least {smallest}"
        )));
    }
    Ok(())
}

/// `model` with the adapters that `config` asks for, and what ever trains in the gradient graph.
fn trainable(model: DualEncoder, config: &RunConfig) -> Result<DualEncoder, TrainError> {
    let [image, text] =
        [&config.model.image_lora, &config.model.text_lora].map(|lora| lora.as_ref().map(LoraSection::adapters));
    let model = model.with_adapters([image.as_ref(), text.as_ref()], config.run.seed)?;
    Ok(config.ever_trains().of(model)?)
}

fn build_options(config: &RunConfig) -> BuildOptions {
    let ModelSection { image_pool, text_pool, image_dropout, text_dropout, .. } = config.model;
    BuildOptions {
        lock: config.model.lock,
        image: TowerOptions { pool: image_pool, dropout: image_dropout },
        text: TowerOptions { pool: text_pool, dropout: text_dropout },
        image_projection_locked: config.model.image_projection.locked,
        text_projection_locked: config.model.text_projection.locked,
        head: HeadConfig {
            embed_dim: config.model.embed_dim.unwrap_or_default(),
            logit_scale: config.model.logit_scale_init.unwrap_or(LOGIT_SCALE_INIT),
            logit_bias: (config.train.loss == Loss::Sigmoid).then_some(config.train.logit_bias_init).flatten(),
        },
        seed: config.run.seed,
    }
}

fn tell_audit(part: &'static str, audit: &Audit, observer: &mut dyn Observer) {
    if !audit.missing.is_empty() || !audit.unused.is_empty() {
        observer.on(Event::Audit { part, audit });
    }
}

/// Passes warnings on, but not the facts that were told when the run began.
struct Silent<'a>(&'a mut dyn Observer);

impl Observer for Silent<'_> {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Warning(_) = event {
            self.0.on(event);
        }
    }
}
