//! Where a run starts, and where it is: steps and pairs done, and how many there are in all.

/// Where a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the beginning, in a `run.dir` that holds no run yet.
    #[default]
    New,
    /// As [`Start::New`], for a fit of the heads: nothing is said of settings that only training reads.
    Fit,
    /// At the newest valid checkpoint of `run.dir`, or at the beginning if there is none.
    Resume {
        /// Steps to pass over from there without an update, such as one with a batch that makes the loss NaN.
        skip_steps: u64,
    },
}

impl Start {
    /// At the newest valid checkpoint, with every step from there on.
    pub const RESUME: Self = Self::Resume { skip_steps: 0 };

    /// Whether an earlier run may go on.
    pub fn is_resumed(self) -> bool {
        matches!(self, Self::Resume { .. })
    }

    /// As arguments of the program.
    #[cfg(feature = "mpi")]
    pub(crate) fn arguments(self) -> String {
        match self {
            Self::New | Self::Fit => "no `--resume`".to_owned(),
            Self::Resume { skip_steps: 0 } => "`--resume`".to_owned(),
            Self::Resume { skip_steps } => format!("`--resume --skip-steps {skip_steps}`"),
        }
    }

    /// Steps to pass over.
    pub fn skip_steps(self) -> u64 {
        match self {
            Self::New | Self::Fit => 0,
            Self::Resume { skip_steps } => skip_steps,
        }
    }
}

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
