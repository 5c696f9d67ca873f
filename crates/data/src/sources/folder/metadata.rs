//! The metadata files of Hugging Face ImageFolder: captions of the images below the folder that they are in.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::did_you_mean::nearest;
use crate::error::DataError;
use crate::files::is_file;
use crate::sources::folder::sidecars::{captions_of, slot, usual_key};
use crate::sources::parquet::rows::file_captions;
use crate::sources::tables::columns::CAPTION_NAMES;
use crate::sources::tables::records::{Found, Record, Records};
use crate::sources::tables::text_file::TextFile;

/// Names of metadata files (`datasets`, `folder_based_builder.py`).
pub(crate) const NAMES: [&str; 3] = ["metadata.jsonl", "metadata.csv", "metadata.parquet"];

/// The column that names the image, relative to the folder of the metadata file.
const FILE_NAME: &str = "file_name";

/// One caption of an image, empty if the row has none.
#[derive(Debug)]
pub(crate) struct MetadataRow {
    /// The image, relative to the folder of the table.
    name: Box<str>,
    pub slot: u8,
    pub caption: Box<str>,
}

/// A metadata file, sorted by the names of images; rows of one image have the order of the file.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub path: PathBuf,
    dir: PathBuf,
    rows: Vec<MetadataRow>,
    /// The columns of the captions.
    pub columns: Vec<String>,
}

impl Metadata {
    /// Reads the metadata files in `root` and in the folders of `images` below it. `keys`: columns of the captions; if
    /// empty, the usual ones are looked for.
    ///
    /// # Errors
    /// [`DataError::Malformed`] for two files in one folder, and if no column holds captions; [`DataError::Column`] and
    /// [`DataError::Row`] for malformed files, [`DataError::Read`].
    pub(crate) fn find(root: &Path, images: &[PathBuf], keys: &[String]) -> Result<Vec<Self>, DataError> {
        let mut folders = BTreeSet::from([root]);
        for image in images {
            // A folder that is known has all folders above it in the set, too.
            let above = image.ancestors().skip(1).take_while(|dir| dir.starts_with(root));
            for dir in above {
                if !folders.insert(dir) {
                    break;
                }
            }
        }
        let mut found = Vec::new();
        for dir in folders {
            let mut here = Vec::new();
            for name in NAMES {
                if is_file(&dir.join(name))? {
                    here.push(name);
                }
            }
            match here[..] {
                [] => {}
                [name] => found.push(Self::read(dir, dir.join(name), keys)?),
                [first, second, ..] => {
                    return Err(DataError::Malformed {
                        path: dir.join(first),
                        reason: format!("`{second}` is beside it; remove one of them"),
                    });
                }
            }
        }
        Ok(found)
    }

    fn read(dir: &Path, path: PathBuf, keys: &[String]) -> Result<Self, DataError> {
        let extension = path.extension().unwrap_or_default();
        let (mut rows, columns) = if extension == "jsonl" {
            read_jsonl(&path, keys)?
        } else if extension == "csv" {
            read_csv(&path, keys)?
        } else {
            read_parquet(&path, keys)?
        };
        rows.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        Ok(Self { dir: dir.to_owned(), path, rows, columns })
    }

    /// Whether the table speaks of the images in the folder of `image`.
    pub(crate) fn governs(&self, image: &Path) -> bool {
        image.starts_with(&self.dir)
    }

    /// The rows of an image; empty if there is none.
    pub(crate) fn find_rows(&self, image: &Path) -> Range<usize> {
        let Some(name) = image.strip_prefix(&self.dir).ok().and_then(Path::to_str) else { return 0..0 };
        let start = self.rows.partition_point(|row| row.name.as_bytes() < name.as_bytes());
        start..self.end(start, name)
    }

    fn end(&self, start: usize, name: &str) -> usize {
        let same = self.rows.iter().skip(start).take_while(|row| *row.name == *name).count();
        start + same
    }

