//! The files that a selection is written to: `image` in the first line, and a name of an image in each other.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use dualenc_data::Dataset;

use crate::commands::select::request::WrittenList;
use crate::commands::staged_output::StagedFile;
use crate::error::TrainError;

/// The first line of every list: its entries name images, not rows.
pub(super) const FIRST_LINE: &str = "image";

/// Writes a list for each source of `dataset`. `keys`: of each source, in the config. `taken`: of each image.
/// `held_out`: images of other parts with the same sources, which belong to the lists too.
///
/// # Errors
/// [`TrainError::Usage`] when the name of an image has a line break; [`TrainError::Write`].
pub(super) fn write(
    out: &Path,
    keys: &[String],
    dataset: &Dataset,
    taken: &[bool],
    held_out: Option<&Dataset>,
) -> Result<Vec<WrittenList>, TrainError> {
    let parts = dataset.parts();
    if parts.len() != keys.len() {
        return Err(TrainError::Internal(format!("{} sources have {} parts", keys.len(), parts.len())));
    }
    let mut written = Vec::new();
    for (number, (source, part)) in keys.iter().zip(parts).enumerate() {
        let mut names: Vec<String> =
            part.images.clone().filter(|&image| taken[image]).map(|image| dataset.relative_key(image)).collect();
        if let Some(held_out) = held_out {
            let part = held_out.parts().get(number).map_or(0..0, |part| part.images.clone());
            names.extend(part.map(|image| held_out.relative_key(image)));
        }
        if let Some(name) = names.iter().find(|name| name.contains(['\n', '\r'])) {
            return Err(TrainError::Usage(format!(
                "the image `{}` has a line break in its name, and cannot be in a list; rename it",
                name.escape_debug()
            )));
        }
        let (path, images, source) = (path_of(out, number, keys.len()), names.len(), source.clone());
        if names.is_empty() {
            written.push(WrittenList { source, path: None, images });
            continue;
        }
        let staged = StagedFile::new(&path)?;
        let mut file = BufWriter::new(staged.file());
        writeln!(file, "{FIRST_LINE}").map_err(TrainError::write(&path))?;
        for name in &names {
            writeln!(file, "{name}").map_err(TrainError::write(&path))?;
        }
        file.flush().map_err(TrainError::write(&path))?;
        drop(file);
        staged.commit()?;
        written.push(WrittenList { source, path: Some(path), images });
    }
    Ok(written)
}

/// The file of the list of source `number` of `count`.
pub(super) fn path_of(out: &Path, number: usize, count: usize) -> PathBuf {
    if count == 1 { out.to_owned() } else { numbered(out, number + 1) }
}

/// `rows-1.txt` for `rows.txt`.
fn numbered(out: &Path, number: usize) -> PathBuf {
    let stem = out.file_stem().unwrap_or_default().to_string_lossy();
    let extension = out.extension().map_or_else(String::new, |extension| format!(".{}", extension.to_string_lossy()));
    out.with_file_name(format!("{stem}-{number}{extension}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_numbered() {
        assert_eq!(numbered(Path::new("a/rows.txt"), 2), Path::new("a/rows-2.txt"));
        assert_eq!(numbered(Path::new("rows"), 1), Path::new("rows-1"));
    }
}
