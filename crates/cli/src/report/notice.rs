//! A note from another thread than the one that works, which cannot reach the reporter.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use crate::report::json_log;

/// Whether the work is over, and a note about it comes too late.
static IS_OVER: Mutex<bool> = Mutex::new(false);

/// Writes a line to stderr, in the form of the other lines, unless the work is [over](end). On a terminal, a progress
/// bar is drawn again below it.
pub fn write(text: &str) {
    let is_over = IS_OVER.lock().unwrap_or_else(PoisonError::into_inner);
    if *is_over {
        return;
    }
    if json_log::is_on() {
        json_log::write_note(text);
    } else {
        // A bar has no end of line.
        let start = if std::io::stderr().is_terminal() { "\n" } else { "" };
        // A closed stderr does not stop a run.
        let _ = std::io::stderr().write_all(format!("{start}{text}\n").as_bytes());
    }
}

/// The work is over.
pub fn end() {
    *IS_OVER.lock().unwrap_or_else(PoisonError::into_inner) = true;
}
