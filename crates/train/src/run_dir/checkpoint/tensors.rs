//! Tensors as the bytes of a safetensors file, from where their values lie.

use std::borrow::Cow;
use std::path::Path;

use dualenc_model::is_count;
use safetensors::tensor::{Dtype, View};

use crate::error::TrainError;
use crate::optim::state_tensor::StateTensor;

/// The bytes of a safetensors file of f32 tensors.
pub(crate) fn serialize<'a>(
    tensors: impl IntoIterator<Item = (String, StateTensor<'a>)>,
    context: &Path,
) -> Result<Vec<u8>, TrainError> {
    // transformers refuses a file without this entry.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let views = tensors.into_iter().map(|(name, tensor)| {
        let bytes = Bytes::new(tensor, is_count(&name));
        (name, bytes)
    });
    safetensors::serialize(views, Some(metadata))
        .map_err(|error| TrainError::Checkpoint { path: context.to_owned(), problem: error.to_string() })
}

/// A tensor as it stands in a file: little-endian.
struct Bytes<'a> {
    shape: Vec<usize>,
    values: Stored<'a>,
}

enum Stored<'a> {
    Floats(Cow<'a, [f32]>),
    Counts(Vec<i64>),
}

impl<'a> Bytes<'a> {
    fn new(tensor: StateTensor<'a>, is_count: bool) -> Self {
        let values = match is_count {
            true => Stored::Counts(tensor.values.iter().map(|value| (*value as i64).to_le()).collect()),
            false if cfg!(target_endian = "big") => {
                Stored::Floats(tensor.values.iter().map(|value| f32::from_bits(value.to_bits().to_le())).collect())
            }
            // Not copied: a checkpoint of a large tower is large enough as it is.
            false => Stored::Floats(tensor.values),
        };
        Self { shape: tensor.shape, values }
    }

    fn bytes(&self) -> &[u8] {
        match &self.values {
            Stored::Floats(values) => bytemuck::cast_slice(values),
            Stored::Counts(values) => bytemuck::cast_slice(values),
        }
    }
}

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Stored::Floats(_) => Dtype::F32,
            Stored::Counts(_) => Dtype::I64,
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
