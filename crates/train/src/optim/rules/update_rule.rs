//! The interface of an optimiser: the formula for one parameter, twice. Once in place on host memory, once as tensor
//! operations for other devices.

use std::fmt::Debug;

use burn::tensor::Tensor;

use crate::error::TrainError;
use crate::optim::clip::changed;

/// The inputs of one update of one parameter, besides value, gradient and state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Update<'a> {
    /// Shape of the parameter.
    pub shape: &'a [usize],
    /// Number of this update, counted per parameter from 1.
    pub count: i32,
    /// Factor of the gradient that clips the global norm, at most 1.
    pub clip: f64,
    /// Factor of the old value: 1 minus learning rate times weight decay (decoupled weight decay).
    pub decay_factor: f64,
    /// Learning rate.
    pub rate: f64,
}

/// A parameter on a device, with what it is updated by. All tensors are flat.
#[derive(Debug)]
pub(crate) struct OnDevice<'a> {
    pub update: Update<'a>,
    pub value: Tensor<1>,
    pub gradient: Tensor<1>,
    pub state: &'a mut [Tensor<1>],
}

/// Which rows of an embedding table `[rows, width]` can have a gradient other than 0.
pub(crate) struct RowsWithGradient<'a> {
    /// Values per row.
    pub width: usize,
    /// Indices of the rows, sorted.
    pub rows: &'a [usize],
}

/// An optimiser's formula. Values, gradient and each state array are flat. State arrays come in the order of
/// [`UpdateRule::state`] and start as zeros.
pub(crate) trait UpdateRule: Debug + Send + Sync {
    /// Name and length of each state array of a parameter of this shape.
    fn state(&self, shape: &[usize]) -> Vec<(&'static str, usize)>;

    /// Updates `values` and `state` in place. `gradient` is scratch memory afterwards.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when `state` has another number of arrays than [`UpdateRule::state`] names; nothing is
    /// updated then.
    fn on_host(
        &self,
        update: Update<'_>,
        values: &mut [f32],
        gradient: &mut [f32],
        state: &mut [Vec<f32>],
    ) -> Result<(), TrainError>;

    /// Like [`UpdateRule::on_host`], for a table of which only a few rows have a gradient. A rule may skip rows with a
    /// state of 0; it marks the others in `live`, which starts as `None`.
    ///
    /// # Errors
    /// Those of [`UpdateRule::on_host`].
    fn on_host_rows(
        &self,
        update: Update<'_>,
        values: &mut [f32],
        gradient: &mut [f32],
        _with_gradient: RowsWithGradient<'_>,
        state: &mut [Vec<f32>],
        _live: &mut Option<Vec<bool>>,
    ) -> Result<(), TrainError> {
        self.on_host(update, values, gradient, state)
    }

    /// The same formula as tensor operations: returns the new value and updates `state`. All tensors are flat.
    ///
    /// # Errors
    /// Those of [`UpdateRule::on_host`].
    fn on_device(
        &self,
        update: Update<'_>,
        value: Tensor<1>,
        gradient: Tensor<1>,
        state: &mut [Tensor<1>],
    ) -> Result<Tensor<1>, TrainError>;

    /// [`UpdateRule::on_device`] of each of several parameters, with gradients clipped as `control` says, which also
    /// says whether anything changes: returns the new values. Each old value and gradient is dropped before the next
    /// parameter's turn.
    ///
    /// # Errors
    /// Those of [`UpdateRule::on_host`].
    fn each_on_device(&self, parameters: Vec<OnDevice<'_>>, control: &Tensor<1>) -> Result<Vec<Tensor<1>>, TrainError> {
        let mut values = Vec::with_capacity(parameters.len());
        let factor = control.clone().narrow(0, 0, 1);
        for OnDevice { update, value, gradient, state } in parameters {
            let (old_value, old_state) = (value.clone(), state.to_vec());
            let shape = gradient.shape();
            let gradient = gradient * factor.clone().expand(shape);
            values.push(changed(control, self.on_device(update, value, gradient, state)?, old_value));
            for (new, old) in state.iter_mut().zip(old_state) {
                *new = changed(control, new.clone(), old);
            }
        }
        Ok(values)
    }

    /// As [`UpdateRule::each_on_device`]. A rule may take fewer kernels for all of them than for each.
    ///
    /// # Errors
    /// Those of [`UpdateRule::on_host`].
    fn all_on_device(&self, parameters: Vec<OnDevice<'_>>, control: &Tensor<1>) -> Result<Vec<Tensor<1>>, TrainError> {
        self.each_on_device(parameters, control)
    }
}

/// The `N` arrays of a parameter's state.
///
/// # Errors
/// [`TrainError::Internal`] when there is another number of arrays.
pub(crate) fn arrays<const N: usize, T>(state: &mut [T]) -> Result<&mut [T; N], TrainError> {
    let found = state.len();
    let internal = |_| TrainError::Internal(format!("the optimiser state of a parameter has {found} arrays, not {N}"));
    state.try_into().map_err(internal)
}
