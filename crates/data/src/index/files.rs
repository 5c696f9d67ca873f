//! Where an index is written.

use std::fmt::Debug;
use std::io::{Result, Write};
use std::path::Path;

/// The folder of an index that is being written.
pub trait IndexFiles: Debug {
    /// The folder.
    fn dir(&self) -> &Path;

    /// Creates the file `name` in it.
    ///
    /// # Errors
    /// Those of the system.
    fn create(&self, name: &str) -> Result<Box<dyn IndexFile>>;
}

/// A file of an index that is being written.
pub trait IndexFile: Write {
    /// Writes the rest of the file to the disk.
    ///
    /// # Errors
    /// Those of the system.
    fn finish(self: Box<Self>) -> Result<()>;
}
