//! Parquet files as a source of pairs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::BadRows;
use crate::error::DataError;
use crate::sources::one_or_many::OneOrMany;
use crate::sources::parquet::columns::{Chosen, Wanted, choose, download};
use crate::sources::parquet::files::{files, missing_parts};
use crate::sources::parquet::rows::{Place, Row, Table, read_schema};
use crate::sources::rows::{Rows, other_splits};
use crate::sources::split_column::{SPLIT, Splits};
use crate::sources::tables::columns::repeated;
use crate::sources::webdataset::shard_patterns::common_root;

/// Pages from this size on are named in the notes: reading a single image unpacks its whole page.
const LARGE_PAGE_BYTES: u64 = 16 << 20;

/// `[data.train.parquet]`: one file or several, with one row per image.
///
/// The image column holds images (bytes, or a group of `bytes` and `path` as the `datasets` library writes it) or
/// paths.
/// Images are read from the file when they are needed, a page at a time. The caption column holds texts, lists of
/// texts, or labels; labels have the names that the `datasets` library stores in the file, else stay numbers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ParquetSource {
    /// A file, a folder of files, a pattern, or a list of these.
    pub path: OneOrMany<PathBuf>,
    /// Column of the image or its path. Default: `image`, or else the one column that holds images or has another usual
    /// name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Column of the caption or captions. Default: `caption`, or else the one column with another usual name, or the
    /// only other text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Several columns of captions, in place of `caption`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<Vec<String>>,
    /// Directory that image paths are relative to. Default: the directory of each file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Values of the column `split` to read: a list, or separated by `+`. Default: every row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<OneOrMany<String>>,
    /// What to do with a malformed row. Default `error`.
    #[serde(default)]
    pub bad_rows: BadRows,
}

impl ParquetSource {
    /// The files of `path`; the columns are found by looking.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into().into(),
            image: None,
            caption: None,
            captions: None,
            root: None,
            split: None,
            bad_rows: BadRows::default(),
        }
    }

    /// Resolves relative paths against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path.resolve(base);
        self.root = self.root.take().map(|root| base.join(root));
    }

    /// The same files with the columns that were found in the first, and what they are, for people.
    ///
    /// # Errors
    /// As for [`ParquetSource::read`], of the columns of the first file.
    pub(crate) fn look(&self) -> Result<(Self, String), DataError> {
        let mut paths = Vec::new();
        for path in &self.path.0 {
            paths.extend(files(path)?);
        }
        let mut found = self.clone();
        let Some(first) = paths.first() else { return Ok((found, "parquet".to_owned())) };
        let names = Names::of(&choose(first, &read_schema(first)?, self.wanted(first, None)?)?);
        let (image, captions, also) = (&names.image, names.quoted_captions(), &names.also);
        let origin = format!("image from `{image}`, caption from {captions}{also}");
        found.image = Some(names.image);
        match &names.captions[..] {
            [one] if self.captions.is_none() => found.caption = Some(one.clone()),
            _ => found.captions = Some(names.captions),
        }
        Ok((found, format!("parquet, {} file{}; {origin}", paths.len(), if paths.len() == 1 { "" } else { "s" })))
    }

    /// Reads captions, and where images are.
    ///
    /// # Errors
    /// [`DataError::Column`] if a column is missing, [`DataError::Row`] for a malformed row unless they are skipped,
    /// [`DataError::Malformed`] for a damaged file or a column of another type, [`DataError::Empty`] without a usable
    /// row, [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    pub(crate) fn read_selected(&self, selection: Option<Selection>) -> Result<Dataset, DataError> {
        let first = self.path.0.first().map_or(Path::new(""), PathBuf::as_path);
        let mut paths = Vec::new();
        for path in &self.path.0 {
            paths.extend(files(path)?);
        }
        let root = match &self.root {
            Some(root) => root.clone(),
            None => common_root(&self.path.0)?,
        };
        let mut rows = Rows::new(first, Some(&root), "row", self.bad_rows, selection);
        let mut summary = Summary::default();
        let malformed = |reason: String| DataError::Malformed { path: first.to_owned(), reason };
        let mut splits = Splits::parse(self.split.as_ref()).map_err(malformed)?;
        for path in &paths {
            rows.go_on(path, self.root.as_deref().or(path.parent()).unwrap_or(Path::new("")));
            self.read_file(path, &mut splits, &mut rows, &mut summary)?;
        }
        if let Some(warning) = splits.check().map_err(malformed)? {
            rows.builder.warn(format!("`{}`: {warning}", first.display()));
        }
        rows.refuse_remote()?;
        rows.tell();
        let mut builder = rows.builder;
        builder.refuse_empty(first, || DataError::Empty {
            path: first.to_owned(),
            found: format!("{} rows, {} unusable", summary.rows, builder.skipped.count),
            expected: "rows with an image and a caption",
        })?;
        for missing in missing_parts(&paths) {
            builder.warn(format!("{missing} are there; the rest is not read"));
        }
        builder.note(summary.describe(first, paths.len(), splits.num_others()));
        builder.finish(first)
    }

    /// The columns that are written, or those of `first`, the first file.
    fn wanted<'a>(&'a self, path: &Path, first: Option<&'a Names>) -> Result<Wanted<'a>, DataError> {
        let malformed = |reason: &str| DataError::Malformed { path: path.to_owned(), reason: reason.to_owned() };
        if let Some(reason) = self.captions.as_deref().and_then(repeated) {
            return Err(malformed(&reason));
        }
        let captions = match (&self.caption, &self.captions) {
            (Some(_), Some(_)) => return Err(malformed("`caption` and `captions` are both set; remove one")),
            (None, Some(names)) if names.is_empty() => {
                return Err(malformed("`captions` is empty; name the columns of captions"));
            }
            (Some(name), None) => std::slice::from_ref(name),
            (None, Some(names)) => names,
            (None, None) => first.map_or(&[][..], |first| &first.captions),
        };
        let image = self.image.as_deref().or(first.map(|first| first.image.as_str()));
        Ok(Wanted { image, captions, are_several: self.captions.is_some() })
    }

    fn read_file(
        &self,
        path: &Path,
        splits: &mut Splits,
        rows: &mut Rows<'_>,
        summary: &mut Summary,
    ) -> Result<(), DataError> {
        let wanted = self.wanted(path, summary.names.as_ref())?;
        let mut names = None;
        let table = Table::open(path, |schema| {
            let chosen = choose(path, schema, wanted)?;
            names = Some(Names::of(&chosen));
            Ok(chosen)
        })?;
        if !splits.wanted.is_empty() && !table.has_split() {
            let reason = format!("`split` is set, and there is no column `{SPLIT}` of texts");
            return Err(DataError::Malformed { path: path.to_owned(), reason });
        }
        let mut names = names.unwrap_or_default();
        if let Some(first) = &summary.names {
            names.also.clone_from(&first.also);
        }
        let names = summary.names.insert(names).clone();
        let mut has_paths = false;
        table.read(&mut |number, place, row| {
            summary.rows += 1;
            match row.split.as_str() {
                "" if splits.wanted.is_empty() => {}
                "" => return rows.no_split(number + 1),
                split if !splits.takes(split) => return Ok(()),
                _ => {}
            }
            if !rows.selects(summary.rows, &row.key) {
                return Ok(());
            }
            if let Place::Path(link) = &place
                && !has_paths
            {
                has_paths = !link.is_empty();
                if is_link(link) {
                    let (image, caption) = (&names.image, names.captions.first().map(String::as_str));
                    let reason =
                        format!("column `{image}` holds links, such as `{link}`: {}", download(path, image, caption));
                    return Err(DataError::Malformed { path: path.to_owned(), reason });
                }
            }
            push_row(rows, number + 1, &place, row)
        })?;
        summary.add(&table);
        Ok(())
    }
}

