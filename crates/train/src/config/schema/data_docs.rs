//! User documentation and JSON schemas of the tables that the data crate defines without `schemars`: `[data.train.*]`
//! and `[data.augment]`. Tests compare their keys and defaults with that crate's types.

#![expect(dead_code, reason = "only the schema of these types is used")]

use std::path::PathBuf;

use dualenc_data::{Augment, BadRows, TextCaptions, WebdatasetSource};
use schemars::JsonSchema;

use super::sources::{FeaturesDoc, PathOrPaths};

/// A source of image-text pairs: exactly one of the formats, and how its rows are used.
#[derive(JsonSchema)]
#[schemars(rename = "SourceTable", deny_unknown_fields)]
pub(super) struct SourceTableDoc {
    /// A comma-separated table.
    csv: Option<CsvDoc>,
    /// A tab-separated table.
    tsv: Option<CsvDoc>,
    /// A JSON lines file.
    jsonl: Option<JsonlDoc>,
    /// JSON in any form: a list of objects, COCO captions, a Karpathy split and others.
    json: Option<JsonDoc>,
    /// A folder of images.
    folder: Option<FolderDoc>,
    /// WebDataset tar shards.
    webdataset: Option<WebdatasetDoc>,
    /// A folder of images per class.
    classes: Option<ClassesDoc>,
    /// COCO captions.
    coco: Option<CocoDoc>,
    /// Parquet files.
    parquet: Option<ParquetDoc>,
    /// Features of images, of texts or of both, which another program has computed.
    features: Option<FeaturesDoc>,
    /// How often each pair occurs in an epoch, on average, above 0. With 0.5, each epoch has half of the pairs, the
    /// next epoch the other half; with 2, each pair twice.
    ///
    /// Default: `1.0`.
    weight: Option<f64>,
    /// File with one row number (1-based, without the header) or image name (as the source writes it; the key of a
    /// shard's sample) per line. Only these rows are read; a row that the source lacks is an error. `dualenc select`
    /// writes such files.
    ///
    /// Default: none; every row is read.
    only: Option<PathBuf>,
    /// File with one prompt template per line, where `{c}` stands for the class name. Captions are then class names,
    /// and each pair takes one template, drawn anew in each epoch. Pairs of one class are positives of each other.
    ///
    /// Default: none; captions are used as they are.
    templates: Option<PathBuf>,
    /// File with one class name per line. Captions are then 0-based class numbers, as in the `.cls` entries of shards.
    ///
    /// Default: none.
    classnames: Option<PathBuf>,
    /// With `data.captions = "one"` or `"slots"`: the relative frequency of each caption column, 0 or more. Each
    /// caption of a list in a column has the column's weight. With a single column: the relative frequency of the
    /// first, second, ... caption of an image, in the order of its list or rows; the last weight also counts for all
    /// further captions.
    ///
    /// Default: none; all captions of an image are equally frequent.
    caption_weights: Option<Vec<f64>>,
}

/// One source of training pairs, or several.
#[derive(JsonSchema)]
#[schemars(rename = "TrainSources", untagged)]
pub(super) enum TrainSourcesDoc {
    /// One source.
    One(Box<SourceTableDoc>),
    /// Several sources.
    Several(Vec<SourceTableDoc>),
}

/// The data of an evaluation.
#[derive(JsonSchema)]
#[schemars(rename = "EvalData", untagged)]
pub(super) enum EvalDataDoc {
    /// A file or folder, recognised by its name and content.
    Path(PathBuf),
    /// A source of image-text pairs.
    Source(Box<SourceTableDoc>),
}

