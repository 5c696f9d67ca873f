//! Whether the images of an index can be shown: an index has their paths only.

use std::path::{Path, PathBuf};

use dualenc_train::{Index, counted};

/// Rows that are looked at: a large index may be on a slow disk, and a wrong `--root` misses all of them.
const MOST_LOOKED_AT: usize = 64;

/// What a look at some images of an index found.
#[derive(Debug, Default)]
pub struct Pictures {
    looked_at: usize,
    missing: usize,
    /// The first that is missing, as the index names it.
    example: Option<PathBuf>,
    /// Whether that is an entry of a file.
    is_packed: bool,
}

impl Pictures {
    /// Looks at images of `index`, evenly spread. Paths that are relative start at `root`.
    pub fn look(index: &Index, root: &Path) -> Self {
        let step = index.rows().div_ceil(MOST_LOOKED_AT).max(1);
        Self::of((0..index.rows()).step_by(step).filter_map(|row| index.image_path(row)), root)
    }

    fn of<'a>(paths: impl Iterator<Item = &'a str>, root: &Path) -> Self {
        let mut found = Self::default();
        for path in paths {
            found.looked_at += 1;
            let file = root.join(path);
            if !file.is_file() {
                found.missing += 1;
                found.is_packed |= found.missing == 1 && file.parent().is_some_and(Path::is_file);
                found.example.get_or_insert_with(|| PathBuf::from(path));
            }
        }
        found
    }

    /// Whether the server can show any of them.
    pub fn can_be_shown(&self) -> bool {
        self.missing < self.looked_at
    }

    /// What is wrong with the images of the file `index`, and what to do. `root`: where relative paths start, if it was
    /// given.
    pub fn problem(&self, index: &Path, root: Option<&Path>) -> Option<String> {
        let example = self.example.as_ref()?;
        let images = counted(self.looked_at, "image");
        let start = root.map_or("the working directory".to_owned(), |root| format!("`{}`", root.display()));
        let place = if example.is_relative() { format!(" in {start}") } else { String::new() };
        let advice = if self.is_packed {
            "the server shows no image of a shard or a parquet file"
        } else if example.is_relative() {
            "relative paths start there: name another folder with `--root`"
        } else {
            "move the images back, or embed them again where they are"
        };
        Some(format!(
            "{} of {images} looked at in `{}` cannot be shown: `{}` is no file{place}; {advice}",
            self.missing,
            index.display(),
            example.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_pictures_name_the_root() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let problem = |paths: &[&str], root: Option<&Path>| {
            let found = Pictures::of(paths.iter().copied(), root.unwrap_or(Path::new("")));
            (found.can_be_shown(), found.problem(Path::new("a.index"), root))
        };
        assert_eq!(problem(&["Cargo.toml"], Some(here)), (true, None));
        let (can_be_shown, said) = problem(&["Cargo.toml", "none.png"], Some(here));
        assert!(can_be_shown && said.unwrap().starts_with("1 of 2 images looked at in `a.index`"));
        let (can_be_shown, said) = problem(&["none.png"], None);
        let said = said.unwrap();
        assert!(!can_be_shown && said.contains("`none.png` is no file in the working directory"), "{said}");
        assert!(said.contains("`--root`"), "{said}");
        let (can_be_shown, said) = problem(&["/none.png"], Some(here));
        assert!(!can_be_shown && !said.unwrap().contains("--root"));
        let (can_be_shown, said) = problem(&["Cargo.toml/0.png"], Some(here));
        assert!(!can_be_shown && said.unwrap().contains("no image of a shard"));
        assert_eq!(problem(&[], None), (false, None));
    }
}
