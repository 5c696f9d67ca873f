//! A batch of any size in the memory of a small one, exactly: gradient caching (Gao et al., 2021, arXiv:2101.06983, sec. 3.2).
//!
//! The features of all parts are computed first, and of each part nothing else is kept. The loss over the whole batch
//! gives their gradients, and those of its temperature and bias, once. Then each part runs again, with the same dropout,
//! and hands its share of the features' gradients on to the parameters.

use std::time::Duration;

use burn::tensor::{Tensor, TensorData};
use dualenc_data::{Batch, DataError, TokenBatch};
use dualenc_model::parameters;

use crate::error::TrainError;
use crate::gradients::ParamGradients;
use crate::run::Run;
use crate::step::{Features, LockedOutputs, StepOutcome, loss};

#[cfg(test)]
mod tests;

/// As [`step::forward_backward`](crate::step::forward_backward), of a step that comes in parts.
pub(crate) fn forward_backward(
    run: &Run,
    first: Batch,
    more: &mut impl Iterator<Item = Result<Batch, DataError>>,
) -> Result<StepOutcome, TrainError> {
    let mut parts = vec![first];
    let mut outputs = Vec::new();
    let (mut image, mut text) = (Vec::new(), Vec::new());
    let untracked = parameters::untracked(run.model.clone());
    loop {
        let at = parts.len() - 1;
        let locked = LockedOutputs::of(run, &parts[at])?;
        let features = locked.features(run, &untracked, &parts[at])?;
        image.extend(values(features.image)?);
        text.extend(values(features.text)?);
        outputs.push(locked);
        parts[at].pixels = Vec::new();
        match parts[at].ends_pass {
            true => break,
            false => parts.push(next(more)?),
        }
    }
    drop(untracked);
    let mut batch = whole(&parts);

    let leaf = |values: Vec<f32>| {
        let shape = [batch.pairs.len(), values.len() / batch.pairs.len()];
        Tensor::<2>::from_data(TensorData::new(values, shape), &run.compute.device).autodiff().require_grad()
    };
    let (image, text) = (leaf(image), leaf(text));
    let loss = loss(run, &batch, image.clone(), text.clone());
    let mut all = loss.loss.backward();
    let mut gradients = ParamGradients::take(&run.model, &mut all, None, run.compute.on_host)?;
    let by_image = image.grad_remove(&mut all);
    let by_text = text.grad_remove(&mut all);
    drop(all);

    let mut start = 0;
    for (part, locked) in parts.iter().zip(&outputs) {
        // An image tower that trains needs the pixels again, which nobody kept.
        let again = run.trains_on_pixels().then(|| next(more)).transpose()?;
        let part = again.as_ref().unwrap_or(part);
        batch.waited += again.as_ref().map_or(Duration::ZERO, |again| again.waited);
        let Features { image, text, words } = locked.features(run, &run.model, part)?;
        let rows = start..start + part.pairs.len();
        let share = |features: Tensor<2>, gradient: &Option<Tensor<2>>| {
            let gradient = gradient.as_ref()?.clone().slice([rows.clone()]);
            features.is_autodiff().then(|| (features * gradient).sum())
        };
        let shares = [share(image, &by_image), share(text, &by_text)];
        if let Some(sum) = shares.into_iter().flatten().reduce(|image, text| image + text) {
            let mut all = sum.backward();
            gradients.add(ParamGradients::take(&run.model, &mut all, words, run.compute.on_host)?);
        }
        start = rows.end;
    }
    StepOutcome::new(batch, loss, gradients)
}

fn next(more: &mut impl Iterator<Item = Result<Batch, DataError>>) -> Result<Batch, TrainError> {
    let ended = || DataError::Loader { reason: "a step ended before its last part".to_owned() };
    Ok(more.next().unwrap_or_else(|| Err(ended()))?)
}

fn values(features: Tensor<2>) -> Result<Vec<f32>, TrainError> {
    Ok(parameters::host(features.without_autodiff())?.values)
}

/// The parts as one batch, without their pixels.
fn whole(parts: &[Batch]) -> Batch {
    let last = parts.len() - 1;
    let mut whole = Batch { part: 0, ends_pass: true, tokens: TokenBatch::default(), ..parts[last].clone() };
    (whole.pairs, whole.skipped, whole.loaded) = (Vec::new(), Vec::new(), Vec::new());
    whole.waited = parts.iter().map(|part| part.waited).sum();
    for part in parts {
        whole.pairs.extend_from_slice(&part.pairs);
        whole.skipped.extend_from_slice(&part.skipped);
    }
    whole
}
