//! What an inspection found, as data; its JSON form is what `--json` writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dualenc_model::{
    Audit, HeadOutline, ImageTower, ImageTowerConfig, ModelError, TextTower, TowerOutline, WeightHeader, parameters,
};
use serde::Serialize;

use crate::error::TrainError;

/// What a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One image tower.
    ImageTower,
    /// One text tower.
    TextTower,
    /// Two towers, projections and a temperature: a VisionTextDualEncoder, or a model such as CLIP.
    WholeModel,
    /// A run of this program.
    Run,
    /// One checkpoint of a run.
    Checkpoint,
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The directory.
    pub dir: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// `model_type` of its `config.json`; of runs, none.
    pub model_type: Option<String>,
    /// Of runs and checkpoints.
    pub run: Option<RunReport>,
    /// The image tower; of a run, the one it began with.
    pub image_tower: Option<TowerReport>,
    /// The text tower likewise.
    pub text_tower: Option<TowerReport>,
    /// Projections and temperature of whole models, trained ones of runs.
    pub head: Option<HeadReport>,
    /// All parameters.
    pub parameters: usize,
    /// The weights files.
    pub weights: Vec<WeightsReport>,
    /// How images are processed.
    pub image_processing: Option<String>,
    /// How captions are tokenised.
    pub tokenizer: Option<String>,
    /// What is missing, broken or does not go together.
    pub problems: Vec<String>,
}

/// One tower.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TowerReport {
    /// The directory it is read from.
    pub dir: PathBuf,
    /// Its `model_type`.
    pub family: String,
    /// Width of each stage; a plain transformer has one stage.
    pub widths: Vec<usize>,
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// Attention heads of each stage; none of a convolutional network.
    pub heads: Vec<usize>,
    /// Side of the images it was made for, in pixels, where its positions depend on it.
    pub image_size: Option<usize>,
    /// Side of a patch, in pixels.
    pub patch_size: Option<usize>,
    /// Rows of the word table.
    pub vocab_size: Option<usize>,
    /// The longest caption, in tokens.
    pub max_tokens: Option<usize>,
    /// The length that every caption is padded to, in tokens, where the tower attends to padding.
    pub pad_to: Option<usize>,
    /// Its parameters.
    pub parameters: usize,
    /// How it pools, and why so, in words.
    pub pooling: String,
    /// Tensors of the weights that it takes.
    pub tensors: usize,
    /// Tensors that the weights lack.
    pub missing: Vec<String>,
    /// Tensors that it has no use for.
    pub unused: Vec<String>,
    /// Tensors of another shape: name, expected, found.
    pub mismatched: Vec<String>,
    /// Why it cannot be locked as it is; null if it can.
    pub lock_refused: Option<String>,
    /// Why it cannot be exported as a part of a VisionTextDualEncoder; null if it can.
    pub export_refused: Option<String>,
}

/// The best checkpoint of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BestReport {
    /// Updates it has seen.
    pub step: u64,
    /// By which figure of which evaluation, such as `held-out.acc1`.
    pub metric: String,
    /// The figure.
    pub value: f64,
}

/// Projections and temperature.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HeadReport {
    /// `[image width, dim]`; null: none, or fresh.
    pub image_projection: Option<[usize; 2]>,
    /// `[text width, dim]` likewise.
    pub text_projection: Option<[usize; 2]>,
    /// A logarithm.
    pub logit_scale: Option<f32>,
    /// `1 / exp(logit_scale)`.
    pub temperature: Option<f32>,
    /// Of the sigmoid loss.
    pub logit_bias: Option<f32>,
    /// Tensors that belong to no part.
    pub unused: Vec<String>,
}

/// One weights file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightsReport {
    /// Its name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// How many tensors of each type it holds.
    pub dtypes: BTreeMap<String, usize>,
}

/// A run, or one checkpoint of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// `model.lock`, where the config can be read.
    pub lock: Option<String>,
    /// The newest valid checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Updates it has seen.
    pub step: Option<u64>,
    /// The best checkpoint, where the config says by what it is told.
    pub best: Option<BestReport>,
    /// Whether evaluations take a moving average of the weights.
    pub averaged: bool,
    /// Updates of the whole run.
    pub total_steps: Option<u64>,
    /// Passes over the data, a fraction; from `metrics.jsonl`.
    pub epoch: Option<f64>,
    /// Pairs seen.
    pub samples_seen: Option<u64>,
    /// Values that train.
    pub trainable: usize,
    /// Steps of all valid checkpoints.
    pub valid_steps: Vec<u64>,
    /// What is wrong with the others; these are among the problems, too.
    pub damaged: Vec<String>,
}

impl Inspection {
    /// Nothing yet.
    pub(super) fn new(dir: &Path, kind: Kind) -> Self {
        Self {
            dir: dir.to_owned(),
            kind,
            model_type: None,
            run: None,
            image_tower: None,
            text_tower: None,
            head: None,
            parameters: 0,
            weights: Vec::new(),
            image_processing: None,
            tokenizer: None,
            problems: Vec::new(),
        }
    }

