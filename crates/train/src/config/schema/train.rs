//! `[train]`: length of the run, batches, optimiser, schedule and loss.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default;
use super::loss::{Duplicates, LogitBiasInit, Loss, TeacherSection};
use super::optimizer::{GroupSection, OptimizerKind, Schedule};
use super::stage::StageSection;

/// The length of the run, its batches, optimiser, learning-rate schedule and loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Length of the run, in passes over the data.
    ///
    /// Required unless `steps` is given.
    pub epochs: Option<u64>,
    /// Length of the run, in optimiser updates.
    ///
    /// Required unless `epochs` is given.
    pub steps: Option<u64>,
    /// Number of pairs in a batch, at least 2. Each pair's negatives are the other pairs of its batch.
    pub batch_size: usize,
    /// Number of pairs that pass through the towers at once. Gradients are those of the whole batch, and memory use is
    /// that of a batch of this size (gradient caching, Gao et al., 2021, arXiv:2101.06983). What trains runs forward
    /// twice, and images are read twice if the image tower trains. Each micro-batch draws its own dropout. Several
    /// devices (`run.device`) share the micro-batches of a step, of which there must be one for each at least. A
    /// resumed run whose config does not set the key keeps its value.
    ///
    /// Default: `batch_size`; with several devices `batch_size / 8`, rounded up, so that 1, 2, 4 and 8 devices compute
    /// the same bits.
    pub micro_batch_size: Option<usize>,
    /// Peak learning rate, reached at the end of the warm-up.
    pub learning_rate: f64,
    /// Peak learning rate of the two projections, on the same schedule, in every stage. Projections start from random
    /// weights: a higher rate lets them fit while a pretrained tower changes little.
    ///
    /// Default: `learning_rate`.
    pub projection_learning_rate: Option<f64>,
    /// Peak learning rate of the image projection, such as for heads of different kinds.
    ///
    /// Default: `projection_learning_rate`.
    pub image_projection_learning_rate: Option<f64>,
    /// Peak learning rate of the text projection.
    ///
    /// Default: `projection_learning_rate`.
    pub text_projection_learning_rate: Option<f64>,
    /// Layer-wise learning-rate decay of the image tower (BEiT, arXiv:2106.08254): each layer's rate is the next
    /// layer's rate times this factor, above 0 and at most 1. The final norm and the pooler train at the full rate, the
    /// last block at this factor, and the embeddings at its highest power.
    ///
    /// Default: `1.0`, the same rate for all layers.
    #[serde(default = "default::same_for_all_layers")]
    pub image_layer_decay: f64,
    /// Layer-wise learning-rate decay of the text tower, as `image_layer_decay`.
    ///
    /// Default: `1.0`, the same rate for all layers.
    #[serde(default = "default::same_for_all_layers")]
    pub text_layer_decay: f64,
    /// Decoupled weight decay of the weight matrices: each update subtracts `learning_rate * weight_decay` times the
    /// weight, with every optimiser. Biases, norms, position and class embeddings and `logit_scale` do not decay.
    ///
    /// Default: `0.1` (the command in the README of the reference's contrastive-image-text example).
    #[serde(default = "default::weight_decay")]
    pub weight_decay: f64,
    /// Number of steps over which the learning rate rises linearly from 0.
    ///
    /// Default: `0` (`TrainingArguments.warmup_steps` of the reference), unless `warmup_fraction` is given.
    pub warmup_steps: Option<u64>,
    /// Length of the warm-up as a fraction of the run, 0 or more and less than 1, rounded to whole steps. Instead of
    /// `warmup_steps`.
    ///
    /// Default: none.
    pub warmup_fraction: Option<f64>,
    /// Learning-rate schedule after the warm-up.
    ///
    /// Default: `"cosine"` (big_vision's LiT recipe, `lit_coco.py`).
    #[serde(default)]
    pub schedule: Schedule,
    /// Final learning rate of the `cosine` and `linear` schedules, as a fraction of the peak, from 0 to 1.
    ///
    /// Default: `0.0`.
    #[serde(default)]
    pub learning_rate_floor: f64,
    /// Time scale of the `rsqrt` schedule, in steps: the rate is 0.71 of the peak this many steps after the warm-up.
    ///
    /// Default: `10000.0` (`timescale` of big_vision's `create_learning_rate_schedule`).
    pub rsqrt_timescale: Option<f64>,
    /// Number of steps at the end of the run over which the `rsqrt` and `constant` schedules fall linearly to 0 (Zhai
    /// et al., arXiv:2106.04560, sec. 3.5).
    ///
    /// Default: none; no cooldown.
    pub cooldown_steps: Option<u64>,
    /// Length of the cooldown as a fraction of the run, 0 or more and less than 1, rounded to whole steps. Instead of
    /// `cooldown_steps`.
    ///
    /// Default: none; no cooldown.
    pub cooldown_fraction: Option<f64>,
    /// Optimiser.
    ///
    /// Default: `"adamw"`.
    #[serde(default)]
    pub optimizer: OptimizerKind,
    /// Exponential decay rates of the `adamw` and `lion` optimisers, 0 or more and less than 1. AdamW: of the first and
    /// the second moment. Lion: of the momentum in the update and in the next momentum.
    ///
    /// Default: `[0.9, 0.999]` for `adamw` (Loshchilov and Hutter, arXiv:1711.05101; also the reference's), `[0.9,
    /// 0.99]` for `lion` (Chen et al., arXiv:2302.06675).
    pub betas: Option<[f64; 2]>,
    /// Term that `adamw` adds to the square root of the second moment.
    ///
    /// Default: `1e-8` (Loshchilov and Hutter, arXiv:1711.05101; also the reference's).
    pub eps: Option<f64>,
    /// Exponential decay rate of the momentum of `adafactor` and `sgd`, 0 or more and less than 1.
    ///
    /// Default: `0.9` (big_vision's `scale_by_adafactor`, and `momentum_hp` in its recipes).
    pub momentum: Option<f64>,
    /// Decay rate of an exponential moving average of the trainable parameters, above 0 and less than 1, such as 0.999.
    /// Evaluations, `embed`, `export` and other readers of a checkpoint use the averaged weights; training continues
    /// from the others. Update `t` of a parameter decays by `min(ema_decay, (1 + t) / (10 + t))`.
    ///
    /// Default: none; no average.
    pub ema_decay: Option<f64>,
    /// Contrastive loss.
    ///
    /// Default: `"softmax"`.
    #[serde(default)]
    pub loss: Loss,
    /// Fraction of each target's probability mass that the softmax loss spreads evenly over the batch, in both
    /// directions, as PyTorch's `cross_entropy`: 0 or more and less than 1. Masked pairs are left out.
    ///
    /// Default: `0.0`.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Widths at which embeddings are compared: those of the first values of an embedding, normalised, beside the whole
    /// (Matryoshka representation learning, arXiv:2205.13147). The loss is the mean over the widths, with one
    /// `logit_scale` and `logit_bias`. In descending order, such as `[512, 256, 128, 64]`; the whole, `embed_dim`, need
    /// not be named.
    ///
    /// Default: none; only whole embeddings are compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matryoshka: Vec<usize>,
    /// Weight of the structure term (STRUCTURE, arXiv:2506.16895), which keeps the neighbourhoods that the features of
    /// a locked tower have in a batch. `0`: none. It needs a locked tower in every stage; with one, it concerns that
    /// side alone. For few pairs: the authors use 10 with 80,000.
    ///
    /// Default: `0.0`.
    #[serde(default)]
    pub structure: f64,
    /// Number of steps over which the weight of the structure term rises linearly from 0.
    ///
    /// Default: `1000` with `structure`; `0` is no warm-up.
    pub structure_warmup_steps: Option<u64>,
    /// Temperature of the similarities in the structure term, above 0.
    ///
    /// Default: `0.05` with `structure` (the temperature of the authors' runs).
    pub structure_temperature: Option<f64>,
    /// Latent mixup (FuseMix, arXiv:2312.10144): each pair is blended with another one of its batch before the
    /// projections, its image and its caption in the same proportion, which is drawn once a step from
    /// Beta(`mixup_alpha`, `mixup_alpha`). `0`: none; FuseMix uses 1, all proportions alike. Both towers must be locked
    /// in every stage.
    ///
    /// Default: `0.0`.
    #[serde(default)]
    pub mixup_alpha: f64,
    /// Maximum global norm of the gradient. `0`: no clipping.
    ///
    /// Default: `1.0` (`max_grad_norm` of the reference, and big_vision's LiT recipe).
    #[serde(default = "default::clip_grad_norm")]
    pub clip_grad_norm: f64,
    /// How an image and another pair's caption are treated if the data also list that caption for the image: with equal
    /// images, equal captions, and images that share captions. Captions are equal if they differ only in case, white
    /// space, Unicode form (NFKC) and trailing `. , ; : ! ? 。 、`. `num_duplicates` in the metrics counts the images
    /// concerned at each step.
    ///
    /// Default: `"positives"`.
    #[serde(default)]
    pub duplicates: Duplicates,
    /// Maximum of `logit_scale`, the logarithm of the inverse temperature. It is clamped after each update.
    ///
    /// Default: `4.605170185988092`, ln 100 (CLIP, arXiv:2103.00020, sec. 2.5).
    #[serde(default = "default::logit_scale_max")]
    pub logit_scale_max: f64,
    /// Initial value of the sigmoid loss's `logit_bias`: a number, or `"auto"`, -ln(`batch_size` - 1), the log odds of
    /// a match among the pairs of a batch. It is -5.5 at 256 pairs, -6.9 at 1024 and -10.4 at 32768, near the -10 of
    /// SigLIP (arXiv:2303.15343, sec. 3.2). Read when a run begins.
    ///
    /// Default: `"auto"`.
    pub logit_bias_init: Option<LogitBiasInit>,
    /// A teacher: a trained model whose similarities between the images and texts of a batch the run imitates.
    ///
    /// Default: none.
    pub teacher: Option<TeacherSection>,
    /// Stages of the run, in order. Until the first one begins, `[model]` and `[train]` apply.
    ///
    /// Default: none; the whole run is one stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stage: Vec<StageSection>,
    /// Groups of parameters with their own learning rate or weight decay. The first group that matches a parameter
    /// applies.
    ///
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<GroupSection>,
}
