//! Image-text data for contrastive training: data sets, image and token processing, sample order, and the loader.
//!
//! Everything here is host memory and plain Rust; the crate knows no tensor library. A run reads a [`Source`] into a
//! [`Dataset`], and a [`PairLoader`] turns it into [`Batch`]es whose order is a pure function of (seed, epoch, step):
//! to resume at any step costs nothing. Image processing equals Pillow and the reference image processors.
//!
//! What it does not do: print, or write files.

mod augment;
mod bad;
mod caption_identity;
mod class_folder;
mod coco;
mod csv;
mod dataset;
mod error;
mod folder;
mod geometry;
mod image;
mod image_ref;
mod jsonl;
mod kept;
mod loader;
mod open_clip_config;
mod order;
mod ordered_map;
mod processor;
mod processor_config;
mod processor_family;
mod resize;
mod resize_float;
mod shards;
mod source;
mod timm_config;
mod tokenizer;
mod tokenizer_settings;
mod tokens;
mod vocabulary_files;
mod webdataset;
mod word_dropout;

pub use crate::augment::{Augment, View};
pub use crate::bad::{BadImages, BadSamplePolicy, Skipped};
pub use crate::class_folder::{ClassFolder, class_folder};
pub use crate::coco::CocoSource;
pub use crate::csv::CsvSource;
pub use crate::dataset::{BadRows, Caption, CaptionMode, Dataset, DatasetBuilder, MissingFiles, Pair, SkippedRows};
pub use crate::error::{DataError, ImageError};
pub use crate::folder::{FolderSource, image_files};
pub use crate::image::{Limits, RgbImage, decode};
pub use crate::image_ref::ImageRef;
pub use crate::jsonl::JsonlSource;
pub use crate::kept::{ContentHash, KeptImages};
pub use crate::loader::{Batch, LoadedImage, LoaderOptions, PairLoader, Parts, decode_view, load_pixels, load_view};
pub use crate::order::{EpochOrder, Plan, mix};
pub use crate::ordered_map::{OrderedMap, ordered_map};
pub use crate::processor::ImageProcessor;
pub use crate::resize::{Filter, Window, resize, resize_window};
pub use crate::source::Source;
pub use crate::tokenizer::{Encoded, Tokenizer};
pub use crate::tokens::{PaddedTokens, TokenBatch, TokenTable, Tokens};
pub use crate::webdataset::WebdatasetSource;
