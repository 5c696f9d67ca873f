//! The pairs that are held out, and how well maps that were fitted to the others retrieve them.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::parameters;

use crate::closed_form::fit_report::Candidate;
use crate::closed_form::head_map::HeadMap;
use crate::closed_form::moments::Block;
use crate::error::TrainError;
use crate::eval::metrics::right_answers::RightAnswers;
use crate::eval::metrics::scores::{Scores, TILE_SCORES, normalize_rows};
use crate::stop_flag::StopFlag;

/// Places that recall counts, as in the retrieval evaluation.
const PLACES: [usize; 3] = [1, 5, 10];

/// Features of the pairs that are held out.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct HeldOut {
    /// `[images, image width]`, flat.
    pub images: Vec<f32>,
    /// `[texts, text width]`, flat.
    pub texts: Vec<f32>,
    /// The image of each text.
    pub image_of_text: Vec<usize>,
    /// One per text; equal captions share it.
    pub caption_ids: Vec<u64>,
    /// Number of images.
    pub num_images: usize,
}

/// L2-normalised embeddings of the pairs that are held out.
pub(crate) struct HeldOutEmbeds {
    /// `[images, dim]`, flat.
    pub images: Vec<f32>,
    /// `[texts, dim]`, flat.
    pub texts: Vec<f32>,
    pub dim: usize,
}

impl HeldOut {
    /// Adds the pairs of a block with an image for which `is_in` is true; it takes the row of an image in the block.
    /// `captions`: of each text, its caption; texts without one are left out. `id` returns the id of a caption.
    pub fn add(
        &mut self,
        block: &Block,
        captions: &[Option<usize>],
        is_in: impl Fn(usize) -> bool,
        id: impl Fn(usize) -> u64,
    ) {
        let num_rows = block.pairs.iter().map(|(row, _)| row + 1).max().unwrap_or(0);
        let image_width = block.images.len() / num_rows.max(1);
        let text_width = block.texts.len() / captions.len().max(1);
        let mut number_of_row = HashMap::new();
        for (text, (&caption, &(row, _))) in captions.iter().zip(&block.pairs).enumerate() {
            let Some(caption) = caption.filter(|_| is_in(row)) else { continue };
            let number = *number_of_row.entry(row).or_insert_with(|| {
                self.images.extend_from_slice(&block.images[row * image_width..][..image_width]);
                self.num_images += 1;
                self.num_images - 1
            });
            self.texts.extend_from_slice(&block.texts[text * text_width..][..text_width]);
            self.image_of_text.push(number);
            self.caption_ids.push(id(caption));
        }
    }

    /// The embeddings that two heads give.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data.
    pub fn embed(&self, heads: [&HeadMap; 2], dim: usize, device: &Device) -> Result<HeldOutEmbeds, TrainError> {
        let embed = |features: &[f32], head: &HeadMap| -> Result<Vec<f32>, TrainError> {
            let width = head.weight.len() / dim.max(1);
            let tensor = |values: Vec<f32>, columns: usize| {
                let rows = values.len() / columns.max(1);
                Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), device)
            };
            let bias = tensor(head.bias.clone(), dim);
            let embeds = tensor(features.to_vec(), width).matmul(tensor(head.weight.clone(), dim)) + bias;
            let mut values = parameters::host(embeds)?.values;
            normalize_rows(&mut values, dim);
            Ok(values)
        };
        Ok(HeldOutEmbeds { images: embed(&self.images, heads[0])?, texts: embed(&self.texts, heads[1])?, dim })
    }

    /// The right answers of a search among the pairs.
    pub fn right_answers(&self) -> RightAnswers {
        RightAnswers::new(&self.image_of_text, &self.caption_ids, self.num_images)
    }
}

impl HeldOutEmbeds {
    /// Recall in both directions.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set.
    pub fn recall(
        &self,
        (ridge, power): (f64, f64),
        answers: &RightAnswers,
        device: &Device,
        stop: &StopFlag,
    ) -> Result<Candidate, TrainError> {
        let scores = |rows, columns| Scores { rows, columns, dim: self.dim, device, stop, tile: TILE_SCORES };
        let recall = |ranks: Vec<Option<usize>>| {
            PLACES.map(|place| {
                let hits = ranks.iter().flatten().filter(|&&rank| rank < place).count();
                hits as f64 / ranks.len().max(1) as f64
            })
        };
        Ok(Candidate {
            ridge,
            power,
            image_retrieval_recall: recall(scores(&self.texts, &self.images).ranks(|text| answers.images(text))?),
            text_retrieval_recall: recall(scores(&self.images, &self.texts).ranks(|image| answers.texts(image))?),
        })
    }
}
