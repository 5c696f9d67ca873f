//! A tensor of weights, optimiser state or averages, on its way into a checkpoint.

use std::borrow::Cow;
use std::fmt;

use dualenc_model::parameters::ParamReader;
use dualenc_model::{HostTensor, ModelError};

/// A tensor that is borrowed where its owner holds it in host memory, and else read when it is needed: so a checkpoint
/// copies one tensor at a time.
pub struct StateTensor<'a> {
    /// Size of each dimension.
    pub shape: Vec<usize>,
    values: Values<'a>,
}

/// Reads the values.
type Read<'a> = Box<dyn Fn() -> Result<Vec<f32>, ModelError> + 'a>;

enum Values<'a> {
    Host(Cow<'a, [f32]>),
    Parameter(ParamReader),
    Read(Read<'a>),
}

impl<'a> StateTensor<'a> {
    /// One with these values, row-major.
    pub fn of(shape: Vec<usize>, values: impl Into<Cow<'a, [f32]>>) -> Self {
        Self { shape, values: Values::Host(values.into()) }
    }

    /// One that `read` returns the values of.
    pub fn read_by(shape: Vec<usize>, read: impl Fn() -> Result<Vec<f32>, ModelError> + 'a) -> Self {
        Self { shape, values: Values::Read(Box::new(read)) }
    }

    /// The values, row-major.
    ///
    /// # Errors
    /// [`ModelError::Device`] when the device cannot return its data.
    pub fn values(&self) -> Result<Cow<'_, [f32]>, ModelError> {
        match &self.values {
            Values::Host(values) => Ok(Cow::Borrowed(values)),
            Values::Parameter(reader) => reader.values(),
            Values::Read(read) => read().map(Cow::Owned),
        }
    }
}

impl fmt::Debug for StateTensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateTensor").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl From<HostTensor> for StateTensor<'_> {
    fn from(tensor: HostTensor) -> Self {
        Self::of(tensor.shape, tensor.values)
    }
}

impl From<ParamReader> for StateTensor<'_> {
    fn from(reader: ParamReader) -> Self {
        Self { shape: reader.shape.clone(), values: Values::Parameter(reader) }
    }
}
