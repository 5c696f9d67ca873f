//! What a file or folder is, by its name and its content.

use std::path::Path;

use crate::error::DataError;
use crate::files::is_dir;
use crate::sources::Source;
use crate::sources::class_folder::class_folder;
use crate::sources::classes::ClassesSource;
use crate::sources::csv::CsvSource;
use crate::sources::folder::FolderSource;
use crate::sources::folder::file_names::counted;
use crate::sources::image_files::image_files;
use crate::sources::json::json_source::JsonSource;
use crate::sources::jsonl::JsonlSource;
use crate::sources::parquet::looks::looks_like_parquet;
use crate::sources::parquet::source::ParquetSource;
use crate::sources::source_table::SourceTable;
use crate::sources::tables::text_file::TextFile;
use crate::sources::webdataset::WebdatasetSource;

/// A file or folder that was recognised.
#[derive(Clone, Debug, PartialEq)]
pub struct Recognised {
    /// The source that reads it, with the columns of tables that were found.
    pub source: SourceTable,
    /// What it is, for the log: ``tab-separated, UTF-16, header; image from `filepath`, caption from `title` ``.
    pub description: String,
}

/// Looks at the name and at the content of `path`.
///
/// # Errors
/// [`DataError::UnknownExtension`] if it is no form of data that is read, [`DataError::Read`], and what the first rows
/// of a table hold that cannot be read.
pub fn recognise(path: &Path) -> Result<Recognised, DataError> {
    recognise_source(Source::from_path(path)?)
}

/// As [`recognise`], of a source that [`Source::from_path`] found.
///
/// # Errors
/// As for [`recognise`].
pub fn recognise_source(source: Source) -> Result<Recognised, DataError> {
    let source = match source {
        Source::Folder(folder) if ClassesSource::looks_like(&folder.path)? => {
            Source::Classes(ClassesSource::new(folder.path))
        }
        other => other,
    };
    let (source, description) = match source {
        Source::Csv(csv) => {
            let (found, description) = csv.look(csv.default_delimiter())?;
            (Source::Csv(found), description)
        }
        Source::Tsv(tsv) => {
            let (found, description) = tsv.look(b'\t')?;
            (Source::Tsv(found), description)
        }
        Source::Parquet(parquet) => {
            let (found, description) = parquet.look()?;
            (Source::Parquet(found), description)
        }
        Source::Jsonl(jsonl) => {
            let description = jsonl.look()?;
            (Source::Jsonl(jsonl), description)
        }
        Source::Json(json) => {
            let description = json.look(false)?;
            (Source::Json(json), description)
        }
        Source::Folder(folder) => {
            let images = counted(image_files(&folder.path)?.files.len(), "image");
            (Source::Folder(folder), format!("a folder of {images}"))
        }
        Source::Classes(classes) => {
            let found = class_folder(&classes.path)?;
            let images = counted(found.images.len(), "image");
            let description = format!("{} class folders with {images}", found.classes.len());
            (Source::Classes(classes), description)
        }
        Source::Webdataset(source) => (Source::Webdataset(source), "WebDataset shards".to_owned()),
        Source::Coco(coco) => (Source::Coco(coco), "COCO captions".to_owned()),
    };
    Ok(Recognised { source: source.into(), description })
}

impl Source {
    /// The source for a file or folder, with every key at its default. Files are known by their extensions, in any
    /// case: `csv`; `tsv` and `tab`; `jsonl` and `ndjson`; `json`; `tar`, also in a pattern such as `{000..127}.tar`;
    /// other text by its first line: JSON or a table. A folder with tar files directly in it is a set of shards, any
    /// other a folder of images.
    ///
    /// # Errors
    /// [`DataError::UnknownExtension`] for what is none of them, [`DataError::Read`].
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        if looks_like_parquet(path) {
            return Ok(Self::Parquet(ParquetSource::new(path)));
        }
        if is_dir(path)? {
            return Ok(match has_shards(path)? {
                true => Self::Webdataset(WebdatasetSource::new(path)),
                false => Self::Folder(FolderSource::new(path)),
            });
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match extension.as_str() {
            "csv" => Ok(Self::Csv(CsvSource::new(path))),
            "tsv" | "tab" => Ok(Self::Tsv(CsvSource::new(path))),
            "jsonl" | "ndjson" => Ok(Self::Jsonl(JsonlSource::new(path))),
            "json" => Ok(Self::Json(JsonSource::new(path))),
            // Compressed shards too: their reader says what to do.
            "tar" | "tgz" => Ok(Self::Webdataset(WebdatasetSource::new(path))),
            "gz" if path.file_stem().is_some_and(|stem| Path::new(stem).extension().is_some_and(|it| it == "tar")) => {
                Ok(Self::Webdataset(WebdatasetSource::new(path)))
            }
            _ => by_content(path, extension),
        }
    }
}

/// Whether a folder has tar files directly in it.
fn has_shards(path: &Path) -> Result<bool, DataError> {
    for entry in std::fs::read_dir(path).map_err(DataError::read(path))? {
        let name = entry.map_err(DataError::read(path))?.path();
        if name.extension().is_some_and(|extension| extension == "tar") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The source of a file with another extension.
fn by_content(path: &Path, extension: String) -> Result<Source, DataError> {
    let is_text = extension == "txt";
    let file = match TextFile::open(path, None) {
        Ok(file) => file,
        Err(error @ DataError::Malformed { .. }) => return Err(error),
        Err(error) if is_text => return Err(error),
        Err(_) => return Err(DataError::UnknownExtension { path: path.to_owned(), found: extension }),
    };
    if matches!(file.head.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Ok(Source::Json(JsonSource::new(path)));
    }
    let table = CsvSource::new(path);
    // What is wrong with a table is said when it is read.
    match is_text || table.look(table.default_delimiter()).is_ok() {
        true => Ok(Source::Csv(table)),
        false => Err(DataError::UnknownExtension { path: path.to_owned(), found: extension }),
    }
}
