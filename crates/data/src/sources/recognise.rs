//! What a file or folder is, by its name and its content.

use std::path::{Path, PathBuf};

use crate::counted::counted;
use crate::error::DataError;
use crate::files::{is_dir, is_tar};
use crate::sources::Source;
use crate::sources::class_folder::class_folder;
use crate::sources::classes::ClassesSource;
use crate::sources::csv::CsvSource;
use crate::sources::folder::FolderSource;
use crate::sources::image_files::image_files;
use crate::sources::json::json_source::JsonSource;
use crate::sources::jsonl::JsonlSource;
use crate::sources::parquet::looks::looks_like_parquet;
use crate::sources::parquet::source::ParquetSource;
use crate::sources::side_files::without_side_files;
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
    match source {
        Source::Folder(folder) => in_folder(folder),
        source => look(source),
    }
}

fn look(source: Source) -> Result<Recognised, DataError> {
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
            let (found, description) = jsonl.look()?;
            (Source::Jsonl(found), description)
        }
        Source::Json(json) => {
            let (found, description) = json.look(false)?;
            (Source::Json(found), description)
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
        Source::Features(source) => (Source::Features(source), "features".to_owned()),
        Source::Coco(coco) => (Source::Coco(coco), "COCO captions".to_owned()),
    };
    Ok(Recognised { source: source.into(), description })
}

/// A folder: the table in it, else one folder per class, else images with captions beside them.
fn in_folder(folder: FolderSource) -> Result<Recognised, DataError> {
    let path = folder.path.clone();
    let (mut usable, mut refused) = (Vec::new(), Vec::new());
    for table in tables_in(&path)? {
        let name = format!("`{}`", table.file_name().unwrap_or_default().display());
        match Source::from_path(&table).and_then(look) {
            Ok(found) if is_listing(&table, &found) => usable.push((name, found)),
            Ok(_) => {}
            // It may hold anything.
            Err(_) if is_text(&table) => {}
            Err(error) => refused.push(error.to_string()),
        }
    }
    if usable.len() > 1 {
        let names: Vec<&str> = usable.iter().map(|(name, _)| name.as_str()).collect();
        let reason = format!("it holds the tables {}; name the one to read", names.join(" and "));
        return Err(DataError::Malformed { path, reason });
    }
    if let Some((name, Recognised { source, description })) = usable.pop() {
        return Ok(Recognised { source, description: format!("the table {name} in it: {description}") });
    }
    let is_classes = ClassesSource::looks_like(&path)?;
    let mut found = look(if is_classes { Source::Classes(ClassesSource::new(&path)) } else { Source::Folder(folder) })?;
    if let Some(first) = refused.first() {
        let tables = counted(refused.len(), "table");
        found.description += &format!(", beside {tables} of no images and captions: {first}");
    }
    Ok(found)
}

/// Whether a file lists images and captions, as far as its first lines tell.
fn is_listing(path: &Path, found: &Recognised) -> bool {
    let has_keys = |image: &Option<String>, caption: &Option<String>| image.is_some() && caption.is_some();
    let Recognised { source, description } = found;
    let json = source.json.as_ref().map(|json| has_keys(&json.image, &json.caption));
    let jsonl = source.jsonl.as_ref().map(|jsonl| has_keys(&jsonl.image, &jsonl.caption));
    if !json.or(jsonl).unwrap_or(true) {
        // Forms without keys, and Karpathy's.
        return !description.starts_with("JSON")
            || description.contains("by image")
            || description.contains("image from");
    }
    // Notes have lines with commas, too.
    !is_text(path)
        || source.read().is_ok_and(|read| read.missing_files(0).is_ok_and(|it| it.count * 2 < read.num_images()))
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"))
}

/// Extensions of files that may list images and captions.
const TABLES: [&str; 9] = ["csv", "tsv", "tab", "txt", "jsonl", "ndjson", "json", "parquet", "pq"];

/// The files directly in `folder` that may list images and captions, sorted; none if it has a metadata file.
fn tables_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut tables = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(DataError::read(folder))? {
        let path = entry.map_err(DataError::read(folder))?.path();
        let name = path.file_name().unwrap_or_default();
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if FolderSource::METADATA.iter().any(|metadata| *metadata == name) && path.is_file() {
            return Ok(Vec::new());
        }
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if !is_hidden && TABLES.contains(&extension.as_str()) && path.is_file() {
            tables.push(path);
        }
    }
    tables.sort();
    Ok(without_side_files(tables))
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
            "gz" if path.file_stem().is_some_and(|stem| is_tar(Path::new(stem))) => {
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
        if is_tar(&name) {
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
