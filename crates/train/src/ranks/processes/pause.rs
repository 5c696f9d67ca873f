//! Waiting without a busy core, and without a long sleep where the others come soon.

use std::thread;
use std::time::Duration;

use crate::ranks::exchange::Patience;

/// Looks before the first sleep.
const LOOKS: u32 = 64;

/// Sleeps of one length, after which it doubles.
const SLEEPS: u32 = 8;

/// The first sleep. The kernel adds about as much.
const SHORTEST: Duration = Duration::from_micros(20);

/// A wait that asks again and again.
pub(super) struct Pause {
    looks: u32,
    longest: Duration,
}

impl Pause {
    /// While ranks come, which takes a step or, if one of them evaluates, hours.
    pub fn until_others_come(patience: Patience) -> Self {
        let longest = match patience {
            Patience::Deadline => Duration::from_millis(1),
            Patience::AsLongAsItTakes => Duration::from_millis(10),
        };
        Self { looks: 0, longest }
    }

    /// While bytes move, which stops when MPI is not called: the buffers of a connection hold about as many as a
    /// network moves in the longest sleep.
    pub fn while_bytes_move() -> Self {
        Self { looks: 0, longest: Duration::from_micros(100) }
    }

    /// Sleeps until the next look.
    pub fn rest(&mut self) {
        self.looks += 1;
        match self.looks.checked_sub(LOOKS) {
            None => thread::yield_now(),
            Some(sleeps) => {
                let doubled = SHORTEST.saturating_mul(1 << (sleeps / SLEEPS).min(16));
                thread::sleep(doubled.min(self.longest));
            }
        }
    }
}
