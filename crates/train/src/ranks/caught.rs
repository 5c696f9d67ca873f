//! A panic of a rank as its error.

use dualenc_data::CaughtPanic;

use crate::device_panics::failure_of;
use crate::error::TrainError;

/// The result of a rank. A panic is the failure of its device that it tells of, or a bug.
pub(super) fn caught<T>(result: Result<Result<T, TrainError>, CaughtPanic>) -> Result<T, TrainError> {
    result.unwrap_or_else(|panic| {
        Err(match failure_of(&panic.message) {
            Some(failure) => TrainError::DeviceFailed { failure },
            None => TrainError::Internal(panic.to_string()),
        })
    })
}
