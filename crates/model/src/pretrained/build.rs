//! Builds models: from two towers on disk, from a whole model on disk, or from a config.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;

use crate::dual_encoder::config::{DualEncoderConfig, HeadConfig, LOGIT_SCALE_INIT};
use crate::dual_encoder::lock::{Lock, TowerLock};
use crate::dual_encoder::model::DualEncoder;
use crate::error::ModelError;
use crate::params::audit::Audit;
use crate::params::builder::ParamSource;
use crate::params::grad::lock;
use crate::params::random::named_seed;
use crate::pooled_layers::TakenLayers;
use crate::pooling::Pool;
use crate::pretrained::config_file::read_config;
use crate::pretrained::tower_files::{TowerFiles, read_weights};
use crate::pretrained::whole_models::{HEAD, WholeModel, missing_scale_warning, supported_types};
use crate::text::config::TextTowerConfig;
use crate::text::dense::DenseConfig;
use crate::text::text_tower::TextTower;
use crate::tower::Tower;
use crate::vision::image_tower::ImageTower;
use crate::weights::name_table::NameTable;
use crate::weights::stored_tensor::StoredTensor;
use crate::weights::weight_files::WeightFiles;

/// How to build one tower.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TowerOptions {
    /// Pooling.
    pub pool: Pool,
    /// Replaces both dropout probabilities of its config.
    pub dropout: Option<f64>,
    /// The layers that are pooled.
    pub layers: TakenLayers,
    /// For [`Pool::Tokens`]: side of the grid of means that stand for the patch tokens; `None`: themselves.
    pub token_grid: Option<usize>,
}

/// How to build a dual encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildOptions {
    /// Which towers train, and how they are initialised.
    pub lock: Lock,
    /// Options of the image tower.
    pub image: TowerOptions,
    /// Options of the text tower.
    pub text: TowerOptions,
    /// Whether the image projection is frozen.
    pub image_projection_locked: bool,
    /// Whether the text projection is frozen.
    pub text_projection_locked: bool,
    /// Heads and temperature. When reading a whole model, its own `embed_dim` is used, and heads of other forms start
    /// from its projections.
    pub head: HeadConfig,
    /// Seed of all random weights.
    pub seed: u64,
}

/// A model, and what loading it found.
pub struct BuiltModel {
    /// The model; trainable parameters are on the autodiff side of the device.
    pub model: DualEncoder,
    /// Audit of the weights of the image tower.
    pub image_audit: Audit,
    /// Audit of the weights of the text tower.
    pub text_audit: Audit,
    /// The `config.json` of the image tower, for export.
    pub image_config: Value,
    /// The `config.json` of the text tower, for export.
    pub text_config: Value,
    /// What the weights lack beside the towers, each as a sentence.
    pub warnings: Vec<String>,
}

/// Where a tower comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TowerSource<'a> {
    /// A directory.
    Dir(&'a Path),
    /// Nowhere: its outputs come from files, and have this width.
    Absent(usize),
}

impl BuildOptions {
    /// For evaluating a whole model: nothing trains, and a missing weight is an error.
    pub fn evaluation() -> Self {
        Self {
            lock: Lock { image: TowerLock::Locked, text: TowerLock::Locked },
            image: TowerOptions::default(),
            text: TowerOptions::default(),
            image_projection_locked: true,
            text_projection_locked: true,
            head: HeadConfig::linear(0, LOGIT_SCALE_INIT),
            seed: 0,
        }
    }
}

impl BuildOptions {
    /// The options with all tokens of the image tower as its output, where something takes them.
    fn with_pool_of_tokens(&self, image: &TowerFiles, is_whole: bool) -> Result<Self, ModelError> {
        let Some(form) = self.head.image_tokens else { return Ok(self.clone()) };
        if is_whole {
            return Err(image.problem(format!(
                "the image head takes all tokens ({form}), but the projection of a whole model was trained for the \
                 pooled output of its image tower; start from the two towers (`image_tower` and `text_tower`)"
            )));
        }
        if self.image.layers.numbers.numbers().len() > 1 {
            return Err(image.problem(format!(
                "`image_layer` is {}, but the image head takes the tokens of one layer; name one layer",
                self.image.layers.numbers
            )));
        }
        Ok(Self {
            image: TowerOptions { pool: Pool::Tokens, token_grid: form.grid, ..self.image.clone() },
            ..self.clone()
        })
    }
}

