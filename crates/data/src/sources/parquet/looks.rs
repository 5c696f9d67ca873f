//! Recognition of parquet: by its first bytes, or by the files of a folder.

use std::io::Read;
use std::path::Path;

use crate::files::is_tar;
use crate::parquet::footer::MAGIC;
use crate::sources::image_files::IMAGE_EXTENSIONS;
use crate::sources::parquet::files::is_parquet;

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
    // img2dataset writes a table beside each shard or folder; a folder of images has `metadata.parquet`.
    let is_beside = |file: &Path| file.with_extension("").is_dir();
    let is_table =
        |file: &Path| is_parquet(file) && file.file_stem().is_some_and(|stem| stem != "metadata") && !is_beside(file);
    let is_image = |file: &Path| {
        let extension = file.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        IMAGE_EXTENSIONS.contains(&extension.as_str())
    };
    !has(path, &is_tar) && !has(path, &is_image) && (has(path, &is_table) || has(&path.join("data"), &is_table))
}
