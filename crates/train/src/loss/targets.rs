//! The contrastive loss of a batch: the targets of its logits, and how many rows of them to compute.

use std::collections::HashSet;
use std::ops::Range;

use burn::tensor::Tensor;
use dualenc_kernels::{ColumnSums, Logits, LossRows, PairLoss, column_sums, pair_loss, pair_loss_of_rows};

use crate::config::{Duplicates, Loss};
use crate::loss::contrastive::{BatchLoss, Objective, PairIds, spread};
use crate::loss::label_smoothing::{Smoothing, sigmoid_chance};
use crate::loss::mixup::Mixing;
use crate::loss::slots;

/// Computes the loss of a batch of L2-normalised image embeddings, `[batch, dim]`, and text embeddings, `[batch *
/// slots, dim]`, where the captions of an image follow each other. With several, it is the mean over the slots.
///
/// `logit_scale` `[1]` is the logarithm of the factor of the cosines. `logit_bias` `[1]` is only used by the sigmoid
/// loss.
pub fn contrastive_loss(
    objective: Objective,
    (image_embeds, text_embeds): (Tensor<2>, Tensor<2>),
    logit_scale: Tensor<1>,
    logit_bias: Option<Tensor<1>>,
    pairs: &PairIds,
) -> BatchLoss {
    let targets = Targets::of(objective, pairs, None);
    let embeds = [image_embeds, text_embeds];
    let loss = targets.loss(embeds.each_ref(), (&logit_scale, logit_bias.as_ref()), &Rows::All, 0);
    targets.with_statistics(loss, embeds.each_ref())
}

/// The targets of a batch.
pub(crate) struct Targets {
    loss: Loss,
    /// Each slot of the captions has logits of its own.
    slots: Vec<SlotTargets>,
    num_duplicates: usize,
    chance: f64,
}

/// The targets of one slot, `[batch, batch]`.
pub(crate) struct SlotTargets {
    loss: PairLoss,
    smoothing: Option<Smoothing>,
    /// The loss of guessing.
    chance: f64,
}

/// Which rows of the logits to compute. The losses of ranges that make up a batch add up to the loss of all rows, and
/// so do their gradients.
#[derive(Debug)]
pub(crate) enum Rows<'a> {
    All,
    Some {
        rows: Range<usize>,
        /// The log-sum-exps of the columns over all rows, `[1, batch]`, of each width and slot, and of each slot of a
        /// teacher: in the order of [`LossTerms::column_sums`](crate::loss::terms::LossTerms::column_sums). Empty for
        /// the sigmoid loss.
        columns: &'a [Tensor<2>],
    },
}

impl Rows<'_> {
    /// Their numbers, of `batch` in all.
    pub fn range(&self, batch: usize) -> Range<usize> {
        match self {
            Self::All => 0..batch,
            Self::Some { rows, .. } => rows.clone(),
        }
    }

    /// As the kernels take some rows; `None`: all. `matrix`: the number of the matrix of logits, in the order of the
    /// columns.
    pub fn of_matrix(&self, matrix: usize) -> Option<LossRows> {
        match self {
            Self::All => None,
            Self::Some { rows, columns } => {
                Some(LossRows { first: rows.start, column_log_sums: columns.get(matrix).cloned() })
            }
        }
    }

    /// These rows of embeddings of all.
    pub fn of(&self, embeds: &Tensor<2>) -> Tensor<2> {
        match self {
            Self::All => embeds.clone(),
            Self::Some { rows, .. } => embeds.clone().slice(rows.clone()),
        }
    }

    /// Whether they are those with which label smoothing, which does not divide into rows, is computed.
    pub fn has_first(&self) -> bool {
        match self {
            Self::All => true,
            Self::Some { rows, .. } => rows.start == 0,
        }
    }
}

impl Targets {
    /// The targets of `pairs`, or of their blends.
    pub fn of(objective: Objective, pairs: &PairIds, mixing: Option<&Mixing>) -> Self {
        let batch = pairs.known.len();
        let matches: Vec<_> = (0..pairs.slots()).map(|slot| pairs.matches(slot)).collect();
        let num_duplicates = matches.iter().flatten().map(|(row, _)| row).collect::<HashSet<_>>().len();
        let (objective, matches) = match mixing {
            None => (objective, matches),
            Some(mixing) => {
                // A blend is part of a match at most: no positive.
                let ignores = objective.duplicates == Duplicates::Ignore;
                let of_slot = |matches: &Vec<_>| mixing.clashes(if ignores { &[] } else { matches });
                (Objective { duplicates: Duplicates::Mask, ..objective }, matches.iter().map(of_slot).collect())
            }
        };
        let slots: Vec<_> = matches.iter().map(|matches| SlotTargets::of(objective, batch, matches)).collect();
        let chances: Vec<f64> = slots.iter().map(|slot| slot.chance).collect();
        let chance = slots::chance((objective.loss, objective.duplicates), batch, &chances, &matches);
        Self { loss: objective.loss, slots, num_duplicates, chance }
    }

