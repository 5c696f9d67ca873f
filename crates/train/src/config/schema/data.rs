//! `[data]` and `[cache]`: the training pairs and the feature cache.

use std::path::PathBuf;

use dualenc_data::{Augment, CaptionMode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::data_docs::{AugmentDoc, CaptionModeDoc, TrainSourcesDoc};
use super::default;
use super::sources::TrainSources;

/// The image-text pairs to train on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Maximum number of tokens in a caption, special tokens included. Longer captions are truncated and counted.
    /// Batches are padded to their own longest caption, so a high limit costs nothing where captions are short.
    ///
    /// Default: `64` (the text length of SigLIP's released models; CLIP's is 77).
    #[serde(default = "default::max_tokens")]
    pub max_tokens: usize,
    /// Whether the pairs are shuffled. `true`: a new order each epoch, and the last partial batch is dropped. `false`:
    /// the order of the source, and a last partial batch is used too, unless it has a single pair.
    ///
    /// Default: `true`.
    #[serde(default = "default::yes")]
    pub shuffle: bool,
    /// With `shuffle`: the number of samples among which each is shuffled, at least 2, so that shards are read in long
    /// stretches. An epoch cuts the data into blocks of a sixteenth of this, puts them into a random order, and
    /// shuffles each group of 16 blocks. The blocks of a group are read one after the other, ahead of their samples;
    /// keep the size of two groups, in images as they are stored, below the free memory.
    ///
    /// Default: none; each epoch is shuffled as a whole.
    #[schemars(range(min = 2))]
    pub shuffle_window: Option<usize>,
    /// Directory for an index of the training data, for sets that do not fit into memory: where each image is and what
    /// its captions say. It is written when a run first needs it, a few shards at a time, and again when shards have
    /// changed. Later starts take it instead of reading the shards. Only `webdataset` sources have one. Several runs
    /// may share the directory. It changes no result.
    ///
    /// Default: none; the index is in memory.
    pub index_dir: Option<PathBuf>,
    /// How an image with several captions is used in an epoch.
    ///
    /// Default: `"all"` (each row of the reference's example is one pair).
    #[serde(default)]
    #[schemars(with = "CaptionModeDoc")]
    pub captions: CaptionMode,
    /// With `captions = "slots"`: the number of captions of an image that are its positives at once, from 1 to 256.
    /// They are drawn anew in each epoch, without replacement, by `caption_weights`. An image with fewer captions
    /// repeats them. `batch_size` counts images, so the text tower runs over this many times as many captions.
    ///
    /// Default: `2` with `captions = "slots"` (MobileCLIP, arXiv:2311.17049, sec. 3: a real and a synthetic caption).
    pub caption_slots: Option<usize>,
    /// With `captions = "slots"`: whether one of the captions is always the image's first, whatever its weight: of the
    /// first column in `captions`, of a list, or of the rows with this image. The others are drawn.
    ///
    /// Default: `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pin_first_caption: bool,
    /// Probability with which each word of a training caption is left out, drawn anew each epoch (word dropout, Iyyer
    /// et al., ACL 2015): 0 or more and less than 1. Words are separated by white space, and at least one remains. With
    /// a locked text tower, set `cache.enabled = false`.
    ///
    /// Default: `0.0`.
    #[serde(default)]
    pub word_dropout: f64,
    /// Number of threads that read and decode images, for each device of a process and for each process of several.
    ///
    /// Default: the number of CPU cores. Devices of one process divide them; a process of several has as many as
    /// `run.threads`.
    pub workers: Option<usize>,
    /// Maximum fraction of unreadable images, from 0 to 1, of the training data and of each evaluation. Above it, the
    /// run stops.
    ///
    /// Default: `0.01`.
    #[serde(default = "default::max_bad_fraction")]
    pub max_bad_fraction: f64,
    /// Maximum number of pixels of an image, by its header, in training and evaluations. Images over it are refused
    /// before they are decoded, and count as unreadable. An image takes 3 bytes of memory per pixel or more while it is
    /// decoded. Images of more than 64 MiB wait for each other: together they take at most 1 GiB or, if that is more,
    /// 128 MiB per CPU core.
    ///
    /// Default: `178956970` (twice Pillow's `Image.MAX_IMAGE_PIXELS`, where Pillow raises `DecompressionBombError`).
    #[serde(default = "default::max_pixels")]
    pub max_pixels: u64,
    /// Whether large JPEGs are decoded at a half, a quarter or an eighth of their size, as by Pillow's `Image.draft`,
    /// where they remain at least twice as large as the resized image. This saves most of their time, and changes
    /// pixels a little: on photos of 1600 x 1200 pixels for an input of 224 x 224 by 0.2 of 255 levels on average.
    /// transformers decodes the whole image. The model, its teacher and its evaluations use the same setting;
    /// features that are cached are computed anew.
    ///
    /// Default: `false`.
    #[serde(default)]
    pub fast_decode: bool,
    /// Random augmentation of the training images.
    ///
    /// Default: none.
    #[schemars(with = "Option<AugmentDoc>")]
    pub augment: Option<Augment>,
    /// Share of the training images, from 0 to 1, that is held out as validation data. Whether an image is held out
    /// depends on its name alone, so adding rows moves no other image: its path below the source, for shards with the
    /// name of the entry, for parquet files with the number of the row. The retrieval and loss evaluations without
    /// `data` use the held-out images; if there is none, a retrieval evaluation `validation` is added.
    ///
    /// Default: `0.0`.
    #[serde(default)]
    pub validation_fraction: f64,
    /// Source of the training pairs: a table with exactly one format, such as `[data.train.csv]`. Several sources are
    /// written as an array of tables, `[[data.train]]`, and mixed in every epoch.
    #[schemars(with = "TrainSourcesDoc")]
    pub train: TrainSources,
}

