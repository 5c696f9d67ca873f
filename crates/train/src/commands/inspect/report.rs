//! The result of an inspection. `--json` writes it as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dualenc_model::{
    Audit, HeadForm, HeadSummary, ImageTower, ImageTowerConfig, ModelError, TextTower, TokenForm, TowerSummary,
    WeightHeader, parameters,
};
use serde::Serialize;

use crate::error::TrainError;

/// The kind of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An image tower.
    ImageTower,
    /// A text tower.
    TextTower,
    /// A whole model: two towers, projections and a temperature, such as VisionTextDualEncoder or CLIP.
    WholeModel,
    /// A training run.
    Run,
    /// A checkpoint of a run.
    Checkpoint,
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The directory.
    pub dir: PathBuf,
    /// Its kind.
    pub kind: Kind,
    /// `model_type` of its `config.json`; null for runs and checkpoints.
    pub model_type: Option<String>,
    /// The run; null for models and towers.
    pub run: Option<RunReport>,
    /// The image tower; for a run, the one it started with.
    pub image_tower: Option<TowerReport>,
    /// The text tower, likewise.
    pub text_tower: Option<TowerReport>,
    /// Projections and temperature: of a whole model, or as trained by a run.
    pub head: Option<HeadReport>,
    /// Number of all parameters.
    pub parameters: usize,
    /// The weights files.
    pub weights: Vec<WeightsReport>,
    /// How images are processed.
    pub image_processing: Option<String>,
    /// How captions are tokenized.
    pub tokenizer: Option<String>,
    /// What is missing, broken or does not fit together.
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
    /// Attention heads of each stage; empty for a convolutional network.
    pub heads: Vec<usize>,
    /// Side of the images that its positions were learned for, in pixels.
    pub image_size: Option<usize>,
    /// Side of a patch, in pixels.
    pub patch_size: Option<usize>,
    /// Rows of the word table.
    pub vocab_size: Option<usize>,
    /// The longest caption, in tokens.
    pub max_tokens: Option<usize>,
    /// The length that every caption is padded to, in tokens, if the tower attends to padding.
    pub pad_to: Option<usize>,
    /// Number of its parameters.
    pub parameters: usize,
    /// How it pools and why, in words.
    pub pooling: String,
    /// Number of tensors that it takes from the weights.
    pub tensors: usize,
    /// Tensors that the weights lack.
    pub missing: Vec<String>,
    /// Tensors that it does not use.
    pub unused: Vec<String>,
    /// Tensors of another shape: name, expected, found.
    pub mismatched: Vec<String>,
    /// What loading it changes or leaves out, in words.
    pub notes: Vec<String>,
    /// Why it cannot be locked; null if it can.
    pub lock_refused: Option<String>,
    /// Why it cannot be exported as part of a VisionTextDualEncoder; null if it can.
    pub export_refused: Option<String>,
}

/// The best checkpoint of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BestReport {
    /// Its step.
    pub step: u64,
    /// The evaluation and metric that select it, such as `held-out.acc1`.
    pub metric: String,
    /// The value of the metric.
    pub value: f64,
}

/// Projections and temperature.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HeadReport {
    /// Shape `[image width, dim]`; null if absent or randomly initialised.
    pub image_projection: Option<[usize; 2]>,
    /// Shape `[text width, dim]`, likewise.
    pub text_projection: Option<[usize; 2]>,
    /// The kind and settings of the image head, such as `glu, expansion 8, bias and norm`; null if it is not known.
    pub image_head: Option<String>,
    /// Those of the text head, likewise.
    pub text_head: Option<String>,
    /// What takes all tokens of an image before the image head, as in `image_head`.
    #[serde(skip)]
    pub(crate) image_tokens: Option<TokenForm>,
    /// Number of values of both heads.
    #[serde(skip)]
    pub(crate) head_parameters: [usize; 2],
    /// Natural logarithm of the factor on cosines.
    pub logit_scale: Option<f32>,
    /// `1 / exp(logit_scale)`.
    pub temperature: Option<f32>,
    /// The bias of the sigmoid loss.
    pub logit_bias: Option<f32>,
    /// Tensors that belong to no part of the model.
    pub unused: Vec<String>,
}

/// A weights file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightsReport {
    /// Its name.
    pub file: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Number of tensors of each dtype.
    pub dtypes: BTreeMap<String, usize>,
}

/// A run, or one of its checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// `model.lock`, if the config can be read.
    pub lock: Option<String>,
    /// Captions of each pair, if the config can be read: more than one with `data.captions = "slots"`.
    pub captions_per_pair: Option<usize>,
    /// The teacher (`train.teacher.model`): the run imitates its similarities. Null without one.
    pub teacher: Option<String>,
    /// The newest valid checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// The step of that checkpoint.
    pub step: Option<u64>,
    /// The best checkpoint, if the config says how to select it.
    pub best: Option<BestReport>,
    /// Whether evaluations use a moving average of the weights.
    pub averaged: bool,
    /// Steps of the whole run.
    pub total_steps: Option<u64>,
    /// Passes over the data, including the fraction of the last one; from `metrics.jsonl`.
    pub epoch: Option<f64>,
    /// Pairs trained on so far.
    pub samples_seen: Option<u64>,
    /// Number of trainable values in the checkpoint.
    pub trainable: usize,
    /// Steps of all valid checkpoints.
    pub valid_steps: Vec<u64>,
    /// What is wrong with the other checkpoints; also listed in `problems`.
    pub damaged: Vec<String>,
}