    /// Parameters of all parts.
    pub(super) fn count(&self) -> usize {
        let towers = self.image_tower.iter().chain(&self.text_tower).map(|tower| tower.parameters).sum::<usize>();
        towers + self.head.as_ref().map_or(0, HeadReport::parameters)
    }
}

impl WeightsReport {
    /// Of one file.
    pub(super) fn new(header: &WeightHeader) -> Self {
        let mut dtypes = BTreeMap::new();
        for (_, dtype, _) in header.tensors() {
            *dtypes.entry(dtype).or_default() += 1;
        }
        let file = header.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { file, bytes: header.bytes, dtypes }
    }
}

impl TowerReport {
    /// Of an image tower.
    pub(super) fn image(
        dir: &Path,
        image: TowerOutline<ImageTower>,
        no_weights: bool,
        export: Option<TrainError>,
    ) -> Self {
        let (config, parameters) = (image.tower.config(), parameters::count(&image.tower));
        let report = Self::any(dir, image, no_weights, parameters, export);
        match config {
            ImageTowerConfig::Transformer(config) => Self {
                widths: vec![config.encoder.width],
                depths: vec![config.encoder.depth],
                heads: vec![config.encoder.heads],
                image_size: Some(config.image_size),
                patch_size: Some(config.patch_size),
                ..report
            },
            ImageTowerConfig::Windowed(config) => Self {
                widths: config.stages.iter().map(|stage| stage.width).collect(),
                depths: config.stages.iter().map(|stage| stage.depth).collect(),
                heads: config.stages.iter().map(|stage| stage.heads).collect(),
                image_size: Some(config.image_size),
                patch_size: Some(config.patch_size),
                ..report
            },
            ImageTowerConfig::Convolutional(config) => Self { widths: config.widths, depths: config.depths, ..report },
        }
    }

    /// Of a text tower.
    pub(super) fn text(
        dir: &Path,
        text: TowerOutline<TextTower>,
        no_weights: bool,
        export: Option<TrainError>,
    ) -> Self {
        let (config, parameters) = (text.tower.config().clone(), parameters::count(&text.tower));
        Self {
            widths: vec![config.encoder.width],
            depths: vec![config.encoder.depth],
            heads: vec![config.encoder.heads],
            vocab_size: Some(config.vocab_size),
            max_tokens: Some(config.max_tokens()),
            pad_to: config.pad_to,
            ..Self::any(dir, text, no_weights, parameters, export)
        }
    }

    /// What towers of all kinds have.
    fn any<T>(
        dir: &Path,
        tower: TowerOutline<T>,
        no_weights: bool,
        parameters: usize,
        export: Option<TrainError>,
    ) -> Self {
        let TowerOutline { family, audit, pooling, lock_refused, .. } = tower;
        let Audit { missing, unused, mismatched, tensors, .. } = audit;
        let lock_refused = match lock_refused {
            _ if no_weights => Some("There are no weights.".to_owned()),
            Some(ModelError::LockedRandom { hint, .. }) => Some(hint),
            Some(ModelError::Shapes { .. }) => Some("Weights of other shapes cannot be loaded.".to_owned()),
            other => other.map(|error| error.to_string()),
        };
        Self {
            dir: dir.to_owned(),
            family,
            widths: Vec::new(),
            depths: Vec::new(),
            heads: Vec::new(),
            image_size: None,
            patch_size: None,
            vocab_size: None,
            max_tokens: None,
            pad_to: None,
            parameters,
            pooling,
            tensors,
            missing,
            unused,
            mismatched,
            lock_refused,
            export_refused: export.map(|error| error.to_string()),
        }
    }
}

impl HeadReport {
    /// With this temperature.
    pub(super) fn with_scale(self, logit_scale: Option<f32>) -> Self {
        Self { logit_scale, temperature: logit_scale.map(|scale| (-scale).exp()), ..self }
    }

    fn parameters(&self) -> usize {
        let projections = self.image_projection.iter().chain(&self.text_projection).map(|[input, dim]| input * dim);
        let scalars = [self.logit_scale, self.logit_bias].iter().flatten().count();
        projections.sum::<usize>() + scalars
    }
}

impl From<HeadOutline> for HeadReport {
    fn from(head: HeadOutline) -> Self {
        let turned = |stored: Option<Vec<usize>>| match stored.as_deref() {
            Some(&[dim, width]) => Some([width, dim]),
            _ => None,
        };
        let (image_projection, text_projection) = (turned(head.image_projection), turned(head.text_projection));
        Self { image_projection, text_projection, logit_bias: head.logit_bias, unused: head.unused, ..Self::default() }
            .with_scale(head.logit_scale)
    }
}
