#![doc = include_str!("../README.md")]

mod error;
mod index;
mod index_file;
mod kernel;
mod mapping;
mod nearest;
mod npy_file;
mod opened;
mod safetensors_file;
mod scan;
mod vectors;

pub use error::SearchError;
pub use index::{Hit, Index};
pub use nearest::Neighbour;
pub use opened::Part;
