//! Where the feature cache is, and how many views of each image it holds.

use std::num::NonZeroU64;
use std::path::PathBuf;

use dualenc_model::{Tower, TowerTraining, Training};

use crate::config::derived::stage_plan::Stage;
use crate::config::schema::RunConfig;
use crate::config::schema::data::CacheDtype;
use crate::config::schema::run::Precision;

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

    /// Whether a tower or part of one is locked in some stage, or there is a teacher.
    pub(crate) fn computes_locked_layers(&self) -> bool {
        let locks = |tower: TowerTraining| !tower.any() || tower.is_partial();
        let is_locked = |Stage { training, .. }: &Stage| locks(training.image) || locks(training.text);
        self.train.teacher.is_some() || self.stages().iter().any(is_locked)
    }

    /// Whether the run may cache the locked layers of `tower` while `training` trains.
    pub(crate) fn caches_prefix(&self, tower: Tower, training: &Training) -> bool {
        let (of_tower, is_augmented) = match tower {
            Tower::Image => (training.image, self.data.augment.is_some()),
            Tower::Text => (training.text, false),
        };
        // A cache limits the views of an image, which has to be asked for.
        self.cache.enabled && self.cache.prefix.unwrap_or(!is_augmented) && of_tower.is_partial()
    }

    /// Whether only augmentation keeps the run from caching the locked layers of the image tower while `training`
    /// trains.
    pub(crate) fn augments_states(&self, training: &Training) -> bool {
        let is_usual = self.cache.enabled && self.cache.prefix.is_none();
        is_usual && self.data.augment.is_some() && training.image.is_partial()
    }

    /// Whether cached states of locked layers differ from those that a step would compute by more than the order of
    /// sums.
    pub(crate) fn rounds_states(&self) -> bool {
        let [trained, locked] = [self.run.precision, self.run.locked_precision];
        // On the CPU, bf16 rounds the factors of attention in locked towers, but not in those that train.
        let differs = trained != locked || trained != Precision::F32 && self.run.device.first() == "cpu";
        self.cache.dtype != CacheDtype::F32 || differs
    }

    /// Whether images have `cache.views` views while the image tower trains in part, if it can be cut.
    pub(crate) fn limits_views(&self) -> bool {
        let is_cached = |stage: &Stage| self.caches_prefix(Tower::Image, &stage.training);
        self.data.augment.is_some() && self.cache.views.is_some() && self.stages().iter().any(is_cached)
    }
}
