//! Where the bytes of an image are, and how to read them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{DataError, ImageError};
use crate::features::table::{FeatureTable, row_bytes};
use crate::images::disk::{MAX_ENCODED_BYTES, read_entry, read_file};
use crate::parquet::cells::ParquetColumn;

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
    /// An image inside a parquet file. Its page is read when it is needed.
    ParquetCell {
        /// The column of images.
        column: Arc<ParquetColumn>,
        /// Number of the row in the file, 0-based.
        row: u64,
    },
    /// Features in place of an image: a row of a table.
    FeatureRow {
        /// The table.
        table: Arc<FeatureTable>,
        /// Number of the row, 0-based.
        row: u64,
    },
}

impl ImageRef {
    /// Reads the encoded bytes. An error that may pass, such as that of a network file system, is tried again for
    /// about 5 seconds.
    ///
    /// # Errors
    /// [`DataError::Image`] for a bad image: the file is missing, not a regular file, or larger than 1 GiB, or the page
    /// of a parquet file is damaged, or a row of features is not finite or zero. [`DataError::Read`] if the system
    /// cannot read it, or if the shard is missing or has become shorter.
    pub fn read(&self) -> Result<Vec<u8>, DataError> {
        let read = match self {
            Self::File(path) => read_file(path),
            Self::TarEntry { len, .. } if *len > MAX_ENCODED_BYTES => {
                Ok(Err(ImageError::FileTooLarge { found: *len, limit: MAX_ENCODED_BYTES }))
            }
            Self::TarEntry { tar, offset, len, .. } => read_entry(tar, *offset, *len).map(Ok),
            Self::ParquetCell { column, row } => return column.read(*row)?.map_err(|source| self.fail(source)),
            Self::FeatureRow { table, row } => {
                if let Some(source) = table.fault(*row) {
                    return Err(self.fail(source));
                }
                let mut values = vec![0.0; table.width()];
                table.read(*row, &mut values, &mut Vec::new())?;
                return Ok(row_bytes(&values).into_owned());
            }
        };
        read.map_err(|source| DataError::Read { path: self.key().into(), source })?.map_err(|source| self.fail(source))
    }

    /// The name shown to users: the path, `shard.tar/entry.jpg`, or `table.parquet/row 1`, 1-based.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::TarEntry { tar, name, .. } => format!("{}/{name}", tar.display()),
            Self::ParquetCell { column, row } => format!("{}/row {}", column.path().display(), row + 1),
            Self::FeatureRow { table, row } => table.key(*row),
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
            Self::ParquetCell { column, .. } => column.path(),
            Self::FeatureRow { table, .. } => table.path(),
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
