//! `[train]`: optimiser, schedule and loss.

use serde::{Deserialize, Serialize};

use super::default;
use super::loss::{Duplicates, Loss};
use super::optimizer::{GroupSection, OptimizerKind, Schedule};
use super::stage::StageSection;

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
    /// Pairs that go through the towers at once; gradients are those of the whole batch (gradient caching, Gao et al., 2021,
    /// arXiv:2101.06983). Memory is that of a batch of this size; what trains runs forward twice, and a tower that trains on
    /// images reads them twice. Where dropout is on, each part draws its own. Default: the whole batch.
    pub micro_batch_size: Option<usize>,
    /// Highest learning rate, reached after the warm-up. Required.
    pub learning_rate: f64,
    /// Highest learning rate of the two projections, on the same schedule, whatever the stage. They start from nothing, a
    /// pretrained tower does not: a higher one lets them fit while the tower keeps what it knows. Default: `learning_rate`.
    pub projection_learning_rate: Option<f64>,
    /// What the rate of the image tower's parameters is multiplied with for each layer that they lie below the last (BEiT,
    /// arXiv:2106.08254): the last block's output passes `final_norm` and pooler at 1, the last block at this, the
    /// embeddings at its highest power. Above 0, at most 1. Default 1.
    #[serde(default = "default::same_for_all_layers")]
    pub image_layer_decay: f64,
    /// The same for the text tower.
    #[serde(default = "default::same_for_all_layers")]
    pub text_layer_decay: f64,
    /// Decoupled weight decay of the matrices: each update takes `learning_rate` times this off them, whatever the optimiser.
    /// Biases, norms, position and class embeddings and `logit_scale` are not decayed. Default 0.1 (the command in the README of the reference's contrastive-image-text example).
    #[serde(default = "default::weight_decay")]
    pub weight_decay: f64,
    /// Steps over which the learning rate rises from 0. Default 0 (`TrainingArguments.warmup_steps` of the reference), unless
    /// `warmup_fraction` is given.
    pub warmup_steps: Option<u64>,
    /// The same as a share of the whole run, rounded to whole steps.
    pub warmup_fraction: Option<f64>,
    /// What the learning rate does after the warm-up. Default `cosine` (big_vision's LiT recipe, `lit_coco.py`).
    #[serde(default)]
    pub schedule: Schedule,
    /// Where `cosine` and `linear` end, as a share of the highest rate. Default 0.
    #[serde(default)]
    pub learning_rate_floor: f64,
    /// Steps after the warm-up until `rsqrt` has fallen to 0.71 of the highest rate. Default 10000 (`timescale` of big_vision's
    /// `create_learning_rate_schedule`); only with `schedule = "rsqrt"`.
    pub rsqrt_timescale: Option<f64>,
    /// Steps at the end of the run over which `rsqrt` and `constant` fall to 0 along a line (Zhai et al., arXiv:2106.04560,
    /// sec. 3.5). Default: none.
    pub cooldown_steps: Option<u64>,
    /// The same as a share of the whole run, rounded to whole steps.
    pub cooldown_fraction: Option<f64>,
    /// What turns gradients into updates. Default `adamw`.
    #[serde(default)]
    pub optimizer: OptimizerKind,
    /// Only of `adamw` and `lion`: how much is kept of AdamW's two moments at each update, default [0.9, 0.999] (Loshchilov
    /// and Hutter, arXiv:1711.05101; also the reference's); of Lion's momentum in the update and in the next momentum, default
    /// [0.9, 0.99] (Chen et al., arXiv:2302.06675).
    pub betas: Option<[f64; 2]>,
    /// Only of `adamw`: added to the root of the second moment. Default 1e-8 (as `betas`).
    pub eps: Option<f64>,
    /// Only of `adafactor` and `sgd`: how much is kept of the momentum at each update. Default 0.9 (big_vision's
    /// `scale_by_adafactor` and `momentum_hp` as its recipes set it).
    pub momentum: Option<f64>,
    /// Decay of a moving average of the parameters that train, above 0 and less than 1, such as 0.999: evaluations, `embed`,
    /// `export` and whatever else reads a checkpoint then take the averaged weights, training goes on from the others. Update
    /// `t` of a parameter decays by `min(ema_decay, (1 + t) / (10 + t))`. Default: no average.
    pub ema_decay: Option<f64>,
    /// The contrastive loss. Default `softmax`.
    #[serde(default)]
    pub loss: Loss,
    /// Share of each target's mass that is spread evenly over the batch, masked pairs left out, as PyTorch's `cross_entropy`
    /// takes it, in both directions; from 0 to less than 1. Default 0; only with `loss = "softmax"`.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Largest global norm of the gradient; 0 turns clipping off. Default 1.0 (`max_grad_norm` of the reference, and
    /// big_vision's LiT recipe).
    #[serde(default = "default::clip_grad_norm")]
    pub clip_grad_norm: f64,
    /// What an image of the batch and another pair's caption are to each other when the data list that caption for the
    /// image: so it is with equal images, with equal captions, and with images that share captions. Captions are equal whatever
    /// their case, the form of their characters (Unicode's NFKC), their white space and the `. , ; : ! ? 。 、` at their end.
    /// Each step's metrics count the images concerned, `num_duplicates`. Default `positives`.
    #[serde(default)]
    pub duplicates: Duplicates,
    /// `logit_scale` is cut to this after each update. Default ln 100 = 4.6052 (CLIP, arXiv:2103.00020, sec. 2.5).
    #[serde(default = "default::logit_scale_max")]
    pub logit_scale_max: f64,
    /// Initial `logit_bias` of the sigmoid loss. Default -10 (SigLIP, arXiv:2303.15343, sec. 3.2); only with
    /// `loss = "sigmoid"`.
    pub logit_bias_init: Option<f64>,
    /// Stages of the run, a table `[[train.stage]]` each, in their order: what trains from some step on. What is said of
    /// `model` and above holds until the first one begins. Default: none, all of the run is alike.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stage: Vec<StageSection>,
    /// Parameters with rates or decay of their own, a table `[[train.group]]` each. The first one that matches counts.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<GroupSection>,
}
