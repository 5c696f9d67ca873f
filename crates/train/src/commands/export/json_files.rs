//! Reading and writing JSON files.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::TrainError;
use crate::run_dir::atomic_file::write_whole;

/// Writes `value` to `path`, indented, with a newline at the end.
///
/// # Errors
/// [`TrainError::Write`].
pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), TrainError> {
    write_whole(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

/// Reads the JSON object in `path`.
///
/// # Errors
/// [`TrainError::Read`]; [`TrainError::Usage`] when it is not a JSON object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, TrainError> {
    let bytes = fs::read(path).map_err(TrainError::read(path))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| TrainError::Usage(format!("`{}` is not a JSON object: {error}", path.display())))
}
