//! Where the cache puts the files of one repository.

use std::path::{Path, PathBuf};

use crate::config::tower_reference::is_plain_name;

/// The branch that a hub id stands for.
pub(crate) const BRANCH: &str = "main";

/// Where a file is, or that the repository lacks it.
pub(crate) enum Lookup {
    Found(PathBuf),
    Absent,
}

/// The directory `models--org--name` of one repository in the cache.
pub(crate) struct RepoDir {
    path: PathBuf,
}

impl RepoDir {
    pub fn new(cache_dir: &Path, hub_id: &str) -> Self {
        Self { path: cache_dir.join(format!("models--{}", hub_id.replace('/', "--"))) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The commit that the branch pointed to when it was last downloaded, if its snapshot exists.
    pub fn cached_commit(&self) -> Option<String> {
        let commit = std::fs::read_to_string(self.branch_file()).ok()?.trim().to_owned();
        (is_plain_name(&commit) && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// The file that holds the commit of the branch.
    pub fn branch_file(&self) -> PathBuf {
        self.path.join("refs").join(BRANCH)
    }

    /// The directory of all files of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.path.join("snapshots").join(commit)
    }

    /// The content of a file, named by its entity tag; snapshots link to it.
    #[cfg(feature = "hub")]
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.path.join("blobs").join(etag)
    }

    /// An empty file that records that the repository has no `file` at `commit`.
    pub fn absence_marker(&self, commit: &str, file: &str) -> PathBuf {
        self.path.join(".no_exist").join(commit).join(file)
    }
}
