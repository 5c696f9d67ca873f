//! Building a dual encoder from Hugging Face directories: two towers, or a whole model with both in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;

use crate::dual_encoder::config::DualEncoderConfig;
use crate::dual_encoder::lock::{Lock, TowerLock};
use crate::dual_encoder::model::{DualEncoder, HeadConfig};
use crate::error::ModelError;
use crate::families::{image_config, text_config};
use crate::params::builder::{Audit, ParamSource};
use crate::params::random::named_seed;
use crate::params::values as parameters;
use crate::pooling::{Pool, Pooling};
use crate::pretrained::open_clip;
use crate::pretrained::sentence_transformers::sentence_pooling;
use crate::pretrained::whole_models::{self as composite, Composite, Side};
use crate::text::text_tower::{TextPooler, TextTower, TextTowerConfig};
use crate::vision::image_tower::{ImageTower, ImageTowerConfig};
use crate::weights::name_table::{HEAD, NameTable, Names, modern_norm_name};
use crate::weights::weight_files::{HostTensor, WeightFiles};

/// What a user may ask of one tower.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TowerOptions {
    /// How it pools.
    pub pool: Pool,
    /// Replaces its own dropout, both kinds.
    pub dropout: Option<f64>,
}

/// What a user may ask of the whole.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildOptions {
    /// Which towers train, and from what.
    pub lock: Lock,
    /// The image tower.
    pub image: TowerOptions,
    /// The text tower.
    pub text: TowerOptions,
    /// Whether the image projection stays as it is.
    pub image_projection_locked: bool,
    /// Whether the text projection stays as it is.
    pub text_projection_locked: bool,
    /// Projections and temperature. `embed_dim` is the directory's own where a whole model is read.
    pub head: HeadConfig,
    /// Decides every weight that is not read.
    pub seed: u64,
}

/// A model with what loading found out about it.
pub struct Built {
    /// On the device asked for; what trains is on its autodiff side.
    pub model: DualEncoder,
    /// Of the image tower's weights.
    pub image_audit: Audit,
    /// Of the text tower's weights.
    pub text_audit: Audit,
    /// The `config.json` of the image tower, for export.
    pub image_config: Value,
    /// The `config.json` of the text tower, for export.
    pub text_config: Value,
}

/// One tower on disk: a directory of its own, or a part of a composite's.
pub(crate) struct TowerFiles {
    pub dir: PathBuf,
    pub config_path: PathBuf,
    pub config: Value,
    pub weights: Option<WeightFiles>,
}

impl TowerFiles {
    /// A directory of one tower, or the tower of that side out of a composite's.
    fn open(dir: &Path, lock: TowerLock, side: Side) -> Result<Self, ModelError> {
        let (config_path, config) = read_config(dir)?;
        let weights = match lock {
            TowerLock::Scratch => None,
            _ => Some(read_weights(dir, &config_path)?),
        };
        let (config, weights) = match Composite::of(&config) {
            Some(composite) => {
                (composite.tower_config(&config, side), weights.map(|weights| weights.subset(side.prefix())))
            }
            None => (config, weights),
        };
        Ok(Self { dir: dir.to_owned(), config_path, config, weights })
    }
}

/// Every tensor of a directory whose config is at `config_path`, under the names of transformers 5.
fn read_weights(dir: &Path, config_path: &Path) -> Result<WeightFiles, ModelError> {
    match open_clip::weights_path(dir, config_path) {
        Some(path) => Ok(open_clip::renamed(WeightFiles::read_file(&path)?)),
        None => Ok(WeightFiles::read(dir)?.renamed(modern_norm_name)),
    }
}

