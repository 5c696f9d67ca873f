//! Images and shards as bytes, for programs that write data sets. Nothing here opens a file.
//!
//! - `encode`: an image as PNG or JPEG
//! - `shard`: entries of a tar shard

pub(crate) mod encode;
pub(crate) mod shard;
