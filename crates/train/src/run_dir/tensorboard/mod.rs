//! The event file that TensorBoard reads, with the numbers of `metrics.jsonl`.
//!
//! - `event_file`: the event file of a run
//! - `events`: what is in it
//! - `messages`: the protocol buffers of TensorBoard that are written
//! - `records`: the frame of each message in the file

pub(crate) mod event_file;
mod events;
mod messages;
mod records;
