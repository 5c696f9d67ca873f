//! The two sides of a source of features. Each has features, or is read as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::counted::counted;
use crate::dataset::builder::DatasetBuilder;
use crate::error::{DataError, ImageError};
use crate::features::table::{FeatureColumn, FeatureTable};
use crate::images::location::ImageRef;
use crate::sources::one_or_many::OneOrMany;
use crate::sources::tables::image_path::below;
use crate::text_lists::text_file::read_text_rows;

/// The files of a side and their array.
type Files<'a> = Option<(&'a OneOrMany<PathBuf>, FeatureColumn<'a>)>;

/// The images.
pub(crate) enum ImageSide {
    Features(Arc<FeatureTable>),
    Files { list: PathBuf, root: PathBuf, paths: Vec<String> },
}

/// The texts.
pub(crate) struct TextSide {
    list: PathBuf,
    table: Option<Arc<FeatureTable>>,
    /// One per row; none if the texts are not known.
    texts: Vec<String>,
}

impl ImageSide {
    pub(crate) fn open(files: Files<'_>, paths: Option<&Path>) -> Result<Self, DataError> {
        let names = paths.map(read_text_rows).transpose()?;
        let list = paths.map(Path::to_owned).unwrap_or_default();
        let Some((files, column)) = files else {
            let root = list.parent().map(Path::to_owned).unwrap_or_default();
            return Ok(Self::Files { list, root, paths: names.unwrap_or_default() });
        };
        let table = FeatureTable::open(&files.0, column)?;
        check_count(&list, names.as_deref(), &table, "path", "image")?;
        Ok(Self::Features(Arc::new(table.with_names(names.unwrap_or_default()))))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Features(table) => table.num_rows() as usize,
            Self::Files { paths, .. } => paths.len(),
        }
    }

    /// The directory that names of images are relative to.
    pub(crate) fn root(&self) -> PathBuf {
        match self {
            Self::Features(table) => table.path().parent().map(Path::to_owned).unwrap_or_default(),
            Self::Files { root, .. } => root.clone(),
        }
    }

    pub(crate) fn location(&self, row: usize) -> ImageRef {
        match self {
            Self::Features(table) => ImageRef::FeatureRow { table: Arc::clone(table), row: row as u64 },
            Self::Files { root, paths, .. } => ImageRef::File(below(root, &paths[row])),
        }
    }

    pub(crate) fn notes(&self) -> Option<String> {
        Some(match self {
            Self::Features(table) => format!("features of images: {}", table.describe()),
            Self::Files { list, paths, .. } => {
                format!("images: {} in `{}`", counted(paths.len(), "path"), list.display())
            }
        })
    }
}

impl TextSide {
    pub(crate) fn open(files: Files<'_>, captions: Option<&Path>) -> Result<Self, DataError> {
        let texts = captions.map(read_text_rows).transpose()?;
        let list = captions.map(Path::to_owned).unwrap_or_default();
        let Some((files, column)) = files else {
            return Ok(Self { list, table: None, texts: texts.unwrap_or_default() });
        };
        let mut table = FeatureTable::open(&files.0, column)?;
        check_count(&list, texts.as_deref(), &table, "line", "text")?;
        if texts.is_some() {
            table = table.with_texts();
        }
        Ok(Self { list: table.path().to_owned(), table: Some(Arc::new(table)), texts: texts.unwrap_or_default() })
    }

    pub(crate) fn len(&self) -> usize {
        self.table.as_ref().map_or(self.texts.len(), |table| table.num_rows() as usize)
    }

    pub(crate) fn have_features(&self) -> bool {
        self.table.is_some()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.list
    }

    /// Why a row cannot be used.
    pub(crate) fn fault(&self, row: usize) -> Option<ImageError> {
        self.table.as_ref()?.fault(row as u64)
    }

    pub(crate) fn describe_fault(&self, row: usize, fault: &ImageError) -> String {
        let key = self.table.as_ref().map(|table| table.key(row as u64));
        format!("text `{}`: {fault}", key.unwrap_or_default())
    }

    /// Adds the pair of a text and the image at `location`.
    pub(crate) fn push_to(&self, builder: &mut DatasetBuilder, row: usize, location: ImageRef) {
        // The stand-in for a text that is not known does not depend on the name of its file.
        let number = || format!("row {}", row + 1);
        let text = self.texts.get(row).cloned().unwrap_or_else(number);
        match &self.table {
            Some(table) => builder.push_features(location, &text, (table, row as u64)),
            None => builder.push(location, &text),
        };
    }

    pub(crate) fn notes(&self) -> Option<String> {
        Some(match &self.table {
            Some(table) => format!("features of texts: {}", table.describe()),
            None => format!("texts: {} in `{}`", counted(self.texts.len(), "line"), self.list.display()),
        })
    }
}

/// Refuses a list that does not have one entry for each row.
fn check_count(
    list: &Path,
    names: Option<&[String]>,
    table: &FeatureTable,
    entry: &str,
    row_of: &str,
) -> Result<(), DataError> {
    let (Some(names), rows) = (names, table.num_rows() as usize) else { return Ok(()) };
    if names.len() == rows {
        return Ok(());
    }
    let reason = format!(
        "it has {}; expected {rows}, one for each {row_of} in `{}`",
        counted(names.len(), entry),
        table.path().display()
    );
    Err(DataError::Malformed { path: list.to_owned(), reason })
}