    pub(crate) fn rows(&self, range: Range<usize>) -> &[MetadataRow] {
        self.rows.get(range).unwrap_or(&[])
    }

    /// Every image that the table names, with its rows.
    pub(crate) fn images(&self) -> impl Iterator<Item = (PathBuf, Range<usize>)> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let row = self.rows.get(next)?;
            let range = next..self.end(next, &row.name);
            next = range.end;
            Some((self.dir.join(&*row.name), range))
        })
    }
}

type Table = (Vec<MetadataRow>, Vec<String>);

/// Adds the captions of one image, or an empty one.
fn push(rows: &mut Vec<MetadataRow>, name: &str, captions: impl Iterator<Item = (u8, String)>) {
    // `./a.png` is `a.png` in a listing.
    let name = name.trim_start_matches("./");
    let before = rows.len();
    rows.extend(captions.map(|(slot, caption)| MetadataRow { name: name.into(), slot, caption: caption.into() }));
    if rows.len() == before {
        rows.push(MetadataRow { name: name.into(), slot: 0, caption: "".into() });
    }
}

fn read_jsonl(path: &Path, keys: &[String]) -> Result<Table, DataError> {
    let file = std::fs::File::open(path).map_err(DataError::read(path))?;
    let mut reader = std::io::BufReader::new(file);
    let (mut rows, mut columns, mut seen) = (Vec::new(), keys.to_vec(), BTreeSet::new());
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(DataError::read(path))? == 0 {
            break;
        }
        let text = bytes.strip_prefix("\u{feff}".as_bytes()).filter(|_| line == 1).unwrap_or(&bytes);
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = |reason: String| DataError::row(path, "line", line, reason);
        let object: Map<String, Value> =
            serde_json::from_slice(text).map_err(|error| row(format!("not a JSON object: {error}")))?;
        let name = object.get(FILE_NAME).and_then(Value::as_str).filter(|name| is_name(name));
        let name = name.ok_or_else(|| row(no_file_name(object.keys().map(String::as_str))))?;
        if columns.is_empty() {
            let text = |(key, value): &(&String, &Value)| *key != FILE_NAME && captions_of(value).is_some();
            let others: Vec<&str> = object.iter().filter(text).map(|(key, _)| key.as_str()).collect();
            let all = object.keys().map(String::as_str);
            columns = vec![usual_key(&object).map_or_else(|| only(path, &others, all), |key| Ok(key.to_owned()))?];
        }
        let mut captions = Vec::new();
        for (key, number) in columns.iter().zip(0..) {
            // `datasets` reads a row without the key as one with a null.
            let Some(value) = object.get(key) else { continue };
            seen.insert(number);
            let texts = value.as_i64().map(|label| vec![label.to_string()]).or_else(|| captions_of(value));
            let texts =
                texts.ok_or_else(|| row(format!("`{key}` is {value}; expected a string or a list of strings")))?;
            captions.extend(slot(number, texts));
        }
        push(&mut rows, name, captions.into_iter());
    }
    for (column, number) in columns.iter().zip(0..) {
        if !seen.contains(&number) {
            let reason = format!("no line has the key `{column}`; correct `caption`");
            return Err(DataError::Malformed { path: path.to_owned(), reason });
        }
    }
    Ok((rows, columns))
}

