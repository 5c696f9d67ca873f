//! Where the feature cache is, and how many views of each image it holds.

use std::num::NonZeroU64;
use std::path::PathBuf;

use dualenc_model::Training;

use crate::config::schema::RunConfig;

impl RunConfig {
    /// The directory of the feature cache.
    pub fn cache_dir(&self) -> PathBuf {
        self.cache.dir.clone().unwrap_or_else(|| self.run.dir.join("cache"))
    }

    /// Number of views of each training image while `training` applies, shown in turn: one without augmentation,
    /// `cache.views` where a locked image tower's features are cached, and otherwise a new view each epoch.
    pub fn views(&self, training: &Training) -> NonZeroU64 {
        match (self.data.augment, self.cache.views.and_then(NonZeroU64::new)) {
            (None, _) => NonZeroU64::MIN,
            (Some(_), Some(views)) if !training.image.any() => views,
            (Some(_), _) => NonZeroU64::MAX,
        }
    }
}
