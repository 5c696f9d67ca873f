//! The floating-point tensors of a Hugging Face directory, by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::SafeTensors;

use crate::error::ModelError;
use crate::weights::decode::decode_values;
use crate::weights::host_tensor::HostTensor;
use crate::weights::shard_index::weight_paths;

/// The floating-point tensors of one directory by their names in the files, in f32.
#[derive(Debug, Clone, Default)]
pub(crate) struct WeightFiles {
    tensors: BTreeMap<String, HostTensor>,
}

impl WeightFiles {
    /// Reads every weight file of `dir`.
    ///
    /// # Errors
    /// [`ModelError::NoWeights`] if there are none, [`ModelError::Read`] if a shard is missing, [`ModelError::Weights`]
    /// if a file is malformed.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let mut tensors = BTreeMap::new();
        for path in weight_paths(dir)? {
            tensors.extend(read_safetensors(&path)?);
        }
        Ok(Self { tensors })
    }

    /// Reads one file.
    ///
    /// # Errors
    /// As [`read_safetensors`].
    pub fn read_file(path: &Path) -> Result<Self, ModelError> {
        Ok(Self { tensors: read_safetensors(path)? })
    }

    /// The tensor `name`.
    pub fn get(&self, name: &str) -> Option<&HostTensor> {
        self.tensors.get(name)
    }

    /// Adds the tensor `name`, or replaces it.
    pub fn insert(&mut self, name: &str, tensor: HostTensor) {
        self.tensors.insert(name.to_owned(), tensor);
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether any name starts with `prefix`.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.names().any(|name| name.starts_with(prefix))
    }

    /// The tensors whose names start with `prefix`, with the prefix removed.
    #[must_use]
    pub fn subset(&self, prefix: &str) -> Self {
        let without_prefix = |(name, tensor): (&String, &HostTensor)| {
            name.strip_prefix(prefix).map(|rest| (rest.to_owned(), tensor.clone()))
        };
        Self { tensors: self.tensors.iter().filter_map(without_prefix).collect() }
    }

    /// All tensors, sorted by name.
    pub fn into_tensors(self) -> impl Iterator<Item = (String, HostTensor)> {
        self.tensors.into_iter()
    }

    /// Applies `rename` to every name.
    #[must_use]
    pub fn renamed(self, rename: impl Fn(&str) -> String) -> Self {
        Self { tensors: self.tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect() }
    }
}

impl FromIterator<(String, HostTensor)> for WeightFiles {
    fn from_iter<I: IntoIterator<Item = (String, HostTensor)>>(tensors: I) -> Self {
        Self { tensors: tensors.into_iter().collect() }
    }
}

/// Reads the floating-point tensors of one safetensors file, converted to f32, and the counts of batch norms.
///
/// # Errors
/// [`ModelError::Read`] if the file cannot be read, [`ModelError::Weights`] if it is malformed.
pub fn read_safetensors(path: &Path) -> Result<BTreeMap<String, HostTensor>, ModelError> {
    let bytes = fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| ModelError::Weights { path: path.to_owned(), problem: error.to_string() })?;
    let decode = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let values = decode_values(name, view.dtype(), view.data())?;
        Some((name.to_owned(), HostTensor { shape: view.shape().to_vec(), values }))
    };
    Ok(file.iter().filter_map(decode).collect())
}
