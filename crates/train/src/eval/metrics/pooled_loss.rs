//! The contrastive loss over pools of a fixed number of pairs. A loss over a batch grows with the logarithm of the
//! batch size; over pools of one size, it is comparable between runs.
//!
//! Metrics are this program's own:
//!
//! - `loss`: mean over the pools of the loss that the config trains, without label smoothing.
//! - `image_acc1`, `text_acc1`: fraction of images (texts) to which the nearest text (image) in the pool belongs.
//!
//! `num_pairs`, `num_left_out` and `pool_size` are counts of pairs.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use dualenc_data::{ContentId, Dataset, EpochOrder};
use dualenc_model::{DualEncoder, parameters};
use serde_json::{Map, Value, json};

use crate::device::read_scalar;
use crate::error::TrainError;
use crate::loss::contrastive::{Objective, PairIds};
use crate::loss::targets::contrastive_loss;

/// Seed of the random choice of pools, the same for all runs (ASCII `pool`).
const POOL_SEED: u64 = 0x706f_6f6c;

/// Pairs, divided into pools.
#[derive(Debug)]
pub(crate) struct Pools {
    /// Numbers of captions of the data set. A caption and its image are a pair.
    order: Vec<usize>,
    size: usize,
}

impl Pools {
    /// Divides captions, given by number, into pools of `size` pairs, in an order that depends only on how many
    /// captions there are. `None` if they do not fill one pool.
    pub fn new(captions: &[usize], size: usize) -> Option<Self> {
        let order = EpochOrder::new(POOL_SEED, 0, captions.len(), true);
        let order: Vec<usize> = (0..captions.len()).map(|position| captions[order.index(position)]).collect();
        (size > 0 && order.len() >= size).then_some(Self { order, size })
    }

    /// Mean metrics over the pools, for the temperature and bias of `model`.
    ///
    /// `image_embed` and `text_embed` return the normalised embedding of an image or a caption, shape `[dim]`, and
    /// `content` the content of an image.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data; [`TrainError::NotFiniteOutput`] when a loss is NaN
    /// or infinite.
    pub fn metrics<'e>(
        &self,
        model: &DualEncoder,
        objective: Objective,
        dataset: &Dataset,
        image_embed: impl Fn(usize) -> &'e [f32],
        text_embed: impl Fn(usize) -> &'e [f32],
        content: impl Fn(usize) -> ContentId,
    ) -> Result<Map<String, Value>, TrainError> {
        let device = model.device();
        // Smoothed labels are for training: with them, not even a perfect model has a loss near 0.
        let objective = Objective { label_smoothing: 0.0, ..objective };
        let (mut loss, mut image_hits, mut text_hits) = (0.0, 0, 0);
        let pools = self.order.chunks_exact(self.size);
        let (num_pools, num_left_out) = (pools.len(), pools.remainder().len());
        for pool in pools {
            let images: Vec<usize> = pool.iter().map(|&caption| dataset.caption(caption).image).collect();
            let stack = |rows: Vec<&[f32]>| -> Tensor<2> {
                let shape = [rows.len(), rows.first().map_or(0, |row| row.len())];
                Tensor::from_data(TensorData::new(rows.concat(), shape), &device)
            };
            let image_embeds = stack(images.iter().map(|&image| image_embed(image)).collect());
            let text_embeds = stack(pool.iter().map(|&caption| text_embed(caption)).collect());
            let contents: Vec<ContentId> = images.iter().map(|&image| content(image)).collect();
            let pairs = PairIds::of(dataset, &images, pool, &contents, |caption| dataset.caption_id(caption));
            let scores = parameters::host(image_embeds.clone().matmul(text_embeds.clone().transpose()))?.values;
            let batch_loss = contrastive_loss(
                objective,
                (image_embeds, text_embeds),
                model.logit_scale.val(),
                model.logit_bias.as_ref().map(Param::val),
                &pairs,
            );
            let pool_loss = read_scalar(batch_loss.loss)?;
            if !pool_loss.is_finite() {
                let first = pool.first().map_or("", |&caption| dataset.caption(caption).text);
                return Err(TrainError::NotFiniteOutput {
                    what: format!("the loss of the pool that starts with the caption `{first}`"),
                    value: pool_loss,
                    advice: "look at `logit_scale` and `logit_bias` of the model, or use an earlier checkpoint"
                        .to_owned(),
                });
            }
            loss += pool_loss;
            let is_match =
                |image: usize, text: usize| image == text || pairs.known[image].contains(&pairs.captions[text]);
            let score = |image: usize, text: usize| scores[image * self.size + text];
            let nearest = |score: &dyn Fn(usize) -> f32| {
                (0..self.size).fold(0, |best, other| if score(other) > score(best) { other } else { best })
            };
            for pair in 0..self.size {
                image_hits += usize::from(is_match(pair, nearest(&|text| score(pair, text))));
                text_hits += usize::from(is_match(nearest(&|image| score(image, pair)), pair));
            }
        }
        let num_pairs = num_pools * self.size;
        let metrics = [
            ("loss", json!(loss / num_pools as f64)),
            ("image_acc1", json!(image_hits as f64 / num_pairs as f64)),
            ("text_acc1", json!(text_hits as f64 / num_pairs as f64)),
            ("num_pairs", json!(num_pairs)),
            ("num_left_out", json!(num_left_out)),
            ("pool_size", json!(self.size)),
        ];
        Ok(metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}
