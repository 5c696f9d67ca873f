//! From a reference to a directory.

use std::path::{Path, PathBuf};

use crate::config::tower_reference::is_hub_id;
use crate::models::hub::error::HubError;
use crate::models::hub::progress::Progress;
use crate::models::hub::repo::Repo;
use crate::models::hub::settings::Hub;

impl Hub {
    /// The directory that has the files of `reference`: the reference itself if it is a directory, else the cached
    /// snapshot of a hub id, after missing files have been downloaded. `on_progress` is called during downloads.
    ///
    /// # Errors
    /// Any [`HubError`] except [`HubError::NoHome`].
    pub fn resolve(&self, reference: &str, on_progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, HubError> {
        if Path::new(reference).is_dir() {
            return Ok(PathBuf::from(reference));
        }
        if !is_hub_id(reference) {
            return Err(HubError::NotAReference { reference: reference.to_owned() });
        }
        Repo::new(self, reference).resolve(on_progress)
    }
}

/// [`Hub::resolve`] with the hub of the environment, without progress reports.
///
/// # Errors
/// Any [`HubError`].
pub(crate) fn resolve(reference: &str) -> Result<PathBuf, HubError> {
    if Path::new(reference).is_dir() {
        return Ok(PathBuf::from(reference));
    }
    Hub::from_env()?.resolve(reference, &mut |_| {})
}
