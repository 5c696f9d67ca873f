//! What a stage's locked towers contribute to a step: their pooled outputs, which are the same however often a batch
//! runs.

use std::sync::Arc;

use burn::tensor::Tensor;
use dualenc_data::{Batch, Dataset};

use crate::error::TrainError;
use crate::features::image_index::{ImageSet, Views};
use crate::features::locked_towers::LockedTowers;
use crate::loss::mixup::Mixing;

/// The towers that the current stage locks, and the training images as the image tower's feature cache knows them.
pub(crate) struct LockedInputs {
    pub towers: LockedTowers,
    /// The training data, which have the features of absent towers.
    pub dataset: Arc<Dataset>,
    pub images: Option<ImageSet>,
}

/// Pooled outputs `[batch, width]` for one batch; `None`: that tower trains.
pub(crate) struct LockedFeatures {
    pub image: Option<Tensor<2>>,
    pub text: Option<Tensor<2>>,
}

impl LockedFeatures {
    /// No tower is locked.
    pub fn none() -> Self {
        Self { image: None, text: None }
    }

    /// The features of the blends of the pairs of a whole batch; with `None`, those of the pairs.
    #[must_use]
    pub fn blended(self, mixing: Option<&Mixing>) -> Self {
        let Some(mixing) = mixing else { return self };
        let blend = |features: Option<Tensor<2>>| features.map(|features| mixing.blend(&features));
        Self { image: blend(self.image), text: blend(self.text) }
    }

    /// The features of a batch from those of its `parts`.
    pub fn joined(parts: &[Self]) -> Self {
        let join = |of: fn(&Self) -> &Option<Tensor<2>>| {
            let all: Option<Vec<_>> = parts.iter().map(|part| of(part).clone()).collect();
            all.filter(|all| !all.is_empty()).map(|all| Tensor::cat(all, 0))
        };
        Self { image: join(|part| &part.image), text: join(|part| &part.text) }
    }

    /// The features of each of the parts of a batch that are as long as `parts`.
    pub fn split_as(&self, parts: &[Self]) -> Vec<Self> {
        let mut starts = [0, 0];
        let mut take = |side: usize, whole: &Option<Tensor<2>>, part: &Option<Tensor<2>>| {
            let (whole, [rows, _]) = (whole.as_ref()?, part.as_ref()?.dims());
            let start = starts[side];
            starts[side] += rows;
            Some(whole.clone().slice(start..start + rows))
        };
        let part =
            |part: &Self| Self { image: take(0, &self.image, &part.image), text: take(1, &self.text, &part.text) };
        parts.iter().map(part).collect()
    }
}

impl LockedInputs {
    /// No tower is locked.
    pub fn none(dataset: Arc<Dataset>) -> Self {
        Self { towers: LockedTowers::none(), dataset, images: None }
    }

    /// The locked `towers`, with the images of `dataset` in `views`.
    pub fn new(towers: LockedTowers, dataset: Arc<Dataset>, views: Views) -> Self {
        let images = towers.images.as_ref().map(|images| images.set(dataset.clone(), views));
        Self { towers, dataset, images }
    }

    /// Runs the locked towers over `batch`, or reads their features from the cache.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the cache cannot be written; [`TrainError::Data`] when an image has to be read again
    /// and cannot be.
    pub fn of_batch(&self, batch: &Batch) -> Result<LockedFeatures, TrainError> {
        let images = self.towers.images.as_ref().zip(self.images.as_ref());
        Ok(LockedFeatures {
            image: images.map(|(locked, set)| locked.of_batch(set, batch)).transpose()?,
            text: self.texts_of_batch(batch)?,
        })
    }

    /// The pooled outputs of a locked text tower alone; `None`: it trains.
    ///
    /// # Errors
    /// As for [`LockedInputs::of_batch`].
    pub fn texts_of_batch(&self, batch: &Batch) -> Result<Option<Tensor<2>>, TrainError> {
        let captions: Vec<usize> = batch.pairs.iter().map(|pair| pair.caption).collect();
        let texts = self.towers.texts.as_ref();
        texts.map(|locked| locked.of_captions(&self.dataset, &captions, &batch.tokens)).transpose()
    }

    /// Whether a step reads pixels: the image tower trains, and a step in parts needs them twice.
    pub fn needs_pixels_twice(&self) -> bool {
        self.towers.images.is_none()
    }
}
