//! Turns the reference to a tower, a local directory or a hub id, into a directory that has all its files.
//!
//! The cache is the one that all Hugging Face programs share (`models--org--name/{refs,blobs,snapshots,.no_exist}`). A
//! cached snapshot is used without asking the network, so a run that started once starts again offline and on the same
//! commit. Downloads go through `hf-hub` (cargo feature `hub`). This room adds what version 0.5.0 of that crate lacks:
//! `HF_TOKEN`, `HF_HUB_CACHE` and `HF_HUB_OFFLINE`, all files from one commit, and checks of each download: its size,
//! and its SHA-256 if the hub announces one. It reads no weights, and runs nothing.
//!
//! Known limits of `hf-hub` 0.5.0: it never times out when a server stops answering; it trusts Mozilla's certificates
//! only, so copy the model to a directory if your mirror uses a private authority; and the token for a private model is
//! also sent to the host that large files are redirected to (for a public model no token is sent).
//!
//! - `resolve`: the entry: from a reference to a directory.
//! - `settings`: the endpoint, cache and token, as the environment sets them.
//! - `repo`: one repository: which files a tower needs, from the cache or from the hub.
//! - `repo_dir`: where the cache puts the files of one repository.
//! - `model_files`: names of the files, and what they say about other files.
//! - `download`: one file from the hub into the cache.
//! - `progress`: how far a download is.
//! - `error`: why a reference could not be resolved.

#[cfg(feature = "hub")]
mod download;
pub(crate) mod error;
pub(crate) mod model_files;
mod progress;
mod repo;
mod repo_dir;
pub(crate) mod resolve;
pub(crate) mod settings;
#[cfg(test)]
#[cfg(feature = "hub")]
mod tests;
