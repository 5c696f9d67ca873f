//! Tensors as the bytes of a safetensors file, and back. Values are not copied unless they must be converted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use dualenc_model::{HostTensor, is_count};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, View};

use crate::error::TrainError;
use crate::optim::state_tensor::StateTensor;

/// Serialises f32 tensors as a safetensors file. Names that count something, such as `num_batches_tracked`, become i64.
/// `context`: the path that errors name.
///
/// # Errors
/// [`TrainError::Checkpoint`] when the tensors do not fit the format, such as too many for its header.
pub(crate) fn serialize<'a>(
    tensors: impl IntoIterator<Item = (String, StateTensor<'a>)>,
    context: &Path,
) -> Result<Vec<u8>, TrainError> {
    // transformers refuses a file without this entry.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let views = tensors.into_iter().map(|(name, tensor)| {
        let bytes = FileTensor::new(tensor, is_count(&name));
        (name, bytes)
    });
    safetensors::serialize(views, Some(metadata))
        .map_err(|error| TrainError::Checkpoint { path: context.to_owned(), problem: error.to_string() })
}

/// The tensors of a file that [`serialize`] wrote, by name. An error says what is wrong with the file; a value that is
/// NaN or infinite is an error, since a model that holds one answers everything with NaN.
pub(crate) fn deserialize(bytes: &[u8]) -> Result<BTreeMap<String, HostTensor>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::I64 => view.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as f32).collect(),
            other => return Err(format!("tensor `{name}` is of type {other:?}, expected F32 or I64")),
        };
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let count = values.iter().filter(|value| !value.is_finite()).count();
            let (first, all) = (values[at], values.len());
            return Err(format!(
                "{count} of the {all} values of the tensor `{name}` are not finite, the first is {first}"
            ));
        }
        tensors.insert(name.to_owned(), HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok(tensors)
}

/// A tensor in the file's types and byte order, little-endian.
struct FileTensor<'a> {
    shape: Vec<usize>,
    values: FileValues<'a>,
}

enum FileValues<'a> {
    Floats(Cow<'a, [f32]>),
    Counts(Vec<i64>),
}

impl<'a> FileTensor<'a> {
    fn new(tensor: StateTensor<'a>, is_count: bool) -> Self {
        let values = if is_count {
            FileValues::Counts(tensor.values.iter().map(|value| (*value as i64).to_le()).collect())
        } else if cfg!(target_endian = "big") {
            FileValues::Floats(tensor.values.iter().map(|value| f32::from_bits(value.to_bits().to_le())).collect())
        } else {
            FileValues::Floats(tensor.values)
        };
        Self { shape: tensor.shape, values }
    }

    fn bytes(&self) -> &[u8] {
        match &self.values {
            FileValues::Floats(values) => bytemuck::cast_slice(values),
            FileValues::Counts(values) => bytemuck::cast_slice(values),
        }
    }
}

impl View for FileTensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            FileValues::Floats(_) => Dtype::F32,
            FileValues::Counts(_) => Dtype::I64,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes().into()
    }
    fn data_len(&self) -> usize {
        self.bytes().len()
    }
}
