//! Processed images on their way to a locked tower. For a device they are rounded to the tower's precision by the
//! worker threads: half as many bytes are then copied, on the one thread that feeds the device too.

use burn::tensor::{DType, Device, Tensor, TensorData, bf16, f16};
use dualenc_kernels::upload;

use crate::config::Precision;

/// The values of some images, flat.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pixels {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Pixels {
    pub fn new(values: Vec<f32>, format: Precision) -> Self {
        match format {
            Precision::F32 => Self::F32(values),
            Precision::F16 => Self::F16(values.into_iter().map(f16::from_f32).collect()),
            Precision::Bf16 => Self::Bf16(values.into_iter().map(bf16::from_f32).collect()),
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// The values, of which none are left.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::F32(Vec::new()))
    }

    /// Appends the values once more.
    pub fn double(&mut self) {
        match self {
            Self::F32(values) => values.extend_from_within(..),
            Self::F16(values) => values.extend_from_within(..),
            Self::Bf16(values) => values.extend_from_within(..),
        }
    }

    /// The values of all parts, which have one format.
    ///
    /// # Panics
    /// If they have not.
    pub fn concat(parts: &[Self]) -> Self {
        macro_rules! join {
            ($format:ident) => {
                Self::$format(join(parts.iter().map(|part| match part {
                    Self::$format(values) => values.as_slice(),
                    _ => unreachable!("one pass makes its pixels in one format"),
                })))
            };
        }
        match parts.first() {
            None | Some(Self::F32(_)) => join!(F32),
            Some(Self::F16(_)) => join!(F16),
            Some(Self::Bf16(_)) => join!(Bf16),
        }
    }

    /// Places the values on `device` as they are.
    pub fn into_tensor<const D: usize>(self, shape: [usize; D], device: &Device) -> Tensor<D> {
        match self {
            Self::F32(values) => upload(TensorData::new(values, shape), device),
            Self::F16(values) => upload(TensorData::new(values, shape), (device, DType::F16)),
            Self::Bf16(values) => upload(TensorData::new(values, shape), (device, DType::BF16)),
        }
    }
}

fn join<'a, T: Copy + 'a>(parts: impl Iterator<Item = &'a [T]>) -> Vec<T> {
    parts.collect::<Vec<_>>().concat()
}

#[cfg(test)]
#[cfg(feature = "flex")]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_rounded_to_format() {
        // Not a number of either format: 1 + 2^-12 lies between two numbers of both.
        let values = vec![1.0 + 2f32.powi(-12), -0.75];
        for (format, dtype) in
            [(Precision::F32, DType::F32), (Precision::F16, DType::F16), (Precision::Bf16, DType::BF16)]
        {
            let mut pixels = Pixels::new(values.clone(), format);
            assert_eq!(Pixels::concat(&[pixels.clone(), pixels.clone()]).len(), 4);
            pixels.double();
            let tensor = pixels.take().into_tensor([2, 2], &Device::flex());
            assert_eq!((tensor.dtype(), pixels.len()), (dtype, 0));
            let found: Vec<f32> = tensor.cast(DType::F32).into_data().try_into_vec().unwrap();
            let first = if format == Precision::F32 { values[0] } else { 1.0 };
            assert_eq!(found, [first, -0.75, first, -0.75]);
        }
    }
}
