//! Text files with one entry per line: class names, prompt templates, captions to embed.

use std::fs;
use std::path::Path;

use crate::error::TrainError;

/// Reads the lines of a text file, without surrounding white space and empty lines.
///
/// # Errors
/// [`TrainError::Read`] when the file cannot be read, [`TrainError::Usage`] when it has no lines.
pub(crate) fn read_lines(path: &Path) -> Result<Vec<String>, TrainError> {
    let text = fs::read_to_string(path).map_err(TrainError::read(path))?;
    let lines: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(TrainError::Usage(format!("`{}` is empty; expected one entry per line", path.display())));
    }
    Ok(lines)
}
