//! Entries of a tar shard. They have neither times nor owners, so that equal samples give equal bytes.

use std::io::{Result, Write};

/// Permissions of an entry.
const MODE: u32 = 0o644;

/// Writes the entries of a tar shard (GNU format) to `W`.
pub struct ShardWriter<W: Write> {
    tar: tar::Builder<W>,
}

impl<W: Write> ShardWriter<W> {
    /// Bytes at the end of a shard: two blocks of zeros.
    pub const END_BYTES: u64 = 1024;

    /// A shard without entries.
    pub fn new(writer: W) -> Self {
        Self { tar: tar::Builder::new(writer) }
    }

    /// Adds a file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        self.tar.append_data(&mut header, name, bytes)
    }

    /// Writes the end of the archive, and returns the writer.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(self) -> Result<W> {
        self.tar.into_inner()
    }

    /// Bytes that an entry with `len` bytes of content takes.
    #[must_use]
    pub const fn entry_bytes(len: u64) -> u64 {
        const BLOCK: u64 = 512;
        BLOCK + len.next_multiple_of(BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::webdataset::WebdatasetSource;

    fn shard() -> Vec<u8> {
        let mut shard = ShardWriter::new(Vec::new());
        shard.add("000000.jpg", b"image").unwrap();
        shard.add("000000.txt", "a cat\nein Kätzchen\n".as_bytes()).unwrap();
        shard.add("000001.png", &[7; 513]).unwrap();
        shard.add("000001.json", b"{\"caption\": [\"a\\nb\"]}").unwrap();
        shard.finish().unwrap()
    }

    #[test]
    fn reads_back_as_webdataset() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("000000.tar"), shard()).unwrap();
        let dataset = WebdatasetSource::new(dir.path()).read().unwrap();
        let texts: Vec<_> = dataset.captions().map(|caption| caption.text.to_owned()).collect();
        assert_eq!(texts, ["a cat", "ein Kätzchen", "a\nb"]);
        assert_eq!(dataset.image(1).read().unwrap(), [7; 513]);
        assert_eq!(dataset.skipped.count, 0, "{:?}", dataset.skipped);
    }

    #[test]
    fn equal_samples_give_equal_bytes() {
        let bytes = shard();
        assert_eq!(bytes, shard());
        let entries = [5, 19, 513, 22].map(ShardWriter::<Vec<u8>>::entry_bytes);
        assert_eq!(bytes.len() as u64, entries.iter().sum::<u64>() + ShardWriter::<Vec<u8>>::END_BYTES);
    }
}
