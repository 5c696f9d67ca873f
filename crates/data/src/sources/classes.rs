//! A folder of images per class as training data: captions are the names of the classes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::counted::counted;
use crate::dataset::Dataset;
use crate::dataset::builder::DatasetBuilder;
use crate::dataset::selection::Selection;
use crate::error::DataError;
use crate::files::{is_dir, is_file};
use crate::sources::class_folder::class_folder;
use crate::sources::folder::FolderSource;
use crate::sources::folder::file_names::{are_splits, folders, is_number_like, is_wordnet_id, quoted, splits};
use crate::sources::image_files::image_files;

/// Images beside the folders are few if they are at most one in 20.
const FEW: usize = 20;

/// Folders that [`ClassesSource::looks_like`] examines, and images in each.
const EXAMINED: usize = 3;

/// `[data.train.classes]`: a folder with one folder per class. The caption of an image is the name of the first folder
/// on its path, with `_` as a space. Classes are sorted by their folder names, byte by byte, images within a class by
/// their paths.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClassesSource {
    /// The folder.
    pub path: PathBuf,
}

impl ClassesSource {
    /// The folder `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Whether `path` has at least two folders, images in them, hardly one beside them, and no captions: neither a
    /// metadata file nor files beside the images.
    ///
    /// # Errors
    /// [`DataError::Read`].
    pub fn looks_like(path: &Path) -> Result<bool, DataError> {
        if !is_dir(path)? {
            return Ok(false);
        }
        let classes = folders(path)?;
        if classes.len() < 2 || are_splits(path, &classes)? {
            return Ok(false);
        }
        for class in classes.iter().take(EXAMINED) {
            let images = image_files(&path.join(class))?.files;
            if images.is_empty() {
                return Ok(false);
            }
            for image in images.iter().take(EXAMINED) {
                for extension in ["txt", "json", "caption"] {
                    if is_file(&image.with_extension(extension))? {
                        return Ok(false);
                    }
                }
            }
            for name in FolderSource::METADATA {
                if is_file(&path.join(name))? || is_file(&path.join(class).join(name))? {
                    return Ok(false);
                }
            }
        }
        let images = image_files(path)?.files;
        let loose = images.iter().filter(|image| image.parent() == Some(path)).count();
        Ok(loose * FEW <= images.len())
    }

