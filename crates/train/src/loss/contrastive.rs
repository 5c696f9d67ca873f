//! The contrastive losses. Shapes: `[batch, dim]` embeddings, `[batch, batch]` logits with images as rows.

use std::collections::{BTreeSet, HashMap, HashSet};

use burn::tensor::Tensor;
use dualenc_data::Dataset;
use dualenc_kernels::{PairLoss, pair_loss};
use dualenc_model::{ModelError, parameters};

use crate::config::{Duplicates, Loss, RunConfig, TrainSection};
use crate::loss::label_smoothing::{Smoothing, sigmoid_chance};

/// What a run minimises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// Which loss.
    pub loss: Loss,
    /// What equal captions and images are to each other.
    pub duplicates: Duplicates,
    /// The share of a target's mass that is spread over all candidates, of the softmax loss (`train.label_smoothing`).
    pub label_smoothing: f64,
}

impl Objective {
    /// With hard targets.
    pub fn new(loss: Loss, duplicates: Duplicates) -> Self {
        Self { loss, duplicates, label_smoothing: 0.0 }
    }
}

impl Default for Objective {
    /// InfoNCE as the reference computes it, for models that no run of this program made.
    fn default() -> Self {
        Self::new(Loss::Softmax, Duplicates::Ignore)
    }
}

impl From<&RunConfig> for Objective {
    fn from(config: &RunConfig) -> Self {
        let TrainSection { loss, duplicates, label_smoothing, .. } = config.train;
        Self { loss, duplicates, label_smoothing }
    }
}

/// What the data say about the pairs of a batch: a caption is a number, equal for equal captions.
#[derive(Debug, Clone)]
pub struct PairIds {
    /// The caption of each pair, `[batch]`.
    pub captions: Vec<u64>,
    /// Every caption that the data list for the image of each pair, `[batch, any]`.
    pub known: Vec<Vec<u64>>,
}

impl PairIds {
    /// Of `pairs` of an image and a caption, by their numbers in `dataset`; `caption_ids` as
    /// [`Dataset::caption_ids`].
    pub fn of(dataset: &Dataset, caption_ids: &[u64], pairs: impl Iterator<Item = (usize, usize)>) -> Self {
        let known = |image| dataset.captions_of(image).iter().map(|&caption| caption_ids[caption]).collect();
        let (captions, known) = pairs.map(|(image, caption)| (caption_ids[caption], known(image))).unzip();
        Self { captions, known }
    }

    /// The pairs of an image (row) and another pair's text (column) that the data call true: the caption is one of the
    /// image's own. Two pairs of one image match so, as do two of one caption, and two drawings of one thing that have
    /// captions in common but happened to draw different ones.
    pub(crate) fn matches(&self) -> Vec<(usize, usize)> {
        let mut columns: HashMap<u64, Vec<usize>> = HashMap::new();
        for (column, caption) in self.captions.iter().enumerate() {
            columns.entry(*caption).or_default().push(column);
        }
        let of_row = |(row, known): (usize, &Vec<u64>)| {
            let others = known.iter().filter_map(|caption| columns.get(caption)).flatten();
            others.filter(|&&column| column != row).map(move |&column| (row, column)).collect::<BTreeSet<_>>()
        };
        self.known.iter().enumerate().flat_map(of_row).collect()
    }
}

/// A loss with what it found in the batch.
#[derive(Debug)]
pub struct BatchLoss {
    /// `[1]`, the mean over the batch.
    pub loss: Tensor<1>,
    /// Images for which the batch holds another pair's caption that is true of them too.
    pub num_duplicates: usize,
    /// The least loss of this batch to a model that tells no two of its pairs apart: the logarithm of the batch size, of softmax
    /// without masked pairs.
    pub chance: f64,
    /// `[2]`: of images and of texts, how far the embeddings lie apart; see [`BatchLoss::spread`].
    spread: Tensor<1>,
}

impl BatchLoss {
    /// How far the embeddings of the images, and of the texts, lie apart: their mean squared distance from their mean, from 0,
    /// where all are one, to 1. It is 1 less the mean cosine of two of them, each with itself included.
    ///
    /// # Errors
    /// When the device cannot hand its data over.
    pub fn spread(&self) -> Result<[f64; 2], ModelError> {
        let values = parameters::host(self.spread.clone())?.values;
        let of = |side: usize| values.get(side).map_or(f64::NAN, |&value| f64::from(value));
        Ok([of(0), of(1)])
    }
}

/// The loss of a batch of L2-normalised embeddings.
///
/// `logit_scale` `[1]` is a logarithm; `logit_bias` `[1]` belongs to the sigmoid loss.
pub fn contrastive_loss(
    objective: Objective,
    (image_embeds, text_embeds): (Tensor<2>, Tensor<2>),
    logit_scale: Tensor<1>,
    logit_bias: Option<Tensor<1>>,
    pairs: &PairIds,
) -> BatchLoss {
    let matches = pairs.matches();
    let num_duplicates = matches.iter().map(|(row, _)| row).collect::<HashSet<_>>().len();
    let embeds = (&image_embeds, &text_embeds);
    let bias = logit_bias.as_ref().filter(|_| objective.loss == Loss::Sigmoid);
    let (loss, chance) = loss_by(objective, embeds, &logit_scale, &matches, |loss| {
        pair_loss(&image_embeds, &text_embeds, &logit_scale, bias, loss)
    });
    let spread = Tensor::cat(vec![spread(&image_embeds), spread(&text_embeds)], 0);
    BatchLoss { loss, num_duplicates, chance, spread }
}

/// The loss, by `pair_loss`, and what it is by chance.
pub(crate) fn loss_by(
    Objective { loss, duplicates, label_smoothing }: Objective,
    (image_embeds, text_embeds): (&Tensor<2>, &Tensor<2>),
    logit_scale: &Tensor<1>,
    matches: &[(usize, usize)],
    pair_loss: impl FnOnce(&PairLoss) -> Tensor<1>,
) -> (Tensor<1>, f64) {
    let [batch, _] = image_embeds.dims();
    let of = |asked| if duplicates == asked { matches } else { &[] };
    let (positives, masked) = (of(Duplicates::Positives), of(Duplicates::Mask));
    match loss {
        Loss::Softmax => {
            let smoothing = Smoothing::new(label_smoothing, batch, masked);
            let targets = smoothing.targets(positives, masked).into();
            let loss = pair_loss(&PairLoss::Softmax { targets, masked: masked.into() });
            (smoothing.apply(loss, image_embeds, text_embeds, logit_scale), smoothing.chance())
        }
        Loss::Sigmoid => {
            let loss = pair_loss(&PairLoss::Sigmoid { positives: positives.into(), masked: masked.into() });
            (loss, sigmoid_chance(batch, positives.len(), masked.len()))
        }
    }
}

/// `[1]`: 1 less the squared norm of the mean of `[batch, dim]` unit vectors.
pub(crate) fn spread(embeds: &Tensor<2>) -> Tensor<1> {
    let mean = embeds.clone().without_autodiff().mean_dim(0);
    mean.square().sum().neg() + 1.0
}
