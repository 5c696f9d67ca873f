//! Reports what a directory holds from its configs and its weights. Values are read one tensor at a time, only to find
//! those that are not finite. What does not fit is reported rather than refused.

use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;

use crate::dual_encoder::config::{HeadConfig, LOGIT_SCALE_INIT};
use crate::dual_encoder::lock::TowerLock;
use crate::dual_encoder::model::DualEncoder;
use crate::error::ModelError;
use crate::params::audit::Audit;
use crate::params::builder::ParamSource;
use crate::pooling::{Pool, Pooling};
use crate::pretrained::build::TowerOptions;
use crate::pretrained::config_file::read_config;
use crate::pretrained::open_clip;
use crate::pretrained::sentence_transformers::sentence_pooling;
use crate::pretrained::tower_files::{TowerFiles, is_pooler_tensor, with_modern_names};
use crate::pretrained::whole_models::{HEAD, WholeModel, missing_scale_warning, supported_types};
use crate::text::config::TextPooler;
use crate::text::dense::DenseConfig;
use crate::text::text_tower::TextTower;
use crate::tower::Tower;
use crate::vision::image_tower::ImageTower;
use crate::weights::header::{WeightHeader, weight_headers};
use crate::weights::name_table::{NameTable, Names};
use crate::weights::stored_tensor::StoredTensor;
use crate::weights::weight_files::WeightFiles;

/// The contents of a model directory.
#[derive(Debug)]
pub struct ModelSummary {
    /// The `model_type` of its `config.json`.
    pub model_type: String,
    /// Its image tower, or why it cannot be loaded. `None` if it has no image tower.
    pub image: Option<Result<TowerSummary<ImageTower>, ModelError>>,
    /// Its text tower, likewise.
    pub text: Option<Result<TowerSummary<TextTower>, ModelError>>,
    /// The projections and the temperature of a whole model.
    pub head: Option<HeadSummary>,
    /// The header of each weight file, or the error of reading it.
    pub weights: Vec<Result<WeightHeader, ModelError>>,
    /// Why there are no weight files.
    pub no_weights: Option<ModelError>,
}

/// The contents of one tower.
#[derive(Debug)]
pub struct TowerSummary<T> {
    /// Its `model_type`.
    pub family: String,
    /// Its `config.json`.
    pub config: Value,
    /// The tower, all zeros.
    pub tower: T,
    /// The audit that loading it would return.
    pub audit: Audit,
    /// How it pools and why, in words.
    pub pooling: String,
    /// Tensors of the tower with NaN or infinite values, as name and count; or why a tensor cannot be read.
    pub not_finite: Vec<String>,
    /// Why the tower cannot be locked, if it cannot.
    pub lock_refused: Option<ModelError>,
}

/// The projections and the temperature of a whole model, as stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadSummary {
    /// `[dim, image width]`; `None` if the outputs of the towers are compared directly (SigLIP).
    pub image_projection: Option<Vec<usize>>,
    /// `[dim, text width]`, likewise.
    pub text_projection: Option<Vec<usize>>,
    /// Logarithm of the inverse temperature.
    pub logit_scale: Option<f32>,
    /// Bias of the sigmoid loss.
    pub logit_bias: Option<f32>,
    /// Tensors that belong to neither a tower nor the head.
    pub unused: Vec<String>,
    /// Tensors with NaN or infinite values, as for a tower.
    pub not_finite: Vec<String>,
    /// Why the whole model cannot be loaded.
    pub problems: Vec<String>,
    /// What it lacks and can be loaded without, each as a sentence.
    pub warnings: Vec<String>,
}

