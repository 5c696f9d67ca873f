//! The rows of one file: where the image is, and its captions.

use std::path::Path;
use std::sync::Arc;

use crate::error::DataError;
use crate::images::location::ImageRef;
use crate::panics::catch_quietly;
use crate::parquet::cells::ParquetColumn;
use crate::parquet::column::Column;
use crate::parquet::file::{Fault, ParquetFile};
use crate::parquet::footer::{Footer, RowGroup, read_footer};
use crate::parquet::schema::Schema;
use crate::parquet::values::Value;
use crate::sources::parquet::columns::{self, Chosen, Kind, Wanted, find};
use crate::sources::parquet::features::class_names;
use crate::sources::split_column::SPLIT;

/// An open file, with the columns that are read.
pub(crate) struct Table {
    pub(crate) file: ParquetFile,
    pub(crate) footer: Footer,
    image: Image,
    captions: Vec<CaptionColumn>,
    /// A column with texts that `only` may name.
    key: Option<usize>,
    /// The column `split`, unless it holds images or captions.
    split: Option<usize>,
}

/// The image column.
enum Image {
    /// Images by row. `names`: where the image is if its bytes are null.
    Bytes { bytes: usize, names: Option<usize>, column: Arc<ParquetColumn>, nulls: Vec<Option<u64>> },
    /// Paths.
    Paths(usize),
}

struct CaptionColumn {
    leaf: usize,
    /// Names for the numbers in the column.
    classes: Option<Arc<[String]>>,
    /// Whether the column has numbers without names.
    has_numbers: bool,
}

/// Where the image of a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Cell(ImageRef),
    /// A path as it is written; empty if there is none.
    Path(String),
}

/// What else a row holds.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// What `only` may name: the image's name or key.
    pub(crate) key: String,
    /// The value of the column `split`; empty if there is none.
    pub(crate) split: String,
    /// Caption and number of its column.
    pub(crate) captions: Vec<(String, u8)>,
    /// What is wrong with the row.
    pub(crate) fault: Option<String>,
}

/// Columns with texts that `only` may name, besides the image's own name (img2dataset, webdataset).
const KEY_NAMES: [&str; 2] = ["key", "__key__"];

/// The library's name for a label that is not known.
const NO_LABEL: i64 = -1;

impl Table {
    /// Opens a file, of which `choose` chooses the columns.
    ///
    /// # Errors
    /// Those of `choose`; [`DataError::Malformed`] for a damaged file or a column of another type, [`DataError::Read`].
    pub(crate) fn open(
        path: &Path,
        choose: impl FnOnce(&Schema) -> Result<Chosen, DataError>,
    ) -> Result<Self, DataError> {
        let file = ParquetFile::open(path)?;
        let footer = caught(path, || read_footer(&file))?;
        let Chosen { image: (image, image_kind), captions, .. } = choose(&footer.schema)?;
        let unfit = |name: &str, kind: &Kind, expected: &str| {
            let found = match kind {
                Kind::Images { .. } => "images",
                Kind::Bytes(_) => "bytes",
                Kind::Text(_) => "texts",
                Kind::Texts(_) => "lists of texts",
                Kind::Numbers(_) => "whole numbers",
                Kind::Other(words) => words,
            };
            let reason = format!("column `{name}` holds {found}; expected {expected}");
            DataError::Malformed { path: path.to_owned(), reason }
        };
        let classes = class_names(footer.huggingface.as_deref());
        let mut columns = Vec::new();
        for (name, kind) in captions {
            let leaf = match kind {
                // Old writers do not say that bytes are text.
                Kind::Text(leaf) | Kind::Texts(leaf) | Kind::Bytes(leaf) | Kind::Numbers(leaf) => leaf,
                kind => return Err(unfit(&name, &kind, "captions: texts, lists of texts, or labels")),
            };
            let classes = classes.get(&name).cloned().filter(|_| matches!(kind, Kind::Numbers(_)));
            let has_numbers = matches!(kind, Kind::Numbers(_)) && classes.is_none();
            columns.push(CaptionColumn { leaf, classes, has_numbers });
        }
        let index = |bytes: usize, names: Option<usize>| {
            let (column, nulls) = caught(path, || ParquetColumn::index(&file, &footer, bytes))?;
            Ok(Image::Bytes { bytes, names, column: Arc::new(column), nulls })
        };
        let image = match image_kind {
            Kind::Images { bytes, name } => index(bytes, name)?,
            Kind::Bytes(leaf) => index(leaf, None)?,
            Kind::Text(leaf) => Image::Paths(leaf),
            kind => {
                let expected = "one image a row: bytes, a group of `bytes` and `path`, or a path";
                return Err(unfit(&image, &kind, expected));
            }
        };
        let text = |name: &&str| match find(&footer.schema, name) {
            Some(Kind::Text(leaf)) => Some(leaf),
            _ => None,
        };
        let key = match &image {
            Image::Bytes { names: None, .. } => KEY_NAMES.iter().find_map(text),
            _ => None,
        };
        let is_used = |leaf: &usize| {
            columns.iter().any(|column: &CaptionColumn| column.leaf == *leaf)
                || matches!(&image, Image::Paths(paths) if paths == leaf)
        };
        let split = text(&SPLIT).filter(|leaf| !is_used(leaf));
        Ok(Self { file, footer, image, captions: columns, key, split })
    }

