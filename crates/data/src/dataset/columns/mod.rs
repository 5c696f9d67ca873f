//! The columns of a data set's tables: in memory, or in files that the system reads where they are needed.
//!
//! - `column`: numbers, and texts one after the other
//! - `mapped_file`: a file as memory

pub(crate) mod column;
pub(crate) mod mapped_file;
