//! Tensors in safetensors files: reading them, and the names and layouts they have there.
//!
//! This room knows neither towers nor families; a family's table of names is passed in. It never writes a file.
//!
//! - `decode`: from the bytes of a tensor to f32.
//! - `file_names`: the names of weight files.
//! - `header`: which tensors a file holds, without their values.
//! - `host_tensor`: a tensor on the host.
//! - `layout`: how a parameter is laid out on disk.
//! - `matrix`: parts and transposes.
//! - `name_table`: from the path of a parameter to its name on disk.
//! - `shard_index`: which files hold the weights of a directory.
//! - `stored_tensor`: a tensor of a file, read when its values are needed.
//! - `weight_files`: the tensors of a directory, by name.
//! - `without_weights`: what a directory without weights holds instead.

pub(crate) mod decode;
pub(crate) mod file_names;
pub(crate) mod header;
pub(crate) mod host_tensor;
pub(crate) mod layout;
pub(crate) mod matrix;
pub(crate) mod name_table;
pub(crate) mod shard_index;
pub(crate) mod stored_tensor;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod weight_files;
pub(crate) mod without_weights;