/// A table with one image path and one or several captions per row. Rows that name the same image are its captions.
#[derive(JsonSchema)]
#[schemars(rename = "CsvSource", deny_unknown_fields)]
pub(super) struct CsvDoc {
    /// Path of the table.
    path: PathBuf,
    /// Name of the column that holds the image path, or its 1-based number as a string, such as `"1"`.
    ///
    /// Default: `image`; without such a column, the only one with another usual name, such as `filepath` or
    /// `file_name`.
    image: Option<String>,
    /// Name of the column that holds the caption, or its number.
    ///
    /// Default: `caption`; without such a column, the only one with another usual name, such as `title` or `text`.
    caption: Option<String>,
    /// Names of several columns that hold captions, in place of `caption`.
    ///
    /// Default: none.
    captions: Option<Vec<String>>,
    /// Directory that image paths are relative to.
    ///
    /// Default: the directory of the table.
    root: Option<PathBuf>,
    /// Value of the column `split` to read, or several: `["train", "restval"]` or `"train+restval"`.
    ///
    /// Default: every row; if there are several splits, a warning names them.
    split: Option<OneOrManyDoc<String>>,
    /// Character that separates the columns.
    ///
    /// Default: found in the first lines; a tab for `[data.train.tsv]` and for files that end in `.tsv`, otherwise a
    /// comma, unless only another one of `,`, tab, `;` and `|` fits.
    delimiter: Option<char>,
    /// Whether the first line names the columns.
    ///
    /// Default: found in the first line.
    header: Option<bool>,
    /// Whether a field that begins with `"` is quoted. `false`: quotes are part of the text, as in most files separated
    /// by tabs.
    ///
    /// Default: `true`.
    quote: Option<bool>,
    /// Encoding of the characters.
    ///
    /// Default: UTF-8 or UTF-16, found in the first bytes.
    encoding: Option<TextEncodingDoc>,
    /// How a malformed row is handled.
    ///
    /// Default: `"error"`.
    #[schemars(default, with = "BadRowsDoc")]
    bad_rows: BadRows,
}

/// A JSON object per line, or a list of objects. The caption is a string, or a list of strings.
#[derive(JsonSchema)]
#[schemars(rename = "JsonlSource", deny_unknown_fields)]
pub(super) struct JsonlDoc {
    /// Path of the file.
    path: PathBuf,
    /// Key of the image path.
    ///
    /// Default: `image`; without such a key, the only one with another usual name.
    image: Option<String>,
    /// Key of the caption or list of captions.
    ///
    /// Default: `caption`; without such a key, the only one with another usual name.
    caption: Option<String>,
    /// Several keys of captions, in place of `caption`.
    ///
    /// Default: none.
    captions: Option<Vec<String>>,
    /// Directory that image paths are relative to.
    ///
    /// Default: the directory of the file.
    root: Option<PathBuf>,
    /// Value of the key `split` to read, or several: `["train", "restval"]` or `"train+restval"`.
    ///
    /// Default: every object; if there are several splits, a warning names them.
    split: Option<OneOrManyDoc<String>>,
    /// Encoding of the characters.
    ///
    /// Default: UTF-8 or UTF-16, found in the first bytes.
    encoding: Option<TextEncodingDoc>,
    /// How a malformed line is handled.
    ///
    /// Default: `"error"`.
    #[schemars(default, with = "BadRowsDoc")]
    bad_rows: BadRows,
}

/// JSON in any of these forms, found by looking: a list of objects, an object with such a list, an object with columns,
/// an object of captions by image, an object per line, COCO captions, or a Karpathy split.
#[derive(JsonSchema)]
#[schemars(rename = "JsonSource", deny_unknown_fields)]
pub(super) struct JsonDoc {
    /// Path of the file.
    path: PathBuf,
    /// Key of the image path.
    ///
    /// Default: `image`; without such a key, the only one with another usual name. Karpathy splits: `filepath` and
    /// `filename`.
    image: Option<String>,
    /// Key of the caption or list of captions.
    ///
    /// Default: `caption`; without such a key, the only one with another usual name.
    caption: Option<String>,
    /// Several keys of captions, in place of `caption`.
    ///
    /// Default: none.
    captions: Option<Vec<String>>,
    /// Directory that image paths are relative to.
    ///
    /// Default: the directory of the file.
    root: Option<PathBuf>,
    /// Split to read, or several: `["train", "restval"]` or `"train+restval"`.
    ///
    /// Default: every split.
    split: Option<OneOrManyDoc<String>>,
    /// Encoding of the characters.
    ///
    /// Default: UTF-8 or UTF-16, found in the first bytes.
    encoding: Option<TextEncodingDoc>,
    /// How a malformed object is handled.
    ///
    /// Default: `"error"`.
    #[schemars(default, with = "BadRowsDoc")]
    bad_rows: BadRows,
}