    /// The contrastive loss, `[1]`, of L2-normalised embeddings as in [`contrastive_loss`]. `width`: the number of this
    /// width among those for which column sums were computed.
    pub fn loss(
        &self,
        [image, text]: [&Tensor<2>; 2],
        (logit_scale, logit_bias): (&Tensor<1>, Option<&Tensor<1>>),
        rows: &Rows<'_>,
        width: usize,
    ) -> Tensor<1> {
        let logit_bias = logit_bias.filter(|_| self.loss == Loss::Sigmoid);
        let own = rows.of(image);
        let texts = slots::by_slot(text, self.slots.len());
        let losses = self.slots.iter().zip(&texts).enumerate().map(|(slot, (targets, text))| {
            let logits = Logits { image_embeds: &own, text_embeds: text, logit_scale, logit_bias };
            let loss = match rows.of_matrix(width * self.slots.len() + slot) {
                None => pair_loss(logits, &targets.loss),
                Some(rows) => pair_loss_of_rows(logits, &targets.loss, &rows),
            };
            if rows.has_first() { targets.smoothed(loss, (image, text), logit_scale) } else { loss }
        });
        slots::mean(losses.collect())
    }

    /// The log-sum-exps of the columns over `rows`, of each slot; none for the sigmoid loss. The embeddings are
    /// L2-normalised.
    pub fn column_sums(
        &self,
        [image, text]: [&Tensor<2>; 2],
        logit_scale: &Tensor<1>,
        rows: &Range<usize>,
    ) -> Vec<ColumnSums> {
        let own = image.clone().slice(rows.clone());
        let of_slot = |(targets, text): (&SlotTargets, &Tensor<2>)| match &targets.loss {
            PairLoss::Softmax { masked, .. } => {
                let logits = Logits { image_embeds: &own, text_embeds: text, logit_scale, logit_bias: None };
                Some(column_sums(logits, masked, rows.start))
            }
            PairLoss::Sigmoid { .. } => None,
        };
        self.slots.iter().zip(&slots::by_slot(text, self.slots.len())).filter_map(of_slot).collect()
    }

    /// Of each slot, the pairs that are left out of its logits.
    pub fn masked(&self) -> impl ExactSizeIterator<Item = &[(usize, usize)]> {
        self.slots.iter().map(|slot| slot.loss.masked())
    }

    /// The `loss` of L2-normalised embeddings, with statistics of the whole batch.
    pub fn with_statistics(&self, loss: Tensor<1>, [image, text]: [&Tensor<2>; 2]) -> BatchLoss {
        let spread = Tensor::cat(vec![spread(image), spread(text)], 0);
        BatchLoss { loss, num_duplicates: self.num_duplicates, chance: self.chance, spread }
    }
}

impl SlotTargets {
    /// `matches`: from [`PairIds::matches`].
    pub fn of(
        Objective { loss, duplicates, label_smoothing }: Objective,
        batch: usize,
        matches: &[(usize, usize)],
    ) -> Self {
        let matches_if = |mode| if duplicates == mode { matches } else { &[] };
        let (positives, masked) = (matches_if(Duplicates::Positives), matches_if(Duplicates::Mask));
        match loss {
            Loss::Softmax => {
                let smoothing = Smoothing::new(label_smoothing, batch, masked);
                let targets = smoothing.targets(positives, masked).into();
                let chance = smoothing.chance();
                let loss = PairLoss::Softmax { targets, masked: masked.into() };
                Self { loss, smoothing: Some(smoothing), chance }
            }
            Loss::Sigmoid => Self {
                loss: PairLoss::Sigmoid { positives: positives.into(), masked: masked.into() },
                smoothing: None,
                chance: sigmoid_chance([batch, 1], positives.len(), masked.len()),
            },
        }
    }

    /// The targets that the kernels get.
    #[cfg(test)]
    pub fn pair_loss(&self) -> &PairLoss {
        &self.loss
    }

    /// A loss of the [kernels](SlotTargets::pair_loss) with what label smoothing adds for a whole batch.
    pub fn smoothed(&self, loss: Tensor<1>, (image, text): (&Tensor<2>, &Tensor<2>), scale: &Tensor<1>) -> Tensor<1> {
        match &self.smoothing {
            Some(smoothing) => smoothing.apply(loss, image, text, scale),
            None => loss,
        }
    }
}
