//! The locked towers of a model, whose outputs never change, and where those are kept.

use std::path::PathBuf;
use std::sync::Arc;

use dualenc_data::ImageProcessor;
use dualenc_model::{DualEncoder, Training, parameters};
use parameters::Which;

use crate::config::{CacheDtype, RunConfig};
use crate::device::Compute;
use crate::error::TrainError;
use crate::features::images::ImageFeatures;
use crate::features::texts::TextFeatures;
use crate::stop_flag::StopFlag;

/// The towers of a model that are locked.
#[derive(Clone)]
pub struct LockedTowers {
    /// The image tower, if it is locked.
    pub images: Option<ImageFeatures>,
    /// The text tower, if it is locked.
    pub texts: Option<TextFeatures>,
}

/// What the locked parameters of a model are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedFingerprints {
    /// Of all of them.
    pub all: String,
    image_tower: String,
    text_tower: String,
}

impl LockedFingerprints {
    /// Of `model`, each parameter read once.
    ///
    /// # Errors
    /// When the device cannot hand its data over.
    pub fn of(model: &DualEncoder) -> Result<Self, TrainError> {
        let [all, image_tower, text_tower] =
            parameters::fingerprints(model, Which::Locked, ["", "image_tower.", "text_tower."])?;
        Ok(Self { all, image_tower, text_tower })
    }
}

impl LockedTowers {
    /// None is locked.
    pub fn none() -> Self {
        Self { images: None, texts: None }
    }

    /// The locked towers of `model`; nothing is kept of what they give. A `stop` ends long work on images early.
    pub fn new(
        model: &DualEncoder,
        processor: &Arc<ImageProcessor>,
        compute: &Compute,
        workers: usize,
        stop: &StopFlag,
    ) -> Self {
        let images = || {
            let tower = model.image_tower.clone();
            ImageFeatures::new(tower, Arc::clone(processor), compute.clone(), workers).until(stop)
        };
        let texts = || TextFeatures::new(model.text_tower.clone(), compute.clone());
        Self { images: model.image_tower.is_locked().then(images), texts: model.text_tower.is_locked().then(texts) }
    }

    /// Those of them that stay locked where `training` trains: what others give changes with every step, and is not worth
    /// keeping.
    #[must_use]
    pub fn under(self, training: &Training) -> Self {
        Self {
            images: self.images.filter(|_| !training.image.any()),
            texts: self.texts.filter(|_| !training.text.any()),
        }
    }

    /// The same, kept where `cache` says from run to run.
    ///
    /// # Errors
    /// When the cache cannot be read or written.
    pub fn kept_in(
        self,
        cache: Option<(PathBuf, CacheDtype)>,
        fingerprints: &LockedFingerprints,
    ) -> Result<Self, TrainError> {
        let Some((dir, dtype)) = cache else { return Ok(self) };
        let LockedFingerprints { image_tower, text_tower, .. } = fingerprints;
        Ok(Self {
            images: self.images.map(|images| images.kept_in(&dir, dtype, image_tower)).transpose()?,
            texts: self.texts.map(|texts| texts.kept_in(&dir, dtype, text_tower)).transpose()?,
        })
    }
}

/// Where a run keeps the features of its locked towers, and how; `None`: it does not.
pub fn cache_of(config: &RunConfig) -> Option<(PathBuf, CacheDtype)> {
    config.cache.enabled.then(|| (config.cache_dir(), config.cache.dtype))
}
