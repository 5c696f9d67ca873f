//! One array of a safetensors or `.npy` file. Its header is read once; its values are read by position, and so a file
//! may be larger than the memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::features::number::Number;
use crate::features::{npy_header, safetensors_header};
use crate::files;
use crate::images::disk::read_entry;
use crate::look_at::what_is;

/// Bytes of a file that tell what it is.
const LOOKED_AT: u64 = 4096;

/// Which array of a file is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The name that the user gave.
    pub(crate) name: Option<&'a str>,
    /// The name without one.
    pub(crate) default: &'a str,
    /// Number of dimensions.
    pub(crate) dims: usize,
}

/// An array of numbers.
#[derive(Debug)]
pub(crate) struct Tensor {
    path: PathBuf,
    file: File,
    pub(crate) number: Number,
    pub(crate) shape: Vec<u64>,
    /// Position of the first value in the file, in bytes.
    start: u64,
}

/// The arrays that a file offers.
enum Offer {
    One(Tensor),
    /// The array is not there; the names of those that are.
    None(Vec<String>),
}

impl Tensor {
    /// Finds an array of a file.
    ///
    /// # Errors
    /// [`DataError::Malformed`] for another format, a damaged or cut file, and an array of another shape or type;
    /// [`DataError::Column`] without the array; [`DataError::Read`].
    pub(crate) fn open(path: &Path, wanted: Wanted<'_>) -> Result<Self, DataError> {
        match Self::offer(path, wanted)? {
            Offer::One(tensor) => Ok(tensor),
            Offer::None(found) => {
                let column = wanted.name.unwrap_or(wanted.default).to_owned();
                Err(DataError::Tensor { path: path.to_owned(), name: column, found })
            }
        }
    }

    /// As [`Tensor::open`]; `None`: the file is sound and has no such array.
    pub(crate) fn find(path: &Path, wanted: Wanted<'_>) -> Result<Option<Self>, DataError> {
        Ok(match Self::offer(path, wanted)? {
            Offer::One(tensor) => Some(tensor),
            Offer::None(_) => None,
        })
    }

