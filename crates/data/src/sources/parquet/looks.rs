//! Recognition of parquet: by its first bytes, or by the files of a folder.

use std::io::Read;
use std::path::Path;

use crate::parquet::file::ParquetFile;
use crate::parquet::footer::{MAGIC, read_footer};
use crate::sources::image_files::IMAGE_EXTENSIONS;
use crate::sources::parquet::columns::{caption_column, image_column};
use crate::sources::parquet::files::{files, is_parquet};
use crate::sources::parquet::source::ParquetSource;

/// Whether `path` is a parquet file, or a folder of parquet files without tar shards and images.
pub(crate) fn looks_like_parquet(path: &Path) -> bool {
    if !path.is_dir() {
        let mut head = [0; MAGIC.len()];
        let starts = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok();
        return is_parquet(path) || starts && head == *MAGIC;
    }
    let has = |folder: &Path, fits: &dyn Fn(&Path) -> bool| {
        let entries = std::fs::read_dir(folder);
        entries.is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| fits(&entry.path()))))
    };
    // img2dataset writes a table beside each shard; a folder of images has `metadata.parquet`.
    let is_table = |file: &Path| is_parquet(file) && file.file_stem().is_some_and(|stem| stem != "metadata");
    let is_shard = |file: &Path| file.extension().is_some_and(|extension| extension == "tar");
    let is_image = |file: &Path| {
        let extension = file.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        IMAGE_EXTENSIONS.contains(&extension.as_str())
    };
    !has(path, &is_shard) && !has(path, &is_image) && (has(path, &is_table) || has(&path.join("data"), &is_table))
}

/// The source for `path`, with the columns that look like images and captions.
pub(crate) fn look(path: &Path) -> ParquetSource {
    let mut source = ParquetSource::new(path);
    let first = files(path).ok().and_then(|files| files.into_iter().next());
    let footer = first.and_then(|file| read_footer(&ParquetFile::open(&file).ok()?).ok());
    // A file that cannot be read is an error when the source is.
    if let Some(footer) = footer {
        if let Some(image) = image_column(&footer.schema) {
            source.image = image.to_owned();
        }
        if let Some(caption) = caption_column(&footer.schema) {
            source.caption = caption.to_owned();
        }
    }
    source
}
