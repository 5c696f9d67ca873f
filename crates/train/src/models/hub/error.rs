//! Why a reference could not be resolved.

use std::path::PathBuf;

/// Why a reference to a tower could not be resolved to a directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The reference is neither a local directory nor shaped like a hub id.
    #[error(
        "`{reference}` is neither a local directory nor a hub id; check the path, or write the id as `name` or \
         `org/name`"
    )]
    NotAReference {
        /// The reference.
        reference: String,
    },
    /// The hub has no such repository, or hides it from this user.
    #[error(
        "`{reference}` is not a local directory, and the hub at `{endpoint}` does not find it (status {status}); check \
         the path (relative paths start at the config file), the spelling of the id, and `HF_TOKEN` if the model is \
         private or gated"
    )]
    NotFound {
        /// The hub id.
        reference: String,
        /// The hub's address.
        endpoint: String,
        /// The HTTP status: 401, 403 or 404.
        status: u16,
    },
    /// The repository lacks a file that every tower needs.
    #[error("`{reference}` has no `{file}`; {advice}")]
    MissingFile {
        /// The hub id.
        reference: String,
        /// The missing file.
        file: String,
        /// What to do.
        advice: &'static str,
    },
    /// `HF_HUB_OFFLINE` is set and a file is not in the cache.
    #[error(
        "`{reference}` is not a local directory, `HF_HUB_OFFLINE` is set, and the cache has no `{file}` for it (looked \
         in `{looked_in}`); run once with network access, or copy the model's files to a directory and give its path"
    )]
    Offline {
        /// The hub id.
        reference: String,
        /// The first missing file.
        file: String,
        /// The directory in which it was expected.
        looked_in: PathBuf,
    },
    /// This build cannot download.
    #[error(
        "`{reference}` is neither a local directory nor in the cache (looked in `{looked_in}`), and this build cannot \
         download; build with the cargo feature `hub`, or copy the model's files to a directory and give its path"
    )]
    NoDownload {
        /// The hub id.
        reference: String,
        /// The directory in which it was expected.
        looked_in: PathBuf,
    },
    /// A request or a transfer failed.
    #[error(
        "`{reference}` is not a local directory, and `{file}` cannot be downloaded from `{endpoint}`; check the path, \
         the network, `HF_ENDPOINT` and free disk space"
    )]
    Download {
        /// The hub id.
        reference: String,
        /// The file.
        file: String,
        /// The hub's address.
        endpoint: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A download has another size than the hub announced.
    #[error(
        "the download of `{file}` of `{reference}` has {found} bytes, expected {expected}; it was removed, try again"
    )]
    Size {
        /// The hub id.
        reference: String,
        /// The file.
        file: String,
        /// Size of the download, in bytes.
        found: u64,
        /// Announced size, in bytes.
        expected: u64,
    },
    /// The content of a download is not what the hub announced.
    #[error(
        "the download of `{file}` of `{reference}` has the SHA-256 {found}, expected {expected}; it was removed, try \
         again"
    )]
    Hash {
        /// The hub id.
        reference: String,
        /// The file.
        file: String,
        /// SHA-256 of the download, in hexadecimal digits.
        found: String,
        /// Announced SHA-256.
        expected: String,
    },
    /// A file of the cache cannot be read or written.
    #[error("cannot use `{path}` in the hub cache; check its permissions, or set `HF_HOME` to another directory")]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The index of split weights is malformed.
    #[error("`{path}` is not an index of safetensors files: {reason}; remove it to download it again")]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no home directory to put the cache in.
    #[error("no directory for the hub cache: neither `HF_HOME` nor a home directory is set; set `HF_HOME`")]
    NoHome,
}
