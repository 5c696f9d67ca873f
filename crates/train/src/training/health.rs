//! Warnings about training that goes on without learning. Each is reported once per run.
//!
//! The monitor's state follows from `metrics.jsonl`: a resumed run reads the last lines again, and does not repeat the
//! warnings among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dualenc_data::{Dataset, SameTokens};

use crate::config::Loss;
use crate::run_dir::metrics_log::{Lines, TrainRecord, WarningRecord};

/// Steps over which the loss is averaged. One batch's loss has a standard deviation of about 5 %, so the mean of 100 is
/// known to 0.5 %.
const LOSS_STEPS: usize = 100;

/// A mean loss of at least this fraction of the chance loss is no better than chance: four times the error of the mean.
const NEAR_CHANCE: f64 = 0.98;

/// If the mean loss dropped by more than this fraction of the chance loss between the two halves of the window, assume
/// that it is still learning and wait. Half the standard error of the difference.
const FALLING: f64 = 0.005;

/// Below this spread, embeddings are as good as equal: the mean cosine of two is above 0.99.
const COLLAPSED: f64 = 0.01;

/// Consecutive steps before collapsed embeddings or a vanished gradient are reported: more than an odd batch, and more
/// than AdamW's first moment remembers.
const STEPS_IN_A_ROW: u64 = 50;

/// Consecutive steps before `logit_scale` at its limit is reported. A healthy run touches the limit and leaves it.
const STEPS_AT_LIMIT: u64 = 200;

/// `logit_scale` is at its limit from this fraction on: a few roundings of f32 below it.
const AT_LIMIT: f64 = 1.0 - 1e-6;

/// A gradient norm of at most this fraction of the largest other part's has vanished: f32 rounds each value to 6e-8 of
/// itself, so it may be rounding error around 0.
const VANISHED: f64 = 1e-6;

/// Training lines of `metrics.jsonl` that the monitor's state depends on.
pub(crate) const STEPS_READ_AT_RESUME: usize =
    if LOSS_STEPS > STEPS_AT_LIMIT as usize { LOSS_STEPS } else { STEPS_AT_LIMIT as usize };

/// Prefix of the names of warnings about a part's gradient.
const NO_GRADIENT: &str = "no-gradient-";

/// A warning's name and message.
type Found = (String, String);

/// Watches the steps of a run.
#[derive(Debug)]
pub(crate) struct HealthMonitor {
    loss: Loss,
    /// The loss and the embeddings are not judged during the warm-up.
    warmup_steps: u64,
    /// Largest factor of the cosines, `exp(logit_scale_max)`.
    scale_limit: f64,
    /// The last losses after the warm-up, each with its chance loss.
    losses: VecDeque<[f64; 2]>,
    /// Consecutive steps of each condition, by the warning's name.
    lasting: BTreeMap<String, u64>,
    reported: BTreeSet<String>,
}

impl HealthMonitor {
    /// A monitor for a run that limits `logit_scale` to `scale_limit`, a logarithm.
    pub fn new(loss: Loss, warmup_steps: u64, scale_limit: f64) -> Self {
        Self {
            loss,
            warmup_steps,
            scale_limit: scale_limit.exp(),
            losses: VecDeque::new(),
            lasting: BTreeMap::new(),
            reported: BTreeSet::new(),
        }
    }

    /// Continues from the last lines of an interrupted run.
    pub fn resume_from(&mut self, lines: Lines) {
        for record in &lines.last_steps {
            self.check(record);
        }
        self.reported.extend(lines.warnings.into_iter().map(|warning| warning.name));
    }

    /// Takes a step in; returns the warnings that are new.
    pub fn check(&mut self, record: &TrainRecord) -> Vec<WarningRecord> {
        let mut found = Vec::new();
        found.extend(self.chance(record));
        found.extend(self.collapse("image", record.image_spread, record));
        found.extend(self.collapse("text", record.text_spread, record));
        found.extend(self.temperature(record));
        let parts = record.grad_norms.keys().cloned().collect::<BTreeSet<_>>();
        self.lasting.retain(|name, _| name.strip_prefix(NO_GRADIENT).is_none_or(|part| parts.contains(part)));
        found.extend(parts.iter().filter_map(|part| self.gradient(part, record)));
        let new = found.into_iter().filter(|(name, _)| self.reported.insert(name.clone()));
        new.map(|(name, message)| WarningRecord { step: record.step, name, message }).collect()
    }