/// Reports the contents of `dir` without building a model, for towers of these options.
///
/// # Errors
/// [`ModelError::Read`] or [`ModelError::Config`] if there is no readable config; [`ModelError::UnsupportedFamily`] if
/// it is neither a supported tower nor a whole model.
pub fn dry_load(
    dir: &Path,
    image_options: &TowerOptions,
    text_options: &TowerOptions,
    device: &Device,
) -> Result<ModelSummary, ModelError> {
    let (config_path, config) = read_config(dir)?;
    let model_type = config["model_type"].as_str().unwrap_or("(none)").to_owned();
    let open_clip = open_clip::weights_path(dir, &config_path);
    let (weights, no_weights) = match (&open_clip, weight_headers(dir)) {
        (Some(path), _) => (vec![WeightHeader::read(path.clone())], None),
        (None, Ok(headers)) => (headers, None),
        (None, Err(error)) => (Vec::new(), Some(error)),
    };
    let readable = || weights.iter().flatten();
    let stored = no_weights
        .is_none()
        .then(|| with_modern_names(WeightFiles::of_headers(readable()), open_clip.is_some(), &config_path, &config));
    let (stored, notes) = stored.map_or((None, Vec::new()), |(stored, notes)| (Some(stored), notes));
    let files = |config, weights| TowerFiles {
        dir: dir.to_owned(),
        config_path: config_path.clone(),
        config,
        weights,
        notes: notes.clone(),
        taken: None,
    };
    if let Some(kind) = WholeModel::of(&config) {
        let tower_files = |tower: Tower| {
            let weights = stored.as_ref().map(|stored| stored.subset(tower.stored_prefix()));
            files(kind.tower_config(&config, tower), weights)
        };
        let image = dry_load_image(tower_files(Tower::Image), image_options, device);
        let pool = kind.text_pool(text_options.pool);
        let text = dry_load_text(tower_files(Tower::Text), text_options, pool, device);
        let mut head = dry_load_head(&stored.clone().unwrap_or_default());
        if let (Some(stored), Ok(image), Ok(text)) = (&stored, &image, &text) {
            head.problems = head_problems(kind, stored, &image.tower, &text.tower, device);
        }
        // With an unreadable file, what is missing is not known.
        if let Some(stored) = stored.as_ref().filter(|_| weights.iter().all(Result::is_ok)) {
            match kind.missing_scale(&config, stored) {
                Ok(scale) => head.warnings.extend(scale.map(missing_scale_warning)),
                Err(problem) => head.problems.push(problem),
            }
        }
        return Ok(ModelSummary {
            model_type,
            image: Some(image),
            text: Some(text),
            head: Some(head),
            weights,
            no_weights,
        });
    }
    let files = files(config, stored);
    let image = dry_load_image(files.clone(), image_options, device);
    let (image, text) = match (image, dry_load_text(files, text_options, text_options.pool, device)) {
        (Err(image @ ModelError::UnsupportedFamily { .. }), Err(text @ ModelError::UnsupportedFamily { .. })) => {
            return Err(neither_tower(image, text));
        }
        (Err(ModelError::UnsupportedFamily { .. }), text) => (None, Some(text)),
        (image, _) => (Some(image), None),
    };
    Ok(ModelSummary { model_type, image, text, head: None, weights, no_weights })
}

/// The error for a family that is neither an image tower nor a text tower.
fn neither_tower(image: ModelError, text: ModelError) -> ModelError {
    match (image, text) {
        (
            ModelError::UnsupportedFamily { path, found, supported: image, .. },
            ModelError::UnsupportedFamily { supported: text, .. },
        ) => ModelError::UnsupportedFamily {
            path,
            found,
            kind: "image or text",
            supported: format!("{image}; {text}; whole models: {}", supported_types()),
        },
        (image, _) => image,
    }
}

fn dry_load_image(
    files: TowerFiles,
    options: &TowerOptions,
    device: &Device,
) -> Result<TowerSummary<ImageTower>, ModelError> {
    let pool = options.pool;
    let files = &files.taking(&options.layers, Tower::Image)?;
    let (names, config) = files.image_config()?;
    let pooling = files.image_pooling(&config, pool)?;
    let mut reason = files.of_layer(config.describe_pooling(pooling));
    let source = dry_source(files, names, device);
    let tower = ImageTower::new(&source.root(), config, pooling);
    let audit = dry_audit(source, files)?;
    if pooling == Pooling::Pooler {
        reason += missing_pooler(&audit);
    }
    Ok(files.summarize(tower, audit, with_pool_key(reason, pool, Tower::Image), Tower::Image))
}

/// `pool` is that of `options`, as the whole model resolves it.
fn dry_load_text(
    files: TowerFiles,
    options: &TowerOptions,
    pool: Pool,
    device: &Device,
) -> Result<TowerSummary<TextTower>, ModelError> {
    let asked_pool = options.pool;
    let files = files.taking(&options.layers, Tower::Text)?;
    let (names, config) = files.text_config()?;
    let pooling = files.text_pooling(names, &config, pool)?;
    let dense = files.dense_modules(pool, config.pooled_width(pooling))?;
    let files = &TowerFiles { weights: files.with_dense_weights(&dense)?, ..files };
    let mut reason = files.of_layer(config.describe_pooling(pooling));
    if pool == Pool::Sentence {
        reason += match dense.len() {
            0 => ", as `1_Pooling` of sentence-transformers says",
            1 => ", then a `Dense` layer, as the modules of sentence-transformers say",
            _ => ", then `Dense` layers, as the modules of sentence-transformers say",
        };
    }
    let dense: Vec<DenseConfig> = dense.into_iter().map(|module| module.config).collect();
    if pool == Pool::Auto && pooling != Pooling::Pooler {
        let without = match config.pooler {
            TextPooler::Absent(_) => "its family has no pooler",
            _ => "the weights have no pooler",
        };
        let instead = if sentence_pooling(&files.dir)?.is_some() {
            ", and the pooling config of sentence-transformers says so"
        } else {
            ""
        };
        reason = format!("{reason}: {without}{instead}");
    }
    if pool != asked_pool {
        reason += ": its whole model takes that";
    }
    let source = dry_source(files, names, device);
    let tower = TextTower::new(&source.root(), config, pooling, &dense);
    let mut audit = dry_audit(source, files)?;
    audit.notes.extend(files.sentence_notes(pool, pooling)?);
    if pooling == Pooling::Pooler {
        reason += missing_pooler(&audit);
    }
    Ok(files.summarize(tower, audit, with_pool_key(reason, asked_pool, Tower::Text), Tower::Text))
}

