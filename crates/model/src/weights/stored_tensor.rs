//! A tensor of a weight file: its shape is known, its values are read from the file when they are needed. Loading a
//! model thus holds one stored tensor at a time, besides the model itself.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use safetensors::tensor::{Dtype, TensorInfo};

use crate::error::ModelError;
use crate::weights::decode::{VALUES_AT_ONCE, read_values};
use crate::weights::host_tensor::HostTensor;
use crate::weights::matrix::{Part, ROWS_AT_ONCE, transpose, transpose_rows};

/// An open weight file.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    /// Two towers of one file are loaded by two threads.
    file: Mutex<File>,
    /// Offset of the first value, in bytes.
    data_start: u64,
}

impl TensorFile {
    /// `data_start`: offset of the first value, in bytes.
    pub fn new(path: &Path, file: File, data_start: u64) -> Self {
        Self { path: path.to_owned(), file: Mutex::new(file), data_start }
    }

    /// Reads values of type `dtype` into `out`, from the byte `start` after the header.
    fn read(&self, name: &str, dtype: Dtype, start: u64, out: &mut [f32]) -> Result<(), ModelError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = || {
            file.seek(SeekFrom::Start(self.data_start + start))?;
            read_values(name, dtype, out, &mut *file as &mut dyn Read)
        };
        read().map_err(|source| ModelError::Read { path: self.path.clone(), source })
    }
}

/// A tensor of a weight file, or one that stands in for it.
#[derive(Debug, Clone)]
pub(crate) struct StoredTensor {
    /// Size of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    /// Only the shape is known.
    Unknown,
    Host(Arc<Vec<f32>>),
    File {
        file: Arc<TensorFile>,
        /// Name of the tensor in the file, for errors.
        name: Arc<str>,
        dtype: Dtype,
        /// Offset of the first value in the file's data, in bytes.
        start: u64,
        /// Position of the first value in the tensor of the file, which this may be a part of.
        offset: usize,
        /// Whether the file has the transpose of this matrix.
        transposed: bool,
    },
}