impl DualEncoder {
    /// Loads a `VisionTextDualEncoder`, CLIP, Chinese CLIP or SigLIP from `dir` for evaluation, without gradients.
    ///
    /// # Errors
    /// As [`build_from_dual_encoder`]. A missing pooler, which the reference initialises at random on each load, is
    /// [`ModelError::LockedRandom`].
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        Ok(build_from_dual_encoder(dir.as_ref(), &BuildOptions::evaluation(), device)?.model.valid())
    }

    /// Builds a randomly initialised model, all of which trains. Its weights are a function of `seed`.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedFamily`] or [`ModelError::Config`] if the config of a tower is not supported.
    pub fn from_config(config: &DualEncoderConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        build_from_config(config, seed, device)
    }
}

/// Builds a model from two tower directories, with newly initialised projections.
///
/// # Errors
/// - [`ModelError::Read`], [`ModelError::Config`], [`ModelError::NoWeights`] or [`ModelError::Weights`] if a directory
///   cannot be read;
/// - [`ModelError::UnsupportedFamily`] if it is not a supported tower;
/// - [`ModelError::Shapes`] or [`ModelError::Incomplete`] if its weights do not fit its config;
/// - [`ModelError::LockedRandom`] if a locked tower would keep random weights.
pub fn build_from_towers(
    image: &Path,
    text: &Path,
    options: &BuildOptions,
    device: &Device,
) -> Result<BuiltModel, ModelError> {
    build_from_sources(TowerSource::Dir(image), TowerSource::Dir(text), options, device)
}

/// As [`build_from_towers`], where a tower may be absent. An absent tower must be locked.
///
/// # Errors
/// As [`build_from_towers`].
pub fn build_from_sources(
    image: TowerSource<'_>,
    text: TowerSource<'_>,
    options: &BuildOptions,
    device: &Device,
) -> Result<BuiltModel, ModelError> {
    let open = |source, lock, tower| match source {
        TowerSource::Dir(dir) => TowerFiles::open(dir, lock, tower),
        TowerSource::Absent(width) => Ok(TowerFiles::absent(width)),
    };
    // The files beside a tower say how it pools; an absent tower has none.
    let pool = |source, options: TowerOptions| match source {
        TowerSource::Dir(_) => options,
        TowerSource::Absent(_) => TowerOptions { pool: Pool::Cls, ..TowerOptions::default() },
    };
    let (image_options, text_options) = (pool(image, options.image.clone()), pool(text, options.text.clone()));
    let options = BuildOptions { image: image_options, text: text_options, ..options.clone() };
    let (image, text) =
        in_parallel(|| open(image, options.lock.image, Tower::Image), || open(text, options.lock.text, Tower::Text));
    build(image?, text?, None, &options, device)
}

/// Builds a model from the directory of a whole one, projections and temperature included: a VisionTextDualEncoder,
/// CLIP, Chinese CLIP or SigLIP.
///
/// A `logit_scale` that the weights lack is that of a new model of the config, with a warning.
///
/// SigLIP compares the outputs of its towers directly, so its projections are identities. Its stored `logit_bias` takes
/// precedence over that of `options`.
///
/// # Errors
/// As [`build_from_towers`]; also [`ModelError::Config`] if the directory does not hold a whole model, and
/// [`ModelError::State`] if it lacks a projection.
pub fn build_from_dual_encoder(dir: &Path, options: &BuildOptions, device: &Device) -> Result<BuiltModel, ModelError> {
    let (config_path, config) = read_config(dir)?;
    let kind = WholeModel::of(&config).ok_or_else(|| ModelError::Config {
        path: config_path.clone(),
        problem: format!(
            "`model_type` is `{}`, which is not a model with two towers; supported: {}",
            config["model_type"].as_str().unwrap_or("(none)"),
            supported_types()
        ),
    })?;
    let (weights, notes) = read_weights(dir, &config_path, &config)?;
    let files = |tower: Tower| TowerFiles {
        dir: dir.to_owned(),
        config_path: config_path.clone(),
        config: kind.tower_config(&config, tower),
        weights: Some(weights.subset(tower.stored_prefix())),
        notes: notes.clone(),
        taken: None,
    };
    let text = TowerOptions { pool: kind.text_pool(options.text.pool), ..options.text.clone() };
    let mut options = BuildOptions { text, ..options.clone() };
    let missing_scale = kind
        .missing_scale(&config, &weights)
        .map_err(|problem| ModelError::Config { path: config_path.clone(), problem })?;
    options.head.logit_scale = missing_scale.unwrap_or(options.head.logit_scale);
    let built = build(files(Tower::Image), files(Tower::Text), Some((kind, &weights)), &options, device)?;
    let warnings = missing_scale.into_iter().map(missing_scale_warning).collect();
    Ok(BuiltModel { warnings, ..built })
}

