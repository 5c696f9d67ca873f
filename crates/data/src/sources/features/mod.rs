//! Features in place of images, texts or both, which another program has computed.
//!
//! - this file: the config table, and how it becomes a data set
//! - `sides`: the two sides of the table: their files, rows and names

mod sides;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::counted::counted;
use crate::dataset::Dataset;
use crate::dataset::builder::DatasetBuilder;
use crate::dataset::selection::Selection;
use crate::error::DataError;
use crate::features::integers::{find_integers, read_integers};
use crate::features::table::{FeatureColumn, FeatureTable};
use crate::sources::features::sides::{ImageSide, TextSide};
use crate::sources::one_or_many::OneOrMany;

/// The name of the tensor that maps texts to images.
const IMAGE_OF: &str = "image_of";

/// The columns of a parquet file, where the user names none.
const PARQUET_COLUMNS: [&str; 2] = ["image_embedding", "text_embedding"];

/// `[data.train.features]`: one row of numbers per image and one per text, as `.safetensors`, `.npy` or parquet files.
///
/// Without features of a side, that side is read as it is: images from the paths in `image_paths`, texts from
/// `captions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesSource {
    /// Features of the images: one file, or several with rows that follow each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<OneOrMany<PathBuf>>,
    /// Features of the texts, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<OneOrMany<PathBuf>>,
    /// Parquet files with features of both, in place of `images` and `texts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<OneOrMany<PathBuf>>,
    /// The tensor or the parquet column of `images`. Default: `features`, or else the only matrix; `image_embedding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_tensor: Option<String>,
    /// The tensor or the parquet column of `texts`. Default: `features`, or else the only matrix; `text_embedding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_tensor: Option<String>,
    /// The column of image features in `path`. Default: `image_embedding`, unless only `text` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The column of text features in `path`. Default: `text_embedding`, unless only `image` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A file of whole numbers: the row of the image that each text belongs to, 0-based. Default: the tensor `image_of`
    /// beside the features of the texts, or else row for row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_of: Option<PathBuf>,
    /// A file with one text per line, for each row of `texts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<PathBuf>,
    /// A file with one path per line, for each row of `images`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_paths: Option<PathBuf>,
}

impl FeaturesSource {
    /// Features of images and of texts, row for row.
    #[must_use]
    pub fn new(images: impl Into<PathBuf>, texts: impl Into<PathBuf>) -> Self {
        Self { images: Some(images.into().into()), texts: Some(texts.into().into()), ..Self::default() }
    }

    /// Whether images and texts have features.
    #[must_use]
    pub fn sides(&self) -> [bool; 2] {
        let (image, text) = (self.image.is_some(), self.text.is_some());
        match &self.path {
            Some(_) => [image || !text, text || !image],
            None => [self.images.is_some(), self.texts.is_some()],
        }
    }

