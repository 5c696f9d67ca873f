//! From directories on disk to models: Hugging Face's, open_clip's and those of sentence-transformers.
//!
//! It only reads local files; downloading them is up to the caller. It writes no files.
//!
//! - `auto_text_pool`: how a new model pools its texts unless it is asked.
//! - `build`: builds a model.
//! - `config_file`: the config of a directory.
//! - `dry_load`: reports what a directory holds, without reading weights.
//! - `open_clip`: converts open_clip's configs and weights to CLIP's.
//! - `sentence_transformers`: the pooling and the `Dense` layers of a sentence-transformers directory.
//! - `stored_names`: the names of parameters in an exported file.
//! - `taken_layer`: a tower that pools other layers than its last.
//! - `tower_files`: one tower on disk, how it pools, and whether its weights fit.
//! - `whole_models`: the kinds of model that have both towers in one directory.
//! - `wrappers`: names that were saved from within another module.

pub(crate) mod auto_text_pool;
pub(crate) mod build;
pub(crate) mod config_file;
pub(crate) mod dry_load;
mod open_clip;
pub(crate) mod sentence_transformers;
pub(crate) mod stored_names;
mod taken_layer;
#[cfg(test)]
mod tests;
pub(crate) mod tower_files;
pub(crate) mod whole_models;
mod wrappers;
