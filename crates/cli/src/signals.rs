//! SIGINT and SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dualenc_train::{Event, Observer, StopFlag};
use signal_hook::consts::{SIGINT, SIGTERM};

/// What the next signal does: it ends the process at once, with 130 or 143, until work begins that must be stopped in
/// an orderly way.
pub struct Signals {
    stop: StopFlag,
    /// Of each signal, whether it ends the process at once.
    ends_at_once: Vec<Arc<AtomicBool>>,
}

impl Signals {
    /// Ends the process at the first signal. For work that writes nothing, such as loading a model.
    pub fn end_at_once() -> anyhow::Result<Self> {
        let (stop, mut ends_at_once) = (StopFlag::default(), Vec::new());
        for (signal, exit_code) in [(SIGINT, 130), (SIGTERM, 143)] {
            let at_once = Arc::new(AtomicBool::new(true));
            // Handlers run in the order of their registration: only the second signal finds `at_once` set by the first.
            signal_hook::flag::register_conditional_shutdown(signal, exit_code, Arc::clone(&at_once))?;
            signal_hook::flag::register(signal, Arc::clone(&at_once))?;
            signal_hook::flag::register_usize(signal, stop.shared(), usize::try_from(signal)?)?;
            ends_at_once.push(at_once);
        }
        Ok(Self { stop, ends_at_once })
    }

    /// The flag that a signal sets.
    pub fn flag(&self) -> &StopFlag {
        &self.stop
    }

    /// From now on, the first signal only sets the returned flag, so that the command can stop in an orderly way; the
    /// second one of its kind ends the process at once.
    pub fn begin_work(&self) -> &StopFlag {
        self.ends_at_once.iter().for_each(|at_once| at_once.store(false, Ordering::SeqCst));
        &self.stop
    }
}

/// Forwards events, and [begins work](Signals::begin_work) with the first that reports work done.
pub struct BeginWork<'a> {
    pub signals: &'a Signals,
    pub observer: &'a mut dyn Observer,
}

impl Observer for BeginWork<'_> {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Start { .. } | Event::Work { .. } = event {
            self.signals.begin_work();
        }
        self.observer.on(event);
    }
}