/// Adds row `number`, 1-based.
fn push_row(rows: &mut Rows<'_>, number: u64, image: &Place, row: &mut Row) -> Result<(), DataError> {
    if let Some(fault) = row.fault.take() {
        return rows.malformed(number, fault);
    }
    if row.captions.is_empty() {
        rows.no_caption(number);
        return Ok(());
    }
    let captions = row.captions.iter().map(|(caption, slot)| (usize::from(*slot), caption.as_str()));
    match image {
        Place::Path(path) => rows.push(number, path, captions)?,
        Place::Cell(cell) => rows.push_image(number, cell, captions),
    }
    Ok(())
}

fn is_link(path: &str) -> bool {
    let path = path.trim_start();
    path.starts_with("http://") || path.starts_with("https://")
}

/// The columns that are read.
#[derive(Clone, Debug, Default)]
struct Names {
    image: String,
    captions: Vec<String>,
    /// What to say of other columns that look like captions.
    also: String,
}

impl Names {
    fn of(chosen: &Chosen) -> Self {
        let captions = chosen.captions.iter().map(|(name, _)| name.clone()).collect();
        Self { image: chosen.image.0.clone(), captions, also: chosen.also.clone() }
    }

    fn quoted_captions(&self) -> String {
        self.captions.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }
}

/// What was read, for the log.
#[derive(Default)]
struct Summary {
    /// Those of the first file.
    names: Option<Names>,
    rows: u64,
    has_images: bool,
    has_numbers: bool,
    largest_page: u64,
}

impl Summary {
    fn add(&mut self, table: &Table) {
        self.has_numbers |= table.has_numbers();
        if let Some(images) = table.images() {
            self.has_images = true;
            self.largest_page = self.largest_page.max(images.page_sizes().1);
        }
    }

    fn describe(&self, first: &Path, files: usize, num_other_splits: u64) -> String {
        let names = self.names.clone().unwrap_or_default();
        let (image, captions) = (&names.image, names.quoted_captions());
        let mut text = format!(
            "`{}`: parquet, {files} file{}, {} rows{}; {} from `{image}`, captions from {captions}{}",
            first.display(),
            if files == 1 { "" } else { "s" },
            self.rows - num_other_splits,
            other_splits(num_other_splits),
            if self.has_images { "images" } else { "image paths" },
            names.also
        );
        if self.has_numbers {
            text += "; captions are numbers, which `classnames` replaces by the names of classes";
        }
        if self.largest_page > LARGE_PAGE_BYTES {
            text += &format!(
                "; its pages have {} MiB of images each; unless it is written with snappy or uncompressed, \
                 a shuffled epoch unpacks one for each image: `dualenc data pack` writes shards that are read faster",
                self.largest_page >> 20
            );
        }
        text
    }
}
