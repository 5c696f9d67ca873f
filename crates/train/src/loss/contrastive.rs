//! The contrastive losses: softmax, which is InfoNCE in both directions (CLIP, arXiv:2103.00020, fig. 3), and sigmoid
//! (SigLIP, arXiv:2303.15343, alg. 1).
//!
//! This file tells which pairs match, `targets` computes the loss from that. The formulas, forward and backward, are in
//! `crates/kernels/src/contrastive/`.
//!
//! Embeddings are `[batch, dim]`. Logits are `[batch, batch]` with images as rows, and are never stored whole.

use std::collections::{BTreeSet, HashMap};

use burn::tensor::Tensor;
use dualenc_data::{ContentId, Dataset};

use crate::config::{Duplicates, Loss, RunConfig, TrainSection};

/// The loss function of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// Which loss.
    pub loss: Loss,
    /// How a pair counts that matches without belonging together: `train.duplicates`.
    pub duplicates: Duplicates,
    /// Fraction of a target's mass that softmax spreads over all candidates, from 0 to 1: `train.label_smoothing`.
    pub label_smoothing: f64,
}

impl Objective {
    /// Creates an objective without label smoothing.
    pub fn new(loss: Loss, duplicates: Duplicates) -> Self {
        Self { loss, duplicates, label_smoothing: 0.0 }
    }
}

impl Default for Objective {
    /// The reference's InfoNCE: softmax that ignores duplicates. For models that were trained elsewhere.
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

/// The captions of the pairs of a batch, as numbers that are equal for equal captions. Images with equal content count
/// as one image, which has the captions of all of them.
#[derive(Debug, Clone)]
pub struct PairIds {
    /// Captions of each pair, `[batch, slots]`, flat: one unless each image has several at once.
    pub captions: Vec<u64>,
    /// All captions that the data list for the image of each pair and for its copies in the batch, `[batch]` lists of
    /// any length.
    pub known: Vec<Vec<u64>>,
}

impl PairIds {
    /// Looks up pairs in `dataset`: the numbers of their `images`, `[batch]`, and of their `captions`, `[batch,
    /// slots]`. `contents`: of the image of each pair, `[batch]`. `caption_id`: as [`Dataset::caption_id`].
    pub fn of(
        dataset: &Dataset,
        images: &[usize],
        captions: &[usize],
        contents: &[ContentId],
        mut caption_id: impl FnMut(usize) -> u64,
    ) -> Self {
        // Of each content, the images of this batch: mostly one.
        let mut copies: HashMap<ContentId, Vec<usize>> = HashMap::new();
        for (&image, &content) in images.iter().zip(contents) {
            let images = copies.entry(content).or_default();
            if !images.contains(&image) {
                images.push(image);
            }
        }
        let mut known = |images: &[usize]| -> Vec<u64> {
            let captions = images.iter().flat_map(|&image| dataset.captions_of(image));
            captions.map(|&caption| caption_id(caption as usize)).collect()
        };
        let known = images
            .iter()
            .zip(contents)
            .map(|(image, content)| known(copies.get(content).map_or(std::slice::from_ref(image), Vec::as_slice)));
        let known = known.collect();
        let captions = captions.iter().map(|&caption| caption_id(caption)).collect();
        Self { captions, known }
    }

    /// Captions of each pair.
    pub(crate) fn slots(&self) -> usize {
        self.captions.len().checked_div(self.known.len()).unwrap_or(1)
    }

    /// The positions (row, column) off the diagonal at which the caption of the column, in this slot, is one of the
    /// captions of the row's image. Pairs match if they share the image or the caption, and also if their images have
    /// captions in common of which the pairs drew different ones.
    pub(crate) fn matches(&self, slot: usize) -> Vec<(usize, usize)> {
        let mut columns: HashMap<u64, Vec<usize>> = HashMap::new();
        for (column, caption) in self.captions.iter().skip(slot).step_by(self.slots()).enumerate() {
            columns.entry(*caption).or_default().push(column);
        }
        let of_row = |(row, known): (usize, &Vec<u64>)| {
            let others = known.iter().filter_map(|caption| columns.get(caption)).flatten();
            others.filter(|&&column| column != row).map(move |&column| (row, column)).collect::<BTreeSet<_>>()
        };
        self.known.iter().enumerate().flat_map(of_row).collect()
    }
}

/// The loss of a batch, with statistics.
#[derive(Debug)]
pub struct BatchLoss {
    /// The mean over the batch, `[1]`.
    pub loss: Tensor<1>,
    /// Images that match the caption of another pair in the batch.
    pub num_duplicates: usize,
    /// The lowest loss that a model can have on this batch if it cannot tell any two pairs apart. For softmax without
    /// masked pairs: the logarithm of the batch size.
    pub chance: f64,
    /// Spread of image and of text embeddings, `[2]`: their mean squared distance from their mean, from 0 (all equal)
    /// to 1. It is 1 minus the mean cosine over all ordered pairs, each embedding with itself included.
    pub spread: Tensor<1>,
}

/// Spread `[1]` of unit vectors `[batch, dim]`: 1 minus the squared norm of their mean.
pub(crate) fn spread(embeds: &Tensor<2>) -> Tensor<1> {
    let mean = embeds.clone().without_autodiff().mean_dim(0);
    mean.square().sum().neg() + 1.0
}
