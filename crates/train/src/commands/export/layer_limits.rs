//! No format but `heads` can express a tower that concatenates several layers.

use dualenc_model::Tower;

use crate::commands::export::head_limits::ANY_MODEL;
use crate::error::TrainError;

/// Refuses a tower that concatenates the pooled outputs of several `layers`, which `program` cannot do.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_layers(program: &str, tower: Tower, layers: &[usize]) -> Result<(), TrainError> {
    if layers.is_empty() {
        return Ok(());
    }
    Err(TrainError::Usage(format!(
        "{program} pools one layer of a tower, but the {tower} of this model concatenates layers {}; to export, train \
         with one layer as `{}_layer`; {ANY_MODEL}",
        listed(layers),
        tower.kind()
    )))
}

/// The numbers of layers in words: `9, 10, 11`.
pub(crate) fn listed(layers: &[usize]) -> String {
    layers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
