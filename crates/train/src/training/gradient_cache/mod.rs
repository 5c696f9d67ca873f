//! A large batch in the memory of a small one, with exact gradients: gradient caching (Gao et al., 2021,
//! arXiv:2101.06983, sec. 3.2).
//!
//! First the features of all parts are computed without a graph. One loss over the whole batch gives the gradients of
//! these features, of `logit_scale` and of `logit_bias`. Then each part runs again, with the same dropout, and
//! backpropagates its rows of the features' gradients into the parameters.
//!
//! Several ranks share the parts. Each also computes the rows of the loss that belong to its parts, from the features
//! of all. What parts and rows contribute is added up in a tree over parts and ranks that depends only on the number of
//! parts.
//!
//! - `loss_in_rows`: the loss

use std::ops::Range;
use std::time::Duration;

use burn::tensor::Tensor;
use dualenc_data::{Batch, DataError, ProcessedImages, TokenBatch};
use dualenc_model::parameters;

use crate::error::TrainError;
use crate::optim::gradients::ParamGradients;
use crate::ranks::gathered::{all_rows, whole_batch};
use crate::ranks::gradients::sum_of_all;
use crate::ranks::tree::{halvings_of_share, sum_in_tree};
use crate::training::gradient_cache::loss_in_rows::{LossInRows, loss_in_rows};
use crate::training::locked_inputs::LockedFeatures;
use crate::training::step::{Computed, Features, StepContext};

mod loss_in_rows;
#[cfg(test)]
mod tests;

/// [`step::forward_backward`](crate::training::step::forward_backward) for a step in parts. `first` is the first part
/// of this rank; the others, twice where pixels are needed twice, come from `more`.
///
/// # Errors
/// Those of `step::forward_backward`; [`TrainError::Data`] when the loader fails, reads other images in the second
/// pass, or the ranks together find too many images unreadable; [`TrainError::OfRank`] when another rank fails.
pub(crate) fn forward_backward(
    context: &StepContext<'_>,
    first: Batch,
    more: &mut impl Iterator<Item = Result<Batch, DataError>>,
) -> Result<Computed, TrainError> {
    let mut parts = vec![first];
    let mut outputs = Vec::new();
    let (mut image, mut text) = (Vec::new(), Vec::new());
    let untracked = parameters::untracked(context.model.clone());
    let mut forward = |locked: &LockedFeatures, part: &Batch| -> Result<(), TrainError> {
        let features = context.features(&untracked, locked, part)?;
        image.push(features.image.without_autodiff());
        text.push(features.text.without_autodiff());
        Ok(())
    };
    let blends = context.terms.mixup_alpha.is_some();
    loop {
        let at = parts.len() - 1;
        let locked = context.locked.of_batch(&parts[at])?;
        // A partner may be in another part.
        if !blends {
            forward(&locked, &parts[at])?;
        }
        outputs.push(locked.without_states());
        parts[at].pixels = ProcessedImages::default();
        if parts[at].is_last_of_pass {
            break;
        }
        parts.push(next(more)?);
    }
    let mut batch = whole_batch(context.ranks, whole(&parts))?;
    context.data.record_skipped(&mut batch)?;
    let joined = match (blends, context.terms.structure) {
        (false, None) => LockedFeatures::default(),
        _ => {
            let (joined, before) = LockedFeatures::joined(&outputs).of_all_ranks(context.ranks)?;
            let joined = joined.blended(context.mixing(&batch).as_ref());
            if blends {
                outputs = joined.split_as(&outputs, before);
                outputs.iter().zip(&parts).try_for_each(|(locked, part)| forward(locked, part))?;
            }
            joined
        }
    };
    drop(untracked);

    let (image, images_before) = all_rows(context.ranks, Tensor::cat(image, 0))?;
    let (text, texts_before) = all_rows(context.ranks, Tensor::cat(text, 0))?;
    let pairs: Vec<usize> = parts.iter().map(|part| part.pairs.len()).collect();
    let known = context.known(&batch, &joined)?;
    drop(joined);
    let LossInRows { loss, by_features: [by_image, by_text], by_parameters } =
        loss_in_rows(context, &known, [image, text], (images_before, &pairs))?;
    drop(known);

    let (mut next_image, mut next_text) = (images_before, texts_before);
    let mut of_part = |at: usize| {
        let (part, locked) = (&parts[at], &outputs[at]);
        // An image tower that trains needs the pixels again; they were dropped after the first pass.
        let again = context.locked.needs_pixels_twice().then(|| next(more)).transpose()?;
        if let Some(again) = &again {
            check_repeats(context, part, again)?;
        }
        let part = again.as_ref().unwrap_or(part);
        batch.waited += again.as_ref().map_or(Duration::ZERO, |again| again.waited);
        let locked = context.locked.with_states(locked, part)?;
        let Features { image, text, words } = context.features(context.model, &locked, part)?;
        let images = next_image..next_image + part.pairs.len();
        // The captions of a pair follow each other.
        let texts = next_text..next_text + part.pairs.len() * part.slots();
        (next_image, next_text) = (images.end, texts.end);
        let share = |features: Tensor<2>, gradient: &Tensor<2>, rows: Range<usize>| {
            let gradient = gradient.clone().slice([rows]);
            features.is_autodiff().then(|| (features * gradient).sum())
        };
        let shares = [share(image, &by_image, images), share(text, &by_text, texts)];
        let Some(sum) = shares.into_iter().flatten().reduce(|image, text| image + text) else {
            return Ok(ParamGradients::none());
        };
        let mut all = sum.backward();
        Ok::<_, TrainError>(ParamGradients::take(context.model, &mut all, words, context.compute.on_host)?)
    };
    let own = sum_in_tree(
        0..parts.len(),
        halvings_of_share(context.ranks.ranks()),
        &mut of_part,
        &mut |mut first: ParamGradients, second| {
            first.add(second)?;
            Ok(first)
        },
    )?;
    let mut gradients = sum_of_all(context.ranks, own)?;
    gradients.add(by_parameters)?;
    Ok(context.computed(batch, loss, gradients))
}

