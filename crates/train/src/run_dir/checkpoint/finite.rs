//! A state with a value that is NaN or infinite is not saved.

use dualenc_kernels::CHUNK;
use rayon::prelude::*;

use crate::error::TrainError;

/// Looks for a value of the tensor `name` that is NaN or infinite. `step`: updates done.
///
/// # Errors
/// [`TrainError::SpoiledWeights`] when it holds one.
pub(crate) fn check_finite(step: u64, name: &str, values: &[f32]) -> Result<(), TrainError> {
    match num_not_finite(values) {
        None => Ok(()),
        Some(count) => Err(TrainError::SpoiledWeights { step, tensor: name.to_owned(), count, all: values.len() }),
    }
}

/// How many values are NaN or infinite; `None`: all are finite.
fn num_not_finite(values: &[f32]) -> Option<usize> {
    // Without an early end, which would keep the compiler from using vectors.
    let are_finite = |values: &[f32]| values.iter().fold(true, |all, value| all & value.is_finite());
    if values.par_chunks(CHUNK).all(are_finite) {
        return None;
    }
    Some(values.iter().filter(|value| !value.is_finite()).count())
}
