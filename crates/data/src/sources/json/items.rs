//! Streams the elements of a JSON list, or the entries of an object: one at a time in memory.

use std::fmt::{Formatter, Result as FmtResult};
use std::io::BufRead;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::error::DataError;

/// Why reading ended early.
pub(super) enum Stop {
    /// The text is not JSON, or another value than expected.
    Json(serde_json::Error),
    /// The caller refused an element.
    Refused(DataError),
}

/// What receives the elements: their list's key at the top (empty for a list at the top), 1-based numbers, and values.
/// Entries of objects under [`Path::Entries`] are named by their keys.
type Receive<'a> = dyn FnMut(&str, u64, Value) -> Result<(), DataError> + 'a;

/// Where the elements are.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// The value is a list.
    Top,
    /// The value is an object, with lists under these keys. Other keys are passed over.
    Under(&'a [&'a str]),
    /// The value is an object; its values are the elements, its keys are handed over in place of the list's.
    Entries,
    /// As `Under`, but the values are taken as they are: lists, or objects by row.
    Columns(&'a [&'a str]),
}

/// Hands the elements at `place` of the first JSON value of `reader` to `receive`.
pub(super) fn for_each(reader: impl BufRead, place: Place<'_>, receive: &mut Receive<'_>) -> Result<(), Stop> {
    let mut refused = None;
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    let seed = TopSeed { place, receive, refused: &mut refused };
    let read = seed.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (refused, read) {
        (Some(error), _) => Err(Stop::Refused(error)),
        (None, Err(error)) => Err(Stop::Json(error)),
        (None, Ok(())) => Ok(()),
    }
}

struct TopSeed<'a, 'b> {
    place: Place<'a>,
    receive: &'a mut Receive<'b>,
    refused: &'a mut Option<DataError>,
}

impl<'de> DeserializeSeed<'de> for TopSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.place {
            Place::Top => deserializer.deserialize_seq(ListVisitor { key: "", top: self }),
            _ => deserializer.deserialize_map(self),
        }
    }
}

impl TopSeed<'_, '_> {
    fn hand_over<E: Error>(&mut self, key: &str, number: u64, value: Value) -> Result<(), E> {
        (self.receive)(key, number, value).map_err(|error| {
            *self.refused = Some(error);
            E::custom("refused")
        })
    }
}

impl<'de> Visitor<'de> for TopSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut Formatter<'_>) -> FmtResult {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(key) = map.next_key::<String>()? {
            number += 1;
            match self.place {
                Place::Entries => {
                    let value = map.next_value()?;
                    self.hand_over(&key, number, value)?;
                }
                Place::Columns(keys) if keys.contains(&key.as_str()) => {
                    let value = map.next_value()?;
                    self.hand_over(&key, number, value)?;
                }
                Place::Under(keys) if keys.contains(&key.as_str()) => {
                    let top = TopSeed { place: self.place, receive: &mut *self.receive, refused: &mut *self.refused };
                    map.next_value_seed(ListVisitor { key: &key, top })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct ListVisitor<'k, 'a, 'b> {
    key: &'k str,
    top: TopSeed<'a, 'b>,
}

impl<'de> DeserializeSeed<'de> for ListVisitor<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ListVisitor<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut Formatter<'_>) -> FmtResult {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(value) = items.next_element()? {
            number += 1;
            self.top.hand_over(self.key, number, value)?;
        }
        Ok(())
    }
}
