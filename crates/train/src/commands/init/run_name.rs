//! The name of a run.

use std::ffi::OsStr;
use std::path::Path;

/// Names that say nothing about the data. Those of splits and numbers count too.
const GENERIC: [&str; 18] = [
    "data",
    "dataset",
    "datasets",
    "images",
    "image",
    "imgs",
    "img",
    "shards",
    "captions",
    "caption",
    "metadata",
    "annotations",
    "pairs",
    "train",
    "training",
    "default",
    "files",
    "results",
];

/// A directory below `runs` in `directory` that does not exist yet, named by the data at `path`, and whether the name
/// had to be changed.
pub(crate) fn run_dir(path: &Path, directory: &Path) -> (String, bool) {
    let name = run_name(path);
    let is_free = |name: &String| !directory.join(name).exists();
    let first = format!("runs/{name}");
    if is_free(&first) {
        return (first, false);
    }
    // Some number is free: a directory has finitely many entries.
    let next = (2_u64..).map(|number| format!("runs/{name}-{number}")).find(is_free);
    (next.unwrap_or(first), true)
}

/// The name of a file or folder, without its extension. A generic name gives way to the nearest one above that is not.
fn run_name(path: &Path) -> String {
    let real = path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned());
    let stem = if real.is_dir() { real.file_name() } else { real.file_stem() };
    let above = real.ancestors().skip(1).filter_map(Path::file_name);
    let mut names = stem.into_iter().chain(above).map(clean);
    let first = names.next().unwrap_or_default();
    let all = std::iter::once(first.clone()).chain(names);
    let name = all.into_iter().find(|name| !is_generic(name)).unwrap_or(first);
    if name.is_empty() { "data".to_owned() } else { name }
}

/// The letters, digits, `-` and `_` of a name.
fn clean(name: &OsStr) -> String {
    let name: String =
        name.to_string_lossy().chars().filter(|it| it.is_alphanumeric() || matches!(it, '-' | '_')).collect();
    name.trim_matches(['-', '_']).to_owned()
}

fn is_generic(name: &str) -> bool {
    let word = name.trim_end_matches(|it: char| it.is_ascii_digit() || matches!(it, '-' | '_')).to_lowercase();
    word.is_empty() || GENERIC.contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_names_give_way() {
        for (path, expected) in [
            ("/none/birds", "birds"),
            ("/none/birds/data", "birds"),
            ("/none/birds/data/train-{000..127}.tar", "birds"),
            ("/none/birds/{000..127}.tar", "birds"),
            ("/none/birds/captions.csv", "birds"),
            ("/none/birds/uk_birds.csv", "uk_birds"),
            ("/none/b&b/Images", "bb"),
            ("/data", "data"),
        ] {
            assert_eq!(run_name(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn taken_names_get_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let run = |path: &str| run_dir(Path::new(path), dir.path());
        assert_eq!(run("/none/birds"), ("runs/birds".to_owned(), false));
        std::fs::create_dir_all(dir.path().join("runs/birds")).unwrap();
        assert_eq!(run("/none/birds"), ("runs/birds-2".to_owned(), true));
        std::fs::create_dir(dir.path().join("runs/birds-2")).unwrap();
        assert_eq!(run("/none/birds/data"), ("runs/birds-3".to_owned(), true));
    }
}
