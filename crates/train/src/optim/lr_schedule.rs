//! The learning rate schedule: a factor from 0 to 1 as a pure function of the step, so that resuming needs no state.
//! The rates it applies to are in `param_groups`.

use std::f64::consts::PI;

use dualenc_data::counted;

use crate::config::{Schedule, TrainSection, default};
use crate::error::TrainError;

/// Linear warm-up, then a curve, then a linear cooldown that multiplies the curve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LrSchedule {
    schedule: Schedule,
    /// Factor at which `cosine` and `linear` end.
    floor: f64,
    /// Steps after which `rsqrt` has fallen by a factor of sqrt(2).
    timescale: f64,
    /// Length of the warm-up.
    pub warmup_steps: u64,
    cooldown_steps: u64,
    total_steps: u64,
}

impl LrSchedule {
    /// The schedule of a run of `total_steps`.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when warm-up and cooldown together are longer than the run.
    pub fn new(config: &TrainSection, total_steps: u64) -> Result<Self, TrainError> {
        let share = |fraction: f64| (fraction * total_steps as f64).round() as u64;
        let steps = |steps: Option<u64>, fraction: Option<f64>| steps.or(fraction.map(share)).unwrap_or(0);
        let warmup_steps = steps(config.warmup_steps, config.warmup_fraction);
        let cooldown_steps = steps(config.cooldown_steps, config.cooldown_fraction);
        if warmup_steps.saturating_add(cooldown_steps) > total_steps {
            let phase = |name: &str, key: &str, steps: u64, is_steps: bool| {
                let unit = if is_steps { "steps" } else { "fraction" };
                (steps > 0).then(|| {
                    let count = counted(usize::try_from(steps).unwrap_or(usize::MAX), "step");
                    format!("a {name} of {count} (`train.{key}_{unit}`)")
                })
            };
            let phases = [
                phase("warm-up", "warmup", warmup_steps, config.warmup_steps.is_some()),
                phase("cooldown", "cooldown", cooldown_steps, config.cooldown_steps.is_some()),
            ];
            let phases: Vec<String> = phases.into_iter().flatten().collect();
            let (do_not, them) = if phases.len() > 1 { ("do not", "one of them") } else { ("does not", "it") };
            return Err(TrainError::Usage(format!(
                "{} {do_not} fit in the {} of the run; shorten {them}, or lengthen the run (`train.epochs` or \
                 `train.steps`)",
                phases.join(" and "),
                counted(usize::try_from(total_steps).unwrap_or(usize::MAX), "step")
            )));
        }
        Ok(Self::with_phases(config, total_steps, [warmup_steps, cooldown_steps]))
    }

    /// The schedule of a fit of the heads, which makes no update: warm-up and cooldown may be longer than the run.
    pub fn of_fit(config: &TrainSection, total_steps: u64) -> Self {
        Self::with_phases(config, total_steps, [0, 0])
    }

    /// `phases`: the steps of warm-up and cooldown.
    fn with_phases(config: &TrainSection, total_steps: u64, phases: [u64; 2]) -> Self {
        let [warmup_steps, cooldown_steps] = phases;
        Self {
            schedule: config.schedule,
            floor: config.learning_rate_floor,
            timescale: config.rsqrt_timescale.unwrap_or(default::RSQRT_TIMESCALE),
            warmup_steps,
            cooldown_steps,
            total_steps,
        }
    }

