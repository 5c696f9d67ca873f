//! What is locked in a stage contributes to a step: the pooled outputs of locked towers, and the states after the
//! locked layers of others. They are the same however often a batch runs.

use std::sync::Arc;

use burn::tensor::Tensor;
use dualenc_data::{Batch, Dataset};

use crate::error::TrainError;
use crate::features::image_index::{ImageSet, Views};
use crate::features::images::ImageFeatures;
use crate::features::locked_towers::LockedTowers;
use crate::features::prefixes::{Prefixes, States};
use crate::loss::mixup::Mixing;
use crate::ranks::exchange::Exchange;
use crate::ranks::gathered::all_rows;

/// The towers that the current stage locks, and the training images as the image tower's feature cache knows them.
pub(crate) struct LockedInputs {
    pub towers: LockedTowers,
    /// The training data, which have the features of absent towers.
    pub dataset: Arc<Dataset>,
    pub images: Option<ImageSet>,
    /// Locked layers of towers that train in part.
    pub prefixes: Prefixes,
}

/// Pooled outputs `[batch, width]` for one batch; `None`: that tower trains.
#[derive(Default)]
pub(crate) struct LockedFeatures {
    pub image: Option<Tensor<2>>,
    pub text: Option<Tensor<2>>,
    /// Of a tower that trains in part, what its locked layers compute; `None`: it runs whole.
    pub image_states: Option<States>,
    pub text_states: Option<States>,
}

impl LockedFeatures {
    /// The features of the blends of the pairs of a whole batch; with `None`, those of the pairs.
    #[must_use]
    pub fn blended(self, mixing: Option<&Mixing>) -> Self {
        let Some(mixing) = mixing else { return self };
        let blend = |features: Option<Tensor<2>>| features.map(|features| mixing.blend(&features));
        Self { image: blend(self.image), text: blend(self.text), ..self }
    }

    /// The features without states, which are as large as what a tower computes within.
    #[must_use]
    pub fn without_states(self) -> Self {
        Self { image_states: None, text_states: None, ..self }
    }

    /// The features of a batch from those of its `parts`, without states.
    pub fn joined(parts: &[Self]) -> Self {
        let join = |of: fn(&Self) -> &Option<Tensor<2>>| {
            let all: Option<Vec<_>> = parts.iter().map(|part| of(part).clone()).collect();
            all.filter(|all| !all.is_empty()).map(|all| Tensor::cat(all, 0))
        };
        Self { image: join(|part| &part.image), text: join(|part| &part.text), ..Self::default() }
    }

    /// The features of the batches of all ranks, without states, and the number of rows of images and texts before
    /// those of this rank.
    ///
    /// # Errors
    /// Those of the exchange.
    pub fn of_all_ranks(self, ranks: &dyn Exchange) -> Result<(Self, [usize; 2]), TrainError> {
        let gather = |own: Option<Tensor<2>>| match own {
            Some(own) => all_rows(ranks, own).map(|(all, before)| (Some(all), before)),
            None => Ok((None, 0)),
        };
        let ((image, images), (text, texts)) = (gather(self.image)?, gather(self.text)?);
        Ok((Self { image, text, ..Self::default() }, [images, texts]))
    }

    /// The features of each of the parts of a batch that are as long as `parts`, without states. `before`: the rows of
    /// images and texts before the first of these parts.
    pub fn split_as(&self, parts: &[Self], before: [usize; 2]) -> Vec<Self> {
        let mut starts = before;
        let mut take = |side: usize, whole: &Option<Tensor<2>>, part: &Option<Tensor<2>>| {
            let (whole, [rows, _]) = (whole.as_ref()?, part.as_ref()?.dims());
            let start = starts[side];
            starts[side] += rows;
            Some(whole.clone().slice(start..start + rows))
        };
        let part = |part: &Self| Self {
            image: take(0, &self.image, &part.image),
            text: take(1, &self.text, &part.text),
            ..Self::default()
        };
        parts.iter().map(part).collect()
    }
}

impl LockedInputs {
    /// No tower is locked.
    pub fn none(dataset: Arc<Dataset>) -> Self {
        Self { towers: LockedTowers::none(), dataset, images: None, prefixes: Prefixes::default() }
    }

    /// The locked `towers`, with the images of `dataset` in `views`.
    pub fn new(towers: LockedTowers, dataset: Arc<Dataset>, views: Views) -> Self {
        let images = towers.images.as_ref().map(|images| images.set(dataset.clone(), views));
        Self { towers, dataset, images, prefixes: Prefixes::default() }
    }

    /// The same with the locked layers of towers that train in part.
    #[must_use]
    pub fn with_prefixes(self, prefixes: Prefixes) -> Self {
        Self { prefixes, ..self }
    }

    /// The features of training images that are looked up before images are decoded, and their index.
    pub fn image_features(&self) -> Option<(&ImageFeatures, &ImageSet)> {
        let of_tower = self.towers.images.as_ref().zip(self.images.as_ref());
        of_tower.or_else(|| self.prefixes.images.as_ref().map(|prefix| (&prefix.states, &prefix.set)))
    }

    /// Runs the locked towers and layers over `batch`, or reads what they compute from the cache.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the cache cannot be written; [`TrainError::Data`] when an image has to be read again
    /// and cannot be.
    pub fn of_batch(&self, batch: &Batch) -> Result<LockedFeatures, TrainError> {
        let images = self.towers.images.as_ref().zip(self.images.as_ref());
        Ok(LockedFeatures {
            image: images.map(|(locked, set)| locked.of_batch(set, batch)).transpose()?,
            text: self.texts_of_batch(batch)?,
            image_states: self.prefixes.images.as_ref().map(|prefix| prefix.of_batch(batch)).transpose()?,
            text_states: self.prefixes.texts.as_ref().map(|prefix| prefix.of_batch(batch)).transpose()?,
        })
    }

    /// `features` of `batch` with its states, for which [`LockedInputs::of_batch`] ran before: read from the cache.
    ///
    /// # Errors
    /// As for [`LockedInputs::of_batch`].
    pub fn with_states(&self, features: &LockedFeatures, batch: &Batch) -> Result<LockedFeatures, TrainError> {
        Ok(LockedFeatures {
            image: features.image.clone(),
            text: features.text.clone(),
            image_states: self.prefixes.images.as_ref().map(|prefix| prefix.of_batch_again(batch)).transpose()?,
            text_states: self.prefixes.texts.as_ref().map(|prefix| prefix.of_batch(batch)).transpose()?,
        })
    }

    /// The pooled outputs of a locked text tower alone; `None`: it trains.
    ///
    /// # Errors
    /// As for [`LockedInputs::of_batch`].
    pub fn texts_of_batch(&self, batch: &Batch) -> Result<Option<Tensor<2>>, TrainError> {
        let texts = self.towers.texts.as_ref();
        // A pair has a row for each of its captions, not for the first alone.
        texts.map(|locked| locked.of_captions(&self.dataset, &batch.captions, &batch.tokens)).transpose()
    }

    /// Whether a step reads pixels: the image tower runs in it, and a step in parts needs them twice.
    pub fn needs_pixels_twice(&self) -> bool {
        self.image_features().is_none()
    }
}
