//! A file in memory. The system reads its pages when they are needed.

use std::fs::File;
use std::path::Path;

use memmap2::{Advice, Mmap};

use crate::error::SearchError;

/// Maps the file at `path`.
///
/// # Errors
/// [`SearchError::Read`]; [`SearchError::File`] if it is no regular file, or empty.
#[expect(unsafe_code, reason = "a file that is mapped can be changed by other programs")]
pub(crate) fn map(path: &Path) -> Result<Mmap, SearchError> {
    let file = File::open(path).map_err(SearchError::read(path))?;
    let metadata = file.metadata().map_err(SearchError::read(path))?;
    if metadata.is_dir() {
        return Err(SearchError::file(path, "it is a folder; name the file that `dualenc embed` or `index` wrote"));
    }
    if !metadata.is_file() {
        return Err(SearchError::file(path, "it is not a regular file, and cannot be mapped into memory"));
    }
    if metadata.len() == 0 {
        return Err(SearchError::file(path, "it is empty; write it again"));
    }
    // SAFETY: the bytes are only read, and any value of theirs is valid; what they mean is checked when the index is
    // opened, and no check is relied on for memory safety. Programs of this project replace a file by renaming another
    // over it, which leaves the mapped one as it is. A program that overwrites it in place changes the answers, and
    // one that truncates it ends this process with SIGBUS; the same holds for every reader that maps files.
    let map = unsafe { Mmap::map(&file) }.map_err(SearchError::read(path))?;
    // A hint: opening reads the file once from start to end. A system without it reads it as well.
    let _ = map.advise(Advice::Sequential);
    Ok(map)
}
