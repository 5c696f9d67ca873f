//! How a config names data: one source, several with weights, or a file.

use std::fmt::{Formatter, Result as FmtResult};
use std::path::PathBuf;

use dualenc_data::SourceTable;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

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
