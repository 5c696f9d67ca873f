//! Where the bytes of an image are, and how to read them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{DataError, ImageError};

/// Largest encoded image read into memory: the bound that [`crate::Limits`] sets for decoded pixels.
pub(crate) const MAX_ENCODED_BYTES: u64 = 256 << 20;

/// The location of an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageRef {
    /// A file.
    File(PathBuf),
    /// A regular entry of a tar shard. It is read by position; the shard is never unpacked.
    TarEntry {
        /// The shard.
        tar: Arc<Path>,
        /// Name of the entry.
        name: String,
        /// Position of its content in the shard, in bytes.
        offset: u64,
        /// Length of its content, in bytes.
        len: u64,
    },
}

impl ImageRef {
    /// Reads the encoded bytes.
    ///
    /// # Errors
    /// [`DataError::Image`] if the file is missing, not a regular file, larger than 256 MiB, or unreadable.
    pub fn read(&self) -> Result<Vec<u8>, DataError> {
        let unreadable = |error: std::io::Error| self.fail(ImageError::Unreadable(error.to_string()));
        let (path, offset, len) = match self {
            Self::File(path) => {
                let metadata = std::fs::metadata(path).map_err(unreadable)?;
                // Reading a pipe or a device could block forever.
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

    /// The error `source` about this image.
    pub(crate) fn fail(&self, source: ImageError) -> DataError {
        DataError::Image { key: self.key(), source }
    }

    /// The file that contains the image.
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
    fn unreadable_file_names_path() {
        let dir = tempfile::tempdir().unwrap();
        let error = ImageRef::File(dir.path().to_owned()).read().unwrap_err().to_string();
        assert!(error.contains("not a regular file") && error.contains(dir.path().to_str().unwrap()), "{error}");
        let error = ImageRef::File(dir.path().join("none.png")).read().unwrap_err().to_string();
        assert!(error.contains("none.png") && error.contains("No such file"), "{error}");
    }
}
