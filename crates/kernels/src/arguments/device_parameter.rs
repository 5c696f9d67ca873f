//! A parameter with what updates it, on a device.

use burn::tensor::Tensor;

/// What a step of AdamW reads of a parameter, and what it writes, all flat.
#[derive(Debug, Clone)]
pub struct DeviceParameter {
    /// The parameter itself.
    pub value: Tensor<1>,
    /// Its gradient.
    pub gradient: Tensor<1>,
    /// The first and the second moment.
    pub moments: [Tensor<1>; 2],
}
