//! The gradients of all ranks, added up in one flat buffer.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, TensorData};
use dualenc_kernels::upload;
use dualenc_model::parameters;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::optim::gradients::{Gradient, ParamGradients};
use crate::ranks::exchange::{Exchange, Patience};

/// The form of a gradient, which is that of the other ranks but for the rows of a table.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Form {
    Whole { values: usize },
    Rows { values: usize, width: usize, rows: BTreeSet<usize> },
}

impl Form {
    fn of(gradient: &Gradient) -> Self {
        let values = gradient.len();
        match gradient {
            Gradient::HostRows { width, rows, .. } => {
                Self::Rows { values, width: *width, rows: rows.iter().copied().collect() }
            }
            Gradient::Host(_) | Gradient::Device(_) => Self::Whole { values },
        }
    }

    /// Adds the rows of another rank. Returns false if the forms differ in anything else.
    fn join(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::Whole { values }, Self::Whole { values: other }) => *values == other,
            (Self::Rows { values, width, rows }, Self::Rows { values: others, width: wide, rows: more }) => {
                rows.extend(more);
                (*values, *width) == (others, wide)
            }
            _ => false,
        }
    }
}

/// The sums of the gradients of all ranks, the same to the bit on each.
///
/// # Errors
/// Those of the exchange; [`TrainError::Internal`] when ranks have gradients of different parameters.
pub(crate) fn sum_of_all(ranks: &dyn Exchange, own: ParamGradients) -> Result<ParamGradients, TrainError> {
    if ranks.is_alone() {
        return Ok(own);
    }
    let forms = joined_forms(ranks, &own)?;
    let values = ranks.sum(flat(&own, &forms)?)?;
    with_values(own, forms, &values)
}

/// The forms of the gradients by path, with the rows of all ranks.
fn joined_forms(ranks: &dyn Exchange, own: &ParamGradients) -> Result<BTreeMap<String, Form>, TrainError> {
    let failed = |error: serde_json::Error| TrainError::Internal(format!("the forms of gradients: {error}"));
    let mut joined: BTreeMap<String, Form> =
        own.by_path.iter().map(|(path, gradient)| (path.clone(), Form::of(gradient))).collect();
    let bytes = serde_json::to_vec(&joined).map_err(failed)?;
    for (rank, bytes) in ranks.gather_bytes(bytes, Patience::Deadline)?.into_iter().enumerate() {
        let forms: BTreeMap<String, Form> = serde_json::from_slice(&bytes).map_err(failed)?;
        let differs = || TrainError::Internal(format!("rank {rank} has gradients of other parameters or shapes"));
        if forms.len() != joined.len() {
            return Err(differs());
        }
        for (path, form) in forms {
            if !joined.get_mut(&path).is_some_and(|joined| joined.join(form)) {
                return Err(differs());
            }
        }
    }
    Ok(joined)
}

/// The values that `forms` name, one parameter after the other. Rows that this rank did not read are 0. A device is
/// waited for once.
fn flat(gradients: &ParamGradients, forms: &BTreeMap<String, Form>) -> Result<Vec<f32>, TrainError> {
    let on_device = gradients.by_path.values().filter_map(|gradient| match gradient {
        Gradient::Device(tensor) => Some(tensor.as_ref().clone()),
        Gradient::Host(_) | Gradient::HostRows { .. } => None,
    });
    let mut read = parameters::host_all(on_device.collect())?.into_iter();
    let mut flat = Vec::new();
    for (gradient, form) in gradients.by_path.values().zip(forms.values()) {
        match (gradient, form) {
            (Gradient::HostRows { values, .. }, Form::Rows { width, rows, .. }) => {
                rows.iter().for_each(|row| flat.extend_from_slice(&values[row * width..(row + 1) * width]));
            }
            (Gradient::Device(_), _) => {
                let values = read.next();
                flat.extend(values.ok_or_else(|| TrainError::Internal("a gradient was not read".to_owned()))?);
            }
            (Gradient::Host(values) | Gradient::HostRows { values, .. }, _) => flat.extend_from_slice(values),
        }
    }
    Ok(flat)
}

/// The gradients with the values that [`flat`] lists.
fn with_values(
    mut gradients: ParamGradients,
    forms: BTreeMap<String, Form>,
    mut flat: &[f32],
) -> Result<ParamGradients, TrainError> {
    let mut take = |count: usize| {
        let (taken, rest) = flat.split_at_checked(count).ok_or_else(too_few)?;
        flat = rest;
        Ok::<&[f32], TrainError>(taken)
    };
    for (gradient, form) in gradients.by_path.values_mut().zip(forms.into_values()) {
        match (gradient, form) {
            (Gradient::HostRows { values, rows: own, .. }, Form::Rows { width, rows, .. }) => {
                for row in &rows {
                    values[row * width..(row + 1) * width].copy_from_slice(take(width)?);
                }
                *own = rows.into_iter().collect();
            }
            (Gradient::Device(tensor), _) => {
                let ([count], device): (_, Device) = (tensor.dims(), tensor.device());
                **tensor = upload(TensorData::new(take(count)?.to_vec(), [count]), &device);
            }
            (Gradient::Host(values) | Gradient::HostRows { values, .. }, _) => {
                let taken = take(values.len())?;
                values.copy_from_slice(taken);
            }
        }
    }
    Ok(gradients)
}

fn too_few() -> TrainError {
    TrainError::Internal("fewer values were added up than the gradients have".to_owned())
}
