//! The floating-point tensors of a Hugging Face directory, by name.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::ModelError;
use crate::weights::header::WeightHeader;
use crate::weights::host_tensor::HostTensor;
use crate::weights::shard_index::weight_paths;
use crate::weights::stored_tensor::StoredTensor;

/// The floating-point tensors of one directory by their names in the files. Values are read when they are needed.
#[derive(Debug, Clone, Default)]
pub(crate) struct WeightFiles {
    tensors: BTreeMap<String, StoredTensor>,
}

impl WeightFiles {
    /// Opens every weight file of `dir`, and reads its header.
    ///
    /// # Errors
    /// [`ModelError::NoWeights`] if there are none, [`ModelError::Read`] if a shard is missing, [`ModelError::Weights`]
    /// if a file is malformed.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let mut tensors = BTreeMap::new();
        for path in weight_paths(dir)? {
            tensors.extend(Self::open_file(&path)?.tensors);
        }
        Ok(Self { tensors })
    }

    /// Opens one file, and reads its header.
    ///
    /// # Errors
    /// [`ModelError::Read`] if the file cannot be read, [`ModelError::Weights`] if it is malformed.
    pub fn open_file(path: &Path) -> Result<Self, ModelError> {
        let header = WeightHeader::read(path.to_owned())?;
        Ok(header.weights().map(|(name, tensor)| (name.to_owned(), tensor)).collect())
    }

    /// The weights of all files. Their values are not read.
    pub fn of_headers<'a>(headers: impl IntoIterator<Item = &'a WeightHeader>) -> Self {
        let tensors = headers.into_iter().flat_map(WeightHeader::weights);
        tensors.map(|(name, tensor)| (name.to_owned(), tensor)).collect()
    }

    /// The tensor `name`.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// Adds the tensor `name`, or replaces it.
    pub fn insert(&mut self, name: &str, tensor: StoredTensor) {
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

    /// The tensors with names that start with `prefix`, with the prefix removed.
    #[must_use]
    pub fn subset(&self, prefix: &str) -> Self {
        let without_prefix = |(name, tensor): (&String, &StoredTensor)| {
            name.strip_prefix(prefix).map(|rest| (rest.to_owned(), tensor.clone()))
        };
        Self { tensors: self.tensors.iter().filter_map(without_prefix).collect() }
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// All tensors, sorted by name.
    pub fn into_tensors(self) -> impl Iterator<Item = (String, StoredTensor)> {
        self.tensors.into_iter()
    }

    /// Applies `rename` to every name.
    #[must_use]
    pub fn renamed(self, rename: impl Fn(&str) -> String) -> Self {
        Self { tensors: self.tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect() }
    }
}

impl FromIterator<(String, StoredTensor)> for WeightFiles {
    fn from_iter<I: IntoIterator<Item = (String, StoredTensor)>>(tensors: I) -> Self {
        Self { tensors: tensors.into_iter().collect() }
    }
}

/// Reads the floating-point tensors of one safetensors file, converted to f32, and the counts of batch norms.
///
/// # Errors
/// [`ModelError::Read`] if the file cannot be read, [`ModelError::Weights`] if it is malformed,
/// [`ModelError::NonFiniteWeights`] if a value is NaN or infinite.
pub fn read_safetensors(path: &Path) -> Result<BTreeMap<String, HostTensor>, ModelError> {
    let header = WeightHeader::read(path.to_owned())?;
    let mut tensors = BTreeMap::new();
    let mut not_finite = Vec::new();
    for (name, tensor) in header.weights() {
        match tensor.read() {
            Ok(values) => drop(tensors.insert(name.to_owned(), HostTensor { shape: tensor.shape, values })),
            Err(ModelError::NonFiniteWeights { tensors, .. }) => not_finite.extend(tensors),
            Err(error) => return Err(error),
        }
    }
    if not_finite.is_empty() {
        Ok(tensors)
    } else {
        Err(ModelError::NonFiniteWeights { path: path.to_owned(), tensors: not_finite })
    }
}
