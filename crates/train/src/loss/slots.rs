//! Several captions of an image as positives at once.
//!
//! Each slot of the captions has a matrix of logits of its own, `[batch, batch]`, and the loss is the mean over the
//! slots (softmax: MobileCLIP, arXiv:2311.17049, sec. 3). So the captions of an image never compete with each other.
//! For the sigmoid loss, a sum over all pairs, this equals one matrix `[batch, slots * batch]` in which every caption
//! of an image is positive.

use burn::tensor::Tensor;

use crate::config::{Duplicates, Loss};
use crate::loss::label_smoothing::sigmoid_chance;

/// The text embeddings of each slot, `[batch, dim]`, of those of all captions, `[batch * slots, dim]`: the captions of
/// an image follow each other.
pub(crate) fn by_slot(text_embeds: &Tensor<2>, slots: usize) -> Vec<Tensor<2>> {
    if slots == 1 {
        return vec![text_embeds.clone()];
    }
    let [captions, dim] = text_embeds.dims();
    let batch = captions / slots;
    let text: Tensor<3> = text_embeds.clone().reshape([batch, slots, dim]);
    (0..slots).map(|slot| text.clone().slice([0..batch, slot..slot + 1, 0..dim]).reshape([batch, dim])).collect()
}

/// The mean of the losses `[1]` of the slots; there is at least one.
pub(crate) fn mean(losses: Vec<Tensor<1>>) -> Tensor<1> {
    match <[Tensor<1>; 1]>::try_from(losses) {
        Ok([loss]) => loss,
        Err(losses) => Tensor::cat(losses, 0).mean(),
    }
}

/// The [loss of guessing](crate::loss::contrastive::BatchLoss::chance) over all slots. `chances`: that of each slot.
/// `matches`: of each slot, the pairs off the diagonal that match.
pub(crate) fn chance(
    (loss, duplicates): (Loss, Duplicates),
    batch: usize,
    chances: &[f64],
    matches: &[Vec<(usize, usize)>],
) -> f64 {
    match (loss, chances) {
        (_, [chance]) => *chance,
        (Loss::Softmax, _) => chances.iter().sum::<f64>() / chances.len() as f64,
        // The logits of all slots are equal too: one probability for all of them.
        (Loss::Sigmoid, _) => {
            let all: usize = matches.iter().map(Vec::len).sum();
            let count_if = |mode| if duplicates == mode { all } else { 0 };
            sigmoid_chance([batch, chances.len()], count_if(Duplicates::Positives), count_if(Duplicates::Mask))
        }
    }
}
