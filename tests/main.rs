//! CLI sessions.
