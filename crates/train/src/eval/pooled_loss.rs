//! The contrastive loss over pools of a fixed number of pairs, so that it compares between runs whatever their batch sizes:
//! a loss over a batch grows with the logarithm of the batch.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use dualenc_data::{Dataset, EpochOrder};
use dualenc_model::{DualEncoder, parameters};
use serde_json::{Map, Value, json};

use crate::error::TrainError;
use crate::loss::contrastive::{Objective, PairIds, contrastive_loss};

/// Seed of the choice of pools: any, as long as it stays the same for all runs (ASCII `pool`).
const POOL_SEED: u64 = 0x706f_6f6c;

/// Pairs in pools.
#[derive(Debug)]
pub(crate) struct Pools {
    /// Captions of the data set, whose images are known: a caption and its image are a pair.
    order: Vec<usize>,
    size: usize,
}

impl Pools {
    /// Pools of `size` of the pairs that `captions` number, in an order that depends on their number alone. `None`: there are
    /// too few for one.
    pub fn new(captions: &[usize], size: usize) -> Option<Self> {
        let order = EpochOrder::new(POOL_SEED, 0, captions.len(), true);
        let order: Vec<usize> = (0..captions.len()).map(|position| captions[order.index(position)]).collect();
        (size > 0 && order.len() >= size).then_some(Self { order, size })
    }

    /// Mean loss and accuracies over the pools of `model`.
    ///
    /// `image_row` and `text_row` tell the normalised embedding `[dim]` of an image and of a caption.
    ///
    /// # Errors
    /// When the device cannot hand its data over.
    pub fn figures<'e>(
        &self,
        model: &DualEncoder,
        objective: Objective,
        dataset: &Dataset,
        image_row: impl Fn(usize) -> &'e [f32],
        text_row: impl Fn(usize) -> &'e [f32],
    ) -> Result<Map<String, Value>, TrainError> {
        let (device, ids) = (model.device(), dataset.caption_ids());
        // Soft targets are a means of training: with them no model's loss is near 0.
        let objective = Objective { label_smoothing: 0.0, ..objective };
        let (mut loss, mut image_hits, mut text_hits) = (0.0, 0, 0);
        let pools = self.order.chunks_exact(self.size);
        let (num_pools, num_left_out) = (pools.len(), pools.remainder().len());
        for pool in pools {
            let images: Vec<usize> = pool.iter().map(|&caption| dataset.captions[caption].image).collect();
            let rows = |rows: Vec<&[f32]>| -> Tensor<2> {
                let shape = [rows.len(), rows.first().map_or(0, |row| row.len())];
                Tensor::from_data(TensorData::new(rows.concat(), shape), &device)
            };
            let image_embeds = rows(images.iter().map(|&image| image_row(image)).collect());
            let text_embeds = rows(pool.iter().map(|&caption| text_row(caption)).collect());
            let pairs = PairIds::of(dataset, &ids, images.iter().copied().zip(pool.iter().copied()));
            let scores = parameters::host(image_embeds.clone().matmul(text_embeds.clone().transpose()))?.values;
            let found = contrastive_loss(
                objective,
                (image_embeds, text_embeds),
                model.logit_scale.val(),
                model.logit_bias.as_ref().map(Param::val),
                &pairs,
            );
            loss += parameters::host(found.loss)?.values.iter().map(|&value| f64::from(value)).sum::<f64>();
            let is_true =
                |image: usize, text: usize| image == text || pairs.known[image].contains(&pairs.captions[text]);
            let score = |image: usize, text: usize| scores[image * self.size + text];
            let nearest = |score: &dyn Fn(usize) -> f32| {
                (0..self.size).fold(0, |best, other| if score(other) > score(best) { other } else { best })
            };
            for pair in 0..self.size {
                image_hits += usize::from(is_true(pair, nearest(&|text| score(pair, text))));
                text_hits += usize::from(is_true(nearest(&|image| score(image, pair)), pair));
            }
        }
        let num_pairs = num_pools * self.size;
        let figures = json!({
            "loss": loss / num_pools as f64,
            "image_acc1": image_hits as f64 / num_pairs as f64,
            "text_acc1": text_hits as f64 / num_pairs as f64,
            "num_pairs": num_pairs,
            "num_left_out": num_left_out,
            "pool_size": self.size,
        });
        Ok(figures.as_object().cloned().unwrap_or_default())
    }
}