/// The feature cache: outputs of locked towers, computed once and then read from disk. An entry is identified by the
/// content of its image or caption, the tower's weights and the preprocessing. Cached features are bit-identical to
/// computed ones on the same kind of device and processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSection {
    /// Whether the features of locked towers are cached on disk. Towers that train are never cached.
    ///
    /// Default: `true`.
    pub enabled: bool,
    /// Directory of the cache. Several runs may share one.
    ///
    /// Default: `cache` in the run directory.
    pub dir: Option<PathBuf>,
    /// Storage format of a cached value. A run uses the stored values throughout, also those that it has just computed.
    ///
    /// Default: `"f32"`.
    pub dtype: CacheDtype,
    /// Number of augmented views of each training image, with `[data.augment]` and a locked image tower. Epoch `e` uses
    /// view `e` modulo `views`, and the features of all views are cached.
    ///
    /// Default: none; augmentation with a locked image tower then requires `enabled = false`.
    pub views: Option<u64>,
    /// Whether what the locked layers of a tower compute that trains only from a later block on (`*_unlock_last`,
    /// `last_blocks` of its adapters) is cached too: the states of all tokens as they enter the first layer that
    /// trains. A step then runs only the layers after that. With `[data.augment]`, it also needs `views`.
    ///
    /// Default: `true` for texts, and for images that are not augmented, if it takes 4 GB at most, `dtype` is `"f32"`,
    /// and `run.precision` is `run.locked_precision`, on CPUs both `"f32"`.
    pub prefix: Option<bool>,
}

impl Default for CacheSection {
    fn default() -> Self {
        Self { enabled: true, dir: None, dtype: CacheDtype::F32, views: None, prefix: None }
    }
}

/// A storage format of cached values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CacheDtype {
    /// Single precision, 4 bytes per value: exact.
    #[default]
    F32,
    /// Half precision (IEEE 754 binary16), 2 bytes per value: rounds by at most 2^-11 of the value, or by 2^-25 below
    /// 2^-14. A value above 65504 is an error.
    F16,
}

impl CacheDtype {
    /// The value in the TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// Size of one value, in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}
