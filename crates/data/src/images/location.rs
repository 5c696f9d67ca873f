//! Where an image's bytes are, and how to get at them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{DataError, ImageError};

/// Largest encoded image read into memory, the same bound as for decoded pixels in [`crate::Limits`].
pub(crate) const MAX_ENCODED_BYTES: u64 = 256 << 20;

/// Where the bytes of an image are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageRef {
    /// A file of its own.
    File(PathBuf),
    /// A regular entry of a tar shard, read by position; the shard is never unpacked.
    TarEntry {
        /// The shard.
        tar: Arc<Path>,
        /// Name of the entry.
        name: String,
        /// First byte of its content in the shard.
        offset: u64,
        /// Length of its content in bytes.
        len: u64,
    },
}

impl ImageRef {
    /// The encoded bytes.
    ///
    /// # Errors
    /// [`DataError::Image`] when the file is missing, no regular file, over 256 MiB, or unreadable.
    pub fn read(&self) -> Result<Vec<u8>, DataError> {
        let unreadable = |error: std::io::Error| self.fail(ImageError::Unreadable(error.to_string()));
        let (path, offset, len) = match self {
            Self::File(path) => {
                let metadata = std::fs::metadata(path).map_err(unreadable)?;
                // A pipe or a device would block or never end.
                if !metadata.is_file() {
                    return Err(self.fail(ImageError::Unreadable("not a regular file".to_owned())));
                }
                (path.as_path(), 0, metadata.len())
            }
            Self::TarEntry { tar, offset, len, .. } => (tar.as_ref(), *offset, *len),
        };
        if len > MAX_ENCODED_BYTES {
            return Err(self.fail(ImageError::FileTooLarge { found: len, limit: MAX_ENCODED_BYTES }));
        }
        let mut file = File::open(path).map_err(unreadable)?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        file.take(len).read_to_end(&mut bytes).map_err(unreadable)?;
        if (bytes.len() as u64) < len {
            let reason = format!("ends after {} of {len} bytes", bytes.len());
            return Err(self.fail(ImageError::Unreadable(reason)));
        }
        Ok(bytes)
    }

    /// The name shown to users: the path, or `shard.tar/entry.jpg`.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::TarEntry { tar, name, .. } => format!("{}/{name}", tar.display()),
        }
    }

    pub(crate) fn fail(&self, source: ImageError) -> DataError {
        DataError::Image { key: self.key(), source }
    }

    /// The file that holds it.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::TarEntry { tar, .. } => tar,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_a_directory_or_nothing_is_an_error_with_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let error = ImageRef::File(dir.path().to_owned()).read().unwrap_err().to_string();
        assert!(error.contains("not a regular file") && error.contains(dir.path().to_str().unwrap()), "{error}");
        let error = ImageRef::File(dir.path().join("none.png")).read().unwrap_err().to_string();
        assert!(error.contains("none.png") && error.contains("No such file"), "{error}");
    }
}