/// A directory's config and its path. Where `config.json` is not there, or is timm's, open_clip's may be.
pub(crate) fn read_config(dir: &Path) -> Result<(PathBuf, Value), ModelError> {
    let path = dir.join("config.json");
    let read = || -> Result<Value, ModelError> {
        let text = fs::read_to_string(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        serde_json::from_str(&text)
            .map_err(|error| ModelError::Config { path: path.clone(), problem: format!("not JSON: {error}") })
    };
    let config = read();
    if !config.as_ref().is_ok_and(|config| config["model_type"].is_string())
        && let Some(found) = open_clip::config(dir)?
    {
        return Ok(found);
    }
    config.map(|config| (path, config))
}

/// Whether `dir` holds a whole model: a VisionTextDualEncoder, or a CLIP, Chinese CLIP or SigLIP.
pub fn is_dual_encoder_dir(dir: &Path) -> bool {
    read_config(dir).is_ok_and(|(_, config)| Composite::of(&config).is_some())
}

/// The `model_type` of every kind of whole model that is read, for messages.
pub fn dual_encoder_types() -> String {
    composite::supported()
}

/// Builds a model of two tower directories; projections start fresh.
///
/// # Errors
/// When a directory is not a supported tower, its weights do not fit, or a locked tower would keep random weights.
pub fn build_from_towers(
    image: &Path,
    text: &Path,
    options: &BuildOptions,
    device: &Device,
) -> Result<Built, ModelError> {
    let (image, text) = side_by_side(
        || TowerFiles::open(image, options.lock.image, Side::Image),
        || TowerFiles::open(text, options.lock.text, Side::Text),
    );
    build(image?, text?, None, options, device)
}

/// Builds a model of the directory of a whole one, projections and temperature included: of a VisionTextDualEncoder, or of
/// a CLIP, Chinese CLIP or SigLIP.
///
/// SigLIP compares the towers' outputs as they are: its projections are identities of that width. Its `logit_bias` is kept
/// whatever `options` say.
///
/// # Errors
/// As [`build_from_towers`], and when a projection is missing or the directory holds no whole model.
pub fn build_from_dual_encoder(dir: &Path, options: &BuildOptions, device: &Device) -> Result<Built, ModelError> {
    let (config_path, config) = read_config(dir)?;
    let composite = Composite::of(&config).ok_or_else(|| ModelError::Config {
        path: config_path.clone(),
        problem: format!(
            "`model_type` is `{}`, which is no model with two towers; supported: {}",
            config["model_type"].as_str().unwrap_or("(none)"),
            composite::supported()
        ),
    })?;
    let weights = read_weights(dir, &config_path)?;
    let part = |side: Side| TowerFiles {
        dir: dir.to_owned(),
        config_path: config_path.clone(),
        config: composite.tower_config(&config, side),
        weights: Some(weights.subset(side.prefix())),
    };
    let text = TowerOptions { pool: composite.text_pool(options.text.pool), ..options.text };
    let options = BuildOptions { text, ..options.clone() };
    build(part(Side::Image), part(Side::Text), Some((composite, &weights)), &options, device)
}

/// Builds a model of random weights that are a function of `seed`; all of it trains.
pub(crate) fn build_from_config(
    config: &DualEncoderConfig,
    seed: u64,
    device: &Device,
) -> Result<DualEncoder, ModelError> {
    let part = |config: &Value| TowerFiles {
        dir: PathBuf::new(),
        config_path: PathBuf::from("config.json"),
        config: config.clone(),
        weights: None,
    };
    let options = BuildOptions {
        lock: Lock { image: TowerLock::Scratch, text: TowerLock::Scratch },
        image: TowerOptions::default(),
        text: TowerOptions::default(),
        image_projection_locked: false,
        text_projection_locked: false,
        head: HeadConfig {
            embed_dim: config.projection_dim,
            logit_scale: config.logit_scale_init_value,
            logit_bias: None,
        },
        seed,
    };
    Ok(build(part(&config.vision_config), part(&config.text_config), None, &options, device)?.model)
}

fn build(
    image: TowerFiles,
    text: TowerFiles,
    whole: Option<(&Composite, &WeightFiles)>,
    options: &BuildOptions,
    device: &Device,
) -> Result<Built, ModelError> {
    let (image_built, text_built) = side_by_side(
        || build_image_tower(&image, options.lock.image, options.image, options.seed, device),
        || build_text_tower(&text, options.lock.text, options.text, options.seed, device),
    );
    let ((image_tower, image_audit), (text_tower, text_audit)) = (image_built?, text_built?);
    let mut head = options.head;
    let stored = whole
        .map(|(kind, weights)| kind.head(weights, image_tower.width(), text_tower.pooled_width()))
        .transpose()
        .map_err(|problem| ModelError::Config { path: image.config_path.clone(), problem })?;
    if let Some(stored) = &stored {
        let value = |name: &str| stored.get(name)?.values.first().map(|&value| f64::from(value));
        let dim = stored.get("visual_projection.weight").and_then(|projection| projection.shape.first().copied());
        head.embed_dim = dim.unwrap_or(head.embed_dim);
        head.logit_bias = value("logit_bias").or(head.logit_bias);
    }
    let pretrained = stored.map(|weights| (weights, NameTable::new(&HEAD)));
    let source = ParamSource::new(device.clone().autodiff(), options.seed, pretrained);
    let mut model = DualEncoder::new(&source.root(), image_tower, text_tower, head);
    let audit = source.into_audit();
    if !audit.mismatched.is_empty() {
        return Err(ModelError::Shapes { dir: image.dir, mismatches: audit.mismatched });
    }
    let missing: Vec<String> = audit.missing.into_iter().filter(|name| name.contains("projection")).collect();
    if whole.is_some() && !missing.is_empty() {
        return Err(ModelError::State {
            problems: missing.into_iter().map(|name| format!("{name}: not in the weights")).collect(),
        });
    }
    if options.image_projection_locked {
        model.image_projection = parameters::lock(model.image_projection);
    }
    if options.text_projection_locked {
        model.text_projection = parameters::lock(model.text_projection);
    }
    Ok(Built { model, image_audit, text_audit, image_config: image.config, text_config: text.config })
}

/// Does both at once: two towers are read and laid out in the time of the larger one.
fn side_by_side<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    std::thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        (first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), second)
    })
}