    /// The images, if they are in the file.
    pub(crate) fn images(&self) -> Option<&Arc<ParquetColumn>> {
        match &self.image {
            Image::Bytes { column, .. } => Some(column),
            Image::Paths(_) => None,
        }
    }

    /// Whether captions are numbers without names.
    pub(crate) fn has_numbers(&self) -> bool {
        self.captions.iter().any(|column| column.has_numbers)
    }

    /// Whether rows have splits.
    pub(crate) fn has_split(&self) -> bool {
        self.split.is_some()
    }

    /// Passes every row to `each`, in order: its number, 0-based, the place of its image, and the rest.
    pub(crate) fn read(
        &self,
        each: &mut dyn FnMut(u64, Place, &mut Row) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let (mut first, mut row) = (0u64, Row::default());
        for (number, group) in self.footer.groups.iter().enumerate() {
            let mut columns = Columns::new(self, group, number);
            for index in 0..group.rows {
                let place = caught(self.file.path(), || columns.next(first + index, &mut row))?;
                each(first + index, place, &mut row)?;
            }
            first = first.saturating_add(group.rows);
        }
        Ok(())
    }
}

/// The columns of a row group, as far as they are read.
struct Columns<'a> {
    table: &'a Table,
    captions: Vec<Column<'a>>,
    paths: Option<Column<'a>>,
    split: Option<Column<'a>>,
    /// The bytes, if some rows have none and only they tell.
    bytes: Option<Column<'a>>,
    are_null: bool,
}

impl<'a> Columns<'a> {
    fn new(table: &'a Table, group: &RowGroup, number: usize) -> Self {
        let column = |leaf: usize| Column::new(&table.file, &table.footer.schema.leaves[leaf], &group.chunks[leaf]);
        let captions = table.captions.iter().map(|caption| column(caption.leaf)).collect();
        let (paths, bytes, are_null) = match &table.image {
            Image::Paths(leaf) => (Some(*leaf), None, true),
            Image::Bytes { bytes, names, nulls, .. } => {
                let nulls = nulls.get(number).copied().flatten();
                let are_null = nulls == Some(group.rows);
                let some_are_null = nulls != Some(0) && !are_null;
                (names.or(table.key), some_are_null.then_some(*bytes), are_null)
            }
        };
        let [paths, split, bytes] = [paths, table.split, bytes].map(|leaf| leaf.map(column));
        Self { table, captions, paths, split, bytes, are_null }
    }

