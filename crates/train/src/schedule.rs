//! The learning rate as a pure function of the step, so that resuming needs no state.

use crate::config::Schedule;

/// Linear warm-up, then a curve down to the last step.
#[derive(Debug, Clone, Copy)]
pub struct LearningRate {
    /// The highest rate.
    pub peak: f64,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// The curve after the warm-up.
    pub schedule: Schedule,
}

impl LearningRate {
    /// The rate of the 0-based `step`. No step of a run has the rate 0 (open_clip: `scheduler.py`).
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let rest = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = (step - self.warmup_steps) as f64 / rest as f64;
        match self.schedule {
            Schedule::Constant => self.peak,
            Schedule::Linear => self.peak * (1.0 - progress),
            Schedule::Cosine => self.peak * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule) -> Vec<f64> {
        let rate = LearningRate { peak: 2.0, warmup_steps: 2, total_steps: 6, schedule };
        (0..6).map(|step| (rate.at(step) * 1e4).round() / 1e4).collect()
    }

    #[test]
    fn rises_over_the_warm_up_and_falls_along_the_curve() {
        assert_eq!(rates(Schedule::Constant), [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(rates(Schedule::Linear), [1.0, 2.0, 2.0, 1.5, 1.0, 0.5]);
        assert_eq!(rates(Schedule::Cosine), [1.0, 2.0, 2.0, 1.7071, 1.0, 0.2929]);
    }
}
