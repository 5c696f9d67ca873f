//! Ways in which training fails without an error: it goes on, and learns nothing. Each is told once a run.
//!
//! What is watched stands in the metrics. So a resumed run watches on where the stopped one was: the last lines are read again,
//! and the warnings that stand among them are not repeated.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::config::Loss;
use crate::run_dir::metrics_log::{Lines, TrainRecord, WarningRecord};

/// Steps over which the loss is averaged. The mean of so many losses of a batch, whose standard deviation is some 5 % of them,
/// is known to half a per cent.
const LOSS_STEPS: usize = 100;

/// A loss of at least this share of that of chance is no better than chance: four times the error of its mean.
const NEAR_CHANCE: f64 = 0.98;

/// A loss whose mean falls from the first half of these steps to the second by more than this share of that of chance, half of
/// what those two means err by, may be on its way: it is given more steps.
const FALLING: f64 = 0.005;

/// Embeddings that spread less than this are as good as equal: the mean cosine of two is above 0.99.
const COLLAPSED: f64 = 0.01;

/// Steps in a row after which embeddings have collapsed, or a part has no gradient: far more than an odd batch, and than
/// AdamW's first moment remembers.
const STEPS_IN_A_ROW: u64 = 50;

/// The same at the limit of the temperature, which a healthy run touches and leaves.
const STEPS_AT_LIMIT: u64 = 200;

/// A share of the limit of the temperature within which it stands there: some roundings of f32.
const AT_LIMIT: f64 = 1.0 - 1e-6;

/// A gradient of at most this share of the largest of the other parts has vanished: f32 rounds each value to 6e-8 of itself, so
/// it may be what rounding leaves of 0.
const VANISHED: f64 = 1e-6;

/// Lines of the metrics that the monitor's state follows from.
pub const STEPS_READ_AT_RESUME: usize =
    if LOSS_STEPS > STEPS_AT_LIMIT as usize { LOSS_STEPS } else { STEPS_AT_LIMIT as usize };

/// Watches the steps of a run.
#[derive(Debug)]
pub struct HealthMonitor {
    loss: Loss,
    /// No verdict before.
    warmup_steps: u64,
    /// The largest factor of the cosines.
    scale_limit: f64,
    /// The last losses after the warm-up, each with that of chance.
    losses: VecDeque<[f64; 2]>,
    /// For how many steps what each warning is about has lasted.
    lasting: BTreeMap<String, u64>,
    told: BTreeSet<String>,
}

impl HealthMonitor {
    /// For a run whose `logit_scale` is cut to `scale_limit`, a logarithm.
    pub fn new(loss: Loss, warmup_steps: u64, scale_limit: f64) -> Self {
        Self {
            loss,
            warmup_steps,
            scale_limit: scale_limit.exp(),
            losses: VecDeque::new(),
            lasting: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Goes on after the lines of a run that was stopped.
    pub fn resume_from(&mut self, lines: Lines) {
        for record in &lines.last_steps {
            self.check(record);
        }
        self.told.extend(lines.warnings.into_iter().map(|warning| warning.name));
    }

    /// What is to be told after this step.
    pub fn check(&mut self, record: &TrainRecord) -> Vec<WarningRecord> {
        let mut found = Vec::new();
        found.extend(self.chance(record));
        found.extend(self.collapse("image", record.image_spread, record));
        found.extend(self.collapse("text", record.text_spread, record));
        found.extend(self.temperature(record));
        let parts = record.grad_norms.keys().cloned().collect::<BTreeSet<_>>();
        self.lasting.retain(|name, _| name.strip_prefix(NO_GRADIENT).is_none_or(|part| parts.contains(part)));
        found.extend(parts.iter().filter_map(|part| self.gradient(part, record)));
        let new = found.into_iter().filter(|(name, _)| self.told.insert(name.clone()));
        new.map(|(name, message)| WarningRecord { step: record.step, name, message }).collect()
    }

    /// The loss stays where guessing is.
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
                "the loss has been {loss:.3} over the last {LOSS_STEPS} steps and does not fall; a model that cannot tell two \
                 pairs apart has {chance:.3}, {chance_is}. Lower `train.learning_rate` or raise `train.warmup_steps`; if that \
                 does not help, see whether images and captions belong together"
            );
            ("loss-at-chance".to_owned(), message)
        })
    }

    /// All embeddings of a side are one.
    fn collapse(&mut self, side: &str, spread: f64, record: &TrainRecord) -> Option<Found> {
        let name = format!("{side}-embeddings-collapsed");
        let holds = spread < COLLAPSED && record.step > self.warmup_steps;
        self.lasts(&name, holds, STEPS_IN_A_ROW).then(|| {
            let whitening = if side == "image" { ", or whiten a locked tower (`model.image_projection.whitening`)" } else { "" };
            let message = format!(
                "for {STEPS_IN_A_ROW} steps the {side} embeddings have been nearly equal: their spread is {spread:.1e}, of 0 (all \
                 equal) to 1. Lower `train.learning_rate`, raise `train.warmup_steps`{whitening}"
            );
            (name, message)
        })
    }

    /// The temperature wants to go where it may not.
    fn temperature(&mut self, record: &TrainRecord) -> Option<Found> {
        let name = "logit-scale-at-limit".to_owned();
        let holds = record.logit_scale >= self.scale_limit * AT_LIMIT;
        self.lasts(&name, holds, STEPS_AT_LIMIT).then(|| {
            let (scale, limit) = (record.logit_scale, self.scale_limit.ln());
            let message = format!(
                "for {STEPS_AT_LIMIT} steps `logit_scale` has stood at its limit, {scale:.1} (`train.logit_scale_max` = \
                 {limit:.4}, a logarithm): the loss would be lower with sharper logits. Raise the limit if it is low; at ln 100 and \
                 above the run learns its pairs by heart: stop earlier, take more data or `train.label_smoothing`"
            );
            (name, message)
        })
    }

    /// A part that trains gets nothing to learn from.
    fn gradient(&mut self, part: &str, record: &TrainRecord) -> Option<Found> {
        let norm = record.grad_norms[part];
        let others = record.grad_norms.iter().filter(|(other, _)| *other != part).map(|(_, norm)| *norm);
        let largest = others.fold(0.0, f64::max);
        let name = format!("{NO_GRADIENT}{part}");
        self.lasts(&name, norm <= VANISHED * largest, STEPS_IN_A_ROW).then(|| {
            let message = format!(
                "for {STEPS_IN_A_ROW} steps the gradient of `{part}` has had a norm of {norm:.1e}, beside {largest:.1e} of \
                 another part: it does not learn. See whether what comes after it is locked, zero or saturated; if it is not \
                 meant to learn, lock it"
            );
            (name, message)
        })
    }

    /// Whether something has now held for `steps` in a row.
    fn lasts(&mut self, name: &str, holds: bool, steps: u64) -> bool {
        let count = self.lasting.entry(name.to_owned()).or_default();
        *count = if holds { *count + 1 } else { 0 };
        *count >= steps
    }
}

