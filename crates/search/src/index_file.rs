//! The index format: normalised `f16` rows with their names, all under one checksum.
//!
//! | bytes | holds |
//! | --- | --- |
//! | 0 to 7 | `DUALENCI` |
//! | 8 to 15 | length of the header, `u64` |
//! | 16 to 47 | checksum of everything behind it and of the length |
//! | from 48 | the header, JSON, with spaces up to a multiple of 64 |
//! | then | rows, `f16`, `[rows, dim]` |
//! | then, with names | where each name ends, `u64`, `[rows + 1]`, the first 0; the names, UTF-8 |
//!
//! Numbers are little-endian. The checksum is the BLAKE3 hash of the length of the header and the hashes of all parts
//! of 1 MiB, so that they are computed in parallel.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::SearchError;
use crate::opened::{Kind, Names, Opened, Part};
use crate::vectors::{Element, Vectors};

/// The first bytes of the file.
pub(crate) const MAGIC: &[u8; 8] = b"DUALENCI";

/// The newest version of the format.
const FORMAT: u32 = 1;

/// Where the checksum starts.
const CHECKSUM: usize = 16;

/// Where the header starts.
const HEADER: usize = 48;

/// The rows start at a multiple of this, a line of the cache.
const ALIGNMENT: usize = 64;

/// Bytes of a part that is hashed at once.
const PART_BYTES: usize = 1 << 20;

/// Rows that are converted at once.
const BLOCK_ROWS: usize = 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    rows: usize,
    dim: usize,
    of: Kind,
    /// Bytes of the names, if there are any.
    names: Option<usize>,
    /// The fingerprint of the model that wrote the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
}

/// Opens an index.
pub(crate) fn open(map: Mmap, path: &Path, part: Part) -> Result<Opened, SearchError> {
    let damaged = |what: &str| SearchError::file(path, format!("it is damaged: {what}; write the index again"));
    let length = map.get(MAGIC.len()..CHECKSUM).and_then(|bytes| bytes.first_chunk());
    let length = length.ok_or_else(|| damaged("it ends before its header"))?;
    let end = usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|length| HEADER.checked_add(length));
    let header = end.and_then(|end| map.get(HEADER..end)).ok_or_else(|| damaged("it ends within its header"))?;
    let start = HEADER + header.len();
    if map[CHECKSUM..HEADER] != checksum(*length, parts(&map[HEADER..])) {
        return Err(damaged("its content does not have its checksum; it was changed or is not complete"));
    }
    let found: serde_json::Value =
        serde_json::from_slice(header).map_err(|error| damaged(&format!("its header is no JSON ({error})")))?;
    match found["format"].as_u64() {
        Some(format) if format > u64::from(FORMAT) => {
            return Err(SearchError::file(
                path,
                format!("it has format {format}, but this program reads up to {FORMAT}; update the program"),
            ));
        }
        _ => {}
    }
    let header: Header =
        serde_json::from_value(found).map_err(|error| damaged(&format!("its header is not complete ({error})")))?;
    header.of.check(part, path)?;
    let rows_end = header.rows.checked_mul(header.dim).and_then(|values| values.checked_mul(size_of::<u16>()));
    let rows_end = rows_end.and_then(|bytes| bytes.checked_add(start));
    let ends = rows_end.and_then(|from| Some(from..header.rows.checked_add(1)?.checked_mul(8)?.checked_add(from)?));
    let names = match (header.names, ends) {
        (Some(bytes), Some(ends)) => {
            let text = ends.end..ends.end.saturating_add(bytes);
            check_names(&map, &ends, &text).ok_or_else(|| damaged("its names do not fit"))?;
            Names::Stored { ends, text }
        }
        _ => Names::None,
    };
    let expected = match &names {
        Names::Stored { text, .. } => Some(text.end),
        _ => rows_end,
    };
    if expected != Some(map.len()) {
        return Err(damaged("its size is not what its header says"));
    }
    let vectors = Vectors::new(map, start, Element::F16, header.rows, header.dim);
    let vectors = vectors.ok_or_else(|| damaged("it ends within its rows"))?;
    Ok(Opened { vectors, kind: header.of, names, model: header.model })
}

