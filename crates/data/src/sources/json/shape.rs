//! The outline of a JSON value: its keys and the kinds of their values, without the content. Lists are known by their
//! first elements.

use std::fmt::{Formatter, Result as FmtResult};
use std::io::BufRead;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Keys of an object that are remembered.
const MAX_KEYS: usize = 64;

/// Levels that are described.
const MAX_DEPTH: usize = 4;

/// The outline of a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Null,
    Text,
    Number,
    Bool,
    /// A list, by its first element.
    List(Option<Box<Shape>>),
    /// The first keys of an object.
    Object(Vec<(String, Shape)>),
}

impl Shape {
    /// The outline of the first value of `reader`, and whether it is all of the text. A list is not read to its end.
    pub(crate) fn read(reader: impl BufRead) -> Result<(Self, bool), serde_json::Error> {
        let mut list = None;
        let mut deserializer = serde_json::Deserializer::from_reader(reader);
        let read = ShapeSeed { depth: 0, list: Some(&mut list) }.deserialize(&mut deserializer);
        match (list, read) {
            (Some(list), _) => Ok((list, true)),
            (None, read) => {
                let shape = read?;
                Ok((shape, deserializer.end().is_ok()))
            }
        }
    }

    /// The shape of the value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(keys) => keys.iter().find(|(name, _)| name == key).map(|(_, shape)| shape),
            _ => None,
        }
    }

    /// The shape of the first element.
    pub(crate) fn first(&self) -> Option<&Self> {
        match self {
            Self::List(first) => first.as_deref(),
            _ => None,
        }
    }

    /// The keys of an object.
    pub(crate) fn keys(&self) -> Vec<String> {
        match self {
            Self::Object(keys) => keys.iter().map(|(name, _)| name.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// For messages: `a list of objects with the keys `a`, `b``.
    pub(crate) fn describe(&self) -> String {
        let quoted = |keys: &[String]| keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        match self {
            Self::Null => "null".to_owned(),
            Self::Text => "a string".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Bool => "a truth value".to_owned(),
            Self::List(None) => "an empty list".to_owned(),
            Self::List(Some(first)) => match first.as_ref() {
                Self::Object(_) => format!("a list of objects with the keys {}", quoted(&first.keys())),
                Self::List(_) => "a list of lists".to_owned(),
                Self::Text => "a list of strings".to_owned(),
                _ => "a list of values".to_owned(),
            },
            Self::Object(keys) if keys.is_empty() => "an empty object".to_owned(),
            Self::Object(_) => format!("an object with the keys {}", quoted(&self.keys())),
        }
    }
}

struct ShapeSeed<'a> {
    depth: usize,
    /// At the top: where a list is left, which is not read to its end.
    list: Option<&'a mut Option<Shape>>,
}

impl<'de> DeserializeSeed<'de> for ShapeSeed<'_> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ShapeSeed<'_> {
    type Value = Shape;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> FmtResult {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Bool)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let mut first = None;
        if self.depth < MAX_DEPTH {
            first = items.next_element_seed(ShapeSeed { depth: self.depth + 1, list: None })?.map(Box::new);
        }
        if let Some(list) = self.list {
            *list = Some(Shape::List(first));
            return Err(A::Error::custom("the rest is not needed"));
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Shape::List(first))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut keys = Vec::new();
        while self.depth < MAX_DEPTH && keys.len() < MAX_KEYS {
            let Some(key) = map.next_key::<String>()? else { return Ok(Shape::Object(keys)) };
            let shape = map.next_value_seed(ShapeSeed { depth: self.depth + 1, list: None })?;
            keys.push((key, shape));
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Shape::Object(keys))
    }
}
