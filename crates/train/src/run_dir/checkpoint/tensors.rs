//! Tensors as the bytes of a safetensors file, and back. One tensor at a time is converted, and values are not copied
//! unless they must be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use dualenc_model::{HostTensor, ModelError, is_count};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::error::TrainError;
use crate::optim::state_tensor::StateTensor;

/// The largest header that the format allows, in bytes.
const MAX_HEADER_BYTES: usize = 100_000_000;

/// Headers are filled up with spaces to a multiple of this, in bytes.
const ALIGNMENT: usize = 8;

/// A safetensors file of f32 tensors that is not written yet. Names that count something, such as
/// `num_batches_tracked`, become i64.
pub(crate) struct TensorFile<'a> {
    /// With its length before it.
    header: Vec<u8>,
    num_bytes: u64,
    /// In the order of the file: whether it is a count, and its name.
    tensors: Vec<(bool, String, StateTensor<'a>)>,
}

/// A tensor of a [`TensorFile`] that is about to be written.
pub(crate) struct FileTensor<'a> {
    pub name: &'a str,
    /// Row-major.
    pub values: &'a [f32],
    /// The values as they stand in the file.
    pub bytes: &'a [u8],
}

impl<'a> TensorFile<'a> {
    /// `context`: the path that errors name.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the tensors do not fit the format, such as too many for its header.
    pub fn new(
        tensors: impl IntoIterator<Item = (String, StateTensor<'a>)>,
        context: &Path,
    ) -> Result<Self, TrainError> {
        let failed = |problem: String| TrainError::Checkpoint { path: context.to_owned(), problem };
        let mut tensors: Vec<_> = tensors.into_iter().map(|(name, tensor)| (is_count(&name), name, tensor)).collect();
        // As the safetensors crate orders them: the widest type first, then by name.
        tensors.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
        let (mut infos, mut end) = (Vec::new(), 0);
        for (is_count, name, tensor) in &tensors {
            let dtype = if *is_count { Dtype::I64 } else { Dtype::F32 };
            let start = end;
            end += tensor.shape.iter().product::<usize>() * dtype.bitsize() / 8;
            infos.push((name.clone(), TensorInfo { dtype, shape: tensor.shape.clone(), data_offsets: (start, end) }));
        }
        // transformers refuses a file without this entry.
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        let metadata = Metadata::new(Some(metadata), infos).map_err(|error| failed(error.to_string()))?;
        let mut text = serde_json::to_vec(&metadata).map_err(|error| failed(error.to_string()))?;
        text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
        if text.len() > MAX_HEADER_BYTES {
            let len = text.len();
            return Err(failed(format!("its header has {len} bytes, the format allows {MAX_HEADER_BYTES}")));
        }
        let header = [&(text.len() as u64).to_le_bytes()[..], &text].concat();
        let num_bytes = (header.len() + end) as u64;
        Ok(Self { header, num_bytes, tensors })
    }

    /// Size of the file.
    pub fn num_bytes(&self) -> u64 {
        self.num_bytes
    }

    /// The file up to the first tensor.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Passes one tensor after the other to `put`. Each is read once.
    ///
    /// # Errors
    /// Those of `put`; [`ModelError::Device`] when the device cannot return its data, and [`ModelError::Internal`] when
    /// it returns another number of values than the header says.
    pub fn each<E: From<ModelError>>(&self, mut put: impl FnMut(FileTensor<'_>) -> Result<(), E>) -> Result<(), E> {
        for (is_count, name, tensor) in &self.tensors {
            let values = tensor.values()?;
            if values.len() != tensor.shape.iter().product::<usize>() {
                let problem = format!("a tensor of the shape {:?} has {} values", tensor.shape, values.len());
                return Err(ModelError::Internal(problem).into());
            }
            put(FileTensor { name, values: &values, bytes: FileValues::new(&values, *is_count).bytes() })?;
        }
        Ok(())
    }
}

/// The bytes of a [`TensorFile`].
///
/// # Errors
/// Those of [`TensorFile::new`]; [`TrainError::Model`] when the device cannot return its data.
pub(crate) fn serialize<'a>(
    tensors: impl IntoIterator<Item = (String, StateTensor<'a>)>,
    context: &Path,
) -> Result<Vec<u8>, TrainError> {
    let mut file = TensorFile::new(tensors, context)?;
    let mut bytes = std::mem::take(&mut file.header);
    file.each(|tensor| {
        bytes.extend_from_slice(tensor.bytes);
        Ok::<(), TrainError>(())
    })?;
    Ok(bytes)
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

/// Values in the file's types and byte order, little-endian.
enum FileValues<'a> {
    Floats(Cow<'a, [f32]>),
    Counts(Vec<i64>),
}

impl<'a> FileValues<'a> {
    fn new(values: &'a [f32], is_count: bool) -> Self {
        if is_count {
            Self::Counts(values.iter().map(|value| (*value as i64).to_le()).collect())
        } else if cfg!(target_endian = "big") {
            Self::Floats(values.iter().map(|value| f32::from_bits(value.to_bits().to_le())).collect())
        } else {
            Self::Floats(Cow::Borrowed(values))
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Floats(values) => bytemuck::cast_slice(values),
            Self::Counts(values) => bytemuck::cast_slice(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn bytes_are_those_of_the_safetensors_crate() {
        let tensor = |shape: &[usize], first: f32| {
            let values = (0..shape.iter().product()).map(|n| first + n as f32).collect();
            HostTensor { shape: shape.to_vec(), values }
        };
        let tensors: BTreeMap<String, HostTensor> = [
            ("b.weight", tensor(&[2, 3], 0.5)),
            ("a.num_batches_tracked", tensor(&[], 7.0)),
            ("a.bias", tensor(&[5], -2.0)),
            ("c.empty", tensor(&[0, 4], 0.0)),
            ("c.num_batches_tracked", tensor(&[], 3.0)),
        ]
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .into();
        let bytes: BTreeMap<&str, Vec<u8>> = tensors
            .iter()
            .map(|(name, tensor)| {
                let bytes: Vec<u8> = match is_count(name) {
                    true => tensor.values.iter().flat_map(|&value| (value as i64).to_le_bytes()).collect(),
                    false => tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                };
                (name.as_str(), bytes)
            })
            .collect();
        let views = bytes.iter().map(|(&name, bytes)| {
            let dtype = if is_count(name) { Dtype::I64 } else { Dtype::F32 };
            (name, TensorView::new(dtype, tensors[name].shape.clone(), bytes).unwrap())
        });
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        let expected = safetensors::serialize(views, Some(metadata)).unwrap();

        // Values that are borrowed, and values that are read.
        let borrowed =
            tensors.iter().map(|(name, it)| (name.clone(), StateTensor::of(it.shape.clone(), it.values.as_slice())));
        assert_eq!(serialize(borrowed, Path::new("x")).unwrap(), expected);
        fn read(it: &HostTensor) -> StateTensor<'_> {
            StateTensor::read_by(it.shape.clone(), || Ok(it.values.clone()))
        }
        let file = TensorFile::new(tensors.iter().map(|(name, it)| (name.clone(), read(it))), Path::new("x")).unwrap();
        assert_eq!(file.num_bytes(), expected.len() as u64);
        assert_eq!(deserialize(&expected).unwrap(), tensors);
    }

    #[test]
    fn other_number_of_values_is_an_error() {
        let tensor = StateTensor::read_by(vec![2, 3], || Ok(vec![0.0; 5]));
        let error = serialize([("a".to_owned(), tensor)], Path::new("x")).unwrap_err().to_string();
        assert!(error.contains("a tensor of the shape [2, 3] has 5 values"), "{error}");
    }
}
