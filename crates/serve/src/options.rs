//! Limits.

use std::time::Duration;

/// Default of [`Options::max_body`].
pub const DEFAULT_MAX_BODY: usize = 20 << 20;

/// Limits of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Maximum size of the body of a request, in bytes.
    pub max_body: usize,
    /// Requests for the model that are admitted at a time: one is computed, the others wait.
    pub max_concurrency: usize,
    /// Time after which a request is given up.
    pub timeout: Duration,
    /// Texts of a request; of `/classify`, labels times templates.
    pub max_texts: usize,
    /// Images of a request.
    pub max_images: usize,
    /// Hits of a request.
    pub max_top: usize,
    /// Whether each request is an [`Event`](crate::Event).
    pub log_requests: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_body: DEFAULT_MAX_BODY,
            max_concurrency: 32,
            timeout: Duration::from_secs(60),
            max_texts: 1024,
            max_images: 64,
            max_top: 1000,
            log_requests: false,
        }
    }
}
