//! What the targets share.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

thread_local! {
    static DIR: TempDir = tempfile::tempdir().expect("a temporary directory");
}

/// Calls `read` with the path of a file `name` that holds `bytes`. Set `TMPDIR` to a file system in memory for speed.
pub fn with_file(name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    DIR.with(|dir| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("the temporary directory can be written");
        read(&path);
    });
}

/// Calls `read` with an empty directory.
pub fn in_empty_dir(read: impl FnOnce(&Path)) {
    DIR.with(|dir| {
        let path = dir.path().join("empty");
        fs::create_dir_all(&path).expect("the temporary directory can be written");
        read(&path);
    });
}
