//! `[model]`: the towers, their projections and adapters.

use dualenc_model::{AdapterConfig, LayerNumbers, Lock, Pool, TakenLayers, Tower, TowerOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default;
use super::model_docs::{self, PoolDoc};
use super::model_heads::HeadSection;

/// The two towers, their projections, and which of their parameters train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Image tower: a local Hugging Face directory, or a Hugging Face hub id (`name` or `org/name`).
    ///
    /// Required unless `init` is given, or the data have features of images.
    pub image_tower: Option<String>,
    /// Text tower: a local Hugging Face directory, or a Hugging Face hub id (`name` or `org/name`).
    ///
    /// Required unless `init` is given, or the data have features of texts.
    pub text_tower: Option<String>,
    /// Trained model to start from, instead of two towers: the directory or hub id of a VisionTextDualEncoder, CLIP,
    /// Chinese CLIP, SigLIP or open_clip CLIP model, a run directory, or a checkpoint. SigLIP has no projections; they
    /// start as identities.
    ///
    /// Default: none.
    pub init: Option<String>,
    /// What the heads, the maps of tower outputs into the shared space, start from. `cca` and `ridge` fit them to the
    /// features of all training pairs before the first step, and set `logit_scale`, too: see `[fit]`. `init = "cca"`
    /// is short for `head_init = "cca"`.
    ///
    /// Default: `"random"`; with `init`, the heads of that model.
    #[serde(default, skip_serializing_if = "HeadInit::is_random")]
    pub head_init: HeadInit,
    /// Which towers train, as two letters: first the image tower, then the text tower (LiT, arXiv:2111.07991, sec. 3).
    /// `L`: locked, pretrained. `U`: unlocked, pretrained. `u`: unlocked, from random weights.
    ///
    /// Default: `"LU"`: the image tower is locked, and a pretrained text tower learns to match it. `"LL"` where the
    /// data have features of texts.
    #[serde(default = "default::lock")]
    #[schemars(schema_with = "model_docs::lock")]
    pub lock: Lock,
    /// Number of blocks at the end of a locked image tower that train nevertheless, with the final norm and the pooler
    /// after them. The blocks before them run without a gradient graph, and what they compute is cached
    /// (`cache.prefix`).
    ///
    /// Default: `0`.
    #[serde(default)]
    pub image_unlock_last: usize,
    /// Number of blocks at the end of a locked text tower that train nevertheless, with the final norm and the pooler
    /// after them. The blocks before them run without a gradient graph, and what they compute is cached
    /// (`cache.prefix`).
    ///
    /// Default: `0`.
    #[serde(default)]
    pub text_unlock_last: usize,
    /// Low-rank adapters of a locked image tower.
    ///
    /// Default: none.
    pub image_lora: Option<LoraSection>,
    /// Low-rank adapters of a locked text tower.
    ///
    /// Default: none.
    pub text_lora: Option<LoraSection>,
    /// Width of the shared embedding space.
    ///
    /// Default: `512` (`projection_dim` of VisionTextDualEncoder); with `init`, the width of that model; with
    /// `text_head.kind = "identity"`, the width of the text tower.
    pub embed_dim: Option<usize>,
    /// Width of the features of images, where the data have features in place of an image tower. A run notes it in its
    /// `config.toml`, so that the model can be loaded without the data.
    ///
    /// Default: the width in the files of `data.train`.
    pub image_width: Option<usize>,
    /// Width of the features of texts, where the data have features in place of a text tower, noted likewise.
    ///
    /// Default: the width in the files of `data.train`.
    pub text_width: Option<usize>,
    /// How the image tower's tokens `[batch, seq, width]` are pooled into one vector `[batch, width]`.
    ///
    /// Default: `"auto"`.
    #[serde(default)]
    #[schemars(with = "PoolDoc")]
    pub image_pool: Pool,
    /// How the text tower's tokens `[batch, seq, width]` are pooled into one vector `[batch, width]`.
    ///
    /// Default: `"auto"`. A new run with the pretrained tower of a sentence-transformers directory records it as
    /// `"sentence"`; a run that recorded `"auto"` goes on with the tower's own pooled output.
    #[serde(default)]
    #[schemars(with = "PoolDoc")]
    pub text_pool: Pool,
    /// Layer of the image tower whose output is pooled: from 1, or from -1 for the last. A list, such as `[9, 10, 11]`,
    /// pools each of its layers and concatenates the results in its order: as many times the width. Blocks after the
    /// highest layer are not loaded, do not run and do not train; `image_unlock_last`, adapters and layer-wise rates
    /// count from it. Poolers with weights of their own were trained for the last layer and are refused for any other
    /// choice.
    ///
    /// Default: `-1`, the last.
    #[serde(default)]
    #[schemars(schema_with = "model_docs::layers")]
    pub image_layer: LayerNumbers,
    /// Layer of the text tower whose output is pooled, or a list of layers, likewise.
    ///
    /// Default: `-1`, the last.
    #[serde(default)]
    #[schemars(schema_with = "model_docs::layers")]
    pub text_layer: LayerNumbers,
    /// Whether the image tower's final norm is applied to the output of each layer of `image_layer`.
    ///
    /// Default: `true`. `false` is an error for a tower without such a norm.
    #[serde(default = "default::yes")]
    pub image_layer_norm: bool,
    /// Whether the text tower's final norm is applied to the output of each layer of `text_layer`.
    ///
    /// Default: `true`. `false` is an error for a tower without such a norm (BERT and its relatives).
    #[serde(default = "default::yes")]
    pub text_layer_norm: bool,
    /// Text that is put before every caption, class prompt and query, as sentence-transformers does with its prompts,
    /// such as `"query: "`. Recorded in exported models.
    ///
    /// Default: none, even if the text tower's directory has a `default_prompt_name`; with `init`, that of the model.
    pub text_prompt: Option<String>,
    /// The same by its name in `prompts` of the text tower's `config_sentence_transformers.json`.
    ///
    /// Default: none.
    pub text_prompt_name: Option<String>,
    /// Side of the square input image, in pixels. A side other than the tower's own interpolates its position
    /// embeddings.
    ///
    /// Default: the tower's own.
    pub image_size: Option<usize>,
    /// Initial value of `logit_scale`, the logarithm of the inverse temperature.
    ///
    /// Default: `2.6592`, ln(1 / 0.07) (`logit_scale_init_value` of VisionTextDualEncoder); for the sigmoid loss, ln 10
    /// = 2.3026 (SigLIP, arXiv:2303.15343, sec. 3.2); with `init`, the value of that model.
    pub logit_scale_init: Option<f64>,
    /// Dropout probability of the image tower while it trains, for hidden states and attention alike: 0 or more and
    /// less than 1.
    ///
    /// Default: the tower's own `hidden_dropout_prob` and `attention_probs_dropout_prob`.
    pub image_dropout: Option<f64>,
    /// Dropout probability of the text tower while it trains, for hidden states and attention alike: 0 or more and less
    /// than 1.
    ///
    /// Default: the tower's own `hidden_dropout_prob` and `attention_probs_dropout_prob`.
    pub text_dropout: Option<f64>,
    /// How the image head (`image_head`) starts, and whether it trains.
    #[serde(default)]
    pub image_projection: ImageProjectionSection,
    /// Whether the text head (`text_head`) trains.
    #[serde(default)]
    pub text_projection: ProjectionSection,
    /// What maps the image tower's pooled output into the shared embedding space.
    #[serde(default)]
    pub image_head: HeadSection,
    /// What maps the text tower's pooled output into the shared embedding space.
    #[serde(default)]
    pub text_head: HeadSection,
}

