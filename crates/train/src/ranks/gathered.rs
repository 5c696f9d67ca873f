//! What all ranks must know of a whole batch: its pairs and their features.

use std::time::Duration;

use burn::tensor::{Tensor, TensorData};
use dualenc_data::{Batch, ContentId, Pair, Skipped};
use dualenc_kernels::upload;
use dualenc_model::{HostTensor, parameters};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::ranks::exchange::{Exchange, Patience};

/// The part of a batch that a rank loaded, as it tells it to the others.
#[derive(Serialize, Deserialize)]
struct Told {
    step: u64,
    /// Image and caption of each pair.
    pairs: Vec<[usize; 2]>,
    captions: Vec<usize>,
    contents: Vec<ContentId>,
    skipped: Vec<Skipped>,
    waited: Duration,
}

/// The whole batch from the parts of each rank, `own` those of this one; without pixels and tokens.
///
/// # Errors
/// Those of the exchange; [`TrainError::Internal`] when ranks are at different steps.
pub(crate) fn whole_batch(ranks: &dyn Exchange, own: Batch) -> Result<Batch, TrainError> {
    if ranks.is_alone() {
        return Ok(own);
    }
    let told = Told {
        step: own.step,
        pairs: own.pairs.iter().map(|pair| [pair.image, pair.caption]).collect(),
        captions: own.captions,
        contents: own.contents,
        skipped: own.skipped,
        waited: own.waited,
    };
    let unreadable = |error: serde_json::Error| TrainError::Internal(format!("what a rank tells: {error}"));
    let bytes = serde_json::to_vec(&told).map_err(unreadable)?;
    let mut whole =
        Batch { step: own.step, epoch: own.epoch, view: own.view, is_last_of_pass: true, ..Batch::default() };
    for bytes in ranks.gather_bytes(bytes, Patience::Deadline)? {
        let told: Told = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if told.step != whole.step {
            let steps = [whole.step + 1, told.step + 1];
            return Err(TrainError::Internal(format!("ranks are at the steps {steps:?}")));
        }
        whole.pairs.extend(told.pairs.into_iter().map(|[image, caption]| Pair { image, caption }));
        whole.captions.extend(told.captions);
        whole.contents.extend(told.contents);
        whole.skipped.extend(told.skipped);
        whole.waited = whole.waited.max(told.waited);
    }
    Ok(whole)
}

/// The rows `[rows, width]` of all ranks, in the order of ranks, and the number of rows before those of this rank.
///
/// # Errors
/// Those of the exchange; [`TrainError::Model`] when the device cannot return its data.
pub(crate) fn all_rows(ranks: &dyn Exchange, own: Tensor<2>) -> Result<(Tensor<2>, usize), TrainError> {
    if ranks.is_alone() {
        return Ok((own, 0));
    }
    let (device, [_, width]) = (own.device(), own.dims());
    let HostTensor { values, .. } = parameters::host(own)?;
    let all = ranks.gather_values(values)?;
    let before: usize = all.iter().take(ranks.rank()).map(|values| values.len()).sum();
    let values: Vec<f32> = all.iter().flat_map(|values| values.iter().copied()).collect();
    let shape = [values.len() / width.max(1), width];
    Ok((upload(TensorData::new(values, shape), &device), before / width.max(1)))
}

/// What each rank gives, in the order of ranks.
///
/// # Errors
/// Those of the exchange.
pub(crate) fn of_all<T: Serialize + for<'de> Deserialize<'de>>(
    ranks: &dyn Exchange,
    own: T,
    patience: Patience,
) -> Result<Vec<T>, TrainError> {
    if ranks.is_alone() {
        return Ok(vec![own]);
    }
    let failed = |error: serde_json::Error| TrainError::Internal(format!("what a rank tells: {error}"));
    let all = ranks.gather_bytes(serde_json::to_vec(&own).map_err(failed)?, patience)?;
    all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(failed)).collect()
}