/// The name of a warning and what it says.
type Found = (String, String);

/// What the names of warnings about a part's gradient begin with.
const NO_GRADIENT: &str = "no-gradient-";

#[cfg(test)]
mod tests {
    use super::*;

    /// A step of a run in which nothing is wrong.
    fn healthy(step: u64, parts: &[&str]) -> TrainRecord {
        TrainRecord {
            step,
            epoch: 0.0,
            samples_seen: 0,
            loss: 1.0,
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

    fn told(records: impl Iterator<Item = TrainRecord>) -> Vec<(String, u64)> {
        let mut monitor = monitor();
        records.flat_map(|record| monitor.check(&record)).map(|warning| (warning.name, warning.step)).collect()
    }

    #[test]
    fn each_is_told_once_and_only_after_it_has_lasted() {
        let parts = ["image_projection", "text_tower"];
        let run = |spoil: &dyn Fn(&mut TrainRecord)| {
            told((1..=500).map(|step| {
                let mut record = healthy(step, &parts);
                spoil(&mut record);
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
    fn a_part_that_is_locked_for_a_while_is_not_called_dead() {
        let stages = (1..=300).map(|step| {
            let mut record = healthy(step, if (41..=200).contains(&step) { &["b"] } else { &["a", "b"] });
            // Fewer than 50 on either side of the stage in which it is locked.
            if (11..=40).contains(&step) || (201..=240).contains(&step) {
                record.grad_norms.insert("a".to_owned(), 0.0);
            }
            record
        });
        assert!(told(stages).is_empty());
    }

    #[test]
    fn a_run_that_goes_on_from_its_last_lines_tells_what_it_would_have_told() {
        let records: Vec<_> = (1..=600)
            .map(|step| TrainRecord {
                loss: 4.0,
                logit_scale: 100.0,
                image_spread: if step < 400 { 0.5 } else { 0.0 },
                ..healthy(step, &["a"])
            })
            .collect();
        let whole = told(records.iter().cloned());
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

    #[test]
    fn watching_costs_next_to_nothing() {
        let mut monitor = monitor();
        let records: Vec<_> = (1..=20_000).map(|step| healthy(step, &["a", "b", "c", "d", "e"])).collect();
        let started = std::time::Instant::now();
        assert!(records.iter().all(|record| monitor.check(record).is_empty()));
        let micros = started.elapsed().as_secs_f64() * 1e6 / records.len() as f64;
        // A step takes milliseconds.
        assert!(micros < 100.0, "{micros} microseconds a step");
    }
}
