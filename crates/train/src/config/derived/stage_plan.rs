//! The stages of a run: which parameters train from which step on.

use dualenc_model::{Lock, TowerLock, TowerTraining, Training};

use crate::config::schema::RunConfig;
use crate::config::schema::model::ModelSection;
use crate::config::schema::model_heads::HeadChoice;

/// The beginning of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageStart {
    /// After this many steps.
    Step(u64),
    /// After this many epochs.
    Epoch(u64),
}

/// A part of a run with a fixed set of trainable parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its beginning.
    pub from: StageStart,
    /// The lock, as in the config.
    pub lock: Lock,
    /// The trainable parameters.
    pub training: Training,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Number of steps over which the learning rate rises again from 0 as the stage begins.
    pub warmup_steps: u64,
}

impl StageStart {
    /// Number of steps before the stage.
    pub fn step(self, steps_per_epoch: u64) -> u64 {
        match self {
            Self::Step(step) => step,
            Self::Epoch(epoch) => epoch * steps_per_epoch,
        }
    }
}

impl RunConfig {
    /// The stages in order. The first begins with the run.
    pub fn stages(&self) -> Vec<Stage> {
        let ModelSection { lock, image_unlock_last, text_unlock_last, .. } = self.model;
        let training = |lock: Lock, image_last, text_last, adapters: bool| Training {
            image: TowerTraining {
                trains: lock.image.trains(),
                last: image_last,
                adapters: adapters && self.model.image_lora.is_some(),
            },
            text: TowerTraining {
                trains: lock.text.trains(),
                last: text_last,
                adapters: adapters && self.model.text_lora.is_some(),
            },
            image_projection: !self.model.image_projection.locked,
            text_projection: !self.model.text_projection.locked
                && self.model.text_head.kind != Some(HeadChoice::Identity),
        };
        let mut stages = vec![Stage {
            from: StageStart::Step(0),
            lock,
            training: training(lock, image_unlock_last, text_unlock_last, true),
            learning_rate: self.train.learning_rate,
            warmup_steps: 0,
        }];
        for section in &self.train.stage {
            let before = stages.last().map_or(self.train.learning_rate, |stage| stage.learning_rate);
            let stage = Stage {
                from: match (section.from_step, section.from_epoch) {
                    (Some(step), _) => StageStart::Step(step),
                    (None, epoch) => StageStart::Epoch(epoch.unwrap_or(0)),
                },
                lock: section.lock,
                training: training(section.lock, section.image_unlock_last, section.text_unlock_last, section.lora),
                learning_rate: section.learning_rate.unwrap_or(before),
                warmup_steps: section.warmup_steps,
            };
            // A stage that begins with the run replaces `[model]` and `[train]`.
            if let StageStart::Step(0) | StageStart::Epoch(0) = stage.from {
                stages.clear();
            }
            stages.push(stage);
        }
        stages
    }

    /// The parameters that train in any stage.
    pub fn ever_trains(&self) -> Training {
        let stages = self.stages();
        stages.iter().skip(1).fold(stages[0].training, |all, stage| all.or(stage.training))
    }

    /// Whether each tower, image then text, starts from random weights.
    pub(crate) fn is_from_scratch(&self) -> [bool; 2] {
        [self.model.lock.image, self.model.lock.text].map(|lock| lock == TowerLock::Scratch)
    }
}
