#![doc = include_str!("../README.md")]
//!
//! - `engine`: what computes the answers.
//! - `options`: limits.
//! - `events`: what the server reports.
//! - `server`: connections, from the first to the orderly end.
//! - `app`: what all requests share.
//! - `router`: which function answers which path.
//! - `guard`: what every request goes through: host, time limit, panics, headers.
//! - `body`: JSON and images of a request.
//! - `endpoints`: embeddings, labels, hits.
//! - `pages`: the search page, pictures, health.
//! - `worker`: the thread on which the engine computes.
//! - `problem`: errors as a client sees them.

mod app;
mod body;
mod endpoints;
mod engine;
mod events;
mod guard;
mod options;
mod pages;
mod problem;
mod router;
mod server;
mod worker;

pub use engine::{Classified, Engine, EngineError, IndexInfo, Picture, Query, Served};
pub use events::Event;
pub use options::{DEFAULT_MAX_BODY, Options};
pub use server::serve;
