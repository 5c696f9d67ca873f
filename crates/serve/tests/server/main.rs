//! The server with an engine that computes nothing: every path, every limit, and the orderly end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod answers;
mod limits;
mod refusals;
mod support;