fn read_csv(path: &Path, keys: &[String]) -> Result<Table, DataError> {
    let mut records = Records::new(TextFile::open(path, None)?.reader, b',', true, 1);
    let mut next = |record: &mut Record| {
        let found = records.read(record).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
        match found.problem("close it") {
            None => Ok(found == Found::Record),
            Some((line, reason)) => Err(DataError::row(path, "line", line, reason)),
        }
    };
    let mut record = Record::default();
    next(&mut record)?;
    let header: Vec<String> = record.iter().map(|it| String::from_utf8_lossy(it).trim().to_owned()).collect();
    let names = || header.iter().map(String::as_str);
    let malformed = |reason: String| DataError::Malformed { path: path.to_owned(), reason };
    let file_name = names().position(|name| name == FILE_NAME).ok_or_else(|| malformed(no_file_name(names())))?;
    let columns = caption_columns(path, &header, keys)?;
    let mut at = Vec::new();
    for column in &columns {
        let hint = || nearest(column, names()).map(|name| format!("; set `caption = \"{name}\"`?"));
        at.push(names().position(|name| name == column).ok_or_else(|| DataError::Column {
            path: path.to_owned(),
            column: column.clone(),
            found: header.clone(),
            hint: hint(),
        })?);
    }
    let mut rows = Vec::new();
    while next(&mut record)? {
        let line = record.line;
        let row = |reason: String| DataError::row(path, "line", line, reason);
        if record.len() != header.len() {
            return Err(row(format!("found {} fields; expected {}, as in the header", record.len(), header.len())));
        }
        let cell = |index: usize| {
            std::str::from_utf8(record.get(index).unwrap_or_default())
                .map_err(|_| row("not UTF-8; save the table as UTF-8".to_owned()))
        };
        let name = cell(file_name)?;
        if !is_name(name) {
            return Err(row(no_file_name([].into_iter())));
        }
        let mut captions = Vec::new();
        for (&index, number) in at.iter().zip(0..) {
            captions.push((number, cell(index)?.trim().to_owned()));
        }
        push(&mut rows, name, captions.into_iter().filter(|(_, caption)| !caption.is_empty()));
    }
    Ok((rows, columns))
}

fn read_parquet(path: &Path, keys: &[String]) -> Result<Table, DataError> {
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    let choose = |names: &[String]| {
        if !names.iter().any(|name| name == FILE_NAME) {
            let reason = no_file_name(names.iter().map(String::as_str));
            return Err(DataError::Malformed { path: path.to_owned(), reason });
        }
        columns = caption_columns(path, names, keys)?;
        Ok(columns.clone())
    };
    file_captions(path, FILE_NAME, choose, |number, name, captions| {
        if !is_name(name) {
            return Err(DataError::row(path, "row", number, no_file_name([].into_iter())));
        }
        let captions = captions.iter().map(|(caption, slot)| (*slot, caption.trim().to_owned()));
        push(&mut rows, name, captions.filter(|(_, caption)| !caption.is_empty()));
        Ok(())
    })?;
    Ok((rows, columns))
}

/// The columns of captions in a table with the columns `names`: `keys`, else the one with a usual name or the only one.
fn caption_columns(path: &Path, names: &[String], keys: &[String]) -> Result<Vec<String>, DataError> {
    if !keys.is_empty() {
        return Ok(keys.to_vec());
    }
    let others: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != FILE_NAME).collect();
    let usual = CAPTION_NAMES.iter().find(|name| others.contains(name));
    let all = names.iter().map(String::as_str);
    Ok(vec![usual.map_or_else(|| only(path, &others, all), |name| Ok((*name).to_owned()))?])
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('\0')
}

fn no_file_name<'a>(found: impl Iterator<Item = &'a str>) -> String {
    let found = found.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if found.is_empty() {
        return format!("no image in `{FILE_NAME}`; expected a file name");
    }
    format!(
        "no image in `{FILE_NAME}`, found {found}; expected a file name relative to the folder (to ignore this file, \
         set `captions_from` without `metadata`)"
    )
}

/// The only column that can hold captions.
fn only<'a>(path: &Path, others: &[&str], found: impl Iterator<Item = &'a str>) -> Result<String, DataError> {
    if let [one] = others {
        return Ok((*one).to_owned());
    }
    let found = found.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let reason = format!(
        "its columns are {found}, and none has a usual name of captions; set `caption` to one of them (to ignore this \
         file, set `captions_from` without `metadata`)"
    );
    Err(DataError::Malformed { path: path.to_owned(), reason })
}