fn next(more: &mut impl Iterator<Item = Result<Batch, DataError>>) -> Result<Batch, TrainError> {
    let ended = || DataError::Loader { reason: "a step ended before its last part".to_owned() };
    Ok(more.next().unwrap_or_else(|| Err(ended()))?)
}

/// Refuses a part of the second pass that is not the part of the first: its gradients would belong to other features.
fn check_repeats(context: &StepContext<'_>, first: &Batch, again: &Batch) -> Result<(), TrainError> {
    let place = |batch: &Batch| format!("step {}, part {}", batch.step + 1, batch.part + 1);
    if (first.step, first.part) != (again.step, again.part) {
        let problem = format!("the second pass over {} read {}", place(first), place(again));
        return Err(TrainError::Internal(problem));
    }
    if (&first.pairs, &first.captions) == (&again.pairs, &again.captions) {
        let same = first.tokens == again.tokens;
        let problem = || format!("{}: the two passes have other tokens for the same captions", place(first));
        return if same { Ok(()) } else { Err(TrainError::Internal(problem())) };
    }
    let key = |batch: &Batch, pair: usize| {
        let image = batch.pairs.get(pair).map(|pair| context.data.dataset.image(pair.image));
        image.map_or_else(|| "nothing".to_owned(), |image| format!("`{}`", image.key()))
    };
    let differs = |&pair: &usize| first.pairs.get(pair) != again.pairs.get(pair);
    let pair = (0..first.pairs.len().max(again.pairs.len())).find(differs).unwrap_or(0);
    let reason = format!(
        "{}: the second pass read {} as pair {}, where the first pass read {}; the images must not change while a run \
         reads them",
        place(first),
        key(again, pair),
        pair + 1,
        key(first, pair),
    );
    Err(DataError::Loader { reason }.into())
}

/// The parts as one batch, without pixels.
fn whole(parts: &[Batch]) -> Batch {
    let last = parts.len() - 1;
    let mut whole = Batch { part: 0, is_last_of_pass: true, tokens: TokenBatch::default(), ..parts[last].clone() };
    (whole.pairs, whole.captions, whole.contents, whole.skipped, whole.loaded) = Default::default();
    whole.waited = parts.iter().map(|part| part.waited).sum();
    for part in parts {
        whole.pairs.extend_from_slice(&part.pairs);
        whole.captions.extend_from_slice(&part.captions);
        whole.contents.extend_from_slice(&part.contents);
        whole.skipped.extend_from_slice(&part.skipped);
    }
    whole
}