    /// The loss stays at chance.
    fn chance(&mut self, record: &TrainRecord) -> Option<Found> {
        if record.step <= self.warmup_steps {
            return None;
        }
        self.losses.push_back([record.loss, record.chance_loss]);
        if self.losses.len() > LOSS_STEPS {
            self.losses.pop_front();
        }
        if self.losses.len() < LOSS_STEPS {
            return None;
        }
        let mean = |from: usize, of: usize| {
            self.losses.iter().skip(from).take(LOSS_STEPS / 2).map(|pair| pair[of]).sum::<f64>() * 2.0
                / LOSS_STEPS as f64
        };
        let (early, late) = (mean(0, 0), mean(LOSS_STEPS / 2, 0));
        let chance = 0.5 * (mean(0, 1) + mean(LOSS_STEPS / 2, 1));
        let loss = 0.5 * (early + late);
        let chance_is = match self.loss {
            Loss::Softmax => "about ln of the batch size",
            Loss::Sigmoid => "the entropy of which pairs match",
        };
        (loss >= NEAR_CHANCE * chance && early - late <= FALLING * chance).then(|| {
            let message = format!(
                "the loss averaged {loss:.3} over the last {LOSS_STEPS} steps and is not falling; a model that cannot \
                 tell two pairs apart has {chance:.3}, {chance_is}. Lower `train.learning_rate` or raise \
                 `train.warmup_steps`; if that does not help, check that images and captions belong together"
            );
            ("loss-at-chance".to_owned(), message)
        })
    }

    /// All embeddings of a side are nearly equal.
    fn collapse(&mut self, side: &str, spread: f64, record: &TrainRecord) -> Option<Found> {
        let name = format!("{side}-embeddings-collapsed");
        let holds = spread < COLLAPSED && record.step > self.warmup_steps;
        self.lasts(&name, holds, STEPS_IN_A_ROW).then(|| {
            let whitening =
                if side == "image" { ", or set `model.image_projection.whitening` for a locked tower" } else { "" };
            let message = format!(
                "the {side} embeddings have been nearly equal for {STEPS_IN_A_ROW} steps: their spread is \
                 {spread:.1e}, from 0 (all equal) to 1. Lower `train.learning_rate`, raise \
                 `train.warmup_steps`{whitening}"
            );
            (name, message)
        })
    }

    /// `logit_scale` stays at its limit.
    fn temperature(&mut self, record: &TrainRecord) -> Option<Found> {
        let name = "logit-scale-at-limit".to_owned();
        let holds = record.logit_scale >= self.scale_limit * AT_LIMIT;
        self.lasts(&name, holds, STEPS_AT_LIMIT).then(|| {
            let (scale, limit) = (record.logit_scale, self.scale_limit.ln());
            let message = format!(
                "the factor `exp(logit_scale)` has been at its limit, {scale:.1}, for {STEPS_AT_LIMIT} steps \
                 (`train.logit_scale_max` = {limit:.4}, its logarithm): sharper logits would lower the loss. \
                 Raise the limit if it is low; at ln 100 and above the run is memorizing its pairs: stop earlier, \
                 add data, or set `train.label_smoothing`"
            );
            (name, message)
        })
    }

    /// A part that trains has no gradient.
    fn gradient(&mut self, part: &str, record: &TrainRecord) -> Option<Found> {
        let norm = record.grad_norms[part];
        let others = record.grad_norms.iter().filter(|(other, _)| *other != part).map(|(_, norm)| *norm);
        let largest = others.fold(0.0, f64::max);
        let name = format!("{NO_GRADIENT}{part}");
        self.lasts(&name, norm <= VANISHED * largest, STEPS_IN_A_ROW).then(|| {
            let message = format!(
                "the gradient norm of `{part}` has been {norm:.1e} for {STEPS_IN_A_ROW} steps, while another part has \
                 {largest:.1e}: it is not learning. Check whether a layer after it is locked, zero or saturated; if it \
                 is not meant to learn, lock it"
            );
            (name, message)
        })
    }

    /// Whether a condition has now held for `steps` consecutive steps.
    fn lasts(&mut self, name: &str, holds: bool, steps: u64) -> bool {
        let count = self.lasting.entry(name.to_owned()).or_default();
        *count = if holds { *count + 1 } else { 0 };
        *count >= steps
    }
}

/// The warning that all captions are equal, if they are.
pub(crate) fn one_caption(dataset: &Dataset) -> Option<String> {
    let mut texts = dataset.captions().map(|caption| caption.text);
    let (first, count) = (texts.next()?, dataset.num_captions());
    (count > 1 && texts.all(|text| text == first)).then(|| {
        format!("{count} captions, 1 distinct, `{first}`: nothing tells the pairs apart, so there is nothing to learn")
    })
}

/// Share of captions with the tokens of others from which a run warns of them. Fewer come from letter case.
pub(crate) const MANY_SAME: f64 = 0.01;

