//! The texts of a configuration (the file, then each `--set` argument) as one tree of values with their positions.
//!
//! All spans of the tree are byte ranges of the concatenated texts, so that a span identifies both the text and the
//! position in it. This module knows TOML, but not the keys of a run.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::set_override::{Override, OverrideError};
use super::spans::{moved, shift};
use crate::config::error::{Place, Problem};

/// What to do about a wrong escape.
const ESCAPE_HELP: &str = "in double quotes, `\\` begins an escape; write a path in single quotes, or with `/`";

type Table<'i> = DeTable<'i>;
type Value<'i> = Spanned<DeValue<'i>>;

/// One text, and the offset of its first byte in the spans of the tree.
#[derive(Debug)]
struct Piece {
    origin: String,
    text: Arc<str>,
    offset: usize,
}

/// The texts and their offsets.
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

    /// The place of a span; without one, the file as a whole.
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

/// The tree, and the texts that it was read from.
#[derive(Debug)]
pub(super) struct Document<'i> {
    pub map: SourceMap,
    root: Spanned<Table<'i>>,
}

impl<'i> Document<'i> {
    /// Parses the text of the file.
    ///
    /// # Errors
    /// All syntax errors of the text.
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
            help: is_escape(error.message()).then(|| ESCAPE_HELP.to_owned()),
            place: map.place(error.span()),
        };
        let mut problems: Vec<Problem> = errors.iter().map(problem).collect();
        problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
        Err(problems)
    }

    /// Applies one `KEY=VALUE` argument of `--set`.
    ///
    /// # Errors
    /// The argument does not have this form, or the key leads through a value that is not a table.
    pub fn set(&mut self, argument: &'i str) -> Result<(), Box<Problem>> {
        let offset = self.map.add(origin_of(argument), argument);
        let whole = offset..offset + argument.len();
        let setting = Override::parse(argument).map_err(|error| self.refuse("", offset, error))?;
        let Some((last, parents)) = setting.key.split_last() else { return Ok(()) };

        let mut table = self.root.get_mut();
        for (depth, part) in parents.iter().enumerate() {
            if !table.contains_key(part.name) {
                let empty = Spanned::new(whole.clone(), DeValue::Table(Table::new()));
                table.insert(Spanned::new(moved(&part.span, offset), Cow::Borrowed(part.name)), empty);
            }
            table = match table.get_mut(part.name).map(Spanned::get_mut) {
                Some(DeValue::Table(inner)) => inner,
                _ => {
                    let names: Vec<_> = parents.iter().take(depth + 1).map(|part| part.name).collect();
                    let path = names.join(".");
                    let message = format!("`{path}` is a value, expected a table");
                    let help = format!("set it with `--set {path}=VALUE`");
                    return Err(self.refuse(&path, offset, OverrideError { message, help, span: part.span.clone() }));
                }
            };
        }
        // `insert` would keep the existing key, and with it its position in the file.
        table.remove(last.name);
        if let Some(value) = setting.value {
            let key = Spanned::new(moved(&last.span, offset), Cow::Borrowed(last.name));
            table.insert(key, shift(value, offset));
        }
        Ok(())
    }

    fn refuse(&self, key: &str, offset: usize, error: OverrideError) -> Box<Problem> {
        let OverrideError { message, help, span } = error;
        let place = self.map.place(Some(moved(&span, offset)));
        Box::new(Problem { key: key.to_owned(), message, help: Some(help), place })
    }

    /// Reads the whole tree as `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, toml::de::Error> {
        T::deserialize(toml::de::Deserializer::from(self.root.clone()))
    }

    /// The value of a key, by its parts; `name[1]` is the second entry of an array.
    pub fn get(&self, path: &[&str]) -> Option<&Value<'i>> {
        let (last, parents) = path.split_last()?;
        let mut table = self.root.get_ref();
        for part in parents {
            table = entry(table, part)?.get_ref().as_table()?;
        }
        entry(table, last)
    }

    /// Removes a key; for an entry of an array, the whole array.
    pub fn remove(&mut self, path: &[&str]) {
        if let Some((last, parents)) = path.split_last()
            && let Some(table) = self.table_mut(parents)
        {
            table.remove(split_index(last).0);
        }
    }

    /// Inserts a value that has no position in a text, and the tables around it if they are missing.
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
            let (name, index) = split_index(part);
            let mut value = table.get_mut(name)?.get_mut();
            if let Some(index) = index {
                let DeValue::Array(entries) = value else { return None };
                value = entries.get_mut(index)?.get_mut();
            }
            table = match value {
                DeValue::Table(inner) => inner,
                _ => return None,
            };
        }
        Some(table)
    }

    /// The place of a key's value, or of the innermost enclosing table that has a position.
    pub fn place_of(&self, key: &str) -> Place {
        let parts: Vec<&str> = key.split('.').collect();
        let span = (1..=parts.len()).rev().find_map(|length| {
            let span = self.get(parts.get(..length)?)?.span();
            (!span.is_empty()).then_some(span)
        });
        self.map.place(span)
    }

    /// The path of the entry at a span: the key there, or else the innermost value around it.
    pub fn path_at(&self, span: &Range<usize>) -> Option<Vec<String>> {
        let mut best = None;
        search(self.root.get_ref(), span, &mut Vec::new(), &mut best);
        best.map(|(_, path)| path)
    }
}

/// The name of a `--set` argument as a place, on one line.
pub(super) fn origin_of(argument: &str) -> String {
    format!("--set {}", argument.replace(char::is_control, " "))
}

/// Splits `name[1]` into the name and the index.
fn split_index(part: &str) -> (&str, Option<usize>) {
    let split = part.strip_suffix(']').and_then(|part| part.rsplit_once('['));
    match split.and_then(|(name, index)| Some((name, index.parse().ok()?))) {
        Some((name, index)) => (name, Some(index)),
        None => (part, None),
    }
}

fn entry<'t, 'i>(table: &'t Table<'i>, part: &str) -> Option<&'t Value<'i>> {
    let (name, index) = split_index(part);
    let value = table.get(name)?;
    match index {
        Some(index) => value.get_ref().as_array()?.get(index),
        None => Some(value),
    }
}

/// How well an entry matches a span, from worst to best.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// Its value encloses the span; of several, the shortest matches best.
    Around { negative_length: isize },
    /// Its value has this span.
    Value,
    /// Its key has this span.
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
        // `>=`: of two equal matches the deeper one, which comes later.
        if let Some(fit) = fit
            && best.as_ref().is_none_or(|(best, _)| fit >= *best)
        {
            *best = Some((fit, path.clone()));
        }
        match value.get_ref() {
            DeValue::Table(inner) => search(inner, span, path, best),
            DeValue::Array(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    if let DeValue::Table(inner) = entry.get_ref() {
                        path.pop();
                        path.push(format!("{}[{index}]", key.get_ref()));
                        search(inner, span, path, best);
                    }
                }
            }
            _ => {}
        }
        path.pop();
    }
}

/// Whether the parser complains about an escape: mostly a path of Windows in double quotes.
fn is_escape(message: &str) -> bool {
    message.contains("escaped value") || message.contains("unicode value digits")
}

/// Joins the lines of a parser message, which lists on separate lines what was expected.
fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
