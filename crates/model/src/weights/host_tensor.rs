//! A tensor on the host.

/// A tensor on the host, in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Size of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Vec<f32>,
}

impl HostTensor {
    /// The identity matrix, `[width, width]`.
    #[must_use]
    pub fn identity(width: usize) -> Self {
        let mut values = vec![0.0; width * width];
        values.iter_mut().step_by(width + 1).for_each(|value| *value = 1.0);
        Self { shape: vec![width, width], values }
    }
}
