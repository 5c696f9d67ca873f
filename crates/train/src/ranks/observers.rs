//! How the warnings of all ranks reach the observer of the first.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::events::{Event, Observer};

/// The observer of the first rank, which the warnings of others reach too.
pub(super) struct Shared<'a, 'b>(pub &'a Mutex<&'b mut dyn Observer>);

impl Observer for Shared<'_, '_> {
    fn on(&mut self, event: Event<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).on(event);
    }
}

/// Forwards warnings of other ranks until they have ended, or `done` is disconnected.
pub(super) fn forward(warnings: &Receiver<String>, done: &Receiver<()>, observer: &Mutex<&mut dyn Observer>) {
    const CHECK_EVERY: Duration = Duration::from_millis(100);
    loop {
        match warnings.recv_timeout(CHECK_EVERY) {
            Ok(warning) => Shared(observer).on(Event::Warning(warning)),
            Err(RecvTimeoutError::Timeout) if done.try_recv() != Err(TryRecvError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}
