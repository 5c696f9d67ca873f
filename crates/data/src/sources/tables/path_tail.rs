//! The end of an absent path that is there: a table from another machine, or one that is read from another folder.

use std::path::{Path, PathBuf};

use crate::sources::tables::path_text::shown;

/// Folders in a path of another machine, of which ends are looked for.
const MAX_PARTS: usize = 32;

/// Entries of one folder that are looked at.
pub(crate) const MAX_ENTRIES: usize = 100_000;

/// The end of a path of another machine or folder, which is there.
#[derive(Debug)]
pub(crate) struct Tail {
    /// What is before it, with a separator at the end.
    head: String,
    end: String,
    folder: PathBuf,
}

impl Tail {
    /// The longest end of `text` that is a file below `root`, or else below a folder in it, beside it or above it.
    pub(crate) fn find(root: &Path, text: &str) -> Option<Self> {
        let parent = root.parent().map(Path::to_owned);
        let mut folders = vec![root.to_owned()];
        folders.extend(folders_in(root));
        folders.extend(parent.iter().cloned());
        folders.extend(parent.iter().flat_map(|parent| folders_in(parent)));
        let starts: Vec<usize> = text.match_indices(['/', '\\']).map(|(at, _)| at + 1).take(MAX_PARTS).collect();
        folders.into_iter().find_map(|folder| {
            starts.iter().find_map(|&start| {
                let (head, end) = text.split_at(start);
                let end = end.replace('\\', "/");
                let is_there = !end.is_empty() && folder.join(&end).is_file();
                is_there.then(|| Self { head: head.to_owned(), end, folder: folder.clone() })
            })
        })
    }

    /// What to do with a table of images that are looked for in the folder `root`.
    pub(crate) fn advice(&self, root: &Path) -> String {
        let Self { head, end, folder } = self;
        let set = if folder == root { "" } else { ", and set `root` to that folder" };
        let pattern = head.replace('\\', "\\\\").replace('.', "\\.");
        format!(
            "`{}` is there below `{}`: remove `{}` from the paths, such as with `sed 's|{pattern}||'`{set}",
            shown(end),
            folder.display(),
            shown(head)
        )
    }
}

/// The folders directly in `folder`, sorted; none if it cannot be read.
pub(crate) fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_ENTRIES);
    let is_dir = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink());
    let mut folders: Vec<PathBuf> = entries.filter(is_dir).map(|entry| entry.path()).collect();
    folders.sort();
    folders
}
