//! The metadata files of Hugging Face ImageFolder: captions of the images below the folder that they are in.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::files::is_file;
use crate::sources::csv::CsvSource;
use crate::sources::json::json_source::JsonSource;
use crate::sources::parquet::rows::file_captions;
use crate::sources::rows::{Listed, Rows};
use crate::sources::tables::image_path::without_parents;

/// Names of metadata files (`datasets`, `folder_based_builder.py`).
pub(crate) const NAMES: [&str; 3] = ["metadata.jsonl", "metadata.csv", "metadata.parquet"];

/// The column that names the image, relative to the folder of the metadata file.
const FILE_NAME: &str = "file_name";

/// One caption of an image, empty if the row has none.
#[derive(Debug)]
pub(crate) struct MetadataRow {
    /// Whether the image is not below the folder of the table.
    is_outside: bool,
    /// The image, relative to the folder of the table unless it is outside.
    name: Box<Path>,
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
    /// Notes, warnings and rows that are left out.
    pub told: Dataset,
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
        let format = path.extension().unwrap_or_default().display().to_string();
        let mut rows = Rows::listing(&path, if format == "parquet" { "row" } else { "line" });
        let read = read_rows(&path, &format, keys, &mut rows);
        let read = read.and_then(|columns| Ok((columns, rows.into_listed()?)));
        let (columns, (listed, mut told)) = read.map_err(|error| explained(error, &format))?;
        for warning in told.warnings.iter_mut().filter(|warning| warning.contains("set `")) {
            *warning = format!("{warning} ({})", way_out(&path, &format));
        }
        let mut rows: Vec<MetadataRow> = listed.into_iter().map(|it| MetadataRow::of(it, dir)).collect();
        rows.sort_by(|a, b| a.place().cmp(&b.place()));
        Ok(Self { dir: dir.to_owned(), path, rows, columns, told })
    }

    /// Whether the table speaks of the images in the folder of `image`.
    pub(crate) fn governs(&self, image: &Path) -> bool {
        image.starts_with(&self.dir)
    }

    /// The rows of an image; empty if there is none.
    pub(crate) fn find_rows(&self, image: &Path) -> Range<usize> {
        let name = image.strip_prefix(&self.dir);
        let place = (name.is_err(), name.unwrap_or(image).as_os_str().as_encoded_bytes());
        let start = self.rows.partition_point(|row| row.place() < place);
        start..self.end(start, place)
    }

    fn end(&self, start: usize, place: (bool, &[u8])) -> usize {
        let same = self.rows.iter().skip(start).take_while(|row| row.place() == place).count();
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
            let range = next..self.end(next, row.place());
            next = range.end;
            let path = if row.is_outside { row.name.to_path_buf() } else { self.dir.join(&row.name) };
            Some((path, range))
        })
    }
}

impl MetadataRow {
    /// The row of a table in `dir`.
    fn of(listed: Listed, dir: &Path) -> Self {
        let file = plain(dir, listed.file);
        let name = file.strip_prefix(dir);
        Self {
            is_outside: name.is_err(),
            name: name.unwrap_or(&file).into(),
            slot: listed.slot,
            caption: listed.caption.into(),
        }
    }

    /// What the rows are sorted by.
    fn place(&self) -> (bool, &[u8]) {
        (self.is_outside, self.name.as_os_str().as_encoded_bytes())
    }
}

/// The path as a listing of `dir` has it: without `.` and `..`, as far as it means the same file.
fn plain(dir: &Path, file: PathBuf) -> PathBuf {
    let Ok(name) = file.strip_prefix(dir) else { return file };
    let mut name = without_parents(name);
    let mut folder = dir;
    while let (true, Some(Component::Normal(_)), Some(above)) =
        (name.starts_with(".."), folder.components().next_back(), folder.parent())
    {
        folder = above;
        name = name.components().skip(1).collect();
    }
    let plain = folder.join(name);
    // Behind a link, `..` is another folder.
    if plain.as_os_str() == file.as_os_str() || file.exists() && !plain.exists() { file } else { plain }
}

/// Adds the rows of the table to `rows`. The result is the columns of captions.
fn read_rows(path: &Path, format: &str, keys: &[String], rows: &mut Rows<'_>) -> Result<Vec<String>, DataError> {
    let image = Some(FILE_NAME.to_owned());
    let captions = Some(keys.to_vec()).filter(|keys| !keys.is_empty());
    let read = match format {
        "csv" => {
            let source = CsvSource { image, captions, header: Some(true), ..CsvSource::new(path) };
            source.read_rows(b',', rows).map(|(dialect, _)| (dialect.caption_names(), dialect.also().to_owned()))
        }
        "jsonl" => {
            let source = JsonSource { image, captions, ..JsonSource::new(path) };
            source.read_rows(true, rows, true).map(|(_, read)| (read.keys, read.also))
        }
        _ => file_captions(path, FILE_NAME, keys, |number, name, captions| {
            if captions.is_empty() {
                return rows.push_uncaptioned(number, name);
            }
            rows.push(number, name, captions.iter().map(|(caption, slot)| (usize::from(*slot), caption.as_str())))
        }),
    };
    let (columns, also) = match read {
        // No image has a row in it.
        Err(DataError::Empty { .. }) => Default::default(),
        other => other?,
    };
    if !also.is_empty() {
        let file = path.file_name().unwrap_or_default().display();
        let quoted: Vec<String> = columns.iter().map(|column| format!("`{column}`")).collect();
        rows.builder.note(format!("`{file}`: captions from {}{also}", quoted.join(" and ")));
    }
    Ok(columns)
}

/// An error of a table, with what to do where its way out is a key that a folder does not have.
fn explained(error: DataError, format: &str) -> DataError {
    match error {
        DataError::Column { path, column, found, hint } => {
            let hint = Some(format!("{}; {}", hint.unwrap_or_default(), way_out(&path, format)));
            DataError::Column { path, column, found, hint }
        }
        DataError::Malformed { path, reason } if reason.contains("set `") => {
            let reason = format!("{reason} ({})", way_out(&path, format));
            DataError::Malformed { path, reason }
        }
        DataError::Row { path, unit, row, reason } if reason.contains("set `") || reason.contains(FILE_NAME) => {
            let reason = format!("{reason} ({})", way_out(&path, format));
            DataError::Row { path, unit, row, reason }
        }
        other => other,
    }
}

fn way_out(path: &Path, format: &str) -> String {
    format!(
        "other keys than `caption` and `captions` are those of `{format} = {{ path = \"{}\" }}`, which reads it in \
         place of `folder`; to ignore the file, set `captions_from` without `metadata`",
        path.display()
    )
}
