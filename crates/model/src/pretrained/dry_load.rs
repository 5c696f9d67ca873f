//! What a directory holds, told by its configs and the headers of its weights alone: nothing is loaded, and what does
//! not fit is listed instead of refused.

use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;

use crate::dual_encoder::lock::TowerLock;
use crate::dual_encoder::model::{DualEncoder, HeadConfig, LOGIT_SCALE_INIT};
use crate::error::ModelError;
use crate::families::{image_config, text_config};
use crate::params::builder::{Audit, ParamSource};
use crate::pooling::{Pool, Pooling};
use crate::pretrained::build::{TowerFiles, is_of_pooler, read_config};
use crate::pretrained::open_clip;
use crate::pretrained::sentence_transformers::sentence_pooling;
use crate::pretrained::whole_models::{self as composite, Composite, Side};
use crate::text::text_tower::{TextPooler, TextTower};
use crate::vision::image_tower::ImageTower;
use crate::weights::header::{WeightHeader, weight_headers, without_values};
use crate::weights::name_table::{HEAD, NameTable, Names, modern_norm_name};
use crate::weights::weight_files::WeightFiles;

/// What a directory holds.
#[derive(Debug)]
pub struct Outline {
    /// The `model_type` of its `config.json`.
    pub model_type: String,
    /// Its image tower, or why there can be none of its kind.
    pub image: Option<Result<TowerOutline<ImageTower>, ModelError>>,
    /// Its text tower likewise.
    pub text: Option<Result<TowerOutline<TextTower>, ModelError>>,
    /// What a whole model has besides.
    pub head: Option<HeadOutline>,
    /// Its weights files, each with its header or with what is wrong with it.
    pub weights: Vec<Result<WeightHeader, ModelError>>,
    /// Why there are none.
    pub no_weights: Option<ModelError>,
}

/// One tower.
#[derive(Debug)]
pub struct TowerOutline<T> {
    /// Its `model_type`.
    pub family: String,
    /// Its `config.json`.
    pub config: Value,
    /// The tower with 0 for every value.
    pub tower: T,
    /// What loading it would find.
    pub audit: Audit,
    /// How it pools, and why so, in words.
    pub pooling: String,
    /// Why it cannot be locked as it is.
    pub lock_refused: Option<ModelError>,
}

/// Projections and temperature.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadOutline {
    /// `[dim, image width]`, as stored; `None` where the towers' outputs are compared as they are (SigLIP).
    pub image_projection: Option<Vec<usize>>,
    /// `[dim, text width]` likewise.
    pub text_projection: Option<Vec<usize>>,
    /// A logarithm.
    pub logit_scale: Option<f32>,
    /// Of the sigmoid loss.
    pub logit_bias: Option<f32>,
    /// Tensors of the weights that belong to no part.
    pub unused: Vec<String>,
    /// What keeps the whole from being loaded.
    pub problems: Vec<String>,
}

/// What `dir` holds, if its towers pool as asked.
///
/// # Errors
/// When it has no readable `config.json`, or that of neither a supported tower nor a whole model.
pub fn outline(dir: &Path, image_pool: Pool, text_pool: Pool, device: &Device) -> Result<Outline, ModelError> {
    let (config_path, config) = read_config(dir)?;
    let model_type = config["model_type"].as_str().unwrap_or("(none)").to_owned();
    let open_clip = open_clip::weights_path(dir, &config_path);
    let (weights, no_weights) = match (&open_clip, weight_headers(dir)) {
        (Some(path), _) => (vec![WeightHeader::read(path.clone())], None),
        (None, Ok(headers)) => (headers, None),
        (None, Err(error)) => (Vec::new(), Some(error)),
    };
    let readable = || weights.iter().flatten();
    let modern = |stored: WeightFiles| match open_clip {
        Some(_) => open_clip::renamed(stored),
        None => stored.renamed(modern_norm_name),
    };
    let stored = no_weights.is_none().then(|| modern(without_values(readable())));
    let files = |config, weights| TowerFiles { dir: dir.to_owned(), config_path: config_path.clone(), config, weights };
    if let Some(composite) = Composite::of(&config) {
        let part = |side: Side| {
            let weights = stored.as_ref().map(|stored| stored.subset(side.prefix()));
            files(composite.tower_config(&config, side), weights)
        };
        let image = outline_image(&part(Side::Image), image_pool, device);
        let text = outline_text(&part(Side::Text), text_pool, composite.text_pool(text_pool), device);
        let mut head = outline_head(readable(), &stored.clone().unwrap_or_default());
        if let (Some(stored), Ok(image), Ok(text)) = (&stored, &image, &text) {
            head.problems = head_problems(composite, stored, &image.tower, &text.tower, device);
        }
        return Ok(Outline { model_type, image: Some(image), text: Some(text), head: Some(head), weights, no_weights });
    }
    let files = files(config, stored);
    let image = outline_image(&files, image_pool, device);
    let (image, text) = match (image, outline_text(&files, text_pool, text_pool, device)) {
        (Err(image @ ModelError::UnsupportedFamily { .. }), Err(text @ ModelError::UnsupportedFamily { .. })) => {
            return Err(neither(image, text));
        }
        (Err(ModelError::UnsupportedFamily { .. }), text) => (None, Some(text)),
        (image, _) => (Some(image), None),
    };
    Ok(Outline { model_type, image, text, head: None, weights, no_weights })
}

/// The error of a family that is none of an image and none of a text tower.
fn neither(image: ModelError, text: ModelError) -> ModelError {
    match (image, text) {
        (
            ModelError::UnsupportedFamily { path, found, supported: image, .. },
            ModelError::UnsupportedFamily { supported: text, .. },
        ) => ModelError::UnsupportedFamily {
            path,
            found,
            kind: "image or text",
            supported: format!("{image}; {text}; whole models: {}", composite::supported()),
        },
        (image, _) => image,
    }
}

