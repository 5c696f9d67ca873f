//! Reading a tensor in host memory where it is.

use std::ops::Deref;

use burn::tensor::Tensor;

/// The values of a tensor, row-major; shares the tensor's memory, which no update can change in place until this is
/// dropped.
#[derive(Clone, Debug)]
pub struct HostValues(Shared);

#[cfg(feature = "flex")]
type Shared = crate::cpu::autograd::Values;

/// Without Flex, no tensor is shared.
#[cfg(not(feature = "flex"))]
type Shared = std::convert::Infallible;

impl Deref for HostValues {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        #[cfg(feature = "flex")]
        return self.0.get();
        #[cfg(not(feature = "flex"))]
        match self.0 {}
    }
}

/// The values of an `f32` tensor of the Flex backend, without a copy; `None` for any other tensor. Burn's own way to
/// the host copies a tensor that is shared twice.
pub fn host_values<const D: usize>(tensor: &Tensor<D>) -> Option<HostValues> {
    #[cfg(feature = "flex")]
    if tensor.dtype() == burn::tensor::DType::F32 {
        let plain = tensor.clone().without_autodiff().try_into_primitive::<burn::backend::Flex>();
        return plain.ok().map(|values| HostValues(values.into()));
    }
    let _ = tensor;
    None
}

#[cfg(feature = "flex")]
#[cfg(test)]
mod tests {
    use burn::tensor::{Device, FloatDType};

    use super::*;

    #[test]
    fn values_are_read_where_they_are() {
        let x = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::flex());
        let [one, other] = [&x, &x.clone().autodiff().require_grad()].map(|x| host_values(x).unwrap());
        assert_eq!(&one[..], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(one.as_ptr(), other.as_ptr());
        assert_eq!(&host_values(&x.clone().transpose()).unwrap()[..], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert!(host_values(&x.cast(FloatDType::F16)).is_none());
    }
}
