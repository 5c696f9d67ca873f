#![doc = include_str!("../README.md")]
//! Rooms of the source: `sources` reads data sets from disk, `parquet` is a file format, `dataset` holds them, `images`
//! decodes and resizes, `image_processor` makes a tower's input, `text` tokenises, `text_lists` reads class names and
//! templates, `features` reads vectors that other programs computed, `index` keeps the
//! tables of large data sets in files, `loader` makes the batches, `writing` turns images
//! and samples into bytes.

mod conversions;
mod counted;
mod dataset;
mod did_you_mean;
mod error;
mod features;
mod files;
mod foreign_file;
mod image_processor;
mod images;
mod index;
mod loader;
mod look_at;
mod panics;
mod parquet;
mod random;
mod skipped;
mod sources;
mod text;
mod text_lists;
mod writing;

pub use crate::counted::counted;
pub use crate::dataset::builder::DatasetBuilder;
pub use crate::dataset::caption_draw::CaptionSlots;
pub use crate::dataset::captions::Caption;
pub use crate::dataset::captions::null_words::{NULL_WORD_ADVICE, is_null_word};
pub use crate::dataset::class_labels::ClassLabels;
pub use crate::dataset::part::Part;
pub use crate::dataset::skipped_rows::{BadRows, NO_IMAGE, SkippedRow, SkippedRows};
pub use crate::dataset::survey::Survey;
pub use crate::dataset::{CaptionMode, Dataset, MissingFiles, Pair};
pub use crate::did_you_mean::nearest;
pub use crate::error::{DataError, DataErrorCause, ImageError};
pub use crate::features::integers::{find_integers, read_integers};
pub use crate::features::table::{FEATURES_TENSOR, FeatureColumn, FeatureTable};
pub use crate::files::is_tar;
pub use crate::image_processor::ImageProcessor;
pub use crate::image_processor::processed::ProcessedImages;
pub use crate::images::augment::{Augment, View};
pub use crate::images::decode::decode;
pub use crate::images::decode::limits::Limits;
pub use crate::images::filter::Filter;
pub use crate::images::header::image_size;
pub use crate::images::location::ImageRef;
pub use crate::images::resize_pillow::{Window, resize, resize_window};
pub use crate::images::rgb_image::RgbImage;
pub use crate::index::files::{IndexFile, IndexFiles};
pub use crate::index::index_writer::write_index;
pub use crate::index::inputs::index_key;
pub use crate::index::manifest::INDEX_MANIFEST;
pub use crate::index::open::{FoundIndex, open_index};
pub use crate::loader::batch::{Batch, LoadedImage};
pub use crate::loader::feature_lookup::{ContentHash, ContentId, FeatureLookup, content_id};
pub use crate::loader::in_progress::Stall;
pub use crate::loader::load_image::{decode_view, load_pixels, load_view};
pub use crate::loader::options::{LoaderOptions, MicroBatches, Share};
pub use crate::loader::order::batch_plan::BatchPlan;
pub use crate::loader::order::epoch_order::EpochOrder;
pub use crate::loader::parallel_map::ordered_map;
pub use crate::loader::unreadable::{UnreadableImages, UnreadablePolicy};
pub use crate::loader::{Loaded, PairLoader};
pub use crate::look_at::{Content, what_is};
pub use crate::panics::{CaughtPanic, catch_of_all_threads, catch_quietly, panic_message};
pub use crate::parquet::cells::ParquetColumn;
pub use crate::random::mix;
pub use crate::skipped::Skipped;
pub use crate::sources::Source;
pub use crate::sources::class_folder::{ClassFolder, class_folder};
pub use crate::sources::class_labels::CLASS_NAMES_FILE;
pub use crate::sources::classes::ClassesSource;
pub use crate::sources::coco::CocoSource;
pub use crate::sources::csv::CsvSource;
pub use crate::sources::features::FeaturesSource;
pub use crate::sources::folder::FolderSource;
pub use crate::sources::folder::options::{CaptionsFrom, TextCaptions};
pub use crate::sources::image_files::{ImageFiles, LeftOut, image_files, is_image_name};
pub use crate::sources::json::json_source::JsonSource;
pub use crate::sources::jsonl::JsonlSource;
pub use crate::sources::one_or_many::OneOrMany;
pub use crate::sources::parquet::source::ParquetSource;
pub use crate::sources::recognise::{Recognised, recognise, recognise_source};
pub use crate::sources::side_files::{has_shard, without_side_files};
pub use crate::sources::source_table::SourceTable;
pub use crate::sources::tables::text_file::TextEncoding;
pub use crate::sources::webdataset::WebdatasetSource;
pub use crate::text::caption_tokens::{CutCaptions, DrawnTokens, GrowingTokens, Tokens};
pub use crate::text::same_tokens::SameTokens;
pub use crate::text::token_batch::{PaddedTokens, TokenBatch};
pub use crate::text::token_table::TokenTable;
pub use crate::text::tokenizer::{Encoded, Tokenizer};
pub use crate::text::tokenizer_files::TOKENIZER_FILES;
pub use crate::text::tokenizer_settings::recorded_max_tokens;
pub use crate::text_lists::builtin_templates::{TEMPLATE_SETS, is_builtin_templates};
pub use crate::text_lists::class_names::{
    read_class_names, read_class_synonyms, read_numbered_synonyms, repeated_names,
};
pub use crate::text_lists::templates::{CLASS_PLACEHOLDER, TEMPLATES_FILE, parse_template, read_templates};
pub use crate::text_lists::text_file::read_text_rows;
pub use crate::writing::encode::{Encoding, encode};
pub use crate::writing::shard::ShardWriter;