/// Builds a randomly initialised model, all of which trains.
pub(crate) fn build_from_config(
    config: &DualEncoderConfig,
    seed: u64,
    device: &Device,
) -> Result<DualEncoder, ModelError> {
    let files = |config: &Value| TowerFiles {
        dir: PathBuf::new(),
        config_path: PathBuf::from("config.json"),
        config: config.clone(),
        weights: None,
        notes: Vec::new(),
        taken: None,
    };
    let options = BuildOptions {
        lock: Lock { image: TowerLock::Scratch, text: TowerLock::Scratch },
        image: TowerOptions::default(),
        text: TowerOptions::default(),
        image_projection_locked: false,
        text_projection_locked: false,
        head: HeadConfig::linear(config.projection_dim, config.logit_scale_init_value),
        seed,
    };
    Ok(build(files(&config.vision_config), files(&config.text_config), None, &options, device)?.model)
}

fn build(
    image: TowerFiles,
    text: TowerFiles,
    whole: Option<(&WholeModel, &WeightFiles)>,
    options: &BuildOptions,
    device: &Device,
) -> Result<BuiltModel, ModelError> {
    let options = &options.with_pool_of_tokens(&image, whole.is_some())?;
    let image = image.taking(&options.image.layers, Tower::Image)?;
    let text = text.taking(&options.text.layers, Tower::Text)?;
    let (image_built, text_built) = in_parallel(
        || build_image_tower(&image, options.lock.image, &options.image, options.seed, device),
        || build_text_tower(&text, options.lock.text, &options.text, options.seed, device),
    );
    let ((image_tower, image_audit), (text_tower, text_audit)) = (image_built?, text_built?);
    let mut head = options.head;
    if head.text.is_some_and(|form| form.is_identity()) && whole.is_none() {
        head.embed_dim = width_of_identity(head.embed_dim, text_tower.pooled_width(), &text)?;
    }
    let stored = whole
        .map(|(kind, weights)| kind.head(weights, image_tower.width(), text_tower.pooled_width()))
        .transpose()
        .map_err(|problem| ModelError::Config { path: image.config_path.clone(), problem })?;
    if let Some(stored) = &stored {
        let bias = stored.get("logit_bias").map(StoredTensor::read).transpose()?;
        let dim = stored.get("visual_projection.weight").and_then(|projection| projection.shape.first().copied());
        head.embed_dim = dim.unwrap_or(head.embed_dim);
        head.logit_bias = bias.and_then(|bias| Some(f64::from(*bias.first()?))).or(head.logit_bias);
    }
    let pretrained = stored.map(|weights| (weights, NameTable::new(&HEAD)));
    let source = ParamSource::new(device.clone().autodiff(), options.seed, pretrained);
    let forms = [head.image, head.text];
    if whole.is_some() {
        // The files hold plain linear heads.
        (head.image, head.text) = (None, None);
    }
    let mut model = DualEncoder::new(&source.root(), image_tower, text_tower, head);
    let audit = source.into_audit()?;
    if !audit.mismatched.is_empty() {
        return Err(ModelError::Shapes { dir: image.dir, mismatches: audit.mismatched });
    }
    let missing: Vec<String> = audit.missing.into_iter().filter(|name| name.contains("projection")).collect();
    if whole.is_some() && !missing.is_empty() {
        return Err(ModelError::State {
            problems: missing.into_iter().map(|name| format!("{name}: not in the weights")).collect(),
        });
    }
    if whole.is_some() {
        model = model.with_heads(forms, options.seed)?;
    }
    if options.image_projection_locked {
        model.image_projection = lock(model.image_projection);
        model.image_tokens = model.image_tokens.map(lock);
    }
    if options.text_projection_locked {
        model.text_projection = lock(model.text_projection);
    }
    let (image_config, text_config, warnings) = (image.config, text.config, Vec::new());
    Ok(BuiltModel { model, image_audit, text_audit, image_config, text_config, warnings })
}

