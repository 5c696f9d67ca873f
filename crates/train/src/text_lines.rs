//! Text files with one entry per line: class names, prompt templates, captions to embed.

use std::fs;
use std::path::Path;

use dualenc_data::CLASS_PLACEHOLDER;

use crate::error::TrainError;

/// Blank lines that an error lists.
const MAX_LISTED: usize = 10;

/// Reads a text file whose lines are rows: line `n` is row `n - 1`. White space around a line is removed.
///
/// # Errors
/// [`TrainError::Read`] when the file cannot be read; [`TrainError::Usage`] when it has no lines, or blank ones, after
/// which rows would not be lines.
pub(crate) fn read_rows(path: &Path) -> Result<Vec<String>, TrainError> {
    let text = fs::read_to_string(path).map_err(TrainError::read(path))?;
    let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if lines.is_empty() {
        return Err(TrainError::Usage(format!("`{}` is empty; expected one text per line", path.display())));
    }
    let blank: Vec<String> =
        lines.iter().zip(1..).filter(|(line, _)| line.is_empty()).map(|(_, number)| number.to_string()).collect();
    match blank.len() {
        0 => Ok(lines),
        count => {
            let shown = blank[..count.min(MAX_LISTED)].join(", ");
            let more = if count > MAX_LISTED { format!(" and {} more", count - MAX_LISTED) } else { String::new() };
            let (lines, are) = if count == 1 { ("line", "is") } else { ("lines", "are") };
            Err(TrainError::Usage(format!(
                "`{}`: {lines} {shown}{more} {are} blank; row n of the embeddings is line n, so remove blank lines or \
                 write a text there",
                path.display()
            )))
        }
    }
}

/// Reads the lines of a text file, without surrounding white space and empty lines.
///
/// # Errors
/// [`TrainError::Read`] when the file cannot be read, [`TrainError::Usage`] when it has no lines.
fn read_lines(path: &Path) -> Result<Vec<String>, TrainError> {
    let text = fs::read_to_string(path).map_err(TrainError::read(path))?;
    let lines: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(TrainError::Usage(format!("`{}` is empty; expected one entry per line", path.display())));
    }
    Ok(lines)
}

/// Reads class names, one per line.
///
/// # Errors
/// As for [`read_lines`].
pub(crate) fn read_class_names(path: &Path) -> Result<Vec<String>, TrainError> {
    read_lines(path)
}

/// Reads prompt templates, one per line.
///
/// # Errors
/// As for [`read_lines`]; [`TrainError::Usage`] for a template without [`CLASS_PLACEHOLDER`].
pub(crate) fn read_templates(path: &Path) -> Result<Vec<String>, TrainError> {
    let templates = read_lines(path)?;
    match templates.iter().find(|template| !template.contains(CLASS_PLACEHOLDER)) {
        None => Ok(templates),
        Some(wrong) => Err(TrainError::Usage(format!(
            "`{}`: the template `{wrong}` has no `{CLASS_PLACEHOLDER}` where the class name goes",
            path.display()
        ))),
    }
}
