//! The headers of safetensors files: names, types and shapes, without reading values.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::ModelError;
use crate::weights::decode::{decode_values, is_weight};
use crate::weights::host_tensor::HostTensor;
use crate::weights::shard_index::weight_paths;
use crate::weights::weight_files::WeightFiles;

/// Size of the length field before the header, in bytes.
const LENGTH_BYTES: u64 = 8;

/// The largest header that the format allows, in bytes.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The header of one weight file.
#[derive(Debug)]
pub struct WeightHeader {
    /// The file.
    pub path: PathBuf,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// The tensors with their types and shapes, sorted by name.
    tensors: Vec<(String, TensorInfo)>,
    /// Offset of the first value, in bytes.
    data_start: u64,
}

/// The header of each weight file of `dir`, or the error of reading it.
///
/// # Errors
/// [`ModelError::NoWeights`] if `dir` has no safetensors weights; [`ModelError::Read`] or [`ModelError::Config`] if the
/// index of its shards cannot be read.
pub(crate) fn weight_headers(dir: &Path) -> Result<Vec<Result<WeightHeader, ModelError>>, ModelError> {
    Ok(weight_paths(dir)?.into_iter().map(WeightHeader::read).collect())
}

impl WeightHeader {
    /// Reads the header of `path`.
    ///
    /// # Errors
    /// [`ModelError::Read`] if the file cannot be read; [`ModelError::Weights`] if the header is malformed or disagrees
    /// with the size of the file.
    pub fn read(path: PathBuf) -> Result<Self, ModelError> {
        let malformed = |problem: String| ModelError::Weights { path: path.clone(), problem };
        let unreadable = |source| ModelError::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        if bytes < LENGTH_BYTES {
            return Err(malformed(format!("it has only {bytes} bytes")));
        }
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut length).map_err(unreadable)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES.min(bytes - LENGTH_BYTES) {
            return Err(malformed(format!("the header claims {length} bytes, but the file has {bytes}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(unreadable)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| malformed(error.to_string()))?;
        let data_start = LENGTH_BYTES + length;
        let expected = data_start + metadata.data_len() as u64;
        if bytes != expected {
            return Err(malformed(format!("it has {bytes} bytes, expected {expected} from its header")));
        }
        let mut tensors: Vec<(String, TensorInfo)> =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { path, bytes, tensors, data_start })
    }

    /// Name, type (as the format spells it) and shape of each tensor.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, String, &[usize])> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info.dtype.to_string(), info.shape.as_slice()))
    }

    /// Reads the values of the tensor `name`; `None` if the file has no such weight.
    ///
    /// # Errors
    /// [`ModelError::Read`] if the file cannot be read.
    pub fn values(&self, name: &str) -> Result<Option<HostTensor>, ModelError> {
        let Some((_, info)) = self.tensors.iter().find(|(known, _)| known == name) else { return Ok(None) };
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        let mut read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.data_start + start as u64))?;
            file.read_exact(&mut bytes)
        };
        read().map_err(|source| ModelError::Read { path: self.path.clone(), source })?;
        Ok(decode_values(name, info.dtype, &bytes).map(|values| HostTensor { shape: info.shape.clone(), values }))
    }
}

/// The weights of all files with their shapes but no values, which is enough to audit them.
pub(crate) fn without_values<'a>(headers: impl IntoIterator<Item = &'a WeightHeader>) -> WeightFiles {
    let tensors = headers.into_iter().flat_map(|header| &header.tensors);
    tensors
        .filter(|(name, info)| is_weight(name, info.dtype))
        .map(|(name, info)| (name.clone(), HostTensor { shape: info.shape.clone(), values: Vec::new() }))
        .collect()
}