impl StoredTensor {
    /// The tensor `name` of `file`.
    pub fn in_file(file: &Arc<TensorFile>, name: &str, info: &TensorInfo) -> Self {
        let (start, dtype) = (info.data_offsets.0 as u64, info.dtype);
        let values =
            Values::File { file: Arc::clone(file), name: name.into(), dtype, start, offset: 0, transposed: false };
        Self { shape: info.shape.clone(), values }
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The same values in another shape with as many values.
    #[must_use]
    pub fn reshaped(&self, shape: Vec<usize>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), self.count());
        Self { shape, values: self.values.clone() }
    }

    /// The transpose of a matrix of a file; any other tensor is returned as it is.
    #[must_use]
    pub fn transposed(mut self) -> Self {
        if let ([rows, columns], Values::File { transposed, .. }) = (&mut self.shape[..], &mut self.values) {
            std::mem::swap(rows, columns);
            *transposed = !*transposed;
        } else if let ([rows, columns], Values::Unknown) = (&mut self.shape[..], &self.values) {
            std::mem::swap(rows, columns);
        }
        self
    }

    /// One of the equal parts along the first dimension.
    #[must_use]
    pub fn part(&self, part: Part) -> Self {
        let mut shape = self.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows /= part.of;
        }
        let first = part.index * shape.iter().product::<usize>();
        let values = match &self.values {
            Values::File { file, name, dtype, start, offset, transposed: false } => Values::File {
                file: Arc::clone(file),
                name: Arc::clone(name),
                dtype: *dtype,
                start: start + (first * dtype.bitsize() / 8) as u64,
                offset: offset + first,
                transposed: false,
            },
            Values::File { .. } | Values::Unknown => Values::Unknown,
            Values::Host(values) => {
                Values::Host(Arc::new(values[first..first + shape.iter().product::<usize>()].to_vec()))
            }
        };
        Self { shape, values }
    }

    /// Reads the values, in row-major order.
    ///
    /// # Errors
    /// [`ModelError::Read`] if the file cannot be read; [`ModelError::NonFiniteWeights`] if a value is NaN or infinite.
    pub fn read(&self) -> Result<Vec<f32>, ModelError> {
        match &self.values {
            Values::Unknown => Err(ModelError::Internal("a tensor without values was read".to_owned())),
            Values::Host(values) => Ok(values.as_ref().clone()),
            Values::File { transposed, .. } => {
                let values = self.read_as_stored()?;
                Ok(match (transposed, &self.shape[..]) {
                    (true, &[rows, columns]) => transpose(&values, columns, rows),
                    _ => values,
                })
            }
        }
    }

    /// Reads the values as a matrix with the first dimension as rows, and transposes it.
    ///
    /// # Errors
    /// As [`StoredTensor::read`].
    pub fn read_transposed(&self) -> Result<Vec<f32>, ModelError> {
        let rows = self.shape.first().copied().unwrap_or(1);
        let columns = self.count() / rows.max(1);
        match &self.values {
            Values::File { transposed: true, .. } => self.read_as_stored(),
            Values::File { .. } => {
                let mut values = vec![0.0; self.count()];
                // Whole lines of the result at a time, of values that are still in a core's cache.
                let rows_at_once = (VALUES_AT_ONCE / columns.max(1)).max(1).next_multiple_of(ROWS_AT_ONCE);
                let mut block = vec![0.0; (rows_at_once * columns).min(self.count())];
                let mut found = NotFinite::default();
                for first in (0..rows).step_by(rows_at_once) {
                    let block = &mut block[..rows_at_once.min(rows - first) * columns];
                    self.read_block(first * columns, block, &mut found)?;
                    transpose_rows(block, first, columns, &mut values, rows);
                }
                self.refuse(&found).map(|()| values)
            }
            Values::Unknown | Values::Host(_) => Ok(transpose(&self.read()?, rows, columns)),
        }
    }

    /// Reads the values in the order of the file.
    fn read_as_stored(&self) -> Result<Vec<f32>, ModelError> {
        let mut values = vec![0.0; self.count()];
        let mut found = NotFinite::default();
        for (at, block) in values.chunks_mut(VALUES_AT_ONCE).enumerate() {
            self.read_block(at * VALUES_AT_ONCE, block, &mut found)?;
        }
        self.refuse(&found).map(|()| values)
    }

    /// Reads the values from the position `first` on into `out`, and counts those that are not finite.
    fn read_block(&self, first: usize, out: &mut [f32], found: &mut NotFinite) -> Result<(), ModelError> {
        let Values::File { file, name, dtype, start, .. } = &self.values else {
            return Err(ModelError::Internal("a tensor that is not in a file was read from one".to_owned()));
        };
        file.read(name, *dtype, start + (first * dtype.bitsize() / 8) as u64, out)?;
        found.count(first, out);
        Ok(())
    }

    /// Refuses a tensor of a file with values that are NaN or infinite.
    fn refuse(&self, found: &NotFinite) -> Result<(), ModelError> {
        let (Some((at, value)), Values::File { file, name, offset, .. }) = (found.first, &self.values) else {
            return Ok(());
        };
        let at = format!("the first, {value}, at flat index {}", offset + at);
        let tensors = vec![format!("{name}: {} of {} values, {at}", found.count, self.count())];
        Err(ModelError::NonFiniteWeights { path: file.path.clone(), tensors })
    }
}

/// Values that are NaN or infinite.
#[derive(Default)]
struct NotFinite {
    count: usize,
    /// Position and value of the first.
    first: Option<(usize, f32)>,
}

impl NotFinite {
    /// Counts those of `values`, the first of which is at the position `start`.
    fn count(&mut self, start: usize, values: &[f32]) {
        // Without an early end, which would keep the compiler from using vectors.
        if values.iter().fold(true, |all, value| all & value.is_finite()) {
            return;
        }
        self.count += values.iter().filter(|value| !value.is_finite()).count();
        let at = values.iter().position(|value| !value.is_finite());
        self.first = self.first.or_else(|| at.map(|at| (start + at, values[at])));
    }
}

impl From<HostTensor> for StoredTensor {
    fn from(tensor: HostTensor) -> Self {
        Self { shape: tensor.shape, values: Values::Host(Arc::new(tensor.values)) }
    }
}