impl ModelSection {
    /// How the image tower is built.
    pub(crate) fn image_options(&self) -> TowerOptions {
        TowerOptions {
            pool: self.image_head.tokens.map_or(self.image_pool, |_| Pool::Tokens),
            dropout: self.image_dropout,
            layers: self.taken_layers(Tower::Image),
            token_grid: self.image_head.token_grid,
        }
    }

    /// How the text tower is built.
    pub(crate) fn text_options(&self) -> TowerOptions {
        TowerOptions {
            pool: self.text_pool,
            dropout: self.text_dropout,
            layers: self.taken_layers(Tower::Text),
            ..TowerOptions::default()
        }
    }

    /// The layers that are pooled, in the model crate's terms.
    pub fn taken_layers(&self, tower: Tower) -> TakenLayers {
        let (numbers, norm) = match tower {
            Tower::Image => (&self.image_layer, self.image_layer_norm),
            Tower::Text => (&self.text_layer, self.text_layer_norm),
        };
        TakenLayers { numbers: numbers.clone(), norm }
    }
}

/// What heads start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeadInit {
    /// Random weights, as in the reference, or the heads of `init`.
    #[default]
    Random,
    /// Canonical correlation analysis: both towers are mapped to where they correlate most.
    Cca,
    /// Ridge regression from text features to image features, which are rotated only. `embed_dim` below the image
    /// tower's width leaves out what texts tell least of.
    Ridge,
}

