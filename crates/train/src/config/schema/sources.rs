//! How a config names data: one source, several with weights, or a file.

use std::fmt::{Formatter, Result as FmtResult};
use std::path::PathBuf;

use dualenc_data::SourceTable;
use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Features in place of images and texts: one row of numbers each, computed by another program. The model then has no
/// tower for that side. A file is a safetensors file, a `.npy` file, or a parquet file with a column of lists; numbers
/// are f32, f16, bf16 or f64 (rounded to f32). Safetensors and `.npy` files are read row by row, and may be larger than
/// the memory. With features of one side alone, the other side is read as it is: set `image_paths`, or `captions`.
#[derive(JsonSchema)]
#[schemars(rename = "FeaturesSource", deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema is used")]
pub(super) struct FeaturesDoc {
    /// File of the features of the images, `[images, width]`, or a list of files whose rows follow each other.
    ///
    /// Default: none; `path`, or images from `image_paths`.
    images: Option<PathOrPaths>,
    /// File of the features of the texts, `[texts, width]`, or a list of files.
    ///
    /// Default: none; `path`, or texts from `captions`.
    texts: Option<PathOrPaths>,
    /// Parquet file with a column for the images and one for the texts, or a list of files, instead of `images` and
    /// `texts`.
    ///
    /// Default: none.
    path: Option<PathOrPaths>,
    /// Name of the tensor or of the parquet column in `images`.
    ///
    /// Default: `features`, otherwise the only tensor with two dimensions; `image_embedding` for parquet.
    image_tensor: Option<String>,
    /// Name of the tensor or of the parquet column in `texts`.
    ///
    /// Default: `features`, otherwise the only tensor with two dimensions; `text_embedding` for parquet.
    text_tensor: Option<String>,
    /// Name of the column of the images in `path`.
    ///
    /// Default: `image_embedding`; none if only `text` is given.
    image: Option<String>,
    /// Name of the column of the texts in `path`.
    ///
    /// Default: `text_embedding`; none if only `image` is given.
    text: Option<String>,
    /// File with the 0-based row of the image of each text: whole numbers in `.npy`, the tensor `image_of` of a
    /// safetensors file, or a text file with one number per line.
    ///
    /// Default: the tensor `image_of` in the file of `texts`, otherwise text `n` belongs to image `n`.
    image_of: Option<PathBuf>,
    /// Text file with one caption per line, one line for each row of `texts`. Captions appear in reports and tell which
    /// texts are equal.
    ///
    /// Default: none; texts are equal if their features are.
    captions: Option<PathBuf>,
    /// Text file with one path per line, one line for each row of `images`. Paths appear in reports and lists.
    ///
    /// Default: none; a row is called by its file and number.
    image_paths: Option<PathBuf>,
}

/// A path, or a list of paths.
#[derive(JsonSchema)]
#[schemars(rename = "Paths", untagged)]
#[expect(dead_code, reason = "only the schema is used")]
pub(super) enum PathOrPaths {
    /// One path.
    One(PathBuf),
    /// Several paths, in order.
    Several(Vec<PathBuf>),
}

/// `[data.train]`, or several `[[data.train]]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TrainSources {
    /// One source.
    One(Box<SourceTable>),
    /// Several sources, mixed in every epoch.
    Several(Vec<SourceTable>),
}

impl TrainSources {
    /// The sources in order, each with its key in the config.
    pub fn tables(&self) -> Vec<(String, &SourceTable)> {
        match self {
            Self::One(table) => vec![("data.train".to_owned(), table)],
            Self::Several(tables) => {
                tables.iter().enumerate().map(|(at, table)| (format!("data.train[{at}]"), table)).collect()
            }
        }
    }

    /// The sources in order.
    pub fn tables_mut(&mut self) -> &mut [SourceTable] {
        match self {
            Self::One(table) => std::slice::from_mut(table),
            Self::Several(tables) => tables,
        }
    }
}

/// Written by hand: the errors of an untagged enum name no key.
impl<'de> Deserialize<'de> for TrainSources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sources;

        impl<'de> Visitor<'de> for Sources {
            type Value = TrainSources;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> FmtResult {
                formatter.write_str("a table, such as `[data.train.csv]`")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TrainSources, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(Box::new).map(TrainSources::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<TrainSources, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(sequence)).map(TrainSources::Several)
            }
        }

        deserializer.deserialize_any(Sources)
    }
}

/// The data of an evaluation: a file or folder, recognised by its name and content, or a source as in `[data.train]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EvalData {
    /// A file or folder.
    Path(PathBuf),
    /// A table, such as `[eval.NAME.data.csv]`.
    Source(Box<SourceTable>),
}

impl<'de> Deserialize<'de> for EvalData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Data;

        impl<'de> Visitor<'de> for Data {
            type Value = EvalData;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> FmtResult {
                formatter.write_str("a path, or a table, such as `[eval.NAME.data.csv]`")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<EvalData, E> {
                Ok(EvalData::Path(PathBuf::from(path)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EvalData, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(Box::new).map(EvalData::Source)
            }
        }

        deserializer.deserialize_any(Data)
    }
}
