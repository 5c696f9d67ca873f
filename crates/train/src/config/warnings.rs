//! Settings that are valid but have no effect, or lose what another one gives.

use dualenc_model::Tower;

use super::derived::eval_interval::EvalInterval;
use super::derived::run_length::RunLength;
use super::derived::stage_plan::Stage;
use super::schema::RunConfig;
use super::schema::loss::{LogitBiasInit, Loss};
use super::schema::model::HeadInit;
use super::schema::model_heads::HeadChoice;
use super::schema::optimizer::OptimizerKind;
use super::schema::run::Precision;

/// The highest rate of Adam, with steps about as large as the rate, that is known to suit a fitted head on one layer,
/// and on several. Measured in docs/ALIGNMENT.md: on one layer, 1e-3 is as good as 3e-4; on several, it ends lower.
const HIGHEST_RATES_OF_FITTED_HEADS: [f64; 2] = [1e-3, 5e-4];

/// Rates to set instead.
const RATES_OF_FITTED_HEADS: [&str; 2] = ["1e-3", "3e-4"];

/// Steps of the shortest warm-up that is known to suit fitted heads: a tenth of 6 epochs of 20 steps (`LL` from CCA in
/// docs/ALIGNMENT.md, `scripts/icons_pytorch.py`). Without one, Adam's first steps are as large as the rate in every
/// weight, whatever the gradient.
const SHORTEST_WARMUP_OF_FITTED_HEADS: u64 = 12;

