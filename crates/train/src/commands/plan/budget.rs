//! How long measuring may take, and whether it should stop.

use std::time::{Duration, Instant};

use crate::error::TrainError;
use crate::stop_flag::StopFlag;

/// Time to measure in: long enough for ten steps of several seconds, and short enough to wait for.
const LIMIT: Duration = Duration::from_secs(60);

/// The time left to measure in.
pub(super) struct Budget {
    ends: Instant,
    stop: StopFlag,
}

impl Budget {
    /// The whole time, from now on.
    pub fn new(stop: &StopFlag) -> Self {
        Self { ends: Instant::now() + LIMIT, stop: stop.clone() }
    }

    /// Seconds left; 0 when the time is over.
    pub fn left(&self) -> f64 {
        self.ends.saturating_duration_since(Instant::now()).as_secs_f64()
    }

    /// A fraction of the time left, from 0 to 1.
    pub fn share(&self, fraction: f64) -> Self {
        let left = Duration::from_secs_f64(self.left() * fraction.clamp(0.0, 1.0));
        Self { ends: Instant::now() + left, stop: self.stop.clone() }
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`TrainError::Stopped`] when a signal has arrived.
    pub fn check_stop(&self) -> Result<(), TrainError> {
        self.stop.signal().map_or(Ok(()), |signal| Err(TrainError::Stopped { signal }))
    }
}

/// The time since the last lap.
pub(super) struct Laps(Instant);

impl Laps {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the start or the last call.
    pub fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = (now - self.0).as_secs_f64();
        self.0 = now;
        seconds
    }
}

/// The median; 0 without values.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len(), values.get(middle)) {
        (_, None) => 0.0,
        (count, Some(value)) if count % 2 == 1 => *value,
        (_, Some(value)) => (values[middle - 1] + value) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), 3.0);
    }
}
