//! A process-wide bound on the memory of large images that are decoded at the same time. It delays; it changes no
//! result.

use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

/// Images up to this size take no part: those of 22 megapixels as RGB, of most cameras.
const SMALL_BYTES: u64 = 64 << 20;

/// Bytes that larger images may take together; one that needs more is decoded while no other large one is. Machines
/// with more than 8 cores have more: photos of 40 megapixels then still keep every core busy.
static BUDGET: LazyLock<Budget> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    Budget::new((1 << 30).max(cores * (128 << 20)))
});

/// A share of a budget, returned when it is dropped.
pub(crate) struct Permit {
    budget: &'static Budget,
    bytes: u64,
}

impl Permit {
    /// Waits until `bytes` fit into the budget, in the order of the calls. Small images never wait.
    ///
    /// A thread that holds a permit must not ask for another.
    pub(crate) fn acquire(bytes: u64) -> Self {
        BUDGET.acquire(bytes)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.lock().in_use -= self.bytes;
            self.budget.changed.notify_all();
        }
    }
}

struct Budget {
    total: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    in_use: u64,
    /// The next number to give out, and the number that may enter next.
    next: u64,
    entering: u64,
}

impl Budget {
    const fn new(total: u64) -> Self {
        let state = State { in_use: 0, next: 0, entering: 0 };
        Self { total, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn acquire(&'static self, bytes: u64) -> Permit {
        if bytes <= SMALL_BYTES {
            return Permit { budget: self, bytes: 0 };
        }
        // An image over the budget takes the whole budget.
        let bytes = bytes.min(self.total);
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        while state.entering != number || state.in_use + bytes > self.total {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.entering += 1;
        state.in_use += bytes;
        drop(state);
        self.changed.notify_all();
        Permit { budget: self, bytes }
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;

    #[test]
    fn large_images_share_the_budget() {
        static SHARED: Budget = Budget::new(200 << 20);
        static IN_USE: AtomicU64 = AtomicU64::new(0);
        static MOST: AtomicU64 = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                scope.spawn(move || {
                    for turn in 0..50 {
                        // From 65 to 304 MiB: some are larger than the whole budget.
                        let bytes = (65 + (thread * 7 + turn * 13) % 240) << 20;
                        let permit = SHARED.acquire(bytes);
                        let used = IN_USE.fetch_add(permit.bytes, SeqCst) + permit.bytes;
                        MOST.fetch_max(used, SeqCst);
                        std::thread::yield_now();
                        IN_USE.fetch_sub(permit.bytes, SeqCst);
                    }
                });
            }
        });
        assert!((100 << 20..=200 << 20).contains(&MOST.load(SeqCst)), "{}", MOST.load(SeqCst));
        assert_eq!(SHARED.lock().in_use, 0);
    }

    #[test]
    fn small_images_never_wait() {
        static FULL: Budget = Budget::new(100 << 20);
        let large = FULL.acquire(1 << 40);
        assert_eq!(large.bytes, 100 << 20);
        let small = FULL.acquire(SMALL_BYTES);
        assert_eq!((small.bytes, FULL.lock().next), (0, 1));
    }

    #[test]
    fn panic_returns_the_share() {
        static SHARED: Budget = Budget::new(100 << 20);
        let panic = crate::panics::catch_quietly(|| {
            let _permit = SHARED.acquire(90 << 20);
            panic!("in a decoder");
        });
        assert!(panic.is_err());
        assert_eq!(SHARED.lock().in_use, 0);
    }
}