/// The width of the shared space if the text head is the identity. `asked`: 0 unless the width is set.
fn width_of_identity(asked: usize, width: usize, text: &TowerFiles) -> Result<usize, ModelError> {
    if asked == 0 || asked == width {
        return Ok(width);
    }
    Err(ModelError::Config {
        path: text.config_path.clone(),
        problem: format!(
            "`model.text_head` is `identity`, which gives embeddings the width of this tower, {width}, but \
             `model.embed_dim` is {asked}; remove `embed_dim`, or choose another head"
        ),
    })
}

/// Runs both at once, so that two towers load in the time of the larger one. A thread of its own rather than
/// `rayon::join`: the work blocks on files, and `second` may use the whole rayon pool.
fn in_parallel<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    std::thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        (first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), second)
    })
}

/// Builds an image tower alone.
///
/// # Errors
/// As [`build_from_towers`].
pub fn image_tower_from(
    dir: &Path,
    lock: TowerLock,
    options: TowerOptions,
    device: &Device,
) -> Result<(ImageTower, Audit), ModelError> {
    let files = TowerFiles::open(dir, lock, Tower::Image)?.taking(&options.layers, Tower::Image)?;
    build_image_tower(&files, lock, &options, 0, device)
}

/// Builds a text tower alone.
///
/// # Errors
/// As [`build_from_towers`].
pub fn text_tower_from(
    dir: &Path,
    lock: TowerLock,
    options: TowerOptions,
    device: &Device,
) -> Result<(TextTower, Audit), ModelError> {
    let files = TowerFiles::open(dir, lock, Tower::Text)?.taking(&options.layers, Tower::Text)?;
    build_text_tower(&files, lock, &options, 0, device)
}

fn build_image_tower(
    files: &TowerFiles,
    lock: TowerLock,
    options: &TowerOptions,
    seed: u64,
    device: &Device,
) -> Result<(ImageTower, Audit), ModelError> {
    let (names, config) = files.image_config()?;
    let pooling = files.image_pooling(&config, options.pool)?;
    let source = files.param_source(names, named_seed(seed, Tower::Image.module()), lock, device);
    let tower = ImageTower::new(
        &source.root(),
        config.with_dropout(options.dropout).with_token_grid(options.token_grid),
        pooling,
    );
    let mut audit = files.audit(source)?;
    files.check_audit(&audit, lock, Tower::Image)?;
    if lock != TowerLock::Locked {
        audit.notes.extend(ignored_drop_path(&files.config));
    }
    Ok((tower, audit))
}

/// The note that a tower of this `config` trains without its stochastic depth.
fn ignored_drop_path(config: &Value) -> Option<String> {
    // What transformers takes where the config has no rate.
    let default = match config["model_type"].as_str()? {
        "swin" => 0.1,
        "convnext" | "convnextv2" => 0.0,
        _ => return None,
    };
    let rate = config["drop_path_rate"].as_f64().unwrap_or(default);
    (rate > 0.0).then(|| {
        format!(
            "`drop_path_rate` is {rate}; transformers leaves out branches in training, dualenc does not in this family"
        )
    })
}

fn build_text_tower(
    files: &TowerFiles,
    lock: TowerLock,
    options: &TowerOptions,
    seed: u64,
    device: &Device,
) -> Result<(TextTower, Audit), ModelError> {
    let (names, config) = files.text_config()?;
    let config = TextTowerConfig { encoder: config.encoder.with_dropout(options.dropout), ..config };
    let pooling = files.text_pooling(names, &config, options.pool)?;
    let dense = files.dense_modules(options.pool, config.pooled_width(pooling))?;
    let files = &TowerFiles { weights: files.with_dense_weights(&dense)?, ..files.clone() };
    let dense: Vec<DenseConfig> = dense.into_iter().map(|module| module.config).collect();
    let source = files.param_source(names, named_seed(seed, Tower::Text.module()), lock, device);
    let tower = TextTower::new(&source.root(), config, pooling, &dense);
    let mut audit = files.audit(source)?;
    audit.notes.extend(files.sentence_notes(options.pool, pooling)?);
    files.check_audit(&audit, lock, Tower::Text)?;
    Ok((tower, audit))
}
