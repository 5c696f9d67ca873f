//! Commands that use a model on images and texts of any origin.
//!
//! - `search`: the nearest images or texts of a query.
//! - `index`: embeddings in the form that opens fastest.
//! - `classify`: labels of images.
//! - `serve`: embeddings, labels and searches over HTTP.

pub(crate) mod classify;
pub(crate) mod index;
pub(crate) mod search;
#[cfg(feature = "serve")]
pub(crate) mod serve;