/// An encoding of text.
#[derive(JsonSchema)]
#[schemars(rename = "TextEncoding")]
enum TextEncodingDoc {
    /// UTF-8, with or without byte order mark.
    #[schemars(rename = "utf-8")]
    Utf8,
    /// UTF-16; little-endian without byte order mark.
    #[schemars(rename = "utf-16")]
    Utf16,
    /// Latin-1, read as Windows-1252.
    #[schemars(rename = "latin1")]
    Latin1,
}

/// Every image file below a folder, sorted by path byte by byte. The captions of `cat.jpg` are those of a
/// `metadata.jsonl`, `metadata.csv` or `metadata.parquet` (Hugging Face ImageFolder) in its folder or one above it.
/// Without such a file, they are the lines of `cat.txt` beside it, else a key of `cat.json`, else the lines of
/// `cat.caption`, else the file name with `_` and `-` read as spaces, unless that is a number. Images without a caption
/// are left out and counted.
#[derive(JsonSchema)]
#[schemars(rename = "FolderSource", deny_unknown_fields)]
pub(super) struct FolderDoc {
    /// Path of the folder.
    path: PathBuf,
    /// Where captions are looked for: one of the places, or a list in order of preference. An image without a caption
    /// there is left out and counted.
    ///
    /// Default: `["metadata", "txt", "json", "caption", "name"]`.
    captions_from: Option<OneOrManyDoc<CaptionsFromDoc>>,
    /// Column of the captions in metadata files, or key in `.json` files. A value is a string or a list of strings.
    ///
    /// Default: `caption`, or else the only one with another usual name, such as `title` or `text` (in `.json` files,
    /// the first such), or else the only column of text.
    caption: Option<String>,
    /// Several columns or keys with captions, such as `["raw", "long"]`, instead of `caption`.
    ///
    /// Default: none.
    captions: Option<Vec<String>>,
    /// How text files of captions are read.
    ///
    /// Default: `"lines"`.
    #[schemars(default, with = "TextCaptionsDoc")]
    txt: TextCaptions,
}

/// A folder with one folder per class, and images in these. The caption of an image is the name of its class: that of
/// the folder, with `_` read as a space, or the line of `classnames` at the place of the folder in sorted order. Use
/// `templates` to turn class names into prompts.
#[derive(JsonSchema)]
#[schemars(rename = "ClassesSource", deny_unknown_fields)]
pub(super) struct ClassesDoc {
    /// Path of the folder.
    path: PathBuf,
}

