//! Labelled images for zero-shot classification: one folder per class.

use std::path::Path;

use crate::error::DataError;
use crate::files::is_absent;
use crate::images::location::ImageRef;
use crate::sources::image_files::{ImageFiles, LeftOut, image_files, is_ignored, is_image_name};

/// Number of file names that an error lists.
const NAMED: usize = 3;

/// Classes and their images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassFolder {
    /// Folder names, sorted byte by byte, with `_` as a space.
    pub classes: Vec<String>,
    /// Every image with the index of its class, sorted within the class.
    pub images: Vec<(ImageRef, usize)>,
    /// Files in the class folders that are no images.
    pub left_out: LeftOut,
}

/// Lists a folder that has one folder per class. Hidden folders, and those that systems add, are left out.
///
/// # Errors
/// [`DataError::NoClassFolders`] without a class, [`DataError::Empty`] for a class without images (its accuracy would
/// be undefined), [`DataError::Read`].
pub fn class_folder(path: &Path) -> Result<ClassFolder, DataError> {
    let mut folders = Vec::new();
    let mut others = Vec::new();
    for entry in std::fs::read_dir(path).map_err(DataError::read(path))? {
        let entry = entry.map_err(DataError::read(path))?;
        let name = entry.file_name();
        if is_ignored(&name) {
            continue;
        }
        match std::fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_dir() => folders.push(name),
            // A dangling link is no class.
            Ok(_) => others.push(name),
            Err(error) if is_absent(&error) => others.push(name),
            Err(source) => return Err(DataError::Read { path: entry.path(), source }),
        }
    }
    if folders.is_empty() {
        others.sort();
        let named: Vec<_> = others.iter().take(NAMED).map(|name| format!("`{}`", name.display())).collect();
        let found = match others.len() {
            0 => "nothing".to_owned(),
            count => format!("{count} files ({}{})", named.join(", "), if count > NAMED { ", ..." } else { "" }),
        };
        return Err(DataError::NoClassFolders { path: path.to_owned(), found });
    }
    folders.sort_by(|a, b| a.as_encoded_bytes().cmp(b.as_encoded_bytes()));
    let mut result =
        ClassFolder { classes: Vec::with_capacity(folders.len()), images: Vec::new(), left_out: LeftOut::default() };
    let loose = others.iter().filter(|name| is_image_name(Path::new(name))).count();
    if loose > 0 {
        result.left_out.others.insert("images beside the class folders".to_owned(), loose);
    }
    for (class, folder) in folders.iter().enumerate() {
        let path = path.join(folder);
        let ImageFiles { files, left_out } = image_files(&path)?;
        if files.is_empty() {
            return Err(DataError::Empty {
                path,
                found: left_out.in_place_of_images(),
                expected: "the images of this class (or remove the folder)",
            });
        }
        result.classes.push(folder.to_string_lossy().replace('_', " "));
        result.left_out.add(left_out);
        result.images.extend(files.into_iter().map(|file| (ImageRef::File(file), class)));
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    #[test]
    fn classes_are_sorted_folders() {
        let dir = tempfile::tempdir().unwrap();
        for (class, image) in [("red_panda", "2.png"), ("red_panda", "1.png"), ("Cat", "x.jpg")] {
            create_dir_all(dir.path().join(class)).unwrap();
            write(dir.path().join(class).join(image), b"").unwrap();
        }
        let found = class_folder(dir.path()).unwrap();
        assert_eq!(found.classes, ["Cat", "red panda"]);
        let at = |name: &str| ImageRef::File(dir.path().join(name));
        assert_eq!(found.images, [(at("Cat/x.jpg"), 0), (at("red_panda/1.png"), 1), (at("red_panda/2.png"), 1)]);
    }

    #[test]
    fn helper_folders_are_no_classes() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["cat", "__MACOSX/cat", ".ipynb_checkpoints", "@eaDir", "cat/__MACOSX"] {
            create_dir_all(dir.path().join(folder)).unwrap();
            write(dir.path().join(folder).join("x.jpg"), b"").unwrap();
        }
        let found = class_folder(dir.path()).unwrap();
        assert_eq!(found.classes, ["cat"]);
    }

    #[test]
    fn rejects_flat_folder() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png", "c.png", "d.png"] {
            write(dir.path().join(name), b"").unwrap();
        }
        let error = class_folder(dir.path()).unwrap_err().to_string();
        let expected =
            "holds no class folders: found 4 files (`a.png`, `b.png`, `c.png`, ...); expected one folder per class";
        assert!(error.contains(expected), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn unreadable_class_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        create_dir_all(dir.path().join("cat")).unwrap();
        write(dir.path().join("cat/x.jpg"), b"").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
        assert_eq!(class_folder(dir.path()).unwrap().classes, ["cat"]);
        // A link to itself stands for a folder that the disk cannot read.
        std::os::unix::fs::symlink("dog", dir.path().join("dog")).unwrap();
        let error = class_folder(dir.path()).unwrap_err();
        assert!(matches!(&error, DataError::Read { path, .. } if path.ends_with("dog")), "{error}");
    }

    #[test]
    fn rejects_empty_class() {
        let dir = tempfile::tempdir().unwrap();
        create_dir_all(dir.path().join("cat")).unwrap();
        let error = class_folder(dir.path()).unwrap_err().to_string();
        assert!(error.contains("cat` holds no samples: found no image"), "{error}");
    }
}
