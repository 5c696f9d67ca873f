//! Parquet tables of images and captions: as the `datasets` library and img2dataset write them, or of image paths.
//!
//! - `source`: [`source::ParquetSource`]
//! - `files`: the files that a path names
//! - `columns`: which column is what
//! - `features`: what the `datasets` library says about columns
//! - `rows`: the rows of one file
//! - `looks`: recognition

pub(crate) mod columns;
mod features;
mod files;
pub(crate) mod looks;
pub(crate) mod rows;
pub(crate) mod source;