    fn next(&mut self, number: u64, row: &mut Row) -> Result<Place, Fault> {
        row.key.clear();
        row.split.clear();
        row.captions.clear();
        row.fault = None;
        let mut fault = None;
        if let Some(paths) = &mut self.paths {
            paths.next_row(&mut |value| match value {
                Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => row.key.push_str(text),
                    Err(_) => fault = Some("the image path is not UTF-8".to_owned()),
                },
                Value::Null | Value::Int(_) => {}
            })?;
        }
        if let Some(split) = &mut self.split {
            split.next_row(&mut |value| {
                if let Value::Bytes(bytes) = value {
                    row.split.push_str(String::from_utf8_lossy(bytes).trim());
                }
            })?;
        }
        for (slot, (column, caption)) in self.captions.iter_mut().zip(&self.table.captions).enumerate() {
            let slot = u8::try_from(slot).unwrap_or(u8::MAX);
            column.next_row(&mut |value| match value {
                Value::Null => {}
                Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => row.captions.push((text.to_owned(), slot)),
                    Err(_) => fault = Some("the caption is not UTF-8".to_owned()),
                },
                Value::Int(label) => match &caption.classes {
                    None => row.captions.push((label.to_string(), slot)),
                    Some(_) if label == NO_LABEL => {}
                    Some(names) => match usize::try_from(label).ok().and_then(|label| names.get(label)) {
                        Some(name) => row.captions.push((name.clone(), slot)),
                        None => {
                            fault = Some(format!("the label is {label}; the file names {} classes", names.len()));
                        }
                    },
                },
            })?;
        }
        let mut is_null = self.are_null;
        if let Some(bytes) = &mut self.bytes {
            bytes.next_row(&mut |value| is_null = value == Value::Null)?;
        }
        row.fault = fault;
        Ok(match &self.table.image {
            Image::Bytes { column, .. } if !is_null => {
                Place::Cell(ImageRef::ParquetCell { column: Arc::clone(column), row: number })
            }
            Image::Bytes { names: None, .. } => Place::Path(String::new()),
            _ => Place::Path(row.key.clone()),
        })
    }
}

/// The columns of a file.
///
/// # Errors
/// [`DataError::Malformed`], [`DataError::Read`].
pub(crate) fn read_schema(path: &Path) -> Result<Schema, DataError> {
    let file = ParquetFile::open(path)?;
    Ok(caught(path, || read_footer(&file))?.schema)
}

/// Calls `f`; a panic is damage of the file.
fn caught<T>(path: &Path, f: impl FnOnce() -> Result<T, Fault>) -> Result<T, DataError> {
    let result = catch_quietly(f).unwrap_or_else(|panic| Err(Fault::Malformed(panic.to_string())));
    result.map_err(|fault| fault.at(path))
}

/// The file name and the captions of each row, for tables beside a folder of images. `captions`: the columns of
/// captions; if empty, they are found by looking. The result is their names, and what to say of others.
///
/// # Errors
/// [`DataError::Column`], [`DataError::Malformed`], [`DataError::Read`], [`DataError::Row`], and those of `each`.
pub(crate) fn file_captions(
    path: &Path,
    file_name: &str,
    captions: &[String],
    mut each: impl FnMut(u64, &str, &[(String, u8)]) -> Result<(), DataError>,
) -> Result<(Vec<String>, String), DataError> {
    let mut found = (Vec::new(), String::new());
    let table = Table::open(path, |schema| {
        let wanted = Wanted { image: Some(file_name), captions, are_several: captions.len() > 1 };
        let Chosen { image: (name, kind), captions, also } = columns::choose(path, schema, wanted)?;
        found = (captions.iter().map(|(name, _)| name.clone()).collect(), also.clone());
        // Old writers do not say that bytes are text.
        let kind = if let Kind::Bytes(leaf) = kind { Kind::Text(leaf) } else { kind };
        Ok(Chosen { image: (name, kind), captions, also })
    })?;
    table.read(&mut |number, place, row| {
        let fault = match (row.fault.take(), &place) {
            (None, Place::Path(name)) => return each(number + 1, name, &row.captions),
            (None, Place::Cell(_)) => format!("`{file_name}` is an image; expected a file name"),
            (Some(fault), _) => fault,
        };
        Err(DataError::row(path, "row", number + 1, fault))
    })?;
    Ok(found)
}
