//! Text files with one entry a line: class names, prompt templates, captions to embed.

use std::fs;
use std::path::Path;

use crate::error::TrainError;

/// A text file with one entry a line; empty lines do not count.
pub(crate) fn read_lines(path: &Path) -> Result<Vec<String>, TrainError> {
    let text = fs::read_to_string(path).map_err(TrainError::read(path))?;
    let lines: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    match lines.is_empty() {
        true => Err(TrainError::Usage(format!("`{}` has no lines; expected one entry a line", path.display()))),
        false => Ok(lines),
    }
}
