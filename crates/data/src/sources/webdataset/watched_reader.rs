//! A reader behind a library that parses a file: it remembers the failures of the disk, which the library reports as
//! damage of the file, and it limits how much the library reads at once, into memory.

use std::cell::{Cell, RefCell};
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::rc::Rc;

/// What a [`WatchedReader`] saw, and what it may still read.
pub(crate) struct Watch {
    failure: RefCell<Option<Error>>,
    limit: u64,
    allowed: Cell<u64>,
}

impl Watch {
    /// The first failure of the disk; `None` if it had none.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.take()
    }

    /// Allows to read the limit again.
    pub(crate) fn renew(&self) {
        self.allowed.set(self.limit);
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

/// Passes reads and seeks through to a file.
pub(crate) struct WatchedReader<R> {
    inner: R,
    watch: Rc<Watch>,
}

impl<R> WatchedReader<R> {
    /// Reads up to `limit` bytes before each call of [`Watch::renew`]; seeks are free.
    pub(crate) fn new(inner: R, limit: u64) -> (Self, Rc<Watch>) {
        let watch = Rc::new(Watch { failure: RefCell::default(), limit, allowed: Cell::new(limit) });
        (Self { inner, watch: Rc::clone(&watch) }, watch)
    }
}

impl<R: Read> Read for WatchedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let allowed = self.watch.allowed.get();
        if allowed == 0 && !buffer.is_empty() {
            return Err(Error::other(format!("an entry with more than {} bytes of header", self.watch.limit)));
        }
        let len = buffer.len().min(usize::try_from(allowed).unwrap_or(usize::MAX));
        let read = self.watch.note(self.inner.read(&mut buffer[..len]))?;
        self.watch.allowed.set(allowed - read as u64);
        Ok(read)
    }
}

impl<R: Seek> Seek for WatchedReader<R> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.watch.note(self.inner.seek(to))
    }
}
