//! What a step of AdamW needs beside its tensors.

/// The constants of a step of AdamW (Loshchilov and Hutter, arXiv:1711.05101, alg. 2) for one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Weights of the old first and second moment.
    pub betas: [f64; 2],
    /// Added to the square root of the second moment.
    pub epsilon: f64,
    /// Factor of the old value.
    pub decay_factor: f64,
    /// Learning rate over the first moment's bias correction.
    pub rate: f64,
    /// Square root of the second moment's bias correction.
    pub second_root: f64,
}
