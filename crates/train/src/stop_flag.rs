//! Cooperative cancellation: set by a signal handler, polled by the training loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A flag that holds the number of a signal once one arrived. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicUsize>);

impl StopFlag {
    /// Requests that the run saves and stops, because of the signal with this number.
    pub fn request(&self, signal: usize) {
        self.0.store(signal, Ordering::SeqCst);
    }

    /// The number of the signal, if one arrived.
    pub fn signal(&self) -> Option<usize> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// The number behind the flag, 0 before a signal, for signal handlers that store into it.
    pub fn shared(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0)
    }
}
