//! A file as memory: the system reads its pages when they are needed, and drops them when it needs the memory.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::DataError;

/// A file as memory. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct MappedFile {
    /// `None`: the file is empty, and cannot be mapped.
    map: Option<Arc<Mmap>>,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// [`DataError::Read`].
    #[expect(unsafe_code, reason = "a file that is mapped can be changed by other programs")]
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::read(path))?;
        if file.metadata().map_err(DataError::read(path))?.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the bytes are only read, as numbers and bytes, of which any value is valid; texts are checked each
        // time they are read, and no number is relied on for memory safety. This project never changes a file of an
        // index: one that is not used any more is removed, which leaves mapped files as they are. A program that
        // overwrites one in place changes what a run reads, and one that truncates it ends this process with SIGBUS;
        // the same holds for every reader that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(DataError::read(path))?;
        Ok(Self { map: Some(Arc::new(map)) })
    }

    /// The bytes of the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |map| map)
    }
}
