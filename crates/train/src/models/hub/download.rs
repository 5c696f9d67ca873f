//! One file from the hub into the cache, through `hf-hub`.

use hf_hub::api::Progress as HubProgress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo as HubRepo, RepoType};

use super::{BRANCH, File, HubError, Progress, Repo, is_plain_name};

/// A transfer that broke off is taken up again this often; `hf-hub` waits about 0.3 to 0.8 s before each.
const RETRIES: usize = 3;

/// Hands the bytes of a download on.
struct Listener<'a> {
    progress: Progress<'a>,
    on_progress: &'a mut dyn FnMut(Progress<'_>),
}

impl HubProgress for Listener<'_> {
    fn init(&mut self, size: usize, _: &str) {
        self.progress.total_bytes = size as u64;
        // Called again when a transfer is taken up; the bytes that are there are counted anew after it.
        self.progress.bytes = 0;
    }

    fn update(&mut self, size: usize) {
        self.progress.bytes += size as u64;
        (self.on_progress)(self.progress);
    }

    fn finish(&mut self) {}
}

impl Repo<'_> {
    /// Downloads `file` at `revision`, a branch or a commit. A branch is remembered as the commit it pointed to.
    ///
    /// The token goes out only where the hub refuses without it: hf-hub also sends it to the host that a large file is
    /// redirected to.
    pub(super) fn download(
        &self,
        revision: &str,
        file: &str,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<File, HubError> {
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
    ) -> Result<File, HubError> {
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
        let blob = self.dir.join("blobs").join(metadata.etag());
        let partial = blob.with_extension("part");
        let pointer = self.snapshot(metadata.commit_hash()).join(file);
        // hf-hub asks for the rest of a partial file even if there is none, which the server refuses for ever, and it
        // does not replace a link whose target is gone.
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
        // hf-hub appends what the server sends to what is there, even if the server sent the whole file again.
        let found = size_of(&path).unwrap_or(0);
        if found != expected {
            self.remove(&pointer)?;
            if blob.exists() {
                self.remove(&blob)?;
            }
            return Err(HubError::Size {
                reference: self.reference.to_owned(),
                file: file.to_owned(),
                found,
                expected,
            });
        }
        Ok(File::Here(path))
    }

    /// 404 for one file of a repository that is there means that it lacks the file; for a repository that is not, the
    /// hub answers 401 or 404 to everything.
    fn absent_or_failed(&self, file: &str, revision: &str, repo: &ApiRepo, error: ApiError) -> Result<File, HubError> {
        match status(&error) {
            Some(404) if revision != BRANCH || repo.info().is_ok() => Ok(File::Absent),
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

    fn remove(&self, path: &std::path::Path) -> Result<(), HubError> {
        std::fs::remove_file(path).map_err(|source| HubError::Cache { path: path.to_owned(), source })
    }
}

fn size_of(path: &std::path::Path) -> Option<u64> {
    path.metadata().ok().map(|metadata| metadata.len())
}

/// The HTTP status that an error stands for.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    }
}
