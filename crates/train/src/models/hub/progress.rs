//! How far a download is.

/// How far the download of one file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress<'a> {
    /// The hub id.
    pub reference: &'a str,
    /// The file.
    pub file: &'a str,
    /// Bytes downloaded so far.
    pub bytes: u64,
    /// Size of the whole file, in bytes.
    pub total_bytes: u64,
}
