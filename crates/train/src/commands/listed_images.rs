//! The images at a path of a command: a file, a folder, or data that names images.

use std::path::Path;

use dualenc_data::{ImageFiles, ImageRef, LeftOut, Source, counted, image_files};

use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::in_flags::Flags;
use crate::pairs::{no_table, source_at};

/// Extensions of files that name images, or hold several.
const TABLES: [&str; 12] = ["csv", "tsv", "tab", "txt", "jsonl", "ndjson", "json", "parquet", "pq", "tar", "tgz", "gz"];

/// What stands for the keys of a table.
const FLAGS: Flags = Flags {
    known: &["root"],
    way_out: "change it in a copy of the file, or write shards from a config with `dualenc data pack` and embed those",
};

/// Maximum size of the list of paths in the metadata of embeddings, in bytes: with the texts, below the 100,000,000
/// bytes that safetensors allows a header.
const MAX_PATHS_BYTES: usize = 80_000_000;

/// Bytes of a path in the header beside its name: two escaped quotes and a comma.
const PATH_OVERHEAD: usize = 5;

/// Skipped images and rows that a message lists.
pub(crate) const MAX_LISTED: usize = 10;

/// The images at a path.
#[derive(Default)]
pub(crate) struct ListedImages {
    /// In the order of the files or rows.
    pub images: Vec<ImageRef>,
    /// Files that are no images.
    pub left_out: LeftOut,
    /// Rows that could not be used.
    pub skipped_rows: usize,
}

/// The images at `path`, at least one, and what else is there.
pub(crate) fn list_images(
    path: &Path,
    root: Option<&Path>,
    observer: &mut dyn Observer,
) -> Result<ListedImages, TrainError> {
    let table = table_at(path, root);
    let table = table.and_then(|source| source.map(|source| images_of(&source, observer)).transpose());
    let refused = |error: TrainError| match FLAGS.translate_error(error) {
        TrainError::Usage(problem) if is_text(path) => TrainError::Usage(format!(
            "`{}` is not an image, and as a table of images it cannot be read: {problem}",
            path.display()
        )),
        error => error,
    };
    let listed = match table.map_err(refused)? {
        Some((images, skipped_rows)) => ListedImages { images, skipped_rows, ..ListedImages::default() },
        None if root.is_some() => return Err(no_table(path)),
        None => {
            let ImageFiles { files, left_out } = image_files(path)?;
            let images = files.into_iter().map(ImageRef::File).collect();
            ListedImages { images, left_out, ..ListedImages::default() }
        }
    };
    let ListedImages { images, left_out, .. } = &listed;
    if images.is_empty() {
        let found = left_out.describe().unwrap_or_else(|| "no file".to_owned());
        let way_out = left_out.way_out().map_or_else(String::new, |way_out| format!("; {way_out}"));
        return Err(TrainError::Usage(format!(
            "`{}` has no images: {found}; expected an image, or a folder with images in it or in its subfolders, or \
             data that `eval --data` takes{way_out}",
            path.display()
        )));
    }
    let paths: usize = images.iter().map(|image| image.key().len() + PATH_OVERHEAD).sum();
    if paths > MAX_PATHS_BYTES {
        return Err(TrainError::Usage(format!(
            "`{}` has {} images, with paths of {paths} bytes in all; the header of a safetensors file has room for \
             {MAX_PATHS_BYTES}: embed its parts one by one",
            path.display(),
            images.len()
        )));
    }
    Ok(listed)
}

/// Whether `path` is a text file, which is rarely a table.
fn is_text(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"))
}

/// The table or the shards that `path` names. `None`: an image, or a folder of images.
fn table_at(path: &Path, root: Option<&Path>) -> Result<Option<Source>, TrainError> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if path.is_file() && !TABLES.contains(&extension.as_str()) {
        return Ok(None);
    }
    if !path.exists() && !path.to_string_lossy().contains(['*', '?', '[', '{']) {
        // The error of a file that is not there.
        return Ok(None);
    }
    let is_folder = |source: &Source| matches!(source, Source::Folder(_) | Source::Classes(_));
    if is_folder(&Source::from_path(path)?) {
        return Ok(None);
    }
    source_at(path, root).map(Some)
}

/// The distinct images of a source, in the order in which its rows name them, and the number of rows left out.
fn images_of(source: &Source, observer: &mut dyn Observer) -> Result<(Vec<ImageRef>, usize), TrainError> {
    let dataset = source.read()?;
    dataset.notes.iter().for_each(|note| observer.on(Event::Note(FLAGS.translate(note))));
    dataset.warnings.iter().for_each(|warning| observer.on(Event::Warning(FLAGS.translate(warning))));
    if dataset.skipped.count > 0 {
        let (rows, first) = (counted(dataset.skipped.count, "row"), dataset.skipped.first(MAX_LISTED));
        observer.on(Event::Warning(format!("{rows} could not be used: {first}")));
    }
    Ok((dataset.images().collect(), dataset.skipped.count))
}
