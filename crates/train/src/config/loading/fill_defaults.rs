//! Defaults that depend on other keys.

use dualenc_data::CaptionMode;

use crate::config::schema::eval::{EvalSection, Task};
use crate::config::schema::loss::{LogitBiasInit, Loss};
use crate::config::schema::model_heads::HeadChoice;
use crate::config::schema::optimizer::Schedule;
use crate::config::schema::{RunConfig, default};

impl RunConfig {
    /// Sets the defaults that depend on other keys, so that an explicit default and an implicit one are equal.
    pub(super) fn fill_defaults(&mut self) {
        if self.model.init.is_none() {
            if self.model.text_head.kind != Some(HeadChoice::Identity) {
                self.model.embed_dim.get_or_insert(default::EMBED_DIM);
            }
            self.model.logit_scale_init.get_or_insert(self.train.loss.logit_scale_init());
        }
        if self.data.captions == CaptionMode::Slots {
            self.data.caption_slots.get_or_insert(default::CAPTION_SLOTS);
        }
        let is_new = self.model.init.is_none();
        self.model.image_head.fill_defaults(is_new);
        self.model.text_head.fill_defaults(is_new);
        if self.train.loss == Loss::Sigmoid {
            let bias = self.train.logit_bias_init.unwrap_or(LogitBiasInit::Auto).number(self.train.batch_size);
            self.train.logit_bias_init = Some(LogitBiasInit::Number(bias));
        }
        if let (Loss::Softmax, Some(teacher)) = (self.train.loss, &mut self.train.teacher) {
            teacher.scale.get_or_insert(default::TEACHER_SCALE);
        }
        if self.train.structure > 0.0 {
            self.train.structure_warmup_steps.get_or_insert(default::STRUCTURE_WARMUP_STEPS);
            self.train.structure_temperature.get_or_insert(default::STRUCTURE_TEMPERATURE);
        }
        let optimizer = self.train.optimizer;
        let uses = |key| optimizer.hyperparameters().contains(&key);
        self.train.betas = self.train.betas.or(default::betas(optimizer));
        self.train.eps = self.train.eps.or(uses("eps").then_some(default::EPS));
        self.train.momentum = self.train.momentum.or(uses("momentum").then_some(default::MOMENTUM));
        if self.train.warmup_fraction.is_none() {
            self.train.warmup_steps.get_or_insert(0);
        }
        if self.train.schedule == Schedule::Rsqrt {
            self.train.rsqrt_timescale.get_or_insert(default::RSQRT_TIMESCALE);
        }
        for lora in [&mut self.model.image_lora, &mut self.model.text_lora].into_iter().flatten() {
            lora.alpha.get_or_insert(lora.rank as f64);
        }
        if self.data.validation_fraction > 0.0 && !self.eval.values().any(EvalSection::uses_split) {
            self.eval.entry(default::VALIDATION.to_owned()).or_insert_with(EvalSection::validation);
        }
        for eval in self.eval.values_mut().filter(|eval| eval.task == Task::Loss) {
            eval.pool_size.get_or_insert(default::POOL_SIZE);
        }
        for eval in self.eval.values_mut().filter(|eval| eval.task == Task::Knn) {
            eval.neighbors.get_or_insert(default::NEIGHBORS);
        }
        for eval in self.eval.values_mut().filter(|eval| eval.every_steps.is_none()) {
            eval.every_epochs.get_or_insert(default::EVAL_EVERY_EPOCHS);
        }
    }
}
