//! What describes the program to other programs.
//!
//! - `schema`: the JSON schema of the config.
//! - `completions`: shell completion scripts.
//! - `man`: the manual page.

pub(crate) mod completions;
pub(crate) mod man;
pub(crate) mod schema;