/// One image tower of its own, pretrained.
///
/// # Errors
/// As [`build_from_towers`].
pub fn image_tower_from(
    dir: &Path,
    lock: TowerLock,
    options: TowerOptions,
    device: &Device,
) -> Result<(ImageTower, Audit), ModelError> {
    build_image_tower(&TowerFiles::open(dir, lock, Side::Image)?, lock, options, 0, device)
}

/// One text tower of its own, pretrained.
///
/// # Errors
/// As [`build_from_towers`].
pub fn text_tower_from(
    dir: &Path,
    lock: TowerLock,
    options: TowerOptions,
    device: &Device,
) -> Result<(TextTower, Audit), ModelError> {
    build_text_tower(&TowerFiles::open(dir, lock, Side::Text)?, lock, options, 0, device)
}

fn build_image_tower(
    files: &TowerFiles,
    lock: TowerLock,
    options: TowerOptions,
    seed: u64,
    device: &Device,
) -> Result<(ImageTower, Audit), ModelError> {
    let (names, config) = image_config(&files.config, &files.config_path)?;
    let pooling = files.image_pooling(&config, options.pool)?;
    let source = files.param_source(names, named_seed(seed, "image_tower"), lock, device);
    let tower = ImageTower::new(&source.root(), config.with_dropout(options.dropout), pooling);
    let audit = source.into_audit();
    files.judge(&audit, lock, "image tower", "image_pool")?;
    Ok((tower, audit))
}

fn build_text_tower(
    files: &TowerFiles,
    lock: TowerLock,
    options: TowerOptions,
    seed: u64,
    device: &Device,
) -> Result<(TextTower, Audit), ModelError> {
    let (names, config) = text_config(&files.config, &files.config_path)?;
    let config = TextTowerConfig { encoder: config.encoder.with_dropout(options.dropout), ..config };
    let pooling = files.text_pooling(names, &config, options.pool)?;
    let source = files.param_source(names, named_seed(seed, "text_tower"), lock, device);
    let tower = TextTower::new(&source.root(), config, pooling);
    let audit = source.into_audit();
    files.judge(&audit, lock, "text tower", "text_pool")?;
    Ok((tower, audit))
}

impl TowerFiles {
    fn problem(&self, problem: String) -> ModelError {
        ModelError::Config { path: self.config_path.clone(), problem }
    }

    /// How the image tower of these files pools.
    pub fn image_pooling(&self, config: &ImageTowerConfig, pool: Pool) -> Result<Pooling, ModelError> {
        let pooling = pool.resolve();
        match config.check_pooling(pooling) {
            Ok(()) => Ok(pooling),
            Err(reason) => Err(self.problem(format!(
                "this image tower cannot pool as `image_pool` asks, because {reason}; choose among \"auto\", \"cls\" and \
                 \"mean\""
            ))),
        }
    }

