//! Rows of features in one or more files. Every row is read once when the table is opened, for its hash and its
//! faults, and again when it is needed: a table may be larger than the memory.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::dataset::parallel_io::try_map_numbers;
use crate::error::{DataError, ImageError};
use crate::features::number::Number;
use crate::features::parquet_vectors;
use crate::features::row_ids::row_ids;
use crate::features::tensor_file::{Tensor, Wanted};
use crate::files;
use crate::loader::feature_lookup::ContentId;
use crate::parquet::footer::MAGIC as PARQUET;

/// Bytes of `f32` that one thread reads and hashes at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// The name of the tensor of features, where the user gives none.
pub const FEATURES_TENSOR: &str = "features";

/// Which array of a file holds features, where the user gives no name.
#[derive(Clone, Copy, Debug)]
pub struct FeatureColumn<'a> {
    /// The name of the tensor or of the parquet column.
    pub name: Option<&'a str>,
    /// The column of a parquet file without a name.
    pub parquet: &'a str,
}

/// A table of features. Equal if the files and the names of the arrays are.
#[derive(Debug)]
pub struct FeatureTable {
    parts: Vec<Part>,
    name: Option<String>,
    width: usize,
    rows: u64,
    ids: Vec<ContentId>,
    /// Rows that cannot be used, by their numbers, sorted.
    faults: Vec<(u64, RowFault)>,
    /// The name of each row for people; none if empty.
    names: Vec<String>,
    has_texts: bool,
}

/// The rows of one file.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    first: u64,
    rows: u64,
    values: Values,
}

#[derive(Debug)]
enum Values {
    File(Tensor),
    /// `[rows, width]`, flat.
    Memory(Vec<f32>, &'static str),
}

/// Why a row cannot be used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RowFault {
    NotFinite { column: usize, value: f32 },
    Zero,
}

impl From<RowFault> for ImageError {
    fn from(fault: RowFault) -> Self {
        match fault {
            RowFault::NotFinite { column, value } => Self::NotFinite { column: column + 1, value },
            RowFault::Zero => Self::ZeroFeature,
        }
    }
}

impl PartialEq for FeatureTable {
    fn eq(&self, other: &Self) -> bool {
        let paths = |table: &Self| table.parts.iter().map(|part| part.path.clone()).collect::<Vec<_>>();
        std::ptr::eq(self, other) || self.name == other.name && paths(self) == paths(other)
    }
}

impl Eq for FeatureTable {}

impl Hash for FeatureTable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts.iter().for_each(|part| part.path.hash(state));
        self.name.hash(state);
    }
}

impl FeatureTable {
    /// Opens files as one table, with the rows of each after those of the one before, and reads every row once.
    ///
    /// # Errors
    /// [`DataError::Malformed`], [`DataError::Tensor`], [`DataError::Column`] or [`DataError::Row`] for a file that is
    /// not features, is cut off, or has another width than the one before it; [`DataError::Read`].
    pub fn open(paths: &[PathBuf], column: FeatureColumn<'_>) -> Result<Self, DataError> {
        let mut table = Self {
            parts: Vec::new(),
            name: column.name.map(str::to_owned),
            width: 0,
            rows: 0,
            ids: Vec::new(),
            faults: Vec::new(),
            names: Vec::new(),
            has_texts: false,
        };
        for path in paths {
            let (values, width, rows) = if is_parquet(path)? {
                let found = parquet_vectors::read(path, column.name.unwrap_or(column.parquet))?;
                let rows = found.values.len() / found.width.max(1);
                (Values::Memory(found.values, found.number), found.width, rows as u64)
            } else {
                let wanted = Wanted { name: column.name, default: FEATURES_TENSOR, dims: 2 };
                let found = Tensor::open(path, wanted)?;
                let &[rows, width] = &found.shape[..] else {
                    return Err(DataError::Malformed { path: path.clone(), reason: "it is no matrix".to_owned() });
                };
                (Values::File(found), width as usize, rows)
            };
            if let Some(before) = table.parts.first()
                && table.width != width
            {
                let reason = format!(
                    "its rows have {width} values; expected {}, as in `{}`",
                    table.width,
                    before.path.display()
                );
                return Err(DataError::Malformed { path: path.clone(), reason });
            }
            table.width = width;
            table.parts.push(Part { path: path.clone(), first: table.rows, rows, values });
            table.rows += rows;
        }
        table.scan()?;
        Ok(table)
    }

    /// The width of the rows in the first file, without reading them.
    ///
    /// # Errors
    /// As for [`FeatureTable::open`].
    pub fn width_at(path: &Path, column: FeatureColumn<'_>) -> Result<usize, DataError> {
        if is_parquet(path)? {
            return Ok(parquet_vectors::read(path, column.name.unwrap_or(column.parquet))?.width);
        }
        let found = Tensor::open(path, Wanted { name: column.name, default: FEATURES_TENSOR, dims: 2 })?;
        Ok(found.shape.last().copied().unwrap_or(0) as usize)
    }

    /// Names the rows for people, such as with the paths of the images.
    #[must_use]
    pub(crate) fn with_names(self, names: Vec<String>) -> Self {
        Self { names, ..self }
    }

    /// Notes that the texts of the rows are known: they, not the rows, tell which texts are equal.
    #[must_use]
    pub(crate) fn with_texts(self) -> Self {
        Self { has_texts: true, ..self }
    }

    /// Whether the texts of the rows are known.
    pub(crate) fn has_texts(&self) -> bool {
        self.has_texts
    }

    /// Values of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    #[must_use]
    pub fn num_rows(&self) -> u64 {
        self.rows
    }

