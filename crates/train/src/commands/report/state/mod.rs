//! How far a run is.
//!
//! - `run_lock`: whether a process trains it.
//! - `run_state`: how far it is, and why it is not further.
//! - `when`: dates and durations as text.

pub(super) mod run_lock;
pub(super) mod run_state;
pub(super) mod when;
