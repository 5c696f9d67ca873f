//! The keys of a run configuration: what each one means, its unit, its default and where the default comes from.
//!
//! The fields are the documentation of the TOML. Nothing is checked here beyond names and types; `validate.rs` holds the
//! rules between keys.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dualenc_data::{Augment, CaptionMode, Source};
use dualenc_model::{Lock, Pool};
use serde::{Deserialize, Serialize};

/// The whole configuration of a run: the TOML, with every default filled in and every path absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Where the run writes, and what it runs on.
    pub run: RunSection,
    /// The two towers, their projections, and what of them trains.
    pub model: ModelSection,
    /// The image-text pairs to train on.
    pub data: DataSection,
    /// The optimiser, its schedule and the loss.
    pub train: TrainSection,
    /// When the state of the run is saved.
    #[serde(default)]
    pub checkpoint: CheckpointSection,
    /// The cache of a locked tower's features.
    #[serde(default)]
    pub cache: CacheSection,
    /// Evaluations by name; a name is made of `a-z`, `0-9`, `_` and `-`. Default: none.
    #[serde(default)]
    pub eval: BTreeMap<String, EvalSection>,
}

/// `[run]`: where the run writes, and what it runs on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSection {
    /// The run directory: `config.toml`, `metrics.jsonl` and `checkpoints/` are written there. Required.
    pub dir: PathBuf,
    /// Seed of the initial weights, the order of the samples and dropout. Default 42 (the seed of the reference's
    /// trainer, transformers `TrainingArguments.seed`).
    #[serde(default = "default::seed")]
    pub seed: u64,
    /// `cpu`, `ndarray`, `wgpu`, `vulkan`, `cuda` or `cuda:N`. Default `cpu`: the fastest CPU backend of the build.
    #[serde(default = "default::device")]
    pub device: String,
    /// CPU threads of the tensor operations. Default: as many as the machine has. A resumed run gives the same bits only
    /// with the same number.
    pub threads: Option<usize>,
    /// Steps between two plain progress lines; `metrics.jsonl` has every step whatever this says. Default 10
    /// (open_clip prints every 100 batches, of runs far longer than these).
    #[serde(default = "default::log_every_steps")]
    pub log_every_steps: u64,
}

/// `[model]`: the two towers, their projections, and what of them trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Image tower: a local Hugging Face directory, or a hub id (`name` or `org/name`). Required unless `init` is given.
    pub image_tower: Option<String>,
    /// Text tower: a local Hugging Face directory, or a hub id (`name` or `org/name`). Required unless `init` is given.
    pub text_tower: Option<String>,
    /// Instead of the two towers: the directory or hub id of a whole model (VisionTextDualEncoder, CLIP, Chinese CLIP, SigLIP,
    /// whose projections start as identities, or an open_clip CLIP), a run directory or a checkpoint to start
    /// from. Default: none.
    pub init: Option<String>,
    /// Two letters, the image tower's then the text tower's: `L` locked, `U` unlocked and pretrained, `u` unlocked from
    /// scratch (LiT, arXiv:2111.07991, sec. 3). Default `LU`: a pretrained image tower that does not move, and a
    /// pretrained text tower that learns to match it.
    #[serde(default = "default::lock")]
    pub lock: Lock,
    /// Width of the common space. Default 512 (`projection_dim` of VisionTextDualEncoder); with `init`, the width found
    /// there.
    pub embed_dim: Option<usize>,
    /// How the image tower's tokens `[batch, seq, width]` become one vector: `auto`, the tower's own pooled output as in the
    /// reference, refused where its weights are missing; `cls`, the first token; `mean`; or `pooler`. Default `auto`.
    #[serde(default)]
    pub image_pool: Pool,
    /// The same for the text tower; `mean` leaves padding out. Default `auto`.
    #[serde(default)]
    pub text_pool: Pool,
    /// Side of the square image given to the tower, in pixels. Default: the tower's own; other sizes interpolate its
    /// position embeddings.
    pub image_size: Option<usize>,
    /// Initial `logit_scale`, the logarithm of the inverse temperature. Default 2.6592 = ln(1 / 0.07)
    /// (`logit_scale_init_value` of VisionTextDualEncoder); with `init`, the value found there.
    pub logit_scale_init: Option<f64>,
    /// Dropout probability of the image tower while it trains, hidden and attention alike. Default: the tower's own
    /// `hidden_dropout_prob` and `attention_probs_dropout_prob`.
    pub image_dropout: Option<f64>,
    /// Dropout probability of the text tower while it trains, hidden and attention alike. Default: the tower's own
    /// `hidden_dropout_prob` and `attention_probs_dropout_prob`.
    pub text_dropout: Option<f64>,
    /// The linear map from the image tower's width to `embed_dim`.
    #[serde(default)]
    pub image_projection: ImageProjectionSection,
    /// The linear map from the text tower's width to `embed_dim`.
    #[serde(default)]
    pub text_projection: ProjectionSection,
}

