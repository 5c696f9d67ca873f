//! What the server reports to its owner.

use std::time::Duration;

/// Something that happened. Paths come from clients: they may hold any character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server failed to answer a request, which is not the client's fault.
    Failed {
        /// Method and path.
        request: String,
        /// What went wrong.
        message: String,
    },
    /// A request was answered, if [`Options::log_requests`](crate::Options) asks for it.
    Answered {
        /// Method and path.
        request: String,
        /// Status of the answer.
        status: u16,
        /// From the head of the request to that of the answer.
        took: Duration,
    },
    /// Connections that did not end within the time that an orderly end has.
    Cut,
}

/// Receives events, from any thread.
pub type OnEvent = dyn Fn(Event) + Send + Sync;
