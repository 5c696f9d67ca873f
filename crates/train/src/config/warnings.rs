//! Settings that are valid but have no effect, or lose what another one gives.

use dualenc_model::Tower;

use super::derived::eval_interval::EvalInterval;
use super::derived::stage_plan::Stage;
use super::schema::RunConfig;
use super::schema::model::HeadInit;
use super::schema::model_heads::HeadChoice;
use super::schema::optimizer::OptimizerKind;

/// The highest rate at which Adam's steps, each about as large as the rate, improve a fitted head on several layers.
/// Measured in docs/ALIGNMENT.md: 3e-4 improves the start, 1e-3 loses it.
const HIGHEST_RATE_OF_FITTED_HEADS: f64 = 5e-4;

impl RunConfig {
    /// Settings that are valid but have no effect, or lose what another one gives, each as a sentence.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.locked_tower_warnings();
        warnings.extend(self.locked_head_warnings());
        warnings.extend(self.fitted_head_warning());
        warnings.extend(self.views_warning());
        warnings.extend(self.patience_warning());
        warnings.extend(self.cache_dir_warning());
        warnings
    }

    /// Settings of the training of towers that never train.
    fn locked_tower_warnings(&self) -> Vec<String> {
        let (model, train, ever) = (&self.model, &self.train, self.ever_trains());
        let mut warnings = Vec::new();
        for (name, dropout, tower) in
            [("image", model.image_dropout, ever.image), ("text", model.text_dropout, ever.text)]
        {
            if dropout.is_some() && !tower.any() {
                warnings.push(format!("`model.{name}_dropout` has no effect: the {name} tower is locked"));
            }
        }
        for (name, decay, tower) in
            [("image", train.image_layer_decay, ever.image), ("text", train.text_layer_decay, ever.text)]
        {
            if decay != 1.0 && !tower.any() {
                warnings.push(format!("`train.{name}_layer_decay` has no effect: the {name} tower is locked"));
            }
        }
        warnings
    }

    /// Settings of the training of heads that never train.
    fn locked_head_warnings(&self) -> Vec<String> {
        let (model, train, ever) = (&self.model, &self.train, self.ever_trains());
        let heads = [
            ("image", &model.image_head, train.image_projection_learning_rate, ever.image_projection),
            ("text", &model.text_head, train.text_projection_learning_rate, ever.text_projection),
        ];
        let mut warnings = Vec::new();
        for (name, head, rate, _) in heads.into_iter().filter(|(.., trains)| !trains) {
            let why = if head.kind == Some(HeadChoice::Identity) { "has no parameters" } else { "is locked" };
            if head.dropout.is_some_and(|dropout| dropout > 0.0) {
                warnings.push(format!("`model.{name}_head.dropout` has no effect: the {name} head {why}"));
            }
            if rate.is_some() {
                warnings.push(format!("`train.{name}_projection_learning_rate` has no effect: the {name} head {why}"));
            }
        }
        warnings
    }

    /// A rate at which training loses the start that `head_init` gives.
    fn fitted_head_warning(&self) -> Option<String> {
        let (model, train) = (&self.model, &self.train);
        let is_adam = matches!(train.optimizer, OptimizerKind::AdamW | OptimizerKind::Adafactor | OptimizerKind::Lion);
        if model.head_init == HeadInit::Random || !is_adam {
            return None;
        }
        let sides = [
            (&model.image_layer, train.image_projection_learning_rate),
            (&model.text_layer, train.text_projection_learning_rate),
        ];
        let rate = sides
            .into_iter()
            .filter(|(layers, _)| layers.numbers().len() > 1)
            .map(|(_, rate)| rate.or(train.projection_learning_rate).unwrap_or(train.learning_rate))
            .fold(0.0, f64::max);
        (rate > HIGHEST_RATE_OF_FITTED_HEADS).then(|| {
            format!(
                "the heads on several layers start fitted (`model.head_init`), and a rate of {rate:?} is likely to \
                 lose this start: set `train.projection_learning_rate` to 3e-4 or less"
            )
        })
    }

    fn views_warning(&self) -> Option<String> {
        self.cache.views?;
        let why = if self.data.augment.is_none() {
            "images are not augmented"
        } else if self.stages().iter().all(|stage| stage.training.image.any()) && !self.limits_views() {
            "the image tower trains"
        } else {
            return None;
        };
        Some(format!("`cache.views` has no effect: {why}"))
    }

    fn patience_warning(&self) -> Option<String> {
        self.checkpoint.patience?;
        let name = self.checkpoint.best_metric()?.evaluation;
        let only_at_end = self.eval.get(&name)?.interval() == EvalInterval::End;
        only_at_end
            .then(|| format!("`checkpoint.patience` has no effect: `eval.{name}` runs only at the end of training"))
    }

    fn cache_dir_warning(&self) -> Option<String> {
        self.cache.dir.as_ref()?;
        let caches_prefix = |training| Tower::ALL.into_iter().any(|tower| self.caches_prefix(tower, training));
        let some_tower_is_locked = self
            .stages()
            .iter()
            .any(|Stage { training, .. }| !training.image.any() || !training.text.any() || caches_prefix(training));
        let why = if !self.cache.enabled {
            "`cache.enabled` is false"
        } else if !some_tower_is_locked && self.train.teacher.is_none() {
            "no tower is locked"
        } else {
            return None;
        };
        Some(format!("`cache.dir` has no effect: {why}"))
    }
}
