//! Tensors in safetensors files, and the names they have there.
//!
//! - `header`: what a file holds, without its values.
//! - `name_table`: from a parameter's path to its name on disk.
//! - `weight_files`: the tensors of a directory.

pub(crate) mod header;
pub(crate) mod name_table;
pub(crate) mod weight_files;
