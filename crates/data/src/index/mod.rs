//! The tables of a data set in files, for sets that do not fit into memory. An index is written while shards are read,
//! a few of them at a time, and holds where each image is and what its captions say. It is then mapped into memory: the
//! system reads the pages that are needed, and drops them when it needs the memory for something else.
//!
//! An index is a folder with a file per column and a manifest, which is written last. It is used only if the manifest
//! and the columns are whole, and if sources and shards are those that it was written for. This crate writes no file
//! itself: the caller gives it the files to write ([`files::IndexFiles`]).
//!
//! - `files`: where an index is written
//! - `inputs`: what an index was made of
//! - `manifest`: what it says about itself
//! - `side_writer`: the columns of the training pairs, or of those that are held out
//! - `index_writer`: reads sources into an index
//! - `open`: the data sets in an index

pub(crate) mod files;
pub(crate) mod index_writer;
pub(crate) mod inputs;
pub(crate) mod manifest;
pub(crate) mod open;
mod side_writer;
#[cfg(test)]
mod tests;
