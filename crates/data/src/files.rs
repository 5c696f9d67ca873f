//! Whether a file exists. That the system cannot tell is an error, not an absent file: something else would be used in
//! its place, without a word.

use std::fs::Metadata;
use std::io::{Error, ErrorKind};
use std::path::Path;

use crate::error::DataError;

/// Whether the error means that there is no file of this name.
pub(crate) fn is_absent(error: &Error) -> bool {
    matches!(
        error.kind(),
        // The last two: a name that is too long, or that holds a NUL character.
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename | ErrorKind::InvalidInput
    )
}

/// The metadata of a file or directory; `None` if it does not exist.
pub(crate) fn metadata(path: &Path) -> Result<Option<Metadata>, DataError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(DataError::Read { path: path.to_owned(), source }),
    }
}

/// Whether `path` is a regular file.
pub(crate) fn is_file(path: &Path) -> Result<bool, DataError> {
    Ok(metadata(path)?.is_some_and(|metadata| metadata.is_file()))
}

/// Whether `path` is a directory.
pub(crate) fn is_dir(path: &Path) -> Result<bool, DataError> {
    Ok(metadata(path)?.is_some_and(|metadata| metadata.is_dir()))
}