impl Inspection {
    /// An empty report.
    pub(crate) fn new(dir: &Path, kind: Kind) -> Self {
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
    pub(crate) fn count_parameters(&self) -> usize {
        let towers = self.image_tower.iter().chain(&self.text_tower).map(|tower| tower.parameters).sum::<usize>();
        towers + self.head.as_ref().map_or(0, HeadReport::parameters)
    }
}

impl WeightsReport {
    /// Summarises the header of one file.
    pub(crate) fn new(header: &WeightHeader) -> Self {
        let mut dtypes = BTreeMap::new();
        for (_, dtype, _) in header.tensors() {
            *dtypes.entry(dtype).or_default() += 1;
        }
        let file = header.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { file, bytes: header.bytes, dtypes }
    }
}

impl TowerReport {
    /// Reports an image tower. `unread`: why its weights cannot be read. `export_error`: why it cannot be exported.
    pub(crate) fn image(
        dir: &Path,
        image: TowerSummary<ImageTower>,
        unread: Option<&str>,
        export_error: Option<TrainError>,
    ) -> Self {
        let (config, parameters) = (image.tower.config(), parameters::count(&image.tower));
        let report = Self::common(dir, image, unread, parameters, export_error);
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
            ImageTowerConfig::Absent { width } => Self { widths: vec![width], ..report },
        }
    }

    /// Reports a text tower. `unread`: why its weights cannot be read. `export_error`: why it cannot be exported.
    pub(crate) fn text(
        dir: &Path,
        text: TowerSummary<TextTower>,
        unread: Option<&str>,
        export_error: Option<TrainError>,
    ) -> Self {
        let (config, parameters) = (text.tower.config().clone(), parameters::count(&text.tower));
        Self {
            widths: vec![config.encoder.width],
            depths: vec![config.encoder.depth],
            heads: vec![config.encoder.heads],
            vocab_size: Some(config.vocab_size),
            max_tokens: Some(config.max_tokens()),
            pad_to: config.pad_to,
            ..Self::common(dir, text, unread, parameters, export_error)
        }
    }

    /// The fields that towers of all kinds have.
    fn common<T>(
        dir: &Path,
        tower: TowerSummary<T>,
        unread: Option<&str>,
        parameters: usize,
        export_error: Option<TrainError>,
    ) -> Self {
        let TowerSummary { family, audit, pooling, not_finite, lock_refused, .. } = tower;
        let Audit { missing, unused, mismatched, tensors, notes, .. } = audit;
        let lock_refused = match lock_refused {
            Some(ModelError::Shapes { .. }) => Some("Weights of other shapes cannot be loaded.".to_owned()),
            _ if unread.is_some() => unread.map(str::to_owned),
            _ if !not_finite.is_empty() => Some("Its weights hold NaN or infinite values.".to_owned()),
            Some(ModelError::LockedRandom { hint, .. }) => Some(hint),
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
            notes,
            lock_refused,
            export_refused: export_error.map(|error| error.to_string()),
        }
    }
}

impl HeadReport {
    /// Sets the temperature from the learned logarithm of its inverse.
    pub(crate) fn with_logit_scale(self, logit_scale: Option<f32>) -> Self {
        Self { logit_scale, temperature: logit_scale.map(|scale| (-scale).exp()), ..self }
    }

    fn parameters(&self) -> usize {
        let scalars = [self.logit_scale, self.logit_bias].iter().flatten().count();
        self.head_parameters.iter().sum::<usize>() + scalars
    }
}

impl From<HeadSummary> for HeadReport {
    fn from(head: HeadSummary) -> Self {
        let transposed = |stored: Option<Vec<usize>>| match stored.as_deref() {
            Some(&[dim, width]) => Some([width, dim]),
            _ => None,
        };
        let (image_projection, text_projection) = (transposed(head.image_projection), transposed(head.text_projection));
        let linear = |projection: Option<[usize; 2]>| projection.map(|_| HeadForm::LINEAR.to_string());
        Self {
            image_projection,
            text_projection,
            image_head: linear(image_projection),
            text_head: linear(text_projection),
            head_parameters: [image_projection, text_projection]
                .map(|shape| shape.map_or(0, |[width, dim]| width * dim)),
            logit_bias: head.logit_bias,
            unused: head.unused,
            ..Self::default()
        }
        .with_logit_scale(head.logit_scale)
    }
}
