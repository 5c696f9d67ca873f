//! One repository of the hub: which files a tower needs, from the cache or else from the hub.

use std::path::PathBuf;

#[cfg(feature = "hub")]
use crate::models::hub::download::Downloader;
use crate::models::hub::error::HubError;
use crate::models::hub::model_files::{
    CONFIG, MODULES, OPEN_CLIP, WEIGHTS, WEIGHTS_INDEX, dense_files, names_model_type, optional_files, pooling_dir,
    shards,
};
use crate::models::hub::progress::Progress;
use crate::models::hub::repo_dir::{BRANCH, Lookup, RepoDir};
use crate::models::hub::settings::Hub;

/// Why a repository without `config.json` is refused.
const NO_MODEL: &str = "it is not a Hugging Face model";

/// One repository and its directory in the cache.
pub(crate) struct Repo<'a> {
    hub: &'a Hub,
    reference: &'a str,
    dir: RepoDir,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    Optional,
}

impl<'a> Repo<'a> {
    /// The repository of a hub id.
    pub fn new(hub: &'a Hub, reference: &'a str) -> Self {
        Self { hub, reference, dir: RepoDir::new(&hub.cache_dir, reference) }
    }

    /// The snapshot of the cached commit, or else of the newest one, with every file of the tower in it.
    pub fn resolve(&self, on_progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, HubError> {
        let commit = match self.dir.cached_commit() {
            Some(commit) => commit,
            None => self.first_commit(on_progress)?,
        };
        self.complete(&commit, on_progress)
    }

    /// The commit of a repository that is not in the cache.
    fn first_commit(&self, on_progress: &mut dyn FnMut(Progress<'_>)) -> Result<String, HubError> {
        if self.is_cache_only() {
            return Err(self.unreachable(CONFIG, self.dir.path().to_owned()));
        }
        if let Lookup::Absent = self.download(BRANCH, CONFIG, on_progress)? {
            return Err(self.missing(CONFIG, NO_MODEL));
        }
        let lost = || std::io::Error::other("the download did not record its commit");
        self.dir.cached_commit().ok_or_else(|| HubError::Cache { path: self.dir.branch_file(), source: lost() })
    }

    /// Downloads the files of the tower at `commit` that are not cached, and returns the snapshot.
    fn complete(&self, commit: &str, on_progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, HubError> {
        let snapshot = self.dir.snapshot(commit);
        let Lookup::Found(config) = self.file(commit, CONFIG, Need::Required, on_progress)? else {
            return Err(self.missing(CONFIG, NO_MODEL));
        };
        for file in optional_files() {
            self.file(commit, file, Need::Optional, on_progress)?;
        }
        let pooling = format!("{}/config.json", pooling_dir(&snapshot.join(MODULES)));
        self.file(commit, &pooling, Need::Optional, on_progress)?;
        for file in dense_files(&snapshot.join(MODULES)) {
            self.file(commit, &file, Need::Optional, on_progress)?;
        }
        if !names_model_type(&config)
            && let Lookup::Found(_) = self.file(commit, OPEN_CLIP[0], Need::Optional, on_progress)?
            && let Lookup::Found(_) = self.file(commit, OPEN_CLIP[1], Need::Required, on_progress)?
        {
            return Ok(snapshot);
        }
        // Split weights in the cache make a request for the single file unnecessary.
        let has_split_weights = snapshot.join(WEIGHTS_INDEX).exists() && !snapshot.join(WEIGHTS).exists();
        if !has_split_weights && let Lookup::Found(_) = self.file(commit, WEIGHTS, Need::Required, on_progress)? {
            return Ok(snapshot);
        }
        let Lookup::Found(index) = self.file(commit, WEIGHTS_INDEX, Need::Required, on_progress)? else {
            let advice = "only safetensors weights can be read: save the model again with a current transformers";
            return Err(self.missing(WEIGHTS, advice));
        };
        for shard in shards(&index)? {
            if let Lookup::Absent = self.file(commit, &shard, Need::Required, on_progress)? {
                return Err(self.missing(&shard, "the index of its weights lists this file: the upload is incomplete"));
            }
        }
        Ok(snapshot)
    }

    /// One file: from the cache, which also records what the repository lacks, else from the hub.
    fn file(
        &self,
        commit: &str,
        file: &str,
        need: Need,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Lookup, HubError> {
        let path = self.dir.snapshot(commit).join(file);
        if path.is_file() {
            return Ok(Lookup::Found(path));
        }
        let marker = self.dir.absence_marker(commit, file);
        if marker.is_file() {
            return Ok(Lookup::Absent);
        }
        if self.is_cache_only() {
            return match need {
                Need::Optional => Ok(Lookup::Absent),
                Need::Required => Err(self.unreachable(file, self.dir.snapshot(commit))),
            };
        }
        let found = self.download(commit, file, on_progress)?;
        if let Lookup::Absent = found {
            let write = || {
                marker.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                std::fs::write(&marker, b"")
            };
            write().map_err(|source| HubError::Cache { path: marker.clone(), source })?;
        }
        Ok(found)
    }

    fn is_cache_only(&self) -> bool {
        self.hub.offline || cfg!(not(feature = "hub"))
    }

    fn missing(&self, file: &str, advice: &'static str) -> HubError {
        HubError::MissingFile { reference: self.reference.to_owned(), file: file.to_owned(), advice }
    }

    fn unreachable(&self, file: &str, looked_in: PathBuf) -> HubError {
        let reference = self.reference.to_owned();
        if self.hub.offline {
            HubError::Offline { reference, file: file.to_owned(), looked_in }
        } else {
            HubError::NoDownload { reference, looked_in }
        }
    }

    #[cfg(feature = "hub")]
    fn download(
        &self,
        revision: &str,
        file: &str,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Lookup, HubError> {
        let downloader = Downloader { hub: self.hub, reference: self.reference, dir: &self.dir };
        downloader.download(revision, file, on_progress)
    }

    #[cfg(not(feature = "hub"))]
    fn download(&self, _: &str, file: &str, _: &mut dyn FnMut(Progress<'_>)) -> Result<Lookup, HubError> {
        Err(self.unreachable(file, self.dir.path().to_owned()))
    }
}
