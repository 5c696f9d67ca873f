//! Features: the pooled outputs of locked towers, which never change and are therefore computed once and cached. This
//! room decides neither which towers are locked (the config does) nor when features are read (training and evaluations
//! do).
//!
//! - `locked_towers`: the entry: the locked towers of a model, and where their features are cached.
//! - `images`, `texts`: features of one tower: looked up, or computed and stored.
//! - `prefixes`, `text_states`: what the locked layers of a tower compute that trains from a later layer on.
//! - `image_index`: which cached row belongs to which image, in which view.
//! - `key`: what a cache is keyed by, as written text.
//! - `absent`: features of towers that are absent, which come from files.
//! - `cache_counts`: how many features were computed, and how many were cached.
//! - `cut_texts`: how many texts are longer than the text tower reads.
//! - `finite`: refuses features that are not finite.
//! - `parallel_forward`: a tower over many inputs, on all cores, with the same bits every time.
//! - `pixels`: processed images on their way to a tower.
//! - `store`: the files of a cache.

pub(crate) mod absent;
pub(crate) mod cache_counts;
pub(crate) mod cut_texts;
pub(crate) mod finite;
pub(crate) mod image_index;
pub(crate) mod images;
pub(crate) mod key;
pub(crate) mod locked_towers;
pub(crate) mod parallel_forward;
mod pixels;
pub(crate) mod prefixes;
mod store;
pub(crate) mod text_states;
pub(crate) mod texts;
