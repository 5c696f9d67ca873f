//! What remains of the data of an evaluation: the embeddings of the images that can be used, and of their captions.

use std::collections::HashMap;

use dualenc_data::{ContentId, Dataset};
use serde_json::{Map, Value};

use crate::error::TrainError;
use crate::eval::encoder::Encoder;
use crate::eval::metrics::pooled_loss::Pools;
use crate::loss::contrastive::Objective;

/// Embeddings of the images that can be used.
pub(crate) struct UsableImages {
    /// Their numbers, ascending.
    pub numbers: Vec<usize>,
    /// Of each image, its row in `embeds`. Copies share the row of the first of them.
    pub rows: Vec<usize>,
    /// Of each image, what its file holds.
    pub contents: Vec<ContentId>,
    /// Shape `[distinct images, dim]`, flat; normalised, unless they are for a probe.
    pub embeds: Vec<f32>,
    pub dim: usize,
    pub num_unreadable: usize,
}

impl UsableImages {
    /// Counts images as one if their files hold the same bytes.
    pub fn merge_copies(mut self) -> Self {
        let mut first = HashMap::new();
        let mut distinct = Vec::new();
        for (at, content) in self.contents.iter().enumerate() {
            self.rows[at] = *first.entry(*content).or_insert_with(|| {
                distinct.push(at);
                distinct.len() - 1
            });
        }
        if distinct.len() < self.contents.len() {
            self.embeds = distinct.iter().flat_map(|at| &self.embeds[at * self.dim..][..self.dim]).copied().collect();
        }
        self
    }

    /// The number of the first file of each distinct image.
    pub fn distinct_numbers(&self) -> Vec<usize> {
        let mut numbers = Vec::with_capacity(self.num_distinct());
        for (&number, &row) in self.numbers.iter().zip(&self.rows) {
            if row == numbers.len() {
                numbers.push(number);
            }
        }
        numbers
    }

    /// Number of distinct images.
    pub fn num_distinct(&self) -> usize {
        self.embeds.len() / self.dim.max(1)
    }
}

/// Captions of the images that can be used.
pub(crate) struct UsableCaptions {
    /// Their numbers in the data set, ascending.
    pub numbers: Vec<usize>,
    /// The row of each caption's image.
    pub image_rows: Vec<usize>,
    /// Normalised, shape `[captions, dim]`, flat.
    pub embeds: Vec<f32>,
}

/// The metrics of pools of `pool_size` pairs.
///
/// # Errors
/// [`TrainError::Internal`] when there are fewer pairs than that; as for [`Pools::metrics`].
pub(crate) fn loss_metrics(
    dataset: &Dataset,
    images: &UsableImages,
    captions: &UsableCaptions,
    pool_size: usize,
    objective: Objective,
    encoder: &Encoder<'_>,
) -> Result<Map<String, Value>, TrainError> {
    let pools = Pools::new(&captions.numbers, pool_size);
    let pools = pools.ok_or_else(|| TrainError::Internal(format!("too few pairs for a pool of {pool_size}")))?;
    let (dim, image_embeds, text_embeds) = (images.dim, &images.embeds, &captions.embeds);
    let place = |image: usize| images.numbers.partition_point(|&other| other < image);
    let text_row = |caption: usize| captions.numbers.partition_point(|&other| other < caption);
    let image_embed = |image: usize| &image_embeds[images.rows[place(image)] * dim..][..dim];
    let text_embed = |caption: usize| &text_embeds[text_row(caption) * dim..][..dim];
    let content = |image: usize| images.contents[place(image)];
    pools.metrics(encoder.model, objective, dataset, image_embed, text_embed, content)
}
