//! SIGINT and SIGTERM.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dualenc_train::StopFlag;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Sets the returned flag at the first signal, so that the command can save and stop; the second one of its kind
/// ends the process at once.
pub fn stop_flag() -> anyhow::Result<StopFlag> {
    let stop = StopFlag::default();
    for (signal, exit_code) in [(SIGINT, 130), (SIGTERM, 143)] {
        let seen = Arc::new(AtomicBool::new(false));
        // Handlers run in the order of their registration: the first signal finds `seen` unset.
        signal_hook::flag::register_conditional_shutdown(signal, exit_code, Arc::clone(&seen))?;
        signal_hook::flag::register(signal, seen)?;
        signal_hook::flag::register_usize(signal, stop.shared(), usize::try_from(signal)?)?;
    }
    Ok(stop)
}
