//! Feature files: vectors that another program has computed, one row per image or text.
//!
//! - `table`: [`table::FeatureTable`], the rows of one or more files as a table
//! - `tensor_file`: one array of a safetensors or `.npy` file, read by position
//! - `safetensors_header`, `npy_header`: where the arrays of such a file are
//! - `parquet_vectors`: a column of lists of numbers
//! - `integers`: whole numbers beside features: which image a text belongs to, and classes
//! - `number`: the types of the numbers
//! - `row_ids`: a number for each row, which equal rows share

pub(crate) mod integers;
mod npy_header;
pub(crate) mod number;
mod parquet_vectors;
mod row_ids;
mod safetensors_header;
pub(crate) mod table;
mod tensor_file;