    fn offer(path: &Path, wanted: Wanted<'_>) -> Result<Offer, DataError> {
        let malformed = |reason: String| DataError::Malformed { path: path.to_owned(), reason };
        let mut file = files::open(path)?;
        let metadata = file.metadata().map_err(DataError::read(path))?;
        if !metadata.is_file() {
            return Err(DataError::NotAFile { path: path.to_owned() });
        }
        let file_len = metadata.len();
        let mut first = Vec::new();
        let most = LOOKED_AT.max(npy_header::READ as u64);
        (&mut file).take(most).read_to_end(&mut first).map_err(DataError::read(path))?;
        if first.starts_with(npy_header::MAGIC) {
            let header = npy_header::parse(&first).map_err(malformed)?;
            let npy_header::Header { number, shape, start } = header;
            let found = Self { path: path.to_owned(), file, number, shape, start };
            let len = found.byte_len().map_err(malformed)?;
            let there = file_len.saturating_sub(start);
            if there != len {
                let state = if there < len { "is cut off: write or fetch it again" } else { "has more behind it" };
                return Err(malformed(format!(
                    "an array of shape {:?} ({}) takes {len} bytes behind the header, but the file has {there}; it \
                     {state}",
                    found.shape,
                    found.number.name()
                )));
            }
            found.check(wanted, None).map_err(malformed)?;
            return Ok(Offer::One(found));
        }
        let header_len = first.first_chunk().map_or(u64::MAX, |len| u64::from_le_bytes(*len));
        let end = header_len.saturating_add(safetensors_header::LENGTH_BYTES);
        let is_safetensors = first.get(8) == Some(&b'{') && header_len <= safetensors_header::MAX_HEADER;
        if !is_safetensors || end > file_len {
            let what = match what_is(&first) {
                _ if is_safetensors => "its safetensors header is cut off: write or fetch it again".to_owned(),
                _ if first.is_empty() => "it is empty".to_owned(),
                Some(content) => format!("it is {content}"),
                None => "it is neither safetensors nor npy".to_owned(),
            };
            let expected = "expected features as a `.safetensors`, `.npy` or `.parquet` file";
            return Err(malformed(format!("{what}; {expected}")));
        }
        let mut json = vec![0; header_len as usize];
        file.seek(SeekFrom::Start(safetensors_header::LENGTH_BYTES)).map_err(DataError::read(path))?;
        file.read_exact(&mut json).map_err(DataError::read(path))?;
        let entries = safetensors_header::parse(&json).map_err(malformed)?;
        let name = wanted.name.unwrap_or(wanted.default);
        let mut chosen = entries.iter().find(|entry| entry.name == name);
        if chosen.is_none() && wanted.name.is_none() && wanted.dims == 2 {
            let mut matrices = entries.iter().filter(|entry| entry.shape.len() == 2);
            chosen = matrices.next().filter(|_| matrices.next().is_none());
        }
        let Some(entry) = chosen else {
            return Ok(Offer::None(entries.into_iter().map(|entry| entry.name).collect()));
        };
        let name = &entry.name;
        let number = entry.number.clone().map_err(|dtype| {
            malformed(format!("tensor `{name}` has the type `{dtype}`; expected f32, f16, bf16 or f64"))
        })?;
        let start = end.checked_add(entry.start);
        let last = start.and_then(|start| start.checked_add(entry.len)).filter(|last| *last <= file_len);
        let (Some(start), Some(_)) = (start, last) else {
            return Err(malformed(format!(
                "tensor `{name}` ends behind the {file_len} bytes of the file, which is cut off: write or fetch it \
                 again"
            )));
        };
        let found = Self { path: path.to_owned(), file, number, shape: entry.shape.clone(), start };
        let len = found.byte_len().map_err(malformed)?;
        if len != entry.len {
            return Err(malformed(format!(
                "tensor `{name}` of shape {:?} ({}) takes {len} bytes, but its `data_offsets` span {}",
                found.shape,
                number.name(),
                entry.len
            )));
        }
        found.check(wanted, Some(name)).map_err(malformed)?;
        Ok(Offer::One(found))
    }

    /// Bytes of all values.
    fn byte_len(&self) -> Result<u64, String> {
        let sizes = self.shape.iter().try_fold(self.number.bytes() as u64, |all, &size| all.checked_mul(size));
        sizes.ok_or_else(|| format!("an array of shape {:?} is larger than any file", self.shape))
    }

    fn check(&self, wanted: Wanted<'_>, name: Option<&str>) -> Result<(), String> {
        let what = name.map_or_else(|| "the array".to_owned(), |name| format!("tensor `{name}`"));
        let (shape, number) = (&self.shape, self.number.name());
        if wanted.dims == 2 {
            if shape.len() != 2 || shape.contains(&0) {
                return Err(format!("{what} has the shape {shape:?}; expected [rows, width]"));
            }
            if !self.number.is_float() {
                return Err(format!("{what} holds {number}; expected f32, f16, bf16 or f64"));
            }
        } else {
            if shape.len() != 1 {
                return Err(format!("{what} has the shape {shape:?}; expected [rows]"));
            }
            if self.number.is_float() {
                return Err(format!("{what} holds {number}; expected whole numbers, such as i64"));
            }
        }
        Ok(())
    }

    /// Reads bytes from `at` on, counted from the first value.
    ///
    /// # Errors
    /// [`DataError::Read`] if the system cannot read them, after several tries.
    pub(crate) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), DataError> {
        let at = self.start + at;
        if read_exact_at(&self.file, bytes, at).is_ok() {
            return Ok(());
        }
        // Opens the file anew, again after each error that may pass.
        let read = read_entry(&self.path, at, bytes.len() as u64).map_err(DataError::read(&self.path))?;
        bytes.copy_from_slice(&read);
        Ok(())
    }
}

/// Fills `bytes` from `offset` on.
#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Fills `bytes` from `offset` on.
#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
        offset += read as u64;
    }
    Ok(())
}
