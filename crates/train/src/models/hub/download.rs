//! Downloads one file from the hub into the cache, through `hf-hub`.

use std::fs::File;
use std::path::Path;

use hf_hub::api::Progress as HubProgress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo as HubRepo, RepoType};
use sha2::{Digest, Sha256};

use crate::config::tower_reference::is_plain_name;
use crate::models::hub::error::HubError;
use crate::models::hub::progress::Progress;
use crate::models::hub::repo_dir::{BRANCH, Lookup, RepoDir};
use crate::models::hub::settings::Hub;

/// How often an interrupted transfer is resumed; `hf-hub` waits about 0.3 to 0.8 s before each attempt.
const RETRIES: usize = 3;

/// Counts the bytes of a download.
struct Listener<'a> {
    progress: Progress<'a>,
    on_progress: &'a mut dyn FnMut(Progress<'_>),
}

impl HubProgress for Listener<'_> {
    fn init(&mut self, size: usize, _: &str) {
        self.progress.total_bytes = size as u64;
        // Also called when a transfer is resumed; the bytes already on disk are then counted again.
        self.progress.bytes = 0;
    }

    fn update(&mut self, size: usize) {
        self.progress.bytes += size as u64;
        (self.on_progress)(self.progress);
    }

    fn finish(&mut self) {}
}

/// Downloads files of one repository into the cache.
pub(crate) struct Downloader<'a> {
    pub hub: &'a Hub,
    pub reference: &'a str,
    pub dir: &'a RepoDir,
}

impl Downloader<'_> {
    /// Downloads `file` at `revision`, a branch or a commit. For a branch, the cache records the commit it points to.
    ///
    /// The token is sent only if the hub refuses the request without it, because hf-hub also sends it to the host that
    /// a large file is redirected to.
    ///
    /// # Errors
    /// [`HubError::NotFound`], [`HubError::Download`], [`HubError::Size`], [`HubError::Hash`] or [`HubError::Cache`].
    pub fn download(
        &self,
        revision: &str,
        file: &str,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Lookup, HubError> {
        let anonymous = self.download_as(None, revision, file, on_progress);
        match (&self.hub.token, anonymous) {
            (Some(token), Err(HubError::NotFound { .. })) => self.download_as(Some(token), revision, file, on_progress),
            (_, anonymous) => anonymous,
        }
    }

    fn download_as(
        &self,
        token: Option<&str>,
        revision: &str,
        file: &str,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Lookup, HubError> {
        let hub = self.hub;
        let cache_dir = std::path::absolute(&hub.cache_dir)
            .map_err(|source| HubError::Cache { path: hub.cache_dir.clone(), source })?;
        let api = ApiBuilder::from_cache(hf_hub::Cache::new(cache_dir))
            .with_endpoint(hub.endpoint.clone())
            .with_token(token.map(str::to_owned))
            .with_retries(RETRIES)
            .with_user_agent("dualenc", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| self.failed(file, error))?;
        let repo = api.repo(HubRepo::with_revision(self.reference.to_owned(), RepoType::Model, revision.to_owned()));

        let metadata = match api.metadata(&repo.url(file)) {
            Ok(metadata) => metadata,
            Err(error) => return self.absent_or_failed(file, revision, &repo, error),
        };
        for (header, value) in [("etag", metadata.etag()), ("x-repo-commit", metadata.commit_hash())] {
            if !is_plain_name(value) {
                return Err(self.failed(file, std::io::Error::other(format!("the hub sent the {header} {value:?}"))));
            }
        }
        let expected = metadata.size() as u64;
        let blob = self.dir.blob(metadata.etag());
        let partial = blob.with_extension("part");
        let pointer = self.dir.snapshot(metadata.commit_hash()).join(file);
        // hf-hub requests the rest of a partial file even if nothing is missing, which the server always refuses, and
        // it does not replace a dangling link.
        if size_of(&partial).is_some_and(|size| size >= expected) {
            self.remove(&partial)?;
        }
        if pointer.is_symlink() && !pointer.exists() {
            self.remove(&pointer)?;
        }

        let progress = Progress { reference: self.reference, file, bytes: 0, total_bytes: expected };
        let path = repo
            .download_with_progress(file, Listener { progress, on_progress })
            .map_err(|error| self.failed(file, error))?;
        // hf-hub appends the response to the partial file even if the server sent the whole file again.
        let found = size_of(&path).unwrap_or(0);
        let discard = || {
            self.remove(&pointer)?;
            if blob.exists() { self.remove(&blob) } else { Ok(()) }
        };
        if found != expected {
            discard()?;
            return Err(HubError::Size {
                reference: self.reference.to_owned(),
                file: file.to_owned(),
                found,
                expected,
            });
        }
        // The entity tag of a large file is the hash of its content.
        if is_sha256(metadata.etag()) {
            let found = sha256(&path).map_err(|source| HubError::Cache { path: path.clone(), source })?;
            if !found.eq_ignore_ascii_case(metadata.etag()) {
                discard()?;
                return Err(HubError::Hash {
                    reference: self.reference.to_owned(),
                    file: file.to_owned(),
                    found,
                    expected: metadata.etag().to_owned(),
                });
            }
        }
        Ok(Lookup::Found(path))
    }

    /// A 404 for a file of an existing repository means that the file is absent. For an unknown repository, the hub
    /// answers 401 or 404 to every request.
    fn absent_or_failed(
        &self,
        file: &str,
        revision: &str,
        repo: &ApiRepo,
        error: ApiError,
    ) -> Result<Lookup, HubError> {
        match status(&error) {
            Some(404) if revision != BRANCH || repo.info().is_ok() => Ok(Lookup::Absent),
            Some(status @ (401 | 403 | 404)) => Err(HubError::NotFound {
                reference: self.reference.to_owned(),
                endpoint: self.hub.endpoint.clone(),
                status,
            }),
            _ => Err(self.failed(file, error)),
        }
    }

    fn failed(&self, file: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HubError {
        HubError::Download {
            reference: self.reference.to_owned(),
            file: file.to_owned(),
            endpoint: self.hub.endpoint.clone(),
            source: source.into(),
        }
    }

    fn remove(&self, path: &Path) -> Result<(), HubError> {
        std::fs::remove_file(path).map_err(|source| HubError::Cache { path: path.to_owned(), source })
    }
}

/// Whether an entity tag is a SHA-256, as of files in large-file storage; those of others are hashes of git's.
fn is_sha256(etag: &str) -> bool {
    etag.len() == 2 * Sha256::output_size() && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The SHA-256 of a file, in hexadecimal digits.
fn sha256(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn size_of(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|metadata| metadata.len())
}

/// The HTTP status behind an error.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    }
}