    /// Factor of the peak learning rate at the 0-based `step`. The curve reaches its floor after the last step, so that
    /// no step has a rate of 0 (as in open_clip's `scheduler.py`).
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        let after = (step - self.warmup_steps) as f64;
        let progress = after / self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let above_floor = |share: f64| self.floor + (1.0 - self.floor) * share;
        let share = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Rsqrt => (self.timescale / (self.timescale + after)).sqrt(),
            Schedule::Linear => above_floor(1.0 - progress),
            Schedule::Cosine => above_floor(0.5 * (1.0 + (PI * progress).cos())),
        };
        share * self.cooldown(step)
    }

    /// Factor of the curve at `step`: 1 until the cooldown, then falling towards 0 after the last step.
    fn cooldown(&self, step: u64) -> f64 {
        if self.cooldown_steps == 0 {
            return 1.0;
        }
        (self.total_steps.saturating_sub(step) as f64 / self.cooldown_steps as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(more: &str, total_steps: u64) -> Result<LrSchedule, TrainError> {
        let text = format!("batch_size = 2\nlearning_rate = 1\n{more}");
        LrSchedule::new(&toml::from_str(&text).unwrap(), total_steps)
    }

    #[track_caller]
    fn assert_factors(more: &str, expected: &[f64]) {
        let schedule = schedule(more, expected.len() as u64).unwrap();
        let found: Vec<f64> = (0..expected.len() as u64).map(|step| (schedule.at(step) * 1e4).round() / 1e4).collect();
        assert_eq!(found, expected, "{more}");
    }

    #[test]
    fn warms_up_then_follows_curve() {
        assert_factors("warmup_steps = 2\nschedule = 'constant'", &[0.5, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_factors("warmup_steps = 2\nschedule = 'linear'", &[0.5, 1.0, 1.0, 0.75, 0.5, 0.25]);
        assert_factors("warmup_steps = 2", &[0.5, 1.0, 1.0, 0.8536, 0.5, 0.1464]);
        assert_factors("schedule = 'linear'", &[1.0, 0.8, 0.6, 0.4, 0.2]);
    }

    #[test]
    fn ends_at_the_floor() {
        assert_factors(
            "warmup_steps = 2\nschedule = 'linear'\nlearning_rate_floor = 0.2",
            &[0.5, 1.0, 1.0, 0.8, 0.6, 0.4],
        );
        assert_factors("learning_rate_floor = 0.5", &[1.0, 0.9268, 0.75, 0.5732]);
        assert_factors("schedule = 'linear'\nlearning_rate_floor = 1", &[1.0, 1.0, 1.0]);
    }

    #[test]
    fn rsqrt_falls_with_timescale() {
        // sqrt(3 / 3), sqrt(3 / 4), sqrt(3 / 5).
        assert_factors("warmup_steps = 1\nschedule = 'rsqrt'\nrsqrt_timescale = 3", &[1.0, 1.0, 0.866, 0.7746]);
        // The default timescale is 10000.
        assert!((schedule("schedule = 'rsqrt'", 40_000).unwrap().at(30_000) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn cooldown_is_linear() {
        assert_factors("schedule = 'constant'\ncooldown_steps = 4", &[1.0, 1.0, 1.0, 0.75, 0.5, 0.25]);
        // sqrt(3 / (3 + n)) times 1, 1, 1, 2/3, 1/3.
        let rsqrt = "schedule = 'rsqrt'\nrsqrt_timescale = 3\ncooldown_steps = 3";
        assert_factors(rsqrt, &[1.0, 0.866, 0.7746, 0.4714, 0.2182]);
    }

    #[test]
    fn fractions_count_whole_run() {
        assert_factors("warmup_fraction = 0.25\nschedule = 'constant'", &[0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        let both = "warmup_fraction = 0.3\ncooldown_fraction = 0.3\nschedule = 'constant'";
        assert_factors(both, &[0.5, 1.0, 1.0, 1.0, 1.0, 0.5]);
        for (keys, expected) in [
            ("warmup_steps = 7", "a warm-up of 7 steps (`train.warmup_steps`) does not fit in the 6 steps of the run"),
            (
                "schedule = 'constant'\nwarmup_steps = 4\ncooldown_fraction = 0.5",
                "a warm-up of 4 steps (`train.warmup_steps`) and a cooldown of 3 steps (`train.cooldown_fraction`) do \
                 not fit in the 6 steps of the run; shorten one of them, or lengthen the run",
            ),
        ] {
            let error = schedule(keys, 6).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
