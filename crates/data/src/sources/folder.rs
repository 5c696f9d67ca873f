//! A folder of images with captions beside them or in their names.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, DatasetBuilder};
use crate::error::DataError;
use crate::images::location::ImageRef;

/// Extensions taken for images, lower case.
pub(crate) const IMAGE_EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "webp", "gif"];

/// `[data.train.folder]`: every image file below `path`, sorted by path byte by byte. The captions of `cat.jpg` are the
/// non-empty lines of `cat.txt` beside it; without that file, the name itself with `_` and `-` read as spaces.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FolderSource {
    /// The folder.
    pub path: PathBuf,
}

impl FolderSource {
    /// The folder `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Takes a relative path as relative to `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
    }

    /// Lists the images and reads the captions.
    ///
    /// # Errors
    /// [`DataError::Read`], or [`DataError::Empty`] when there is no image with a caption.
    pub fn read(&self) -> Result<Dataset, DataError> {
        let mut builder = DatasetBuilder::new(&self.path);
        for image in image_files(&self.path)? {
            let sidecar = image.with_extension("txt");
            let captions = match std::fs::read(&sidecar) {
                Ok(bytes) => String::from_utf8(bytes).map_err(|error| DataError::Malformed {
                    path: sidecar.clone(),
                    reason: format!("not UTF-8 at byte {}; save it as UTF-8", error.utf8_error().valid_up_to()),
                })?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    image.file_stem().unwrap_or_default().to_string_lossy().replace(['_', '-'], " ")
                }
                Err(source) => return Err(DataError::Read { path: sidecar, source }),
            };
            let mut pushed = false;
            for caption in captions.trim_start_matches('\u{feff}').lines() {
                pushed |= builder.push(ImageRef::File(image.clone()), caption);
            }
            if !pushed {
                builder
                    .skipped
                    .note(|| format!("`{}` has no caption: `{}` is empty", image.display(), sidecar.display()));
            }
        }
        if builder.is_empty() {
            return Err(self.empty(builder.skipped.count));
        }
        Ok(builder.build())
    }

    fn empty(&self, uncaptioned: usize) -> DataError {
        let found =
            if uncaptioned > 0 { format!("{uncaptioned} images without a caption") } else { "no image".to_owned() };
        DataError::Empty {
            path: self.path.clone(),
            found,
            expected: "jpg, jpeg, png, webp or gif files, with captions in `.txt` files beside them or in their names",
        }
    }
}

/// Every image file below `dir` (or `dir` itself, if it is one), sorted by path byte by byte. Names that start with a
/// dot are left out. Links to folders are followed, except into a folder they lie in.
///
/// # Errors
/// [`DataError::Read`].
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

/// `above` holds the real paths of the folders on the way down, so that a link back to one ends.
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
            // A dangling link is reported when it is read as an image; as a folder it holds nothing.
            match std::fs::metadata(&path) {
                Ok(metadata) => kind = metadata.file_type(),
                Err(_) if !is_image(&path) => continue,
                Err(_) => {
                    files.push(path);
                    continue;
                }
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

pub(crate) fn is_image(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    IMAGE_EXTENSIONS.contains(&extension.as_str())
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    #[test]
    fn captions_come_from_sidecars_or_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        create_dir_all(at("sub")).unwrap();
        write(at("b.JPG"), b"").unwrap();
        write(at("b.txt"), "\u{feff}a dog\n\n  two dogs \n").unwrap();
        write(at("red_panda-cub.png"), b"").unwrap();
        write(at("sub/a.webp"), b"").unwrap();
        write(at("sub/empty.gif"), b"").unwrap();
        write(at("sub/empty.txt"), " \n").unwrap();
        write(at("notes.md"), b"").unwrap();
        write(at(".hidden.png"), b"").unwrap();
        let dataset = FolderSource::new(dir.path()).read().unwrap();
        let keys: Vec<_> = dataset.images.iter().map(ImageRef::key).collect();
        let expected = ["b.JPG", "red_panda-cub.png", "sub/a.webp"].map(|name| at(name).display().to_string());
        assert_eq!(keys, expected);
        let captions: Vec<_> = dataset.captions.iter().map(|caption| (caption.image, caption.text.as_str())).collect();
        assert_eq!(captions, [(0, "a dog"), (0, "two dogs"), (1, "red panda cub"), (2, "a")]);
        assert_eq!(dataset.skipped.count, 1);
        assert!(dataset.skipped.first[0].contains("empty.gif"), "{:?}", dataset.skipped);
    }

    #[test]
    fn a_folder_without_images_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = FolderSource::new(dir.path()).read().unwrap_err().to_string();
        assert!(error.contains("holds no samples: no image; expected jpg"), "{error}");
        let error = FolderSource::new(dir.path().join("none")).read().unwrap_err().to_string();
        assert!(error.contains("none`: No such file"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_parent_ends() {
        let dir = tempfile::tempdir().unwrap();
        create_dir_all(dir.path().join("a")).unwrap();
        write(dir.path().join("a/x.png"), b"").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop")).unwrap();
        assert_eq!(image_files(dir.path()).unwrap(), [dir.path().join("a/x.png")]);
    }
}