impl ModelSection {
    /// Replaces `init = "cca"`, which names no model, by what it is short for. A directory of that name is `./cca`.
    pub(crate) fn expand_short_init(&mut self) {
        if self.init.as_deref() == Some("cca") {
            self.init = None;
            if self.head_init == HeadInit::Random {
                self.head_init = HeadInit::Cca;
            }
        }
    }
}

impl HeadInit {
    /// Whether nothing is fitted.
    pub fn is_random(&self) -> bool {
        *self == Self::Random
    }
}

/// Heads in closed form: for `dualenc fit` and `model.head_init`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FitSection {
    /// What is added to the variance of every direction of the features, as a fraction of their mean variance: above
    /// 0. More of it counts on fewer directions, for few or noisy pairs.
    ///
    /// Default: the one of `1e-4`, `1e-3`, `1e-2` and `1e-1` with the highest recall on pairs that are held out.
    pub ridge: Option<f64>,
    /// Exponent of the canonical correlation that each direction is multiplied by, from 0 to 16: `0` weighs all
    /// directions alike, `0.5` as in CSA (arXiv:2410.07610), higher ones favour the directions that images and texts
    /// share. Not for `ridge`.
    ///
    /// Default: the one of `0`, `0.5`, `1`, `1.5` and `2` with the highest recall on pairs that are held out.
    pub power: Option<f64>,
}

impl FitSection {
    /// Whether no key is set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How the image head starts, and whether it trains.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageProjectionSection {
    /// Whether the head stays at its initial weights.
    ///
    /// Default: `false` (the reference trains both projections).
    #[serde(default)]
    pub locked: bool,
    /// Strength with which the linear map of the initial head (`linear` or `residual`) whitens the features of a locked
    /// image tower over the training images, from 0 (random weights, as in the reference) to 1 (every direction of the
    /// features has the same weight).
    ///
    /// Default: `0.0` (the quickstart uses 0.6).
    #[serde(default)]
    pub whitening: f64,
}

/// Whether the text head trains.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectionSection {
    /// Whether the head stays at its initial weights.
    ///
    /// Default: `false` (the reference trains both projections).
    #[serde(default)]
    pub locked: bool,
}

/// Low-rank adapters (LoRA, Hu et al., 2022, arXiv:2106.09685) beside the linear layers of a locked tower. Checkpoints
/// hold only the adapters; `dualenc export` adds them to the tower's weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraSection {
    /// Rank of each adapter, at least 1.
    pub rank: usize,
    /// Numerator of the scale `alpha / rank` that multiplies each adapter's output.
    ///
    /// Default: `rank`, a scale of 1.
    pub alpha: Option<f64>,
    /// Linear layers of each block that get an adapter.
    ///
    /// Default: `["query", "value"]` (sec. 7.1 of the paper).
    #[serde(default = "default::lora_targets")]
    #[schemars(schema_with = "model_docs::lora_targets")]
    pub targets: Vec<String>,
    /// Number of blocks at the end of the tower that get adapters. The blocks before them run without a gradient graph,
    /// and what they compute is cached (`cache.prefix`).
    ///
    /// Default: all blocks.
    pub last_blocks: Option<usize>,
}

impl ModelSection {
    /// Width of the shared embedding space before defaults are filled in; `None`: that of the model in `init`.
    pub(crate) fn embed_dim_of_towers(&self) -> Option<usize> {
        self.embed_dim.or_else(|| self.init.is_none().then_some(default::EMBED_DIM))
    }
}

impl LoraSection {
    /// The adapters in the model crate's terms.
    pub fn adapters(&self) -> AdapterConfig {
        let alpha = self.alpha.unwrap_or(self.rank as f64);
        AdapterConfig { rank: self.rank, alpha, targets: self.targets.clone(), last_blocks: self.last_blocks }
    }
}
