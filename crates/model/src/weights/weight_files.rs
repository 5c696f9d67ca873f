//! Reading tensors of a Hugging Face directory: `model.safetensors`, whole or in shards. It knows no model.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};

use crate::error::ModelError;

/// A tensor on the host: `shape` and its values in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Sizes of the dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub values: Vec<f32>,
}

impl HostTensor {
    /// The identity matrix of `width` rows.
    #[must_use]
    pub fn identity(width: usize) -> Self {
        let mut values = vec![0.0; width * width];
        values.iter_mut().step_by(width + 1).for_each(|value| *value = 1.0);
        Self { shape: vec![width, width], values }
    }
}

/// The floating-point tensors of one directory, by their names in the files. f16 and bf16 are widened to f32.
#[derive(Debug, Clone, Default)]
pub struct WeightFiles {
    tensors: BTreeMap<String, HostTensor>,
}

impl WeightFiles {
    /// Reads every shard of `dir`.
    ///
    /// # Errors
    /// When there are no safetensors weights, when a shard is missing, or when a file is malformed.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let mut tensors = BTreeMap::new();
        for path in weight_paths(dir)? {
            read_file(&path, &mut tensors)?;
        }
        Ok(Self { tensors })
    }

    /// Reads one file.
    ///
    /// # Errors
    /// When it cannot be read or is malformed.
    pub(crate) fn read_file(path: &Path) -> Result<Self, ModelError> {
        Ok(Self { tensors: read_safetensors(path)? })
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&HostTensor> {
        self.tensors.get(name)
    }

    /// Puts a tensor there, if it is given.
    pub(crate) fn extend(&mut self, name: &str, tensor: Option<HostTensor>) {
        self.tensors.extend(tensor.map(|tensor| (name.to_owned(), tensor)));
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether some name starts with `prefix`.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.names().any(|name| name.starts_with(prefix))
    }

    /// The tensors below `prefix`, named without it.
    #[must_use]
    pub fn subset(&self, prefix: &str) -> Self {
        let below = |(name, tensor): (&String, &HostTensor)| {
            name.strip_prefix(prefix).map(|rest| (rest.to_owned(), tensor.clone()))
        };
        Self { tensors: self.tensors.iter().filter_map(below).collect() }
    }

    /// All of them.
    pub(crate) fn into_tensors(self) -> impl Iterator<Item = (String, HostTensor)> {
        self.tensors.into_iter()
    }

    /// Applies `rename` to every name.
    #[must_use]
    pub fn renamed(self, rename: impl Fn(&str) -> String) -> Self {
        Self { tensors: self.tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect() }
    }
}

/// How the names of PyTorch's own files end.
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// What trainers of transformers leave beside the weights.
const NO_WEIGHTS: &str = "training_args.bin";

/// The first file of `dir` that may be a pickle with weights.
fn pickle_in(dir: &Path) -> Option<String> {
    let names = fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_pickle = |name: &String| {
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| PICKLES.contains(&extension)) && name != NO_WEIGHTS
    };
    names.filter(is_pickle).min()
}

/// The weights files of `dir`: one, or the shards of an index.
pub(crate) fn weight_paths(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = dir.join("model.safetensors.index.json");
    if index.is_file() {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: HashMap<String, String>,
        }
        let text = fs::read_to_string(&index).map_err(|source| ModelError::Read { path: index.clone(), source })?;
        let parsed: Index = serde_json::from_str(&text)
            .map_err(|error| ModelError::Config { path: index.clone(), problem: error.to_string() })?;
        let mut files: Vec<String> = parsed.weight_map.into_values().collect();
        files.sort();
        files.dedup();
        return Ok(files.into_iter().map(|file| dir.join(file)).collect());
    }
    let hint = match pickle_in(dir) {
        Some(file) => format!(
            "; `{file}` is a pickle, which can run code when read and is refused. Convert it once, where you trust its \
             source: a directory of transformers with `AutoModel.from_pretrained(DIR).save_pretrained(DIR)`, any other \
             with `safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"model.safetensors\")`"
        ),
        None => String::new(),
    };
    Err(ModelError::NoWeights { dir: dir.to_owned(), hint })
}

/// The floating-point tensors of one safetensors file, widened to f32.
///
/// # Errors
/// When the file cannot be read or is malformed.
pub fn read_safetensors(path: &Path) -> Result<BTreeMap<String, HostTensor>, ModelError> {
    let mut tensors = BTreeMap::new();
    read_file(path, &mut tensors)?;
    Ok(tensors)
}

/// Whether the tensor of this name is a count, which files hold as a 64-bit integer and [`HostTensor`] as a float.
pub fn is_count(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

/// Reads one file into `tensors`; integers (`position_ids`) are no weights, but counts belong to batch norms.
fn read_file(path: &Path, tensors: &mut BTreeMap<String, HostTensor>) -> Result<(), ModelError> {
    let bytes = fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    let malformed = |problem: String| ModelError::Weights { path: path.to_owned(), problem };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| malformed(error.to_string()))?;
    for (name, view) in file.iter() {
        if let Some(values) = values_of(name, view.dtype(), view.data()) {
            tensors.insert(name.to_owned(), HostTensor { shape: view.shape().to_vec(), values });
        }
    }
    Ok(())
}

/// Whether a tensor of this name and type is a weight: [`values_of`] then reads it.
pub(crate) fn is_weight(name: &str, dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) || (dtype == Dtype::I64 && is_count(name))
}

/// The values of a tensor, widened to f32; `None` where it is no weight.
pub(crate) fn values_of(name: &str, dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    match (dtype, is_count(name)) {
        (Dtype::I64, true) => Some(eight_bytes(bytes).map(|b| i64::from_le_bytes(b) as f32).collect()),
        _ => widen(dtype, bytes),
    }
}

fn widen(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match dtype {
        Dtype::F32 => Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::F16 => Some(pairs().map(|b| half::f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Some(pairs().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect()),
        Dtype::F64 => Some(eight_bytes(bytes).map(|b| f64::from_le_bytes(b) as f32).collect()),
        _ => None,
    }
}

impl FromIterator<(String, HostTensor)> for WeightFiles {
    fn from_iter<I: IntoIterator<Item = (String, HostTensor)>>(tensors: I) -> Self {
        Self { tensors: tensors.into_iter().collect() }
    }
}

fn eight_bytes(bytes: &[u8]) -> impl Iterator<Item = [u8; 8]> {
    bytes.chunks_exact(8).map(|b| [b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
}