/// What it means that captions have the tokens of others.
pub(crate) fn same_tokens_message(same: SameTokens, dataset: &Dataset) -> String {
    let [one, other] = same.example.map(|number| dataset.caption(number).text);
    let SameTokens { same, texts, .. } = same;
    format!(
        "{same} of {texts} distinct captions have the same tokens as another one, such as `{one}` and `{other}`: the \
         text tower gives them equal features, and they are negatives of each other; take a text tower with a \
         tokenizer for these texts, raise `data.max_tokens` if they differ at the end, or make such captions equal"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step that gives no reason for a warning.
    fn healthy(step: u64, parts: &[&str]) -> TrainRecord {
        TrainRecord {
            step,
            epoch: 0.0,
            samples_seen: 0,
            loss: 1.0,
            loss_structure: None,
            loss_teacher: None,
            chance_loss: 4.0,
            learning_rate: 1e-3,
            logit_scale: 20.0,
            grad_norm: 1.0,
            grad_norms: parts.iter().map(|part| ((*part).to_owned(), 1.0)).collect(),
            image_spread: 0.9,
            text_spread: 0.9,
            num_duplicates: 0,
            pairs_per_sec: 1.0,
            loader_wait: 0.0,
        }
    }

    fn monitor() -> HealthMonitor {
        HealthMonitor::new(Loss::Softmax, 10, 100f64.ln())
    }

    fn warnings_of(records: impl Iterator<Item = TrainRecord>) -> Vec<(String, u64)> {
        let mut monitor = monitor();
        records.flat_map(|record| monitor.check(&record)).map(|warning| (warning.name, warning.step)).collect()
    }

    #[test]
    fn warns_once_after_enough_steps() {
        let parts = ["image_projection", "text_tower"];
        let run = |alter: &dyn Fn(&mut TrainRecord)| {
            warnings_of((1..=500).map(|step| {
                let mut record = healthy(step, &parts);
                alter(&mut record);
                record
            }))
        };
        let one = |name: &str, step: u64| vec![(name.to_owned(), step)];
        let none: Vec<(String, u64)> = Vec::new();
        assert_eq!(run(&|_| {}), none);
        assert_eq!(run(&|record| record.loss = 3.97), one("loss-at-chance", 110));
        // Falls by 2 % of chance in 100 steps.
        assert_eq!(run(&|record| record.loss = 4.4 - 8e-4 * record.step as f64), none);
        assert_eq!(run(&|record| record.text_spread = 0.005), one("text-embeddings-collapsed", 60));
        assert_eq!(run(&|record| record.logit_scale = 100.0), one("logit-scale-at-limit", 200));
        assert_eq!(
            run(&|record| record.logit_scale = if record.step.is_multiple_of(199) { 99.0 } else { 100.0 }),
            none
        );
        let vanishes = |record: &mut TrainRecord| {
            record.grad_norms.insert("text_tower".to_owned(), 1e-7);
        };
        assert_eq!(run(&vanishes), one("no-gradient-text_tower", 50));
    }

    #[test]
    fn locked_part_is_not_dead() {
        let stages = (1..=300).map(|step| {
            let mut record = healthy(step, if (41..=200).contains(&step) { &["b"] } else { &["a", "b"] });
            // Fewer than 50 on either side of the stage in which it is locked.
            if (11..=40).contains(&step) || (201..=240).contains(&step) {
                record.grad_norms.insert("a".to_owned(), 0.0);
            }
            record
        });
        assert!(warnings_of(stages).is_empty());
    }

    #[test]
    fn resumed_monitor_warns_the_same() {
        let records: Vec<_> = (1..=600)
            .map(|step| TrainRecord {
                loss: 4.0,
                logit_scale: 100.0,
                image_spread: if step < 400 { 0.5 } else { 0.0 },
                ..healthy(step, &["a"])
            })
            .collect();
        let whole = warnings_of(records.iter().cloned());
        assert_eq!(whole.len(), 3);
        for stopped in [1, 60, 110, 199, 200, 330, 420, 448, 449, 600] {
            let (before, after) = records.split_at(stopped);
            let (mut first, mut second) = (monitor(), monitor());
            let warnings: Vec<_> = before.iter().flat_map(|record| first.check(record)).collect();
            let last_steps = before[stopped.saturating_sub(STEPS_READ_AT_RESUME)..].iter().cloned().collect();
            second.resume_from(Lines { last_steps, warnings: warnings.clone() });
            let later = after.iter().flat_map(|record| second.check(record));
            let all: Vec<_> = warnings.into_iter().chain(later).map(|found| (found.name, found.step)).collect();
            assert_eq!(all, whole, "stopped after {stopped}");
        }
    }
}
