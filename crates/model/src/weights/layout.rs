//! How a parameter is laid out on disk, and converting it there and back.

use crate::error::ModelError;
use crate::weights::host_tensor::HostTensor;
use crate::weights::matrix::{Part, transpose};
use crate::weights::stored_tensor::StoredTensor;

/// How a parameter is laid out on disk, relative to the model's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The same.
    Same,
    /// `[in, out]` in the model, `[out, in]` on disk (PyTorch's Linear).
    Transposed,
    /// `[3 * patch * patch, width]` in the model, `[width, 3, patch, patch]` on disk: a convolution with stride =
    /// kernel size.
    Patches,
    /// `[n, width]` in the model; this many leading dimensions of size 1 on disk.
    Leading(usize),
    /// `[1, width]` in the model; `[width]` with this many leading dimensions of size 1 on disk.
    LeadingVector(usize),
    /// `[1]` in the model, a scalar on disk.
    Scalar,
    /// `[in, out]` in the model, one part of `[parts * out, in]` on disk (queries, keys and values in one matrix).
    TransposedPart(Part),
    /// `[out]` in the model, one part of `[parts * out]` on disk.
    VectorPart(Part),
}

impl Layout {
    /// The shape on disk of a parameter with this `shape` in the model.
    pub fn stored_shape(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::Transposed, [input, output]) => vec![*output, *input],
            (Self::Patches, [input, width]) => {
                let side = ((input / 3) as f64).sqrt().round() as usize;
                vec![*width, 3, side, side]
            }
            (Self::Leading(ones), _) => [vec![1; ones], shape.to_vec()].concat(),
            (Self::LeadingVector(ones), [1, width]) => [vec![1; ones], vec![*width]].concat(),
            (Self::Scalar, _) => Vec::new(),
            (Self::TransposedPart(part), [input, output]) => vec![part.of * output, *input],
            (Self::VectorPart(part), [output]) => vec![part.of * output],
            _ => shape.to_vec(),
        }
    }

    /// Reads the values in the model's layout: of a tensor with parts, only its own.
    ///
    /// # Errors
    /// As [`StoredTensor::read`].
    pub fn decode(self, tensor: &StoredTensor) -> Result<Vec<f32>, ModelError> {
        match self {
            Self::Transposed | Self::Patches => tensor.read_transposed(),
            Self::TransposedPart(part) => tensor.part(part).read_transposed(),
            Self::VectorPart(part) => tensor.part(part).read(),
            _ => tensor.read(),
        }
    }

    /// Writes a parameter into the tensor on disk, which another part may have created.
    pub fn encode(self, shape: &[usize], values: Vec<f32>, stored: &mut Option<HostTensor>) {
        let stored_shape = self.stored_shape(shape);
        let values = match self {
            Self::Transposed | Self::Patches | Self::TransposedPart(_) => transpose(&values, shape[0], shape[1]),
            _ => values,
        };
        match self {
            Self::TransposedPart(part) | Self::VectorPart(part) => {
                let count = stored_shape.iter().product();
                let whole = stored.get_or_insert_with(|| HostTensor { shape: stored_shape, values: vec![0.0; count] });
                whole.values[part.range(count)].copy_from_slice(&values);
            }
            _ => *stored = Some(HostTensor { shape: stored_shape, values }),
        }
    }
}
