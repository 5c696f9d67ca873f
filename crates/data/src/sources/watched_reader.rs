//! A reader that remembers the disk's errors, behind libraries that report them as damage of a file.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::rc::Rc;

/// The first error of the disk; `None` if it had none.
pub(crate) type DiskError = Rc<RefCell<Option<Error>>>;

/// Passes reads and seeks through, and puts the first failure of the disk into [`DiskError`].
pub(crate) struct WatchedReader<R> {
    inner: R,
    failure: DiskError,
}

impl<R> WatchedReader<R> {
    pub(crate) fn new(inner: R) -> (Self, DiskError) {
        let failure = DiskError::default();
        (Self { inner, failure: Rc::clone(&failure) }, failure)
    }

    fn note<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            // Readers repeat an interrupted call; a seek to a negative or too large position is a malformed file.
            if !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::InvalidInput) {
                let copy = error.raw_os_error().map(Error::from_raw_os_error);
                let copy = copy.unwrap_or_else(|| Error::new(error.kind(), error.to_string()));
                self.failure.borrow_mut().get_or_insert(copy);
            }
        })
    }
}

impl<R: Read> Read for WatchedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let result = self.inner.read(buffer);
        self.note(result)
    }
}

impl<R: Seek> Seek for WatchedReader<R> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let result = self.inner.seek(to);
        self.note(result)
    }
}
