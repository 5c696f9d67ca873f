//! The values of a page, one after the other.

use std::ops::Range;
use std::sync::Arc;

use crate::parquet::bits::{Delta, Hybrid};
use crate::parquet::schema::Physical;
use crate::parquet::thrift::Parsed;

const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const DELTA_BINARY_PACKED: i64 = 5;
const DELTA_LENGTH_BYTE_ARRAY: i64 = 6;
const DELTA_BYTE_ARRAY: i64 = 7;
const RLE_DICTIONARY: i64 = 8;

const ENDS: &str = "a page has fewer values than it says";

/// Whether an encoding refers to the dictionary page of the chunk.
pub(crate) fn needs_dictionary(encoding: i64) -> bool {
    matches!(encoding, PLAIN_DICTIONARY | RLE_DICTIONARY)
}

/// A value of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Null,
    Bytes(&'a [u8]),
    Int(i64),
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Bytes of the page.
    Page(Range<usize>),
    /// An entry of the dictionary.
    Entry(usize),
    /// What [`Values::built`] returns.
    Built,
    Int(i64),
}

/// The values that a dictionary page holds.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    page: Vec<u8>,
    bytes: Vec<(u32, u32)>,
    ints: Vec<i64>,
}

impl Dictionary {
    /// Reads `len` values from a dictionary page.
    pub(crate) fn new(page: Vec<u8>, len: u64, physical: Physical) -> Parsed<Self> {
        let (mut bytes, mut ints) = (Vec::new(), Vec::new());
        let mut values = Values::new(&page, 0..page.len(), PLAIN, (physical, len), None)?;
        for _ in 0..len {
            match values.next(&page)? {
                Place::Page(range) => bytes.push((range.start as u32, range.end as u32)),
                Place::Int(value) => ints.push(value),
                Place::Entry(_) | Place::Built => return Err("a dictionary is not plain".to_owned()),
            }
        }
        Ok(Self { page, bytes, ints })
    }

    pub(crate) fn get(&self, entry: usize) -> Option<Value<'_>> {
        match self.bytes.get(entry) {
            Some(&(start, end)) => Some(Value::Bytes(&self.page[start as usize..end as usize])),
            None => self.ints.get(entry).copied().map(Value::Int),
        }
    }
}

/// Reads the values of a page in order.
#[derive(Debug)]
pub(crate) struct Values {
    kind: Kind,
    at: usize,
    end: usize,
    /// The last value, where a value is built from the one before it.
    built: Vec<u8>,
    dictionary: Option<Arc<Dictionary>>,
}

#[derive(Debug)]
enum Kind {
    Bytes,
    Int32,
    Int64,
    /// Values of this many bytes.
    Fixed(usize),
    Delta(Delta),
    /// Lengths first, then the bytes.
    Lengths(Delta),
    /// The lengths of what a value shares with the one before it, then the rest.
    Prefixes {
        shared: Delta,
        rest: Delta,
    },
    Entries(Hybrid),
}

impl Values {
    /// The values in `range` of a page, which has `most`, nulls among them.
    pub(crate) fn new(
        page: &[u8],
        range: Range<usize>,
        encoding: i64,
        (physical, most): (Physical, u64),
        dictionary: Option<Arc<Dictionary>>,
    ) -> Parsed<Self> {
        let (mut at, end) = (range.start, range.end);
        let kind = match (encoding, physical) {
            (PLAIN, Physical::Bytes) => Kind::Bytes,
            (PLAIN, Physical::Int32) => Kind::Int32,
            (PLAIN, Physical::Int64) => Kind::Int64,
            (PLAIN, Physical::Float) => Kind::Fixed(4),
            (PLAIN, Physical::Double) => Kind::Fixed(8),
            (PLAIN_DICTIONARY | RLE_DICTIONARY, _) if dictionary.is_some() => {
                // A page of nulls alone may be empty.
                let width = page.get(at).filter(|_| at < end).copied().unwrap_or(0);
                at = (at + 1).min(end);
                Kind::Entries(Hybrid::new(at, end, u32::from(width))?)
            }
            (PLAIN_DICTIONARY | RLE_DICTIONARY, _) => return Err("a page lacks its dictionary".to_owned()),
            (DELTA_BINARY_PACKED, Physical::Int32 | Physical::Int64) => Kind::Delta(Delta::new(page, at, end, most)?),
            (DELTA_LENGTH_BYTE_ARRAY, Physical::Bytes) => {
                let lengths = Delta::new(page, at, end, most)?;
                at = behind(&lengths, page)?;
                Kind::Lengths(lengths)
            }
            (DELTA_BYTE_ARRAY, Physical::Bytes) => {
                let shared = Delta::new(page, at, end, most)?;
                let rest = Delta::new(page, behind(&shared, page)?, end, most)?;
                at = behind(&rest, page)?;
                Kind::Prefixes { shared, rest }
            }
            (encoding, physical) => {
                return Err(format!(
                    "a page of {physical:?} has the encoding {encoding}, which is not supported; write the file with \
                     `pyarrow.parquet` and its defaults"
                ));
            }
        };
        Ok(Self { kind, at, end, built: Vec::new(), dictionary })
    }

