//! The headers of safetensors files: names, types and shapes, without reading values.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::error::ModelError;
use crate::foreign_file::recognise_file;
use crate::weights::decode::is_weight;
use crate::weights::host_tensor::HostTensor;
use crate::weights::shard_index::weight_paths;
use crate::weights::stored_tensor::{StoredTensor, TensorFile};

/// Size of the length field before the header, in bytes.
const LENGTH_BYTES: u64 = 8;

/// The largest header that the format allows, in bytes.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Why a file is shorter than its header says.
const INTERRUPTED: &str = "its download was interrupted; fetch it again";

/// The header of one weight file.
#[derive(Debug)]
pub struct WeightHeader {
    /// The file.
    pub path: PathBuf,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// The tensors with their types and shapes, sorted by name.
    tensors: Vec<(String, TensorInfo)>,
    file: Arc<TensorFile>,
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
    /// Reads the header of `path`. The file stays open.
    ///
    /// # Errors
    /// [`ModelError::Read`] if the file cannot be read; [`ModelError::Weights`] if the header is malformed or disagrees
    /// with the size of the file.
    pub fn read(path: PathBuf) -> Result<Self, ModelError> {
        Self::parse(path).map_err(|error| match error {
            ModelError::Weights { path, problem } => {
                let problem = recognise_file(&path).unwrap_or(problem);
                ModelError::Weights { path, problem }
            }
            other => other,
        })
    }

    fn parse(path: PathBuf) -> Result<Self, ModelError> {
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
            let mut first = [0];
            file.read_exact(&mut first[..usize::from(bytes > LENGTH_BYTES)]).map_err(unreadable)?;
            return Err(malformed(if length <= MAX_HEADER_BYTES && first == *b"{" {
                format!("its header of {length} bytes is cut off, the file has {bytes} bytes: {INTERRUPTED}")
            } else {
                format!(
                    "the header claims {length} bytes, but the file has {bytes}, and a header at most \
                     {MAX_HEADER_BYTES}"
                )
            }));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(unreadable)?;
        let json = |error: serde_json::Error| malformed(format!("its header: {error}"));
        // A map keeps the last of two tensors with one name, and says nothing.
        let _: UniqueNames = serde_json::from_slice(&header).map_err(json)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(json)?;
        let data_start = LENGTH_BYTES + length;
        let expected = data_start.checked_add(metadata.data_len() as u64);
        if expected != Some(bytes) {
            let why = if expected.is_some_and(|expected| bytes > expected) { "" } else { INTERRUPTED };
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            let expected = expected.map_or("more than any file".to_owned(), |expected| expected.to_string());
            return Err(malformed(format!("it has {bytes} bytes, expected {expected} from its header{why}")));
        }
        let mut tensors: Vec<(String, TensorInfo)> =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let file = Arc::new(TensorFile::new(&path, file, data_start));
        Ok(Self { path, bytes, tensors, file })
    }

    /// Name, type (as the format spells it) and shape of each tensor.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, String, &[usize])> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info.dtype.to_string(), info.shape.as_slice()))
    }

    /// Reads the values of the tensor `name`; `None` if the file has no such weight.
    ///
    /// # Errors
    /// [`ModelError::Read`] if the file cannot be read; [`ModelError::NonFiniteWeights`] if a value is NaN or infinite.
    pub fn values(&self, name: &str) -> Result<Option<HostTensor>, ModelError> {
        let Some((_, tensor)) = self.weights().find(|(known, _)| *known == name) else { return Ok(None) };
        let values = tensor.read()?;
        Ok(Some(HostTensor { shape: tensor.shape, values }))
    }

    /// The weights, sorted by name. Their values are not read.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (&str, StoredTensor)> {
        let weights = self.tensors.iter().filter(|(name, info)| is_weight(name, info.dtype));
        weights.map(|(name, info)| (name.as_str(), StoredTensor::in_file(&self.file, name, info)))
    }
}

/// A JSON object in which no name occurs twice.
struct UniqueNames;

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for UniqueNames {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
            if let Some(name) = names.replace(name) {
                return Err(A::Error::custom(format!("`{name}` occurs twice")));
            }
        }
        Ok(self)
    }
}
