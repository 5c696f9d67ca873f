//! What every optimiser is: a formula for one parameter, over host memory and as tensor operations. A file holds one each.

use std::fmt::Debug;

use burn::tensor::Tensor;

/// Elements that one task updates.
pub(crate) const CHUNK: usize = 1 << 14;

/// What a rule is told of one update of one parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Update<'a> {
    /// The parameter's.
    pub shape: &'a [usize],
    /// Which of the parameter's own updates this is, from 1.
    pub count: i32,
    /// What the gradient is multiplied with, so that the norm of all fits the limit.
    pub clip: f64,
    /// What decoupled weight decay leaves of the value.
    pub keep: f64,
    /// The learning rate.
    pub rate: f64,
}

/// The rows of a table that can have a gradient.
pub(crate) struct RowsWithGradient<'a> {
    /// Values of a row.
    pub width: usize,
    /// Their numbers, sorted.
    pub read: &'a [usize],
}

/// The formula of an optimiser. Everything is flat; state comes in the order of [`UpdateRule::state`] and starts as zeros.
pub(crate) trait UpdateRule: Debug + Send + Sync {
    /// Name and length of each array that is kept of a parameter of this shape.
    fn state(&self, shape: &[usize]) -> Vec<(&'static str, usize)>;

    /// In place. What is left in `gradient` is of no use.
    fn on_host(&self, update: Update<'_>, values: &mut [f32], gradient: &mut [f32], state: &mut [Vec<f32>]);

    /// The same for a table of which all but few rows have a gradient of 0. `live` is the rule's to keep and begins as
    /// `None`.
    fn on_host_rows(
        &self,
        update: Update<'_>,
        values: &mut [f32],
        gradient: &mut [f32],
        _rows: RowsWithGradient<'_>,
        state: &mut [Vec<f32>],
        _live: &mut Option<Vec<bool>>,
    ) {
        self.on_host(update, values, gradient, state);
    }

    /// As tensor operations.
    fn on_device(
        &self,
        update: Update<'_>,
        value: Tensor<1>,
        gradient: Tensor<1>,
        state: &mut [Tensor<1>],
    ) -> Tensor<1>;
}