fn dry_source(files: &TowerFiles, names: &Names, device: &Device) -> ParamSource {
    let stored = files.weights.clone().unwrap_or_default();
    let names = NameTable::for_files(names, &stored);
    ParamSource::dry(device.clone().without_autodiff(), stored, names)
}

/// The audit, which names each tensor once even if it holds several parameters. Empty without weights.
fn dry_audit(source: ParamSource, files: &TowerFiles) -> Result<Audit, ModelError> {
    if files.weights.is_none() {
        return Ok(Audit::default());
    }
    let mut audit = files.audit(source)?;
    for names in [&mut audit.missing, &mut audit.mismatched] {
        names.sort();
        names.dedup();
    }
    Ok(audit)
}

fn missing_pooler(audit: &Audit) -> &'static str {
    if audit.missing.iter().any(|name| is_pooler_tensor(name)) {
        "; the weights lack it, so that it would start at random"
    } else {
        ""
    }
}

fn with_pool_key(reason: String, pool: Pool, tower: Tower) -> String {
    match pool {
        // What a new model takes from sentence-transformers says why by itself.
        Pool::Auto | Pool::Sentence => reason,
        Pool::Tokens => format!("{reason}: `image_head.tokens` takes them"),
        _ => format!("{reason}: `{}` asks for it", tower.pool_key()),
    }
}

impl TowerFiles {
    /// What is pooled, with the layers if some were asked for.
    fn of_layer(&self, pooled: &str) -> String {
        let taken = self.taken.as_ref();
        taken.map_or_else(|| pooled.to_owned(), |taken| format!("{pooled}, of {}", taken.describe()))
    }

    fn summarize<T>(&self, tower: T, audit: Audit, pooling: String, tower_kind: Tower) -> TowerSummary<T> {
        TowerSummary {
            family: self.config["model_type"].as_str().unwrap_or_default().to_owned(),
            config: self.config.clone(),
            tower,
            not_finite: not_finite(self.weights.iter().flat_map(WeightFiles::tensors), &audit.unused),
            lock_refused: self.check_audit(&audit, TowerLock::Locked, tower_kind).err(),
            audit,
            pooling,
        }
    }
}

/// The tensors with NaN or infinite values among those that are not `unused`; or why one cannot be read.
fn not_finite<'a>(tensors: impl Iterator<Item = (&'a str, &'a StoredTensor)>, unused: &[String]) -> Vec<String> {
    let used = tensors.filter(|(name, _)| unused.binary_search_by(|unused| unused.as_str().cmp(name)).is_err());
    let lines = used.flat_map(|(_, tensor)| match tensor.read() {
        Ok(_) => Vec::new(),
        Err(ModelError::NonFiniteWeights { tensors, .. }) => tensors,
        Err(error) => vec![error.to_string()],
    });
    lines.collect()
}

fn dry_load_head(stored: &WeightFiles) -> HeadSummary {
    let shape = |name: &str| stored.get(name).map(|tensor| tensor.shape.clone());
    let scalar = |name: &str| stored.get(name).and_then(|tensor| tensor.read().ok()?.first().copied());
    let is_of_tower = |name: &str| Tower::ALL.iter().any(|tower| name.starts_with(tower.stored_prefix()));
    let is_of_head = |name: &str| HEAD.rows.iter().any(|(_, stored, _)| *stored == name);
    let tensors = stored.tensors().filter(|(name, _)| is_of_head(name));
    HeadSummary {
        image_projection: shape("visual_projection.weight"),
        text_projection: shape("text_projection.weight"),
        logit_scale: scalar("logit_scale"),
        logit_bias: scalar("logit_bias"),
        unused: stored.names().filter(|name| !is_of_tower(name) && !is_of_head(name)).map(str::to_owned).collect(),
        not_finite: not_finite(tensors, &[]),
        problems: Vec::new(),
        warnings: Vec::new(),
    }
}

/// Why the projections of a whole model cannot be loaded.
fn head_problems(
    kind: &WholeModel,
    stored: &WeightFiles,
    image: &ImageTower,
    text: &TextTower,
    device: &Device,
) -> Vec<String> {
    let head = match kind.head(stored, image.width(), text.pooled_width()) {
        Ok(head) => head,
        Err(problem) => return vec![problem],
    };
    let dim = head.get("visual_projection.weight").and_then(|projection| projection.shape.first().copied());
    let config = HeadConfig::linear(dim.unwrap_or_default(), LOGIT_SCALE_INIT);
    let source = ParamSource::dry(device.clone().without_autodiff(), head, NameTable::new(&HEAD));
    DualEncoder::new(&source.root(), image.clone(), text.clone(), config);
    let Audit { missing, mismatched, .. } = match source.into_audit() {
        Ok(audit) => audit,
        Err(error) => return vec![error.to_string()],
    };
    let missing = missing.into_iter().filter(|name| name.contains("projection"));
    missing.map(|name| format!("{name}: not in the weights")).chain(mismatched).collect()
}
