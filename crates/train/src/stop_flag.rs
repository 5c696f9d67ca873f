//! A wish to stop, from a signal handler to the training loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Set once by a signal, read after each step. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicUsize>);

impl StopFlag {
    /// Asks the run to save and stop because of the signal of this number.
    pub fn request(&self, signal: usize) {
        self.0.store(signal, Ordering::SeqCst);
    }

    /// The signal, if one came.
    pub fn signal(&self) -> Option<usize> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// The number itself, for signal libraries that store into it.
    pub fn shared(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0)
    }
}
