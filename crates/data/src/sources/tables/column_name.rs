//! The name of a column of a table in the config. An error for another type says how to write a number.

use std::fmt::{Formatter, Result as FmtResult};

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

struct ColumnName(String);

impl<'de> Deserialize<'de> for ColumnName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = ColumnName;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> FmtResult {
                formatter.write_str("a string: the name of a column, or its number in quotes, such as \"2\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ColumnName, E> {
                Ok(ColumnName(text.to_owned()))
            }
        }

        deserializer.deserialize_str(Name)
    }
}

/// For `deserialize_with`: the name of a column.
pub(crate) fn column<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<ColumnName>::deserialize(deserializer)?.map(|name| name.0))
}

/// For `deserialize_with`: the names of columns.
pub(crate) fn columns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let names = Option::<Vec<ColumnName>>::deserialize(deserializer)?;
    Ok(names.map(|names| names.into_iter().map(|name| name.0).collect()))
}
