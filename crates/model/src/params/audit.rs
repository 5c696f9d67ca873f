//! What loading a tower found.

/// Accounts for every parameter and every stored tensor of a tower: nothing is silently missing, unused or mis-shaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Parameters that the weights lack, by their Hugging Face names. They are initialised at random.
    pub missing: Vec<String>,
    /// Tensors of the weights that the model does not use, such as task heads.
    pub unused: Vec<String>,
    /// Tensors of another shape than the parameter, as `name: expected [..], found [..]`.
    pub mismatched: Vec<String>,
    /// Number of parameters read.
    pub loaded: usize,
    /// Number of stored tensors that those parameters came from.
    pub tensors: usize,
    /// What loading changed or left out, in words: a prefix taken off the names, a layer that the tower lacks.
    pub notes: Vec<String>,
}
