//! What decides how a step changes parameters, beside its numbers.

/// Where the numbers of a step are, and the limit of its gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepLimits {
    /// Numbers that have to be finite; they come first.
    pub num_checked: usize,
    /// The first of the sums of squares that the squared norm of all gradients consists of; they come last.
    pub first_sum: usize,
    /// Limit of that norm; 0: no limit.
    pub max_norm: f64,
    /// Added to the norm before dividing by it.
    pub epsilon: f64,
}
