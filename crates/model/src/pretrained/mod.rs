//! From directories on disk to models.
//!
//! - `build`: builds a model.
//! - `dry_load`: reports what a directory holds without loading it.
//! - `open_clip`: open_clip's directories, read as CLIP's.
//! - `sentence_transformers`: the pooling that a sentence-transformers directory asks for.
//! - `whole_models`: the kinds of model that have both towers in one directory.

pub(crate) mod build;
pub(crate) mod dry_load;
mod open_clip;
mod sentence_transformers;
pub(crate) mod whole_models;
