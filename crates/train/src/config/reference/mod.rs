//! The reference of all config keys, generated from the schema's doc comments.
//!
//! - `json_schema`: `docs/config.schema.json`, from which editors complete and check a config.
//! - `markdown`: `docs/CONFIG.md`.

pub(crate) mod json_schema;
pub(crate) mod markdown;
#[cfg(test)]
mod tests;