    /// Resolves a relative path against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
    }

    /// Lists the classes and their images.
    ///
    /// # Errors
    /// [`DataError::Malformed`] if the folders are the splits of a data set, or if the names of all classes are
    /// numbers; [`DataError::NoClassFolders`], [`DataError::Empty`] for a class without images, [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_named(None, None)
    }

    /// As [`ClassesSource::read`]. `classnames`: a file and its names, which replace those of the sorted folders.
    ///
    /// # Errors
    /// Also those of [`ClassFolder::check_names`](crate::ClassFolder::check_names).
    pub(crate) fn read_named(
        &self,
        selection: Option<Selection>,
        classnames: Option<(&Path, &[String])>,
    ) -> Result<Dataset, DataError> {
        let malformed = |reason: String| DataError::Malformed { path: self.path.clone(), reason };
        let folder_names = folders(&self.path)?;
        let found = splits(&folder_names);
        if !found.is_empty() && found.len() == folder_names.len() {
            let path = self.path.join(&found[0]);
            let found = quoted(&found);
            return Err(malformed(format!(
                "its folders are the splits {found}, not classes; set `path = \"{}\"`, or another of them",
                path.display()
            )));
        }
        let folder = class_folder(&self.path)?;
        let classes = folder.classes.len();
        let mut builder = DatasetBuilder::new(&self.path).with_selection(selection);
        if let Some((file, names)) = classnames {
            let checked = folder.check_names(&self.path, file, names);
            let warning = checked.map_err(DataError::of_key("classnames"))?;
            warning.into_iter().for_each(|warning| builder.warn(warning));
        } else {
            let is_number = |class: &&String| is_number_like(class);
            let numbers = folder.classes.iter().filter(is_number).count();
            let first = &folder.classes[0];
            if numbers == classes {
                return Err(malformed(format!(
                    "the names of its {classes} class folders look like numbers, such as `{first}`; name a file of \
                     class names, one per line in the order of the sorted folders, with `classnames`"
                )));
            }
            if folder.classes.iter().all(|class| is_wordnet_id(class)) {
                builder.warn(format!(
                    "`{}`: the class names are WordNet ids, such as `{first}`; name a file of class names, one per \
                     line in the order of the sorted folders, with `classnames`",
                    self.path.display()
                ));
            }
        }
        let names = classnames.map_or(&folder.classes[..], |(_, names)| names);
        for ((image, class), row) in folder.images.iter().zip(1..) {
            let name = image.path().strip_prefix(&self.path).unwrap_or(image.path());
            if builder.selects(row, &name.to_string_lossy()) {
                builder.push(image.clone(), &names[*class]);
            }
        }
        if let Some(left_out) = folder.left_out.describe() {
            builder.warn(format!("`{}`: {left_out}", self.path.display()));
        }
        builder.note(format!(
            "`{}`: {classes} classes, {}",
            self.path.display(),
            counted(builder.num_images(), "image")
        ));
        Ok(builder.finish(&self.path)?.with_classes(names))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, b"").unwrap();
        }
        dir
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn class_names_are_captions() {
        let dir = folder(&["red_panda/2.png", "red_panda/deep/1.png", "Cat/x.jpg"]);
        let source = ClassesSource::new(dir.path());
        let read = |classnames: Option<&[&str]>| {
            let names = classnames.map(names);
            let named = names.as_deref().map(|names| (Path::new("names.txt"), names));
            source.read_named(None, named).map_err(|error| error.to_string())
        };
        let captions = |classnames| {
            let dataset = read(classnames).unwrap();
            dataset.captions().map(|caption| caption.text.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(captions(None), ["Cat", "red panda", "red panda"]);
        assert_eq!(captions(Some(&["a cat", "a panda"])), ["a cat", "a panda", "a panda"]);
        let error = read(Some(&["a cat"])).unwrap_err();
        assert!(error.starts_with("`classnames`: `names.txt`: it has 1 class names, but"), "{error}");
        let error = read(Some(&["red panda", "cat"])).unwrap_err();
        assert!(error.contains("in another order: name 1 is `red panda`, but folder 1"), "{error}");
        assert!(read(Some(&["red panda", "lynx"])).unwrap().warnings[0].contains("name 1 is `red panda`"));
        let dataset = source.read().unwrap();
        assert!(dataset.notes[0].ends_with("2 classes, 3 images"), "{:?}", dataset.notes);
        assert!(dataset.image(2).key().ends_with("red_panda/deep/1.png"));
        assert_eq!(dataset.warnings, [""; 0]);
    }

    #[test]
    fn only_takes_names_or_rows() {
        let dir = folder(&["a/2.png", "b/1.png", "b/2.png"]);
        for list in ["b/1.png\n", "2\n"] {
            let only = dir.path().join("only.txt");
            write(&only, list).unwrap();
            let selection = Selection::read(&only).unwrap();
            let dataset = ClassesSource::new(dir.path()).read_named(Some(selection), None).unwrap();
            assert_eq!(dataset.num_images(), 1);
            assert!(dataset.image(0).key().ends_with("b/1.png"));
        }
    }

    #[test]
    fn splits_and_numbers_are_refused() {
        let read = |files: &[&str], classnames: &[String]| {
            let dir = folder(files);
            let named = (!classnames.is_empty()).then_some((Path::new("names.txt"), classnames));
            ClassesSource::new(dir.path()).read_named(None, named).map_err(|error| error.to_string())
        };
        let error = read(&["train/cat/1.png", "val/cat/1.png"], &[]).unwrap_err();
        assert!(error.contains("its folders are the splits `train`, `val`, not classes; set `path = "), "{error}");
        assert!(error.contains("/train\"`"), "{error}");
        assert_eq!(read(&["train/1.png", "bus/1.png"], &[]).unwrap().num_images(), 2);
        let error = read(&["0/1.png", "1/1.png"], &[]).unwrap_err();
        assert!(error.contains("its 2 class folders look like numbers, such as `0`"), "{error}");
        let many: Vec<String> = (0..11).map(|class| format!("{class}/1.png")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
        let error = read(&many, &names(&digits)).unwrap_err();
        assert!(error.contains("name 3 may be that of the folder `10` or of `2`"), "{error}");
        let dataset = read(&["n01440764/1.png", "n01443537/1.png"], &[]).unwrap();
        assert!(dataset.warnings[0].contains("WordNet ids, such as `n01440764`"), "{:?}", dataset.warnings);
    }

    #[test]
    fn class_folders_are_recognised() {
        let looks_like = |files: &[&str]| ClassesSource::looks_like(folder(files).path()).unwrap();
        assert!(looks_like(&["cat/1.png", "dog/1.png", "readme.md"]));
        assert!(!looks_like(&["cat/1.png"]));
        assert!(!looks_like(&["cat/1.png", "dog/1.png", "a.png"]));
        assert!(!looks_like(&["cat/1.png", "cat/1.txt", "dog/1.png"]));
        assert!(!looks_like(&["cat/1.png", "dog/1.png", "metadata.jsonl"]));
        assert!(!looks_like(&["train/cat/1.png", "val/cat/1.png"]));
    }
}
