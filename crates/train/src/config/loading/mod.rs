//! Reads a config file: from its text and the `--set` arguments to a checked [`RunConfig`](super::RunConfig).
//!
//! One call reports every problem. In the order of use:
//! - `load`: the entry points, `RunConfig::load` and `RunConfig::to_toml`.
//! - `toml_tree`: the texts as one tree of values with their positions; `spans` moves the positions.
//! - `set_override`: parses a `--set` argument.
//! - `deserialize`: from the tree to the configuration; a wrong entry is reported and removed until the rest can be
//!   read.
//! - `required_keys`: the keys that every config must have.
//! - `serde_errors`: from a serde error to a problem with key, place and help.
//! - `resolve_paths`: makes paths absolute.
//! - `fill_defaults`: defaults that depend on other keys.
//!
//! The rules between keys are in `validate`. Whether the files and towers exist is checked when the run opens them.

mod deserialize;
mod fill_defaults;
pub(crate) mod load;
mod required_keys;
mod resolve_paths;
mod serde_errors;
mod set_override;
mod spans;
mod toml_tree;
