//! Opens files, and tells what they are and whether one exists. That the system cannot tell is an error, not an absent
//! file: something else would be used in its place, without a word.

use std::fs::{File, Metadata};
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

/// Whether `path` has the extension of a tar file.
#[must_use]
pub fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}

/// Opens `path`. A pipe or a device is refused: opening one can wait for ever, and what is read once is gone.
///
/// # Errors
/// [`DataError::NotAFile`], [`DataError::Read`].
pub(crate) fn open(path: &Path) -> Result<File, DataError> {
    let is_stream = |metadata: Metadata| !metadata.is_file() && !metadata.is_dir();
    if std::fs::metadata(path).is_ok_and(is_stream) {
        return Err(DataError::NotAFile { path: path.to_owned() });
    }
    File::open(path).map_err(DataError::read(path))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/null")] {
            let expected = format!("`{}` is not a regular file; write what it holds to one", path.display());
            assert_eq!(open(path).unwrap_err().to_string(), expected);
        }
        assert!(matches!(open(&dir.path().join("absent")), Err(DataError::Read { .. })));
    }
}
