//! Labelled images in one folder per class, and class names of a file for these folders. Training and evaluations read
//! both here, so that they accept and refuse the same.

use std::collections::HashMap;
use std::path::Path;

use crate::error::DataError;
use crate::files::is_absent;
use crate::images::location::ImageRef;
use crate::sources::folder::file_names::{around_number, quoted};
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

impl ClassFolder {
    /// Checks class names that take the place of the folder names, in the order of the sorted folders. `file`: where
    /// the names are from, `path`: the folder of the folders. Returns a warning of what may be wrong.
    ///
    /// # Errors
    /// [`DataError::TextList`] if their number is another one, if they are the names of the folders in another order,
    /// or if the folders have two orders: `1`, `10`, `2` as texts and `1`, `2`, `10` as numbers.
    pub fn check_names(&self, path: &Path, file: &Path, names: &[String]) -> Result<Option<String>, DataError> {
        let refused = |problem: String| DataError::TextList { path: file.to_owned(), problem };
        let (folders, path) = (&self.classes, path.display());
        if names.len() != folders.len() {
            return Err(refused(format!(
                "it has {} class names, but `{path}` has {} class folders; expected one name per line, in the sorted \
                 order of the folders",
                names.len(),
                folders.len()
            )));
        }
        let (named, expected) = (folded(names), folded(folders));
        let Some(at) = named.iter().zip(&expected).position(|(name, folder)| name != folder) else { return Ok(None) };
        if sorted(&named) == sorted(&expected) {
            return Err(refused(format!(
                "it has the class names of the folders in `{path}` in another order: name {} is `{}`, but folder {} in \
                 sorted order is `{}`; put the names in the order of the folders, or give no list of names",
                at + 1,
                names[at],
                at + 1,
                folders[at]
            )));
        }
        // Names are mostly written in the order of the numbers, and no name tells which order is meant.
        for (line, folder) in self.in_order_of_numbers().into_iter().flatten().enumerate() {
            if names[line] != names[folder] {
                return Err(refused(format!(
                    "it has names for the class folders of `{path}`, which sort as texts in another order than as \
                     numbers ({}), so that name {} may be that of the folder `{}` or of `{}`; give the numbers \
                     leading zeros, such as `{}`, or rename the folders to their class names and give no list of names",
                    quoted(folders),
                    line + 1,
                    folders[line],
                    folders[folder],
                    self.padded(folder)
                )));
            }
        }
        // Of equal names, any may be meant.
        let places: HashMap<&str, usize> = expected.iter().zip(0..).map(|(folder, at)| (folder.as_str(), at)).collect();
        let is_of_another = |&line: &usize| {
            let place = places.get(named[line].as_str()).copied();
            named[line] != expected[line] && place.is_some_and(|place| named[place] != expected[place])
        };
        Ok((0..names.len()).find(is_of_another).map(|line| {
            format!(
                "`{}`: name {} is `{}`, as is the name of another folder in `{path}`, but it is taken for `{}`, folder \
                 {} in sorted order; put the names in the order of the folders",
                file.display(),
                line + 1,
                names[line],
                folders[line],
                line + 1
            )
        }))
    }

    /// The places of the folders in the order of the numbers in their names, if the names differ in nothing else, and
    /// if this is another order.
    fn in_order_of_numbers(&self) -> Option<Vec<usize>> {
        let parts = self.classes.iter().map(|class| around_number(class)).collect::<Option<Vec<_>>>()?;
        let (before, _, after) = *parts.first()?;
        if parts.iter().any(|part| (part.0, part.2) != (before, after)) {
            return None;
        }
        let mut order: Vec<usize> = (0..parts.len()).collect();
        order.sort_by_key(|&place| parts[place].1);
        (!order.is_sorted()).then_some(order)
    }

    /// The name of a folder with zeros before its number, so that names sort as their numbers do.
    fn padded(&self, folder: usize) -> String {
        let width = self.classes.iter().map(String::len).max().unwrap_or(0);
        let name = &self.classes[folder];
        let zeros = "0".repeat(width - name.len());
        match name.find(|character: char| character.is_ascii_digit()) {
            Some(at) => format!("{}{zeros}{}", &name[..at], &name[at..]),
            None => name.clone(),
        }
    }
}

/// Names as they are compared: case, `_` and `-` do not count.
fn folded(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.to_lowercase().replace(['_', '-'], " ")).collect()
}

fn sorted(names: &[String]) -> Vec<&str> {
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names
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

    fn check(folders: &[&str], names: &[&str]) -> Result<Option<String>, String> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let folder = ClassFolder { classes: owned(folders), images: Vec::new(), left_out: LeftOut::default() };
        let checked = folder.check_names(Path::new("data"), Path::new("n.txt"), &owned(names));
        checked.map_err(|error| error.to_string())
    }

    #[test]
    fn names_have_the_order_of_the_folders() {
        assert_eq!(check(&["cat", "fire ant"], &["Cat", "fire-ant"]), Ok(None));
        assert_eq!(check(&["cat", "dog"], &["feline", "hound"]), Ok(None));
        let error = check(&["cat", "dog"], &["Dog", "cat"]).unwrap_err();
        let expected = "`n.txt`: it has the class names of the folders in `data` in another order: name 1 is `Dog`, \
                        but folder 1 in sorted order is `cat`; put the names";
        assert!(error.starts_with(expected), "{error}");
        let error = check(&["cat", "dog"], &["cat"]).unwrap_err();
        assert!(
            error.starts_with("`n.txt`: it has 1 class names, but `data` has 2 class folders; expected"),
            "{error}"
        );
        // One is renamed, and the others have changed places.
        let warning = check(&["ape", "bee", "cat"], &["bee", "ape", "feline"]).unwrap().unwrap();
        assert!(warning.contains("`n.txt`: name 1 is `bee`, as is the name of another folder"), "{warning}");
        assert_eq!(check(&["ape", "bee", "cat"], &["great ape", "bee", "cat"]), Ok(None));
    }

    #[test]
    fn folders_with_two_orders_are_refused() {
        let folders = ["0", "1", "10", "2"];
        let error = check(&folders, &["zero", "one", "two", "ten"]).unwrap_err();
        let expected = "`n.txt`: it has names for the class folders of `data`, which sort as texts in another order \
                        than as numbers (`0`, `1`, `10`, `2`), so that name 3 may be that of the folder `10` or of \
                        `2`; give the numbers leading zeros, such as `02`, or rename";
        assert!(error.starts_with(expected), "{error}");
        let error = check(&["class 1", "class 12", "class 3"], &["a", "b", "c"]).unwrap_err();
        assert!(error.contains("name 2 may be that of the folder `class 12` or of `class 3`"), "{error}");
        // One order, equal names, or the names of the folders themselves.
        assert_eq!(check(&["00", "01", "02", "10"], &["zero", "one", "two", "ten"]), Ok(None));
        assert_eq!(check(&folders, &["x"; 4]), Ok(None));
        assert_eq!(check(&folders, &folders), Ok(None));
        assert_eq!(check(&["a 10", "b 2"], &["ten", "two"]), Ok(None));
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
