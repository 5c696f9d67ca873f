//! A value of the config that is one item or a list of items.

use std::fmt::{Formatter, Result as FmtResult};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::value::{SeqAccessDeserializer, StrDeserializer};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One item, written as such, or a list of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl From<PathBuf> for OneOrMany<PathBuf> {
    fn from(path: PathBuf) -> Self {
        Self(vec![path])
    }
}

impl From<&str> for OneOrMany<String> {
    fn from(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }
}

impl OneOrMany<PathBuf> {
    /// Resolves relative paths against `base`.
    pub(crate) fn resolve(&mut self, base: &Path) {
        self.0.iter_mut().for_each(|path| *path = base.join(&path));
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

/// Written by hand: the errors of an untagged enum do not say what is wrong.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> FmtResult {
                formatter.write_str("a string, or a list of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany<T>, E> {
                T::deserialize(StrDeserializer::new(text)).map(|item| OneOrMany(vec![item]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<OneOrMany<T>, A::Error> {
                let items: Vec<T> = Deserialize::deserialize(SeqAccessDeserializer::new(items))?;
                if items.is_empty() {
                    return Err(A::Error::custom("an empty list; expected at least one string"));
                }
                Ok(OneOrMany(items))
            }
        }

        deserializer.deserialize_any(Items(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize, Serialize)]
    struct Table {
        path: OneOrMany<PathBuf>,
    }

    #[test]
    fn string_or_list() {
        for (text, expected) in [("path = \"a\"\n", &["a"][..]), ("path = [\"a\", \"b\"]\n", &["a", "b"])] {
            let table: Table = toml::from_str(text).unwrap();
            assert_eq!(table.path.0, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
            assert_eq!(toml::to_string(&table).unwrap(), text);
        }
        let error = |text: &str| toml::from_str::<Table>(text).unwrap_err().to_string();
        assert!(error("path = []").contains("an empty list; expected at least one string"));
        assert!(error("path = 3").contains("expected a string, or a list of strings"));
    }
}
