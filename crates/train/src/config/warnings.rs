//! Settings that are valid but have no effect.

use super::derived::eval_interval::EvalInterval;
use super::schema::RunConfig;

impl RunConfig {
    /// Settings that are valid and have no effect, each as a sentence.
    pub fn warnings(&self) -> Vec<String> {
        let (model, stages, ever) = (&self.model, self.stages(), self.ever_trains());
        let mut warnings = Vec::new();
        for (name, dropout, tower) in
            [("image", model.image_dropout, ever.image), ("text", model.text_dropout, ever.text)]
        {
            if dropout.is_some() && !tower.any() {
                warnings.push(format!(
                    "`model.{name}_dropout` has no effect: the {name} tower is locked and drops nothing"
                ));
            }
        }
        for (name, decay, tower) in
            [("image", self.train.image_layer_decay, ever.image), ("text", self.train.text_layer_decay, ever.text)]
        {
            if decay != 1.0 && !tower.any() {
                warnings.push(format!("`train.{name}_layer_decay` has no effect: the {name} tower is locked"));
            }
        }
        let image_locked = stages.iter().any(|stage| !stage.training.image.any());
        let text_locked = stages.iter().any(|stage| !stage.training.text.any());
        if self.cache.views.is_some() && (self.data.augment.is_none() || !image_locked) {
            let why = if self.data.augment.is_none() { "images are not augmented" } else { "the image tower trains" };
            warnings.push(format!("`cache.views` has no effect: {why}"));
        }
        if let (Some(goal), Some(_)) = (self.checkpoint.goal(), self.checkpoint.patience)
            && self.eval.get(&goal.evaluation).is_some_and(|eval| eval.interval() == EvalInterval::End)
        {
            let name = goal.evaluation;
            warnings.push(format!("`checkpoint.patience` has no effect: `eval.{name}` only runs when training ends"));
        }
        if self.cache.dir.is_some() && (!self.cache.enabled || !(image_locked || text_locked)) {
            let why = if self.cache.enabled { "no tower is locked" } else { "`cache.enabled` is false" };
            warnings.push(format!("`cache.dir` has no effect: {why}"));
        }
        warnings
    }
}
