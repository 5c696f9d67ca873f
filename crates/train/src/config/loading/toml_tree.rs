//! The texts a configuration is made of (the file, then each `--set`) as one tree whose values know where they stand.
//!
//! Every span of the tree counts bytes from the start of the file; the texts of the `--set` arguments follow behind it,
//! so that one number says both which text and where in it. This module knows TOML, not the keys of a run.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::config::error::{Place, Problem};

/// Parts of a dotted key at most: two more than the longest key there is (`data.train.csv.path`), so that a `--set` of
/// thousands of dots is a short error and not a deep recursion.
const MAX_KEY_PARTS: usize = 6;

type Table<'i> = DeTable<'i>;
type Value<'i> = Spanned<DeValue<'i>>;

/// One text and the offset at which its bytes begin in the spans of the tree.
#[derive(Debug)]
struct Piece {
    origin: String,
    text: Arc<str>,
    offset: usize,
}

/// Where the texts begin and end.
#[derive(Debug, Default)]
pub(super) struct SourceMap {
    pieces: Vec<Piece>,
    end: usize,
}

impl SourceMap {
    /// Adds a text and returns the offset of its first byte.
    pub fn add(&mut self, origin: impl Into<String>, text: &str) -> usize {
        let offset = self.end;
        self.end += text.len() + 1;
        self.pieces.push(Piece { origin: origin.into(), text: text.into(), offset });
        offset
    }

    /// The place of a span, or of the file as a whole where there is no span.
    pub fn place(&self, span: Option<Range<usize>>) -> Place {
        let start = span.as_ref().map_or(0, |span| span.start);
        let piece = self.pieces.iter().rev().find(|piece| piece.offset <= start);
        let Some(piece) = piece else {
            return Place::default();
        };
        let span = span.map(|span| {
            let floor = |at: usize| piece.text.floor_char_boundary(at.saturating_sub(piece.offset));
            floor(span.start)..floor(span.end).max(floor(span.start))
        });
        Place::new(&piece.origin, Arc::clone(&piece.text), span)
    }
}

/// The tree and where its parts came from.
#[derive(Debug)]
pub(super) struct Document<'i> {
    pub map: SourceMap,
    root: Spanned<Table<'i>>,
}