fn outline_image(files: &TowerFiles, pool: Pool, device: &Device) -> Result<TowerOutline<ImageTower>, ModelError> {
    let (names, config) = image_config(&files.config, &files.config_path)?;
    let pooling = files.image_pooling(&config, pool)?;
    let mut reason = config.describe_pooling(pooling).to_owned();
    let source = source(files, names, device);
    let tower = ImageTower::new(&source.root(), config, pooling);
    let audit = audit(source, files);
    if pooling == Pooling::Pooler {
        reason += lacking(&audit);
    }
    Ok(files.outlined(tower, audit, asked(reason, pool, "image_pool"), "image"))
}

/// `pool` is what `asked_pool` means for a tower of these files.
fn outline_text(
    files: &TowerFiles,
    asked_pool: Pool,
    pool: Pool,
    device: &Device,
) -> Result<TowerOutline<TextTower>, ModelError> {
    let (names, config) = text_config(&files.config, &files.config_path)?;
    let pooling = files.text_pooling(names, &config, pool)?;
    let mut reason = config.describe_pooling(pooling).to_owned();
    if pool == Pool::Auto && pooling != Pooling::Pooler {
        let without = match config.pooler {
            TextPooler::Absent(_) => "its family has no pooler",
            _ => "the weights have no pooler",
        };
        let instead = match sentence_pooling(&files.dir)? {
            Some(_) => ", and the pooling config of sentence-transformers says so",
            None => "",
        };
        reason = format!("{reason}: {without}{instead}");
    }
    if pool != asked_pool {
        reason += ": its whole model takes that";
    }
    let source = source(files, names, device);
    let tower = TextTower::new(&source.root(), config, pooling);
    let audit = audit(source, files);
    if pooling == Pooling::Pooler {
        reason += lacking(&audit);
    }
    Ok(files.outlined(tower, audit, asked(reason, asked_pool, "text_pool"), "text"))
}

fn source(files: &TowerFiles, names: &Names, device: &Device) -> ParamSource {
    let stored = files.weights.clone().unwrap_or_default();
    let names = NameTable::for_files(names, &stored);
    ParamSource::outline(device.clone().without_autodiff(), stored, names)
}

/// The audit with each tensor named once, however many parameters it holds; empty where there is nothing to audit.
fn audit(source: ParamSource, files: &TowerFiles) -> Audit {
    if files.weights.is_none() {
        return Audit::default();
    }
    let mut audit = source.into_audit();
    for names in [&mut audit.missing, &mut audit.mismatched] {
        names.sort();
        names.dedup();
    }
    audit
}

fn lacking(audit: &Audit) -> &'static str {
    match audit.missing.iter().any(|name| is_of_pooler(name)) {
        true => "; the weights lack it, so that it would start at random",
        false => "",
    }
}

fn asked(reason: String, pool: Pool, key: &str) -> String {
    match pool {
        Pool::Auto => reason,
        _ => format!("{reason}: `{key}` asks for it"),
    }
}

impl TowerFiles {
    fn outlined<T>(&self, tower: T, audit: Audit, pooling: String, kind: &str) -> TowerOutline<T> {
        let (part, pool_key) = match kind {
            "image" => ("image tower", "image_pool"),
            _ => ("text tower", "text_pool"),
        };
        TowerOutline {
            family: self.config["model_type"].as_str().unwrap_or_default().to_owned(),
            config: self.config.clone(),
            tower,
            lock_refused: self.judge(&audit, TowerLock::Locked, part, pool_key).err(),
            audit,
            pooling,
        }
    }
}

fn outline_head<'a>(headers: impl Iterator<Item = &'a WeightHeader> + Clone, stored: &WeightFiles) -> HeadOutline {
    let shape = |name: &str| stored.get(name).map(|tensor| tensor.shape.clone());
    let scalar = |name: &str| {
        let read = headers.clone().find_map(|header| header.values(name).ok().flatten());
        read.and_then(|tensor| tensor.values.first().copied())
    };
    let is_of_tower = |name: &str| [Side::Image, Side::Text].iter().any(|side| name.starts_with(side.prefix()));
    let is_of_head = |name: &str| HEAD.rows.iter().any(|(_, stored, _)| *stored == name);
    HeadOutline {
        image_projection: shape("visual_projection.weight"),
        text_projection: shape("text_projection.weight"),
        logit_scale: scalar("logit_scale"),
        logit_bias: scalar("logit_bias"),
        unused: stored.names().filter(|name| !is_of_tower(name) && !is_of_head(name)).map(str::to_owned).collect(),
        problems: Vec::new(),
    }
}

/// What is wrong with the projections of a whole model.
fn head_problems(
    composite: &Composite,
    stored: &WeightFiles,
    image: &ImageTower,
    text: &TextTower,
    device: &Device,
) -> Vec<String> {
    let head = match composite.head(stored, image.width(), text.pooled_width()) {
        Ok(head) => head,
        Err(problem) => return vec![problem],
    };
    let dim = head.get("visual_projection.weight").and_then(|projection| projection.shape.first().copied());
    let config = HeadConfig { embed_dim: dim.unwrap_or_default(), logit_scale: LOGIT_SCALE_INIT, logit_bias: None };
    let source = ParamSource::outline(device.clone().without_autodiff(), head, NameTable::new(&HEAD));
    DualEncoder::new(&source.root(), image.clone(), text.clone(), config);
    let Audit { missing, mismatched, .. } = source.into_audit();
    let missing = missing.into_iter().filter(|name| name.contains("projection"));
    missing.map(|name| format!("{name}: not in the weights")).chain(mismatched).collect()
}