    /// The next value.
    pub(crate) fn next(&mut self, page: &[u8]) -> Parsed<Place> {
        match &mut self.kind {
            Kind::Bytes => {
                let len = number::<4>(page, &mut self.at, self.end).map(u32::from_le_bytes)?;
                self.take(len as usize).map(Place::Page)
            }
            Kind::Int32 => {
                let value = number::<4>(page, &mut self.at, self.end).map(i32::from_le_bytes)?;
                Ok(Place::Int(i64::from(value)))
            }
            Kind::Int64 => number::<8>(page, &mut self.at, self.end).map(|it| Place::Int(i64::from_le_bytes(it))),
            Kind::Fixed(len) => {
                let len = *len;
                self.take(len).map(Place::Page)
            }
            Kind::Delta(numbers) => numbers.next(page).map(Place::Int),
            Kind::Lengths(lengths) => {
                let len = length(lengths.next(page)?)?;
                self.take(len).map(Place::Page)
            }
            Kind::Prefixes { shared, rest } => {
                let (shared, rest) = (length(shared.next(page)?)?, length(rest.next(page)?)?);
                if shared > self.built.len() {
                    return Err(ENDS.to_owned());
                }
                let range = self.take(rest)?;
                self.built.truncate(shared);
                self.built.extend_from_slice(page.get(range).ok_or(ENDS)?);
                Ok(Place::Built)
            }
            Kind::Entries(entries) => entries.next(page).map(|entry| Place::Entry(entry as usize)),
        }
    }

    /// The value at a place that [`Values::next`] has just returned.
    pub(crate) fn value<'a>(&'a self, place: &Place, page: &'a [u8]) -> Parsed<Value<'a>> {
        let value = match place {
            Place::Page(range) => page.get(range.clone()).map(Value::Bytes),
            Place::Entry(entry) => self.dictionary.as_ref().and_then(|dictionary| dictionary.get(*entry)),
            Place::Built => Some(Value::Bytes(&self.built)),
            Place::Int(value) => Some(Value::Int(*value)),
        };
        value.ok_or_else(|| "a page refers to an entry that its dictionary lacks".to_owned())
    }

    /// The value at [`Place::Built`].
    pub(crate) fn built(&self) -> &[u8] {
        &self.built
    }

    fn take(&mut self, len: usize) -> Parsed<Range<usize>> {
        let start = self.at;
        self.at = start.checked_add(len).filter(|at| *at <= self.end).ok_or(ENDS)?;
        Ok(start..self.at)
    }
}

/// Position behind all numbers.
fn behind(numbers: &Delta, page: &[u8]) -> Parsed<usize> {
    let mut numbers = numbers.clone();
    while numbers.left() > 0 {
        numbers.next(page)?;
    }
    Ok(numbers.position())
}

fn number<const N: usize>(page: &[u8], at: &mut usize, end: usize) -> Parsed<[u8; N]> {
    let found = page.get(*at..end).and_then(|rest| rest.first_chunk::<N>()).ok_or(ENDS)?;
    *at += N;
    Ok(*found)
}

fn length(number: i64) -> Parsed<usize> {
    usize::try_from(number).map_err(|_| format!("a value has the length {number}"))
}
