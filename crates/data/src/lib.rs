//! Image-text data for contrastive training: data sets, image and token processing, sample order, and the loader.
//!
//! Everything here is host memory and plain Rust; the crate knows no tensor library. A run reads a [`Source`] into a
//! [`Dataset`], and a [`PairLoader`] turns it into [`Batch`]es whose order is a pure function of (seed, epoch, step):
//! to resume at any step costs nothing. Image processing equals Pillow and the reference image processors.
//!
//! What it does not do: print, or write files.

mod dataset;
mod error;
mod image_processor;
mod images;
mod loader;
mod sources;
mod text;

pub use crate::dataset::{BadRows, Caption, CaptionMode, Dataset, DatasetBuilder, MissingFiles, Pair, SkippedRows};
pub use crate::error::{DataError, ImageError};
pub use crate::image_processor::ImageProcessor;
pub use crate::images::augment::{Augment, View};
pub use crate::images::decode::{Limits, RgbImage, decode};
pub use crate::images::location::ImageRef;
pub use crate::images::resize_pillow::{Filter, Window, resize, resize_window};
pub use crate::loader::epoch_order::{EpochOrder, Plan, mix};
pub use crate::loader::feature_lookup::{ContentHash, KeptImages};
pub use crate::loader::parallel_map::{OrderedMap, ordered_map};
pub use crate::loader::unreadable::{BadImages, BadSamplePolicy, Skipped};
pub use crate::loader::{Batch, LoadedImage, LoaderOptions, PairLoader, Parts, decode_view, load_pixels, load_view};
pub use crate::sources::Source;
pub use crate::sources::class_folder::{ClassFolder, class_folder};
pub use crate::sources::coco::CocoSource;
pub use crate::sources::csv::CsvSource;
pub use crate::sources::folder::{FolderSource, image_files};
pub use crate::sources::jsonl::JsonlSource;
pub use crate::sources::webdataset::WebdatasetSource;
pub use crate::text::token_table::{PaddedTokens, TokenBatch, TokenTable, Tokens};
pub use crate::text::tokenizer::{Encoded, Tokenizer};
