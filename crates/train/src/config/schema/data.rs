//! `[data]` and `[cache]`: what is trained on, and what is kept of it.

use std::path::PathBuf;

use dualenc_data::{Augment, CaptionMode, Source};
use serde::{Deserialize, Serialize};

use super::default;

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
    /// Probability, from 0 to less than 1, with which each word of a training caption is left out, drawn anew each epoch; one word
    /// always stays (word dropout: Iyyer et al., ACL 2015). Words are what white space parts. A locked text tower then
    /// needs `cache.enabled = false`. Default 0.
    #[serde(default)]
    pub word_dropout: f64,
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