    /// How the text tower of these files pools.
    pub fn text_pooling(&self, names: &Names, config: &TextTowerConfig, pool: Pool) -> Result<Pooling, ModelError> {
        let has_pooler = match config.pooler {
            TextPooler::Absent(_) => false,
            TextPooler::EndOfText(_) => true,
            TextPooler::First | TextPooler::Last { .. } => {
                self.weights.as_ref().is_none_or(|files| NameTable::for_files(names, files).has(files, "pooler.weight"))
            }
        };
        let sentence = match pool {
            Pool::Auto if !has_pooler => sentence_pooling(&self.dir)?,
            _ => None,
        };
        let pooling = config.resolve(pool, has_pooler, sentence).ok_or_else(|| ModelError::Config {
            path: self.config_path.clone(),
            problem: format!(
                "`text_pool = \"pooler\"`, but a `{}` tower has no pooler; choose \"cls\", \"mean\" or \"auto\"",
                self.config["model_type"].as_str().unwrap_or_default()
            ),
        })?;
        if pool == Pool::Auto && pooling != Pooling::Pooler {
            let dir = self.dir.display();
            tracing::info!("`{dir}` has no pooler; `text_pool = \"auto\"` takes {}", config.describe_pooling(pooling));
        }
        Ok(pooling)
    }

    fn param_source(&self, names: &Names, seed: u64, lock: TowerLock, device: &Device) -> ParamSource {
        let device = match lock.trains() {
            true => device.clone().autodiff(),
            false => device.clone().without_autodiff(),
        };
        let pretrained = match lock {
            TowerLock::Scratch => None,
            _ => self.weights.clone().map(|files| {
                let names = NameTable::for_files(names, &files);
                (files, names)
            }),
        };
        ParamSource::new(device, seed, pretrained)
    }

    /// Refuses weights that do not fit, and random weights where they would stay random.
    pub fn judge(&self, audit: &Audit, lock: TowerLock, part: &'static str, pool_key: &str) -> Result<(), ModelError> {
        if !audit.mismatched.is_empty() {
            return Err(ModelError::Shapes { dir: self.dir.clone(), mismatches: audit.mismatched.clone() });
        }
        let only_pooler = audit.missing.iter().all(|name| is_of_pooler(name));
        if audit.missing.is_empty() || (lock.trains() && only_pooler) || self.weights.is_none() {
            return Ok(());
        }
        let hint = if only_pooler {
            format!(
                "These weights were saved without a pooler. Set `{pool_key} = \"cls\"` (or \"mean\") to take the last \
                 hidden state instead, or unlock the tower so that its pooler can be learned."
            )
        } else {
            "Are these the weights of the model that `config.json` describes?".to_owned()
        };
        Err(match lock {
            TowerLock::Locked => {
                ModelError::LockedRandom { dir: self.dir.clone(), part, missing: audit.missing.clone(), hint }
            }
            _ => ModelError::Incomplete { dir: self.dir.clone(), missing: audit.missing.clone(), hint },
        })
    }
}

/// Whether the tensor of this name belongs to a tower's pooler: weights may lack it, and it is then drawn at random.
pub fn is_of_pooler(name: &str) -> bool {
    name.contains("pooler.") || name.contains("head.")
}

/// The reference's names of a model's parameters, for writing them.
pub struct StoredNames {
    image: NameTable,
    text: NameTable,
    head: NameTable,
}

impl StoredNames {
    /// For the families of these two `config.json`s.
    ///
    /// # Errors
    /// When a family is not supported.
    pub fn new(image: &Value, text: &Value) -> Result<Self, ModelError> {
        let here = Path::new("config.json");
        Ok(Self {
            image: NameTable::new(image_config(image, here)?.0),
            text: NameTable::new(text_config(text, here)?.0),
            head: NameTable::new(&HEAD),
        })
    }

    /// Parameters by path to tensors by name, as the reference stores them.
    ///
    /// # Errors
    /// When the reference has no such parameter.
    pub fn stored(&self, parameters: BTreeMap<String, HostTensor>) -> Result<BTreeMap<String, HostTensor>, ModelError> {
        let mut stored = BTreeMap::new();
        for (path, tensor) in parameters {
            let (prefix, table, rest) = match path.split_once('.') {
                Some(("image_tower", rest)) => ("vision_model.", &self.image, rest),
                Some(("text_tower", rest)) => ("text_model.", &self.text, rest),
                _ => ("", &self.head, path.as_str()),
            };
            let (name, layout) = table
                .stored(rest)
                .ok_or_else(|| ModelError::Export(format!("`{path}` has no name in the reference's layout")))?;
            layout.encode(&tensor.shape, tensor.values, stored.entry(format!("{prefix}{name}")).or_default());
        }
        Ok(stored.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect())
    }
}