    /// The first file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.parts.first().map_or(Path::new(""), |part| &part.path)
    }

    /// What the table is, for the log.
    #[must_use]
    pub fn describe(&self) -> String {
        let number = match self.parts.first().map(|part| &part.values) {
            Some(Values::File(tensor)) => tensor.number.name(),
            Some(Values::Memory(_, number)) => number,
            None => Number::F32.name(),
        };
        let more = if self.parts.len() > 1 { format!(" and {} more", self.parts.len() - 1) } else { String::new() };
        format!("`{}`{more}: {} rows of {} values, {number}", self.path().display(), self.rows, self.width)
    }

    /// The name of a row: what the user calls it, or `file.npy/row 1`, 1-based.
    ///
    /// # Panics
    /// If `row` is out of range.
    #[must_use]
    pub fn key(&self, row: u64) -> String {
        if let Some(name) = self.names.get(row as usize) {
            return name.clone();
        }
        let part = self.part(row);
        format!("{}/row {}", part.path.display(), row - part.first + 1)
    }

    /// The hash of a row, as `f32`: equal rows have equal numbers, in whatever format and file they are.
    ///
    /// # Panics
    /// If `row` is out of range.
    #[must_use]
    pub fn id(&self, row: u64) -> ContentId {
        self.ids[row as usize]
    }

    /// Why a row cannot be used: it holds NaN or an infinity, or zeros only.
    #[must_use]
    pub fn fault(&self, row: u64) -> Option<ImageError> {
        let at = self.faults.binary_search_by_key(&row, |(row, _)| *row).ok()?;
        Some(self.faults[at].1.into())
    }

    /// Reads a row to `out`, which has its width. `buffer`: memory for its bytes, to be used again.
    ///
    /// # Errors
    /// [`DataError::Read`] if the system cannot read the file.
    ///
    /// # Panics
    /// If `row` is out of range.
    pub fn read(&self, row: u64, out: &mut [f32], buffer: &mut Vec<u8>) -> Result<(), DataError> {
        self.read_rows(self.part(row), row, out, buffer)
    }

    /// As [`FeatureTable::read`], for as many rows that follow each other as fill `out`.
    ///
    /// # Errors
    /// As for [`FeatureTable::read`].
    ///
    /// # Panics
    /// If a row is out of range, or `out` ends within a row.
    pub fn read_run(&self, mut row: u64, mut out: &mut [f32], buffer: &mut Vec<u8>) -> Result<(), DataError> {
        assert!(out.is_empty() || out.len().is_multiple_of(self.width), "the output of a run ends within a row");
        while !out.is_empty() {
            let part = self.part(row);
            let count = (part.first + part.rows - row).min((out.len() / self.width) as u64);
            let (now, later) = out.split_at_mut(count as usize * self.width);
            self.read_rows(part, row, now, buffer)?;
            (row, out) = (row + count, later);
        }
        Ok(())
    }

    /// The rows from `row` on that fill `out`, all of `part`.
    fn read_rows(&self, part: &Part, row: u64, out: &mut [f32], buffer: &mut Vec<u8>) -> Result<(), DataError> {
        let first = (row - part.first) * self.width as u64;
        match &part.values {
            Values::Memory(values, _) => out.copy_from_slice(&values[first as usize..][..out.len()]),
            Values::File(tensor) => {
                let size = tensor.number.bytes();
                buffer.resize(out.len() * size, 0);
                tensor.read(first * size as u64, buffer)?;
                tensor.number.to_f32(buffer, out);
            }
        }
        Ok(())
    }

    fn part(&self, row: u64) -> &Part {
        let at = self.parts.partition_point(|part| part.first + part.rows <= row);
        &self.parts[at]
    }

    /// Hashes every row and finds those that cannot be used, on a few threads.
    fn scan(&mut self) -> Result<(), DataError> {
        let per_block = (BLOCK_BYTES / (size_of::<f32>() * self.width.max(1))).max(1) as u64;
        for part in &self.parts {
            let blocks = part.rows.div_ceil(per_block) as usize;
            let scanned = try_map_numbers(blocks, 1, |block| {
                let first = part.first + block as u64 * per_block;
                let rows = per_block.min(part.first + part.rows - first);
                let mut values = vec![0.0; rows as usize * self.width];
                self.read_rows(part, first, &mut values, &mut Vec::new())?;
                let each = || (first..).zip(values.chunks_exact(self.width));
                let faults = each().filter_map(|(row, values)| Some((row, fault_of(values)?)));
                let faults: Vec<_> = faults.collect();
                let ids = row_ids(&row_bytes(&values), self.width * size_of::<f32>());
                Ok::<_, DataError>((ids, faults))
            })?;
            for (ids, faults) in scanned {
                self.ids.extend(ids);
                self.faults.extend(faults);
            }
        }
        Ok(())
    }
}

/// Whether a file is parquet, by its first bytes.
fn is_parquet(path: &Path) -> Result<bool, DataError> {
    let (mut file, mut first) = (files::open(path)?, Vec::new());
    (&mut file).take(PARQUET.len() as u64).read_to_end(&mut first).map_err(DataError::read(path))?;
    Ok(first == PARQUET)
}

/// The bytes of a row, or of several, that hashes are of.
pub(crate) fn row_bytes(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(values))
    } else {
        Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }
}

fn fault_of(values: &[f32]) -> Option<RowFault> {
    // Nearly every row passes this: one pass, without a branch for each value.
    let largest = values.iter().fold(0, |largest: u32, value| largest.max(value.abs().to_bits()));
    if largest > 0 && largest < f32::INFINITY.to_bits() {
        return None;
    }
    if let Some(column) = values.iter().position(|value| !value.is_finite()) {
        return Some(RowFault::NotFinite { column, value: values[column] });
    }
    values.iter().all(|value| *value == 0.0).then_some(RowFault::Zero)
}