/// WebDataset tar shards. Entries that share a name up to the first dot form a sample; the rest of the name is the
/// extension. The image is the first entry with the extension of an image. The captions are the lines of `.txt`, or
/// else `caption` in `.json` (a string or a list), or else the class in `.cls`. Numbers in `.cls` need class names:
/// `classnames`, or a `classnames.txt` beside the shards or in the folder above them.
#[derive(JsonSchema)]
#[schemars(rename = "WebdatasetSource", deny_unknown_fields)]
pub(super) struct WebdatasetDoc {
    /// Path of the shards: one shard, a folder of shards, or a pattern with `*`, `?`, `{a,b}` or `{000..127}`; or a
    /// list of these.
    path: OneOrManyDoc<PathBuf>,
    /// Extension of the image, such as `"input.jpg"`; or several, the preferred first.
    ///
    /// Default: every usual extension; the first image of a sample is used.
    image: Option<OneOrManyDoc<String>>,
    /// Where captions are: an extension, such as `"txt"` or `"outputs.txt"`, or a key in `.json`, such as `"long"` or
    /// `"meta.caption"`. A sample that has both takes the extension. No other entry is used, except that `"caption"`
    /// takes `.txt` where the key is absent.
    ///
    /// Default: `.txt`, otherwise `caption` in `.json`, otherwise `.cls`.
    caption: Option<String>,
    /// Several extensions or keys with captions, such as `["txt", "long"]`, instead of `caption`.
    ///
    /// Default: none.
    captions: Option<Vec<String>>,
    /// How text entries are read.
    ///
    /// Default: `"lines"`.
    #[schemars(default, with = "TextCaptionsDoc")]
    txt: TextCaptions,
    /// Whether a damaged shard is an error. `false`: the samples before the damage are used, and the damage is counted.
    ///
    /// Default: `true`.
    #[schemars(default = "webdataset_strict")]
    strict: bool,
}

/// One item, or a list of items.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub(super) enum OneOrManyDoc<T> {
    /// One item.
    One(T),
    /// Several items.
    Many(Vec<T>),
}

/// A place where captions of a folder are looked for.
#[derive(JsonSchema)]
#[schemars(rename = "CaptionsFrom", rename_all = "lowercase")]
pub(super) enum CaptionsFromDoc {
    /// `metadata.jsonl`, `metadata.csv` or `metadata.parquet` in the folder of the image or one above it.
    Metadata,
    /// `cat.txt` beside `cat.jpg`.
    Txt,
    /// `cat.json` beside `cat.jpg`.
    Json,
    /// `cat.caption` beside `cat.jpg`.
    Caption,
    /// The file name, with `_` and `-` read as spaces.
    Name,
}

/// How a text file or entry of captions is read.
#[derive(JsonSchema)]
#[schemars(rename = "TextCaptions", rename_all = "lowercase")]
enum TextCaptionsDoc {
    /// Each line that is not blank is a caption.
    Lines,
    /// The whole text is one caption, its lines joined by spaces.
    Whole,
}

/// An annotation file of COCO's caption task. Images and their captions are taken in the order of the file.
#[derive(JsonSchema)]
#[schemars(rename = "CocoSource", deny_unknown_fields)]
pub(super) struct CocoDoc {
    /// Path of the annotation file, `captions_*.json`.
    path: PathBuf,
    /// Folder that holds the images.
    ///
    /// Default: the directory of the annotation file.
    root: Option<PathBuf>,
    /// How a malformed annotation is handled.
    ///
    /// Default: `"error"`.
    #[schemars(default, with = "BadRowsDoc")]
    bad_rows: BadRows,
}

/// Parquet files with one row per image, as the `datasets` library or img2dataset writes them, or of image paths. The
/// image column holds bytes, a group of `bytes` and `path`, or a path. The caption column holds a string, a list of
/// strings, or a label, which stands for its name where the `datasets` library stores the names in the file. Images
/// stay in the file until they are needed.
#[derive(JsonSchema)]
#[schemars(rename = "ParquetSource", deny_unknown_fields)]
pub(super) struct ParquetDoc {
    /// Path of the files: one file, a folder, a pattern with `*`, `?`, `{a,b}` or `{000..127}`, or a list of these.
    path: PathOrPaths,
    /// Name of the column that holds the image or its path.
    ///
    /// Default: `image`, otherwise the one column that holds images, otherwise the one with another usual name, such as
    /// `file_name`. Several such columns are an error.
    image: Option<String>,
    /// Name of the column that holds the caption or captions.
    ///
    /// Default: `caption`, otherwise the one column with another usual name, such as `text`, otherwise the only other
    /// column of text. Several such columns are an error.
    caption: Option<String>,
    /// Names of several caption columns, in place of `caption`.
    ///
    /// Default: none.
    captions: Option<Vec<String>>,
    /// Directory that image paths are relative to.
    ///
    /// Default: the directory of each file.
    root: Option<PathBuf>,
    /// Value of the column `split` to read, or several: `["train", "restval"]` or `"train+restval"`.
    ///
    /// Default: every row; if there are several splits, a warning names them.
    split: Option<OneOrManyDoc<String>>,
    /// How a malformed row is handled.
    ///
    /// Default: `"error"`.
    #[schemars(default, with = "BadRowsDoc")]
    bad_rows: BadRows,
}

