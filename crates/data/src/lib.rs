#![doc = include_str!("../README.md")]
//! Rooms of the source: `sources` reads data sets from disk, `dataset` holds them, `images` decodes and resizes,
//! `image_processor` makes a tower's input, `text` tokenises, `text_lists` reads class names and templates,
//! `loader` makes the batches.

mod dataset;
mod did_you_mean;
mod error;
mod files;
mod foreign_file;
mod image_processor;
mod images;
mod loader;
mod panics;
mod random;
mod sources;
mod text;
mod text_lists;

pub use crate::dataset::skipped_rows::{BadRows, SkippedRows};
pub use crate::dataset::{Caption, CaptionMode, Dataset, DatasetBuilder, MissingFiles, Pair};
pub use crate::did_you_mean::nearest;
pub use crate::error::{DataError, DataErrorCause, ImageError};
pub use crate::image_processor::ImageProcessor;
pub use crate::images::augment::{Augment, View};
pub use crate::images::decode::{Limits, decode};
pub use crate::images::filter::Filter;
pub use crate::images::location::ImageRef;
pub use crate::images::resize_pillow::{Window, resize, resize_window};
pub use crate::images::rgb_image::RgbImage;
pub use crate::loader::batch::{Batch, LoadedImage};
pub use crate::loader::batch_plan::BatchPlan;
pub use crate::loader::epoch_order::EpochOrder;
pub use crate::loader::feature_lookup::{ContentHash, FeatureLookup};
pub use crate::loader::in_progress::Stall;
pub use crate::loader::load_image::{decode_view, load_pixels, load_view};
pub use crate::loader::options::{LoaderOptions, MicroBatches};
pub use crate::loader::parallel_map::ordered_map;
pub use crate::loader::unreadable::{Skipped, UnreadableImages, UnreadablePolicy};
pub use crate::loader::{Loaded, PairLoader};
pub use crate::panics::{CaughtPanic, catch_quietly, panic_message};
pub use crate::random::mix;
pub use crate::sources::Source;
pub use crate::sources::class_folder::{ClassFolder, class_folder};
pub use crate::sources::coco::CocoSource;
pub use crate::sources::csv::CsvSource;
pub use crate::sources::folder::FolderSource;
pub use crate::sources::image_files::image_files;
pub use crate::sources::jsonl::JsonlSource;
pub use crate::sources::webdataset::WebdatasetSource;
pub use crate::text::caption_tokens::Tokens;
pub use crate::text::token_batch::{PaddedTokens, TokenBatch};
pub use crate::text::token_table::TokenTable;
pub use crate::text::tokenizer::{Encoded, Tokenizer};
pub use crate::text::tokenizer_files::TOKENIZER_FILES;
pub use crate::text_lists::class_names::{read_class_names, repeated_names};
pub use crate::text_lists::templates::{CLASS_PLACEHOLDER, read_templates};
pub use crate::text_lists::text_file::read_text_rows;
