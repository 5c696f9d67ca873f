//! The shards of one folder by split.

use std::path::PathBuf;

use dualenc_data::OneOrMany;

use crate::commands::init::split::Split;

/// What the names of some shards say: those to train on, and the others by split. Each set has at least one shard.
#[derive(Debug, PartialEq)]
pub(crate) struct ShardSets {
    pub train: OneOrMany<PathBuf>,
    pub validation: Option<OneOrMany<PathBuf>>,
    /// The test split, and shards without a split beside others that have one.
    pub unused: Vec<OneOrMany<PathBuf>>,
}

impl ShardSets {
    /// The sets of `shards`, sorted and not empty. `None`: no name says a split, or all say the same.
    pub fn of(shards: &[PathBuf]) -> Option<Self> {
        let set = |split: Option<Split>| -> Vec<PathBuf> {
            shards.iter().filter(|shard| Split::of_file(shard) == split).cloned().collect()
        };
        let [train, validation, test] = Split::ALL.map(|split| set(Some(split)));
        let others = set(None);
        let (train, others) = if train.is_empty() { (others, Vec::new()) } else { (train, others) };
        if train.is_empty() || train.len() == shards.len() {
            return None;
        }
        let named = |set: Vec<PathBuf>| (!set.is_empty()).then(|| path_of(set, shards));
        Some(Self {
            validation: named(validation),
            unused: [test, others].into_iter().filter_map(named).collect(),
            train: path_of(train, shards),
        })
    }
}

/// A pattern for the shards of `set` if it names no other one of `all`, else their list.
fn path_of(set: Vec<PathBuf>, all: &[PathBuf]) -> OneOrMany<PathBuf> {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let [first, _, ..] = &set[..] else { return OneOrMany(set) };
    let start = set.iter().map(name).fold(name(first), |start, name| {
        let same = start.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
        start.chars().take(same).collect()
    });
    let start = start.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let named = all.iter().filter(|shard| name(shard).starts_with(start)).count();
    // The pattern has the extension in lower case.
    let is_lower = set.iter().all(|shard| shard.extension().is_some_and(|extension| extension == "tar"));
    if !is_lower || named != set.len() || start.contains(['*', '?', '{', '[']) {
        return OneOrMany(set);
    }
    OneOrMany(vec![first.with_file_name(format!("{start}*.tar"))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_of_shards_are_kept_apart() {
        let sets = |names: &[&str]| ShardSets::of(&names.iter().map(PathBuf::from).collect::<Vec<_>>());
        let paths = |names: &[&str]| OneOrMany(names.iter().map(PathBuf::from).collect::<Vec<_>>());
        let found = sets(&["d/test-0.tar", "d/train-00.tar", "d/train-01.tar", "d/val-0.tar", "d/x.tar"]).unwrap();
        assert_eq!(found.train, paths(&["d/train-*.tar"]));
        assert_eq!(found.validation, Some(paths(&["d/val-0.tar"])));
        let upper = sets(&["d/train-00.tar", "d/train-01.TAR", "d/val-0.tar"]).unwrap();
        assert_eq!(upper.train, paths(&["d/train-00.tar", "d/train-01.TAR"]));
        assert_eq!(found.unused, [paths(&["d/test-0.tar"]), paths(&["d/x.tar"])]);
        // No pattern names these alone.
        let found = sets(&["0-train.tar", "1-val.tar", "2-train.tar"]).unwrap();
        assert_eq!(found.train, paths(&["0-train.tar", "2-train.tar"]));
        let found = sets(&["00.tar", "01.tar", "val.tar"]).unwrap();
        assert_eq!((found.train, found.validation), (paths(&["00.tar", "01.tar"]), Some(paths(&["val.tar"]))));
        assert_eq!(sets(&["00.tar", "01.tar"]), None);
        assert_eq!(sets(&["train-0.tar", "train-1.tar"]), None);
        assert_eq!(sets(&["test-0.tar", "val-1.tar"]), None);
    }
}
