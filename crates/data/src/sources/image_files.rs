//! Finds the image files below a folder.

use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::files::is_absent;

/// Extensions of image files, in lower case.
pub(crate) const IMAGE_EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "webp", "gif"];

/// Every image file below `dir` (or `dir` itself if it is a file), sorted by path, byte by byte. Names that start with
/// a dot are left out. Links to folders are followed, except to a folder that contains them.
///
/// # Errors
/// [`DataError::Read`] if `dir` or a folder below it cannot be read.
pub fn image_files(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    let metadata = std::fs::metadata(dir).map_err(DataError::read(dir))?;
    let mut files = Vec::new();
    if metadata.is_file() {
        files.push(dir.to_owned());
    } else {
        collect(dir, &mut Vec::new(), &mut files)?;
    }
    files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(files)
}

/// Adds the image files below `dir`. `above` has the real paths of the folders on the way down, so that a link back to
/// one of them ends the descent.
fn collect(dir: &Path, above: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let real = std::fs::canonicalize(dir).map_err(DataError::read(dir))?;
    if above.contains(&real) {
        return Ok(());
    }
    above.push(real);
    for entry in std::fs::read_dir(dir).map_err(DataError::read(dir))? {
        let entry = entry.map_err(DataError::read(dir))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let mut kind = entry.file_type().map_err(DataError::read(&path))?;
        if kind.is_symlink() {
            // A dangling link is reported when the image is read; a dangling link without an image's name is ignored.
            match std::fs::metadata(&path) {
                Ok(metadata) => kind = metadata.file_type(),
                Err(error) if is_absent(&error) && !is_image(&path) => continue,
                Err(error) if is_absent(&error) => {
                    files.push(path);
                    continue;
                }
                Err(source) => return Err(DataError::Read { path, source }),
            }
        }
        if kind.is_dir() {
            collect(&path, above, files)?;
        } else if kind.is_file() && is_image(&path) {
            files.push(path);
        }
    }
    above.pop();
    Ok(())
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    IMAGE_EXTENSIONS.contains(&extension.as_str())
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    #[cfg(unix)]
    #[test]
    fn link_to_parent_ends() {
        let dir = tempfile::tempdir().unwrap();
        create_dir_all(dir.path().join("a")).unwrap();
        write(dir.path().join("a/x.png"), b"").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop")).unwrap();
        assert_eq!(image_files(dir.path()).unwrap(), [dir.path().join("a/x.png")]);
    }
}