/// `[model.image_projection]`: one linear map without bias.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageProjectionSection {
    /// Keep the map as it was initialised. Default `false` (the reference trains both).
    #[serde(default)]
    pub locked: bool,
    /// How far the map starts by whitening the features of a locked image tower over the training images, from 0 (not at
    /// all) to 1 (every direction weighs the same). Default 0, random weights as in the reference; the quickstart takes 0.6.
    #[serde(default)]
    pub whitening: f64,
}

/// `[model.text_projection]`: one linear map without bias.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectionSection {
    /// Keep the map as it was initialised. Default `false` (the reference trains both).
    #[serde(default)]
    pub locked: bool,
}

/// `[data]`: the image-text pairs to train on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Tokens of a caption at most, the special ones included; longer captions are cut, and counted. Batches are padded
    /// to their own longest caption, so a high limit costs nothing where captions are short. Default 64 (the text length
    /// of SigLIP's released models; CLIP's is 77).
    #[serde(default = "default::max_tokens")]
    pub max_tokens: usize,
    /// A new order each epoch, the last partial batch dropped; `false`: the order of the file, and every pair is used.
    /// Default `true`.
    #[serde(default = "default::yes")]
    pub shuffle: bool,
    /// Of an image with several captions: `all`, each of them once an epoch, or `one`, drawn anew each epoch.
    /// Default `all` (the reference example's rows are pairs).
    #[serde(default)]
    pub captions: CaptionMode,
    /// Threads that read and decode images. Default: as many as the machine has cores.
    pub workers: Option<usize>,
    /// Share of the samples that may be unreadable, from 0 to 1; beyond it the run stops. Default 0.01.
    #[serde(default = "default::max_bad_fraction")]
    pub max_bad_fraction: f64,
    /// How training images are varied: a table `[data.augment]`, whose keys are those of [`Augment`]. With kept features of
    /// a locked image tower only in so many views as `cache.views` says. Default: not at all.
    pub augment: Option<Augment>,
    /// Where the pairs are: a table such as `[data.train.csv]`. Required; the kinds are those of
    /// [`Source`].
    pub train: Source,
}

/// `[train]`: the optimiser, its schedule and the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Passes over the data. Required, or `steps`.
    pub epochs: Option<u64>,
    /// Optimiser updates. Required, or `epochs`.
    pub steps: Option<u64>,
    /// Pairs in a batch; each pair's negatives are the others. At least 2. Required.
    pub batch_size: usize,
    /// Highest learning rate, reached after the warm-up. Required.
    pub learning_rate: f64,
    /// Highest learning rate of the two projections, on the same schedule. They start from nothing, a pretrained tower does
    /// not: a higher one lets them fit while the tower keeps what it knows. Default: `learning_rate`.
    pub projection_learning_rate: Option<f64>,
    /// Decoupled weight decay (AdamW) of the matrices; biases, norms, position and class embeddings and `logit_scale` are
    /// not decayed. Default 0.1 (the command in the README of the reference's contrastive-image-text example).
    #[serde(default = "default::weight_decay")]
    pub weight_decay: f64,
    /// Steps over which the learning rate rises from 0. Default 0 (`TrainingArguments.warmup_steps` of the reference).
    #[serde(default)]
    pub warmup_steps: u64,
    /// What the learning rate does after the warm-up. Default `cosine` (big_vision's LiT recipe, `lit_coco.py`).
    #[serde(default)]
    pub schedule: Schedule,
    /// Decay of AdamW's two moments. Default [0.9, 0.999] (Loshchilov and Hutter, arXiv:1711.05101; also the reference's).
    #[serde(default = "default::betas")]
    pub betas: [f64; 2],
    /// Added to the root of AdamW's second moment. Default 1e-8 (as `betas`).
    #[serde(default = "default::eps")]
    pub eps: f64,
    /// The contrastive loss. Default `softmax`.
    #[serde(default)]
    pub loss: Loss,
    /// Largest global norm of the gradient; 0 turns clipping off. Default 1.0 (`max_grad_norm` of the reference, and
    /// big_vision's LiT recipe).
    #[serde(default = "default::clip_grad_norm")]
    pub clip_grad_norm: f64,
    /// What an image of the batch and another pair's caption are to each other when the data list that caption for the
    /// image: so it is with equal images, with equal captions, and with images that share captions. Default `positives`.
    #[serde(default)]
    pub duplicates: Duplicates,
    /// `logit_scale` is cut to this after each update. Default ln 100 = 4.6052 (CLIP, arXiv:2103.00020, sec. 2.5).
    #[serde(default = "default::logit_scale_max")]
    pub logit_scale_max: f64,
    /// Initial `logit_bias` of the sigmoid loss. Default -10 (SigLIP, arXiv:2303.15343, sec. 3.2); only with
    /// `loss = "sigmoid"`.
    pub logit_bias_init: Option<f64>,
}

/// What the learning rate does after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Falls to 0 along half a cosine.
    #[default]
    Cosine,
    /// Falls to 0 along a line.
    Linear,
    /// Stays.
    Constant,
}

