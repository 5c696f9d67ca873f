//! A folder of images with captions beside them or in their names.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, DatasetBuilder};
use crate::error::DataError;
use crate::images::location::ImageRef;
use crate::sources::image_files::image_files;

/// `[data.train.folder]`: every image file below `path`, sorted by path, byte by byte. The captions of `cat.jpg` are
/// the non-empty lines of `cat.txt` beside it; without that file, the name itself, with `_` and `-` as spaces.
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

    /// Resolves a relative path against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
    }

    /// Lists the images and reads the captions.
    ///
    /// # Errors
    /// [`DataError::Empty`] without an image that has a caption, [`DataError::Malformed`] for a caption file that is
    /// not UTF-8, [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        let mut builder = DatasetBuilder::new(&self.path);
        for image in image_files(&self.path)?.files {
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
            expected: "image files (jpg, png, webp, gif, bmp, tif and others), with captions in `.txt` files \
                       beside them or in their names",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    #[test]
    fn captions_from_sidecars_or_names() {
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
    fn rejects_folder_without_images() {
        let dir = tempfile::tempdir().unwrap();
        let error = FolderSource::new(dir.path()).read().unwrap_err().to_string();
        assert!(error.contains("holds no samples: found no image; expected image files (jpg"), "{error}");
        let error = FolderSource::new(dir.path().join("none")).read().unwrap_err().to_string();
        assert!(error.contains("none`: No such file"), "{error}");
    }
}
