//! The locked towers of a model, and where their features are cached.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::ImageProcessor;
use dualenc_model::{DualEncoder, Tower, Training, parameters};
use parameters::ParamFilter;

use crate::config::{CacheDtype, HeadInit, RunConfig};
use crate::device::Compute;
use crate::error::TrainError;
use crate::features::images::ImageFeatures;
use crate::features::texts::TextFeatures;
use crate::stop_flag::StopFlag;

/// The towers of a model that are locked.
#[derive(Clone)]
pub struct LockedTowers {
    /// The image tower, if it is locked.
    pub(crate) images: Option<ImageFeatures>,
    /// The text tower, if it is locked.
    pub(crate) texts: Option<TextFeatures>,
}

/// Fingerprints of the locked parameters of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedFingerprints {
    /// Over all locked parameters.
    pub all: String,
    image_tower: String,
    text_tower: String,
}

impl LockedFingerprints {
    /// Fingerprints `model`, reading each parameter once.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data.
    pub fn of(model: &DualEncoder) -> Result<Self, TrainError> {
        let [all, image_tower, text_tower] =
            parameters::fingerprints(model, ParamFilter::Locked, ["", Tower::Image.prefix(), Tower::Text.prefix()])?;
        Ok(Self { all, image_tower, text_tower })
    }

    /// Over the locked parameters of the image tower, and of the text tower.
    pub(crate) fn of_towers(&self) -> [&str; 2] {
        [&self.image_tower, &self.text_tower]
    }
}

impl LockedTowers {
    /// No tower is locked.
    pub fn none() -> Self {
        Self { images: None, texts: None }
    }

    /// The locked towers of `model`, without a cache on disk. `workers`: threads that read images. `stop`: ends long
    /// work on images early.
    pub fn new(
        model: &DualEncoder,
        processor: &Arc<ImageProcessor>,
        compute: &Compute,
        workers: usize,
        stop: &StopFlag,
    ) -> Self {
        let images = || {
            let tower = model.image_tower.clone();
            ImageFeatures::new(tower, Arc::clone(processor), compute.clone(), workers).with_stop_flag(stop)
        };
        let texts = || TextFeatures::new(model.text_tower.clone(), compute.clone());
        Self { images: model.image_tower.is_locked().then(images), texts: model.text_tower.is_locked().then(texts) }
    }

    /// Only the towers that `training` leaves locked. Features of the others change with every step, so caching them is
    /// pointless.
    #[must_use]
    pub fn restricted_to(self, training: &Training) -> Self {
        Self {
            images: self.images.filter(|_| !training.image.any()),
            texts: self.texts.filter(|_| !training.text.any()),
        }
    }

    /// Caches the features on disk, in the directory and the dtype of `cache`. `None`: no cache.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when the cache cannot be opened.
    pub fn with_cache(
        self,
        cache: Option<(PathBuf, CacheDtype)>,
        fingerprints: &LockedFingerprints,
    ) -> Result<Self, TrainError> {
        let Some((dir, dtype)) = cache else { return Ok(self) };
        let LockedFingerprints { image_tower, text_tower, .. } = fingerprints;
        Ok(Self {
            images: self.images.map(|images| images.with_cache_dir(&dir, dtype, image_tower)).transpose()?,
            texts: self.texts.map(|texts| texts.with_cache_dir(&dir, dtype, text_tower)).transpose()?,
        })
    }
}

/// As [`check_cache_dir`], if a run of `config` caches features.
///
/// # Errors
/// As for [`check_cache_dir`].
pub(crate) fn check_cache_of_run(config: &RunConfig) -> Result<(), TrainError> {
    let is_used = config.computes_locked_layers() || config.model.head_init != HeadInit::Random;
    if is_used { check_cache_dir(config) } else { Ok(()) }
}

/// Checks, before models load, that the feature cache of `config` can be written, if it is on. Creates nothing.
///
/// # Errors
/// [`TrainError::Usage`]; [`TrainError::Write`] when the disk fails, which may pass.
pub(crate) fn check_cache_dir(config: &RunConfig) -> Result<(), TrainError> {
    // Features in place of images and texts are not cached.
    let Some((dir, _)) = feature_cache_of(config).filter(|_| config.feature_sides() != [true; 2]) else {
        return Ok(());
    };
    // The cache is created below the first directory that is there.
    let there = dir.ancestors().find(|path| path.exists()).unwrap_or(&dir);
    let is_writable = tempfile::tempfile_in(there).map(drop);
    let Err(error) = is_writable.or_else(|error| if has_writable_store(&dir) { Ok(()) } else { Err(error) }) else {
        return Ok(());
    };
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            Err(TrainError::Usage(format!(
                "cannot write to the feature cache `{}`: {error}; choose another `cache.dir`, or set `cache.enabled = \
                 false` to compute features anew in each run",
                dir.display()
            )))
        }
        // May pass, such as a full disk.
        _ => Err(TrainError::Write { path: dir, source: error }),
    }
}

/// Whether a cache in a directory without new files has files that can be written.
fn has_writable_store(dir: &Path) -> bool {
    let is_writable = |path: &Path| OpenOptions::new().write(true).open(path).is_ok();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|it| it == "index")).any(|path| is_writable(&path))
}

/// The directory and dtype of a run's feature cache; `None` if the config turns it off.
pub fn feature_cache_of(config: &RunConfig) -> Option<(PathBuf, CacheDtype)> {
    config.cache.enabled.then(|| (config.cache_dir(), config.cache.dtype))
}