/// The contrastive loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Symmetric InfoNCE (CLIP, arXiv:2103.00020, fig. 3).
    #[default]
    Softmax,
    /// Pairwise sigmoid (SigLIP, arXiv:2303.15343, alg. 1).
    Sigmoid,
}

/// What an image and another pair's caption are to each other when the data list that caption for the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// Matches, as the pair itself.
    #[default]
    Positives,
    /// Neither matches nor negatives: left out of the loss.
    Mask,
    /// Negatives, as in the reference.
    Ignore,
}

/// `[checkpoint]`: when the state of the run is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSection {
    /// Steps between two checkpoints; one more is written at the end and on a signal. Default 500
    /// (`TrainingArguments.save_steps` of the reference).
    pub every_steps: u64,
    /// How many of the newest checkpoints stay on disk. Default 3.
    pub keep: usize,
}

impl Default for CheckpointSection {
    fn default() -> Self {
        Self { every_steps: 500, keep: 3 }
    }
}

/// `[cache]`: the features of the locked towers, computed once and read from then on. A feature is found by the content of
/// its image or caption, the tower's weights and the processing; cached and computed features are equal to the bit, if
/// device and processor are those that filled the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSection {
    /// Keep the features of locked towers on disk. Default `true`; a run without a locked tower has none.
    pub enabled: bool,
    /// Where. Default: `cache` in the run directory; several runs may share one.
    pub dir: Option<PathBuf>,
    /// How a value is kept: `f32`, as it was computed, or `f16`, in half the room, rounded by at most 2^-11 of itself (2^-25
    /// where it is below 2^-14; above 65504 it is refused). The run then uses the rounded values throughout. Default `f32`.
    pub dtype: CacheDtype,
    /// With `[data.augment]` and a locked image tower: how many views of each image there are, in turn. Epoch `e` takes view
    /// `e` modulo `views`, and features of all are kept. Default: none, and then such a run needs `enabled = false`.
    pub views: Option<u64>,
}

impl Default for CacheSection {
    fn default() -> Self {
        Self { enabled: true, dir: None, dtype: CacheDtype::F32, views: None }
    }
}

/// How a cached value is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheDtype {
    /// Single precision: no error.
    #[default]
    F32,
    /// Half precision (IEEE 754 binary16).
    F16,
}

impl CacheDtype {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// `[eval.NAME]`: one evaluation, run while training and by `dualenc eval`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSection {
    /// What is measured. Required.
    pub task: Task,
    /// Zero-shot: a folder that holds one folder of images a class. Required for it.
    pub images: Option<PathBuf>,
    /// Zero-shot: a file with one class name a line, in the sorted order of the folders. Default: the folders' names, `_`
    /// read as a space.
    pub classnames: Option<PathBuf>,
    /// Zero-shot: a file with one prompt template a line, `{c}` standing for the class name (CLIP_benchmark's form).
    /// Default: the class name alone.
    pub templates: Option<PathBuf>,
    /// Retrieval: a csv, tsv or jsonl of image and caption; rows with one image are its several captions. Required for it.
    pub data: Option<PathBuf>,
    /// Epochs between two evaluations; 0: only when training ends. Default 1, unless `every_steps` is given.
    pub every_epochs: Option<u64>,
    /// Steps between two evaluations, instead of `every_epochs`.
    pub every_steps: Option<u64>,
    /// Images or texts encoded at once; no figure depends on it. Default 64.
    #[serde(default = "default::eval_batch_size")]
    pub batch_size: usize,
}

/// What an evaluation measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Classification of images by the names of their classes.
    ZeroShot,
    /// Recall of the true captions of an image and of the true image of a caption.
    Retrieval,
}

/// Defaults; each is explained at the key it belongs to.
pub(super) mod default {
    use dualenc_model::{Lock, TowerLock};

    pub const EMBED_DIM: usize = 512;
    pub const LOGIT_BIAS_INIT: f64 = -10.0;
    pub const EVAL_EVERY_EPOCHS: u64 = 1;

    pub fn lock() -> Lock {
        Lock { image: TowerLock::Locked, text: TowerLock::Unlocked }
    }
    pub fn seed() -> u64 {
        42
    }
    pub fn device() -> String {
        "cpu".to_owned()
    }
    pub fn log_every_steps() -> u64 {
        10
    }
    pub fn max_tokens() -> usize {
        64
    }
    pub fn yes() -> bool {
        true
    }
    pub fn max_bad_fraction() -> f64 {
        0.01
    }
    pub fn weight_decay() -> f64 {
        0.1
    }
    pub fn betas() -> [f64; 2] {
        [0.9, 0.999]
    }
    pub fn eps() -> f64 {
        1e-8
    }
    pub fn clip_grad_norm() -> f64 {
        1.0
    }
    pub fn logit_scale_max() -> f64 {
        2.0 * std::f64::consts::LN_10
    }
    pub fn eval_batch_size() -> usize {
        64
    }
}