/// Whether every name is a text within the file.
fn check_names(file: &[u8], ends: &std::ops::Range<usize>, text: &std::ops::Range<usize>) -> Option<()> {
    let text = std::str::from_utf8(file.get(text.clone())?).ok()?;
    let (ends, rest) = file.get(ends.clone())?.as_chunks();
    let mut last = 0;
    for &end in ends {
        let end = usize::try_from(u64::from_le_bytes(end)).ok()?;
        if end < last || !text.is_char_boundary(end) {
            return None;
        }
        last = end;
    }
    (rest.is_empty() && last == text.len()).then_some(())
}

/// The hashes of all parts.
fn parts(bytes: &[u8]) -> Vec<blake3::Hash> {
    bytes.par_chunks(PART_BYTES).map(blake3::hash).collect()
}

fn checksum(length: [u8; 8], parts: impl IntoIterator<Item = blake3::Hash>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length);
    for part in parts {
        hasher.update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Writes the rows of `opened`, each multiplied by one divided by its norm, to an empty file.
pub(crate) fn write(opened: &Opened, inverse_norms: &[f32], to: &mut (impl Write + Seek)) -> io::Result<()> {
    let Opened { vectors, kind, .. } = opened;
    let names: Option<Vec<&str>> = (0..vectors.rows).map(|row| opened.name(row)).collect();
    let header = Header {
        format: FORMAT,
        rows: vectors.rows,
        dim: vectors.dim,
        of: *kind,
        names: names.as_ref().map(|names| names.iter().map(|name| name.len()).sum()),
        model: opened.model.clone(),
    };
    let mut header = serde_json::to_vec(&header)?;
    header.resize((HEADER + header.len()).next_multiple_of(ALIGNMENT) - HEADER, b' ');
    let length = (header.len() as u64).to_le_bytes();
    to.write_all(MAGIC)?;
    to.write_all(&length)?;
    to.write_all(&[0; HEADER - CHECKSUM])?;
    let mut hashed = Hashed { to, part: Vec::with_capacity(PART_BYTES), parts: Vec::new() };
    hashed.write(&header)?;
    let mut buffer = Vec::new();
    for first in (0..vectors.rows).step_by(BLOCK_ROWS) {
        let last = vectors.rows.min(first + BLOCK_ROWS);
        let mut rows = vectors.rows(first..last, &mut buffer).to_vec();
        for (row, norm) in rows.chunks_exact_mut(vectors.dim).zip(&inverse_norms[first..]) {
            row.iter_mut().for_each(|value| *value *= norm);
        }
        let mut halves = vec![f16::ZERO; rows.len()];
        halves.convert_from_f32_slice(&rows);
        hashed.write(&halves.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    if let Some(names) = names {
        let mut end = 0u64;
        hashed.write(&end.to_le_bytes())?;
        for name in &names {
            end += name.len() as u64;
            hashed.write(&end.to_le_bytes())?;
        }
        names.iter().try_for_each(|name| hashed.write(name.as_bytes()))?;
    }
    let parts = hashed.finish()?;
    to.seek(SeekFrom::Start(CHECKSUM as u64))?;
    to.write_all(&checksum(length, parts))?;
    to.flush()
}

/// Writes parts and hashes them.
struct Hashed<'a, W> {
    to: &'a mut W,
    /// What is not yet written.
    part: Vec<u8>,
    parts: Vec<blake3::Hash>,
}

impl<W: Write> Hashed<'_, W> {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.part.len()));
            self.part.extend(now);
            bytes = later;
            if self.part.len() == PART_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.parts.push(blake3::hash(&self.part));
        self.to.write_all(&self.part)?;
        self.part.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<blake3::Hash>> {
        if !self.part.is_empty() {
            self.flush()?;
        }
        Ok(self.parts)
    }
}