/// A way to handle malformed rows.
#[derive(JsonSchema)]
#[schemars(rename = "BadRows", rename_all = "lowercase")]
enum BadRowsDoc {
    /// The first malformed row is an error.
    Error,
    /// Malformed rows are skipped and counted.
    Skip,
}

/// A way to use images with several captions.
#[derive(JsonSchema)]
#[schemars(rename = "CaptionMode", rename_all = "lowercase")]
pub(super) enum CaptionModeDoc {
    /// Each caption forms a pair with its image, once per epoch.
    All,
    /// Each image occurs once per epoch, with one of its captions, drawn anew each epoch.
    One,
    /// Each image occurs once per epoch, with several of its captions at once, drawn anew each epoch: see
    /// `caption_slots`. All are positives of the image and do not compete: the loss is the mean over one batch for each
    /// slot.
    Slots,
}

/// Random augmentation of the training images, as in torchvision's transforms. Each step is off unless its key is
/// given. The draws depend only on the seed, the epoch and the image. With cached features of a locked image tower,
/// `cache.views` sets the number of views of each image.
#[derive(JsonSchema)]
#[schemars(rename = "Augment", deny_unknown_fields, default)]
pub(super) struct AugmentDoc {
    /// Minimum and maximum area of a random crop, as fractions of the image's area. The crop replaces the tower's own
    /// resize and crop. Such as `[0.9, 1.0]` (open_clip) or `[0.08, 1.0]` (torchvision's `RandomResizedCrop`).
    ///
    /// Default: none; no random crop.
    crop_scale: Option<[f64; 2]>,
    /// Minimum and maximum aspect ratio of the random crop, width divided by height.
    ///
    /// Default: `[0.75, 1.3333333333333333]` (torchvision's `RandomResizedCrop`).
    crop_ratio: [f64; 2],
    /// Probability of a horizontal flip, from 0 to 1.
    ///
    /// Default: `0.0`, since captions mention left and right.
    flip: f64,
    /// Strength `x` of random brightness: the factor is drawn from 1 - x to 1 + x (torchvision's `ColorJitter`).
    ///
    /// Default: `0.0`.
    brightness: f64,
    /// Strength of random contrast, as `brightness`.
    ///
    /// Default: `0.0`.
    contrast: f64,
    /// Strength of random saturation, as `brightness`.
    ///
    /// Default: `0.0`.
    saturation: f64,
    /// Maximum rotation of the hue, as a fraction of a full turn: from 0 to 0.5 (torchvision's `ColorJitter`).
    ///
    /// Default: `0.0`.
    hue: f64,
    /// Number of operations drawn for each image from RandAugment (Cubuk et al., arXiv:1909.13719), without rotation,
    /// shear and sharpness.
    ///
    /// Default: `0` (torchvision's is 2).
    rand_ops: usize,
    /// Magnitude of the RandAugment operations, from 0 to 30.
    ///
    /// Default: `9.0` (torchvision's).
    rand_magnitude: f64,
}

impl Default for AugmentDoc {
    fn default() -> Self {
        let Augment { crop_scale, crop_ratio, flip, brightness, contrast, saturation, hue, rand_ops, rand_magnitude } =
            Augment::default();
        Self { crop_scale, crop_ratio, flip, brightness, contrast, saturation, hue, rand_ops, rand_magnitude }
    }
}

fn webdataset_strict() -> bool {
    WebdatasetSource::new("").strict
}