impl RunConfig {
    /// Settings that are valid but have no effect, or lose what another one gives, each as a sentence.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings_beside_start();
        let total_steps = match self.length() {
            RunLength::Steps(steps) => Some(steps),
            RunLength::Epochs(_) => None,
        };
        warnings.extend(self.fitted_head_warning());
        warnings.extend(self.warmup_steps(total_steps).and_then(|steps| self.warmup_warning(steps)));
        warnings
    }

    /// The warnings of a fit, and of a run that goes on: all but those of the first steps.
    pub(crate) fn warnings_beside_start(&self) -> Vec<String> {
        let mut warnings = self.locked_tower_warnings();
        warnings.extend(self.locked_head_warnings());
        warnings.extend(self.fit_warnings());
        warnings.extend(self.views_warning());
        warnings.extend(self.prefix_warning());
        warnings.extend(self.patience_warning());
        warnings.extend(self.cache_dir_warning());
        warnings.extend(self.locked_precision_warning());
        warnings
    }

    /// What a valid config leads to that may surprise later, each as a sentence.
    pub fn notes(&self) -> Vec<String> {
        let sides = [("model.image_layer", &self.model.image_layer), ("model.text_layer", &self.model.text_layer)];
        let several = sides.into_iter().filter(|(_, layers)| layers.numbers().len() > 1);
        let keys: Vec<String> = several.map(|(key, _)| format!("`{key}`")).collect();
        if keys.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "{} {} several layers, which transformers cannot pool: `dualenc export` writes such a model with `--format \
             heads` only, and `dualenc embed` writes its embeddings",
            keys.join(" and "),
            if keys.len() == 1 { "names" } else { "name" }
        )]
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

    /// Steps of the warm-up in a run of `total_steps`; `None`: it is a share of a length that only the data tell.
    fn warmup_steps(&self, total_steps: Option<u64>) -> Option<u64> {
        match (self.train.warmup_steps, self.train.warmup_fraction) {
            (Some(steps), _) => Some(steps),
            (None, Some(fraction)) => total_steps.map(|total| (fraction * total as f64).round() as u64),
            (None, None) => Some(0),
        }
    }

    /// What [`RunConfig::warnings`] cannot say: the warm-up is a share of the data's epochs, and has `steps`.
    pub(crate) fn warmup_warning_of_data(&self, steps: u64) -> Option<String> {
        let is_known = matches!(self.length(), RunLength::Steps(_)) || self.warmup_steps(None).is_some();
        if is_known { None } else { self.warmup_warning(steps) }
    }

    /// A warm-up in which training loses the start that `head_init` gives.
    fn warmup_warning(&self, steps: u64) -> Option<String> {
        (self.fitted_heads_train_by_adam() && steps < SHORTEST_WARMUP_OF_FITTED_HEADS).then(|| {
            let found = match steps {
                0 => "there is no warm-up".to_owned(),
                1 => "the warm-up has 1 step".to_owned(),
                steps => format!("the warm-up has {steps} steps"),
            };
            format!(
                "the heads start fitted (`model.head_init`), and {found}: early steps at the full rate are likely to \
                 lose this start; train for several times {SHORTEST_WARMUP_OF_FITTED_HEADS} steps, with \
                 `train.warmup_steps` at {SHORTEST_WARMUP_OF_FITTED_HEADS} or more"
            )
        })
    }

    /// Whether heads start fitted, and train in steps about as large as the rate.
    fn fitted_heads_train_by_adam(&self) -> bool {
        self.model.head_init != HeadInit::Random
            && matches!(self.train.optimizer, OptimizerKind::AdamW | OptimizerKind::Adafactor | OptimizerKind::Lion)
    }

    /// A rate at which training loses the start that `head_init` gives.
    fn fitted_head_warning(&self) -> Option<String> {
        let (model, train) = (&self.model, &self.train);
        if !self.fitted_heads_train_by_adam() {
            return None;
        }
        let sides = [
            (&model.image_layer, train.image_projection_learning_rate),
            (&model.text_layer, train.text_projection_learning_rate),
        ];
        // Of several layers first: their rate is the lower one.
        [true, false].into_iter().find_map(|of_several| {
            let rate = sides
                .iter()
                .filter(|(layers, _)| (layers.numbers().len() > 1) == of_several)
                .map(|(_, rate)| rate.or(train.projection_learning_rate).unwrap_or(train.learning_rate))
                .fold(0.0, f64::max);
            let at = usize::from(of_several);
            (rate > HIGHEST_RATES_OF_FITTED_HEADS[at]).then(|| {
                format!(
                    "the heads{} start fitted (`model.head_init`), and a rate of {rate:?} is likely to lose this \
                     start: set `train.projection_learning_rate` to {} or less",
                    if of_several { " on several layers" } else { "" },
                    RATES_OF_FITTED_HEADS[at]
                )
            })
        })
    }

    /// Settings that `head_init` replaces, and settings of a fit that there is not.
    fn fit_warnings(&self) -> Vec<String> {
        let (model, train, fit) = (&self.model, &self.train, &self.fit);
        if model.head_init == HeadInit::Random {
            let given = [("ridge", fit.ridge.is_some()), ("power", fit.power.is_some())];
            let given = given.into_iter().filter(|(_, is_given)| *is_given);
            return given
                .map(|(key, _)| {
                    format!(
                        "`fit.{key}` has no effect here: only `dualenc fit` reads it, and training with \
                         `model.head_init`, which is not set"
                    )
                })
                .collect();
        }
        // A default and the same value in the config are one.
        let usual_scale = model.init.is_none().then(|| train.loss.logit_scale_init());
        let is_scale = model.logit_scale_init.is_some() && model.logit_scale_init != usual_scale;
        let usual_bias = LogitBiasInit::Auto.number(train.batch_size);
        let is_bias = train.logit_bias_init.is_some_and(|bias| bias != LogitBiasInit::Number(usual_bias));
        [
            ("model.logit_scale_init", "logit_scale", is_scale),
            ("train.logit_bias_init", "logit_bias", is_bias && train.loss == Loss::Sigmoid),
        ]
        .into_iter()
        .filter(|(.., is_given)| *is_given)
        .map(|(key, value, _)| {
            format!(
                "`{key}` has no effect beside `model.head_init`: a fit chooses `{value}` by the loss on pairs that it \
                 holds out, unless there are too few; remove the key"
            )
        })
        .collect()
    }

    fn views_warning(&self) -> Option<String> {
        self.cache.views?;
        let why = if self.data.augment.is_none() {
            "images are not augmented"
        } else if self.stages().iter().all(|stage| stage.training.image.any()) && !self.limits_views() {
            match self.trains_in_part(Tower::Image) && self.cache.enabled && self.cache.prefix.is_none() {
                true => {
                    "the image tower trains; set `cache.prefix = true` to cache as many views of the states of its \
                     locked layers"
                }
                false => "the image tower trains",
            }
        } else {
            return None;
        };
        Some(format!("`cache.views` has no effect: {why}"))
    }

    /// Cached states that are asked for where there are none.
    fn prefix_warning(&self) -> Option<String> {
        let why = if self.cache.prefix != Some(true) {
            return None;
        } else if !self.cache.enabled {
            "`cache.enabled` is false"
        } else if !Tower::ALL.into_iter().any(|tower| self.trains_in_part(tower)) {
            "no tower trains in part (`model.image_unlock_last`, `model.text_unlock_last`, or adapters in the last \
             blocks)"
        } else {
            return None;
        };
        Some(format!("`cache.prefix` has no effect: {why}"))
    }

    /// Whether some stage trains a part of `tower`.
    fn trains_in_part(&self, tower: Tower) -> bool {
        let is_partial = |Stage { training, .. }: &Stage| match tower {
            Tower::Image => training.image.is_partial(),
            Tower::Text => training.text.is_partial(),
        };
        self.stages().iter().any(is_partial)
    }

    fn patience_warning(&self) -> Option<String> {
        self.checkpoint.patience?;
        let name = self.checkpoint.best_metric()?.evaluation;
        let only_at_end = self.eval.get(&name)?.interval() == EvalInterval::End;
        only_at_end
            .then(|| format!("`checkpoint.patience` has no effect: `eval.{name}` runs only at the end of training"))
    }

    fn locked_precision_warning(&self) -> Option<String> {
        (self.run.locked_precision != Precision::F32 && !self.computes_locked_layers()).then(|| {
            "`run.locked_precision` has no effect: no tower is locked; `run.precision` is that of what trains"
                .to_owned()
        })
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
            match Tower::ALL.into_iter().any(|tower| self.trains_in_part(tower)) {
                true => {
                    "no tower is locked as a whole, and what locked layers compute is not cached with this config; set \
                     `cache.prefix = true`, and with `data.augment` also `cache.views`"
                }
                false => "no tower is locked",
            }
        } else {
            return None;
        };
        Some(format!("`cache.dir` has no effect: {why}"))
    }
}
