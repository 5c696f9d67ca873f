//! The splits of data sets, by the names of files and folders.

use std::path::{Path, PathBuf};

/// A split of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    Train,
    Validation,
    /// A model is not chosen by it.
    Test,
}

impl Split {
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// Names of folders and words in names of files, in lower case, the best first.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["train", "training"],
            Self::Validation => &["validation", "valid", "val", "dev", "heldout", "held-out", "eval", "evaluation"],
            Self::Test => &["test", "testing"],
        }
    }

    /// Values of a column or key `split`, the best first.
    pub fn values(self) -> &'static [&'static str] {
        match self {
            Self::Train => &["train", "training", "Train", "TRAIN", "Training"],
            Self::Validation => {
                &["val", "validation", "valid", "dev", "Val", "Validation", "Valid", "Dev", "VAL", "VALIDATION"]
            }
            Self::Test => &["test", "testing", "Test", "TEST", "Testing"],
        }
    }

    /// The split that a word in the name of a file says.
    pub fn of_file(path: &Path) -> Option<Self> {
        let words = words(path);
        Self::ALL.into_iter().find(|split| words.iter().any(|word| split.names().contains(&without_year(word).0)))
    }

    /// Whether a folder has a name of this split.
    pub fn is_folder(self, folder: &Path) -> bool {
        let is_name = |name: &&str| folder.file_name().is_some_and(|it| it.eq_ignore_ascii_case(name));
        self.names().iter().any(is_name)
    }

    /// The file of `files` with this split of the set that has its training data in `train`: the two names differ in
    /// the word for the split alone.
    pub fn beside<'a>(self, train: &Path, files: &'a [PathBuf]) -> Option<&'a PathBuf> {
        let wanted = words(train);
        self.names().iter().find_map(|name| {
            files.iter().find(|file| {
                let found = words(file);
                let fits = |(wanted, found): (&String, &String)| {
                    let ((wanted_word, wanted_year), (word, year)) = (without_year(wanted), without_year(found));
                    wanted == found
                        || Self::Train.names().contains(&wanted_word) && word == *name && wanted_year == year
                };
                file.as_path() != train
                    && file.extension() == train.extension()
                    && found.len() == wanted.len()
                    && wanted.iter().zip(&found).all(fits)
            })
        })
    }
}

/// The words of a file's name, in lower case, without its extension.
fn words(path: &Path) -> Vec<String> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    stem.split(['_', '-', '.', ' ']).map(str::to_owned).collect()
}

/// A word and the digits at its end: `train` and `2017`, as COCO's files have them.
fn without_year(word: &str) -> (&str, &str) {
    word.split_at(word.trim_end_matches(|letter: char| letter.is_ascii_digit()).len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_recognised_by_name() {
        let tables =
            ["a_test.csv", "a_val.csv", "a_val.tsv", "b_val.csv", "train.csv", "c_val2014.json", "c_val2017.json"];
        let tables: Vec<PathBuf> = tables.map(PathBuf::from).to_vec();
        let beside = |split: Split, train: &str| split.beside(Path::new(train), &tables).and_then(|it| it.to_str());
        assert_eq!(beside(Split::Validation, "a_train.csv"), Some("a_val.csv"));
        assert_eq!(beside(Split::Test, "a_train.csv"), Some("a_test.csv"));
        assert_eq!(beside(Split::Validation, "c_train.csv"), None);
        assert_eq!(beside(Split::Validation, "c_train2017.json"), Some("c_val2017.json"));
        let of_file = |name: &str| Split::of_file(Path::new(name));
        assert_eq!(of_file("cc3m-train-0.tsv"), Some(Split::Train));
        assert_eq!(of_file("captions_train2017.json"), Some(Split::Train));
        assert_eq!(of_file("x/captions.val.json"), Some(Split::Validation));
        assert_eq!(of_file("test-00000-of-00001.parquet"), Some(Split::Test));
        assert_eq!([of_file("trainers.tsv"), of_file("values.csv"), of_file("latest.csv")], [None; 3]);
    }
}
