//! Where a run is: updates and pairs done, and how many there are in all.

/// Counters of a run. `step` counts completed updates, so the 0-based step that comes next is `step` itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Updates done.
    pub step: u64,
    /// Pairs seen.
    pub samples_seen: u64,
    /// Updates per epoch.
    pub steps_per_epoch: u64,
    /// Updates of the whole run.
    pub total_steps: u64,
}

impl Position {
    /// The start of a run.
    pub fn start(steps_per_epoch: u64, total_steps: u64) -> Self {
        Self { step: 0, samples_seen: 0, steps_per_epoch, total_steps }
    }

    /// Counts one update on `pairs` pairs.
    pub fn advance(&mut self, pairs: usize) {
        self.step += 1;
        self.samples_seen += pairs as u64;
    }

    /// Passes over the data, a fraction.
    pub fn epoch(&self) -> f64 {
        self.step as f64 / self.steps_per_epoch as f64
    }

    /// Whether every update is done.
    pub fn is_at_end(&self) -> bool {
        self.step >= self.total_steps
    }
}