impl<'i> Document<'i> {
    /// Parses the text of the file.
    ///
    /// # Errors
    /// Every syntax error of the text.
    pub fn parse(file: &Path, text: &'i str) -> Result<Self, Vec<Problem>> {
        let mut map = SourceMap::default();
        map.add(file.display().to_string(), text);
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self { map, root });
        }
        let problem = |error: &toml::de::Error| Problem {
            key: String::new(),
            message: one_line(error.message()),
            help: None,
            place: map.place(error.span()),
        };
        let mut problems: Vec<Problem> = errors.iter().map(problem).collect();
        problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
        Err(problems)
    }

    /// Applies one `KEY=VALUE`: the value is read as TOML and, where it is none, as a bare string; an empty value takes
    /// the key out.
    ///
    /// # Errors
    /// The argument is not of that form, or the key leads through something that is not a table.
    pub fn set(&mut self, argument: &'i str) -> Result<(), Box<Problem>> {
        let offset = self.map.add(origin_of(argument), argument);
        let problem = |map: &SourceMap, key: &str, message: String, help: &str, span: Range<usize>| {
            let place = map.place(Some(offset + span.start..offset + span.end));
            Box::new(Problem { key: key.to_owned(), message, help: Some(help.to_owned()), place })
        };
        let form = "write `--set KEY=VALUE`, such as `--set train.batch_size=64`";
        let Some((key, value)) = argument.split_once('=') else {
            let message = format!("`{argument}` has no `=`");
            return Err(problem(&self.map, "", message, form, 0..argument.len()));
        };
        let value_start = argument.len() - value.trim_start().len();
        let value = value.trim();
        let mut parts = Vec::new();
        let mut start = 0;
        for part in key.split('.') {
            let span = start..start + part.len();
            start += part.len() + 1;
            let name = part.trim();
            let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(is_bare) {
                return Err(problem(&self.map, "", format!("`{}` is no key", key.trim()), form, 0..key.len()));
            }
            parts.push((name, span));
        }
        if parts.len() > MAX_KEY_PARTS {
            let message = format!("the key has {} parts, expected {MAX_KEY_PARTS} at most", parts.len());
            return Err(problem(&self.map, "", message, form, 0..key.len()));
        }
        let Some(((last, last_span), parents)) = parts.split_last() else {
            return Err(problem(&self.map, "", "the key is missing".to_owned(), form, 0..0));
        };

        let whole = offset..offset + argument.len();
        let mut table = self.root.get_mut();
        for (depth, (name, span)) in parents.iter().enumerate() {
            let key_span = offset + span.start..offset + span.end;
            if !table.contains_key(*name) {
                let empty = Spanned::new(whole.clone(), DeValue::Table(Table::new()));
                table.insert(Spanned::new(key_span, Cow::Borrowed(*name)), empty);
            }
            table = match table.get_mut(*name).map(Spanned::get_mut) {
                Some(DeValue::Table(inner)) => inner,
                _ => {
                    let path: Vec<_> = parents.iter().take(depth + 1).map(|(name, _)| *name).collect();
                    let path = path.join(".");
                    let message = format!("`{path}` is a value, expected a table");
                    let help = format!("set it by `--set {path}=VALUE`");
                    return Err(problem(&self.map, &path, message, &help, span.clone()));
                }
            };
        }
        // `insert` keeps the key that stands there already, and with it the place in the file.
        table.remove(*last);
        if value.is_empty() {
            return Ok(());
        }
        let value = match DeValue::parse(value) {
            Ok(parsed) if !matches!(parsed.get_ref(), DeValue::Datetime(_)) => shift(parsed, offset + value_start),
            _ => Spanned::new(
                offset + value_start..offset + value_start + value.len(),
                DeValue::String(Cow::Borrowed(value)),
            ),
        };
        let key = Spanned::new(offset + last_span.start..offset + last_span.end, Cow::Borrowed(*last));
        table.insert(key, value);
        Ok(())
    }

    /// Reads the whole tree as `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, toml::de::Error> {
        T::deserialize(toml::de::Deserializer::from(self.root.clone()))
    }

    /// The value of a key, by its parts.
    pub fn get(&self, path: &[&str]) -> Option<&Value<'i>> {
        let (last, parents) = path.split_last()?;
        let mut table = self.root.get_ref();
        for part in parents {
            table = table.get(*part)?.get_ref().as_table()?;
        }
        table.get(*last)
    }

    /// Takes a key out.
    pub fn remove(&mut self, path: &[&str]) {
        if let Some((last, parents)) = path.split_last()
            && let Some(table) = self.table_mut(parents)
        {
            table.remove(*last);
        }
    }

    /// Puts a value that stands in no text, where nothing stands; tables on the way are made.
    pub fn put(&mut self, path: &[&str], value: DeValue<'static>) {
        let Some((last, parents)) = path.split_last() else {
            return;
        };
        let mut table = self.root.get_mut();
        for part in parents {
            let entry = table
                .entry(Spanned::new(0..0, DeString::Owned((*part).to_owned())))
                .or_insert_with(|| Spanned::new(0..0, DeValue::Table(Table::new())));
            match entry.get_mut() {
                DeValue::Table(inner) => table = inner,
                _ => return,
            }
        }
        table.insert(Spanned::new(0..0, DeString::Owned((*last).to_owned())), Spanned::new(0..0, value));
    }

    fn table_mut(&mut self, path: &[&str]) -> Option<&mut Table<'i>> {
        let mut table = self.root.get_mut();
        for part in path {
            table = match table.get_mut(*part)?.get_mut() {
                DeValue::Table(inner) => inner,
                _ => return None,
            };
        }
        Some(table)
    }

    /// The place of a key's value, or of the nearest table above it that stands in a text.
    pub fn place_of(&self, key: &str) -> Place {
        let parts: Vec<&str> = key.split('.').collect();
        let span = (1..=parts.len()).rev().find_map(|length| {
            let span = self.get(parts.get(..length)?)?.span();
            (!span.is_empty()).then_some(span)
        });
        self.map.place(span)
    }

    /// The dotted path of the entry a span belongs to: the key that stands there, else the innermost value around it.
    pub fn path_at(&self, span: &Range<usize>) -> Option<Vec<String>> {
        let mut best = None;
        search(self.root.get_ref(), span, &mut Vec::new(), &mut best);
        best.map(|(_, path)| path)
    }
}

/// How a `--set` argument is named as a place, on one line.
pub(super) fn origin_of(argument: &str) -> String {
    format!("--set {}", argument.replace(char::is_control, " "))
}

/// How well an entry fits a span: a key there is certain, then the same value, then the smallest value around it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Around { negative_length: isize },
    Value,
    Key,
}

fn search(table: &Table<'_>, span: &Range<usize>, path: &mut Vec<String>, best: &mut Option<(Fit, Vec<String>)>) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        let around = value.span();
        let fit = if key.span() == *span {
            Some(Fit::Key)
        } else if around == *span {
            Some(Fit::Value)
        } else if around.start <= span.start && span.end <= around.end {
            Some(Fit::Around { negative_length: -(around.len() as isize) })
        } else {
            None
        };
        // `>=`: of two entries that fit alike, the deeper one, which comes later.
        if let Some(fit) = fit
            && best.as_ref().is_none_or(|(best, _)| fit >= *best)
        {
            *best = Some((fit, path.clone()));
        }
        if let DeValue::Table(inner) = value.get_ref() {
            search(inner, span, path, best);
        }
        path.pop();
    }
}

/// Moves every span of a value by `offset`. The recursion is bounded: the parser refuses deeper nesting.
fn shift(value: Value<'_>, offset: usize) -> Value<'_> {
    let moved = |span: Range<usize>| span.start + offset..span.end + offset;
    let span = moved(value.span());
    let inner = match value.into_inner() {
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(|item| shift(item, offset)).collect()),
        DeValue::Table(table) => {
            let entries = table.into_iter().map(|(key, value)| {
                let span = moved(key.span());
                (Spanned::new(span, key.into_inner()), shift(value, offset))
            });
            DeValue::Table(entries.collect())
        }
        scalar => scalar,
    };
    Spanned::new(span, inner)
}

/// The parser's messages break lines where it lists what it expected.
fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