    /// What is wrong with the keys; `None`: nothing.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let [images, texts] = self.sides();
        if self.path.is_some() && (self.images.is_some() || self.texts.is_some()) {
            return Some("`path` names files with both sides, so that `images` and `texts` are not needed".to_owned());
        }
        if self.path.is_none() && (self.image.is_some() || self.text.is_some()) {
            return Some(
                "`image` and `text` are columns of `path`; for `images` and `texts`, name tensors or columns with \
                 `image_tensor` and `text_tensor`"
                    .to_owned(),
            );
        }
        if !images && !texts {
            return Some("it has no features; set `images`, `texts` or both, or `path`".to_owned());
        }
        if !images && self.image_paths.is_none() {
            return Some(
                "it has features of texts alone; set `images`, or the paths of the images with `image_paths`"
                    .to_owned(),
            );
        }
        if !texts && self.captions.is_none() {
            return Some(
                "it has features of images alone; set `texts`, or the texts themselves with `captions`".to_owned(),
            );
        }
        None
    }

    /// Resolves relative paths against `base`.
    pub fn resolve(&mut self, base: &Path) {
        [&mut self.images, &mut self.texts, &mut self.path].into_iter().flatten().for_each(|it| it.resolve(base));
        let files = [&mut self.image_of, &mut self.captions, &mut self.image_paths];
        files.into_iter().flatten().for_each(|path| *path = base.join(&path));
    }

    /// The width of the features of images and of texts, without reading their rows.
    ///
    /// # Errors
    /// As for [`FeatureTable::open`].
    pub fn widths(&self) -> Result<[Option<usize>; 2], DataError> {
        let width = |found: Option<(&OneOrMany<PathBuf>, FeatureColumn<'_>)>| {
            let first = found.and_then(|(paths, column)| Some((paths.0.first()?, column)));
            first.map(|(path, column)| FeatureTable::width_at(path, column)).transpose()
        };
        Ok([width(self.image_files())?, width(self.text_files())?])
    }

    fn image_files(&self) -> Option<(&OneOrMany<PathBuf>, FeatureColumn<'_>)> {
        let [has_images, _] = self.sides();
        let (paths, name) = match &self.path {
            Some(path) => (path, self.image.as_deref().or(Some(PARQUET_COLUMNS[0]))),
            None => (self.images.as_ref()?, self.image_tensor.as_deref()),
        };
        has_images.then_some((paths, FeatureColumn { name, parquet: PARQUET_COLUMNS[0] }))
    }

    fn text_files(&self) -> Option<(&OneOrMany<PathBuf>, FeatureColumn<'_>)> {
        let [_, has_texts] = self.sides();
        let (paths, name) = match &self.path {
            Some(path) => (path, self.text.as_deref().or(Some(PARQUET_COLUMNS[1]))),
            None => (self.texts.as_ref()?, self.text_tensor.as_deref()),
        };
        has_texts.then_some((paths, FeatureColumn { name, parquet: PARQUET_COLUMNS[1] }))
    }

    /// Reads every row once, for its hash; features stay in their files.
    ///
    /// # Errors
    /// [`DataError::Malformed`], [`DataError::Tensor`], [`DataError::Column`] or [`DataError::Row`] for files that are
    /// not features or do not fit together, [`DataError::TextList`] for a list of texts or paths, [`DataError::Empty`]
    /// without a usable pair, [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    pub(crate) fn read_selected(&self, selection: Option<Selection>) -> Result<Dataset, DataError> {
        let path = self.first_path().to_owned();
        let malformed = |reason: String| DataError::Malformed { path: path.clone(), reason };
        if let Some(problem) = self.problem() {
            return Err(DataError::Loader { reason: format!("a source of features is incomplete: {problem}") });
        }
        let images = ImageSide::open(self.image_files(), self.image_paths.as_deref())?;
        let texts = TextSide::open(self.text_files(), self.captions.as_deref())?;
        let image_of = self.image_of(&images, &texts)?;
        let is_selection = selection.is_some();
        let mut builder = DatasetBuilder::new(images.root()).with_selection(selection);
        if !is_selection {
            // No more images than texts are used.
            builder.reserve(images.len().min(texts.len()), texts.len(), texts.have_features());
        }
        let mut used = vec![false; images.len()];
        for (text, &image) in image_of.iter().enumerate() {
            let location = images.location(image);
            if is_selection && !builder.selects(text as u64 + 1, &location.key()) {
                continue;
            }
            used[image] = true;
            if let Some(fault) = texts.fault(text) {
                builder.skipped.note(fault.cause(), || texts.describe_fault(text, &fault));
                continue;
            }
            texts.push_to(&mut builder, text, location);
        }
        builder.refuse_empty(&path, || DataError::Empty {
            path: path.clone(),
            found: counted(texts.len(), "row"),
            expected: "a row of features that is finite and not 0",
        })?;
        for note in images.notes().into_iter().chain(texts.notes()) {
            builder.note(note);
        }
        let unused = used.iter().filter(|used| !**used).count();
        if unused > 0 && images.len() == 0 {
            return Err(malformed("it has no images".to_owned()));
        }
        if unused > 0 {
            builder.note(format!("{unused} of {} have no text and are left out", counted(images.len(), "image")));
        }
        builder.finish(&path)
    }

    /// The file that names the source.
    fn first_path(&self) -> &Path {
        let features = [&self.path, &self.images, &self.texts].into_iter().flatten().find_map(|paths| paths.0.first());
        features.map_or(Path::new(""), PathBuf::as_path)
    }

    /// The row of the image of each text.
    fn image_of(&self, images: &ImageSide, texts: &TextSide) -> Result<Vec<usize>, DataError> {
        let given = match (&self.image_of, self.text_files()) {
            (Some(path), _) => Some((path.clone(), read_integers(path, IMAGE_OF)?)),
            (None, Some((paths, _))) if self.path.is_none() => tensor_beside(paths)?,
            _ => None,
        };
        let Some((path, numbers)) = given else {
            if images.len() == texts.len() {
                return Ok((0..texts.len()).collect());
            }
            let reason = format!(
                "{} of {} for {} of {}; expected as many, or the image of each text: a tensor `{IMAGE_OF}` beside the \
                 features of the texts, or the key `{IMAGE_OF}`",
                counted(texts.len(), "row"),
                "texts",
                counted(images.len(), "row"),
                "images",
            );
            return Err(DataError::Malformed { path: texts.path().to_owned(), reason });
        };
        let malformed = |reason: String| DataError::Malformed { path: path.clone(), reason };
        if numbers.len() != texts.len() {
            let (found, expected) = (numbers.len(), texts.len());
            return Err(malformed(format!("`{IMAGE_OF}` has {found} numbers; expected {expected}, one for each text")));
        }
        let row = |(text, number): (usize, i64)| {
            usize::try_from(number).ok().filter(|row| *row < images.len()).ok_or_else(|| {
                malformed(format!(
                    "`{IMAGE_OF}` of row {} is {number}; expected a row of the images from 0 to {}",
                    text + 1,
                    images.len().saturating_sub(1)
                ))
            })
        };
        numbers.into_iter().enumerate().map(row).collect()
    }
}

/// The tensor that maps texts to images, in the files of the texts: in each of them or in none.
fn tensor_beside(paths: &OneOrMany<PathBuf>) -> Result<Option<(PathBuf, Vec<i64>)>, DataError> {
    let mut all: Option<(PathBuf, Vec<i64>)> = None;
    for (number, path) in paths.0.iter().enumerate() {
        match (find_integers(path, IMAGE_OF)?, &mut all) {
            (Some(numbers), None) if number == 0 => all = Some((path.clone(), numbers)),
            (Some(numbers), Some((_, all))) => all.extend(numbers),
            (None, None) => {}
            _ => {
                let reason = format!("some files have a tensor `{IMAGE_OF}`, and others do not; write it to each");
                return Err(DataError::Malformed { path: path.clone(), reason });
            }
        }
    }
    Ok(all)
}
