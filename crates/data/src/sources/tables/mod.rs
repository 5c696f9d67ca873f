//! What the sources in text files share.
//!
//! - `text_file`: opens a text file and decodes it
//! - `windows_1252`: the code page behind `encoding = "latin1"`
//! - `records`: splits a table into records
//! - `dialect`: how a table is written: delimiter, header, columns
//! - `column_name`: the name of a column in the config
//! - `columns`: the columns that hold image and caption, by their names
//! - `image_path`: the file that a written path means
//! - `path_tail`: the end of an absent path that is there
//! - `path_text`: paths that are no local path: URLs, drives, bytes

pub(crate) mod column_name;
pub(crate) mod columns;
pub(crate) mod dialect;
pub(crate) mod image_path;
pub(crate) mod path_tail;
pub(crate) mod path_text;
pub(crate) mod records;
pub(crate) mod text_file;
mod windows_1252;
