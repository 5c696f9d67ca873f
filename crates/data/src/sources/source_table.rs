//! `[data.train]` and `[eval.NAME.data]`: a source and how its rows are used.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::dataset::part::PartUse;
use crate::dataset::selection::Selection;
use crate::error::DataError;
use crate::sources::Source;
use crate::sources::class_labels::NumberLabels;
use crate::sources::classes::ClassesSource;
use crate::sources::coco::CocoSource;
use crate::sources::csv::CsvSource;
use crate::sources::features::FeaturesSource;
use crate::sources::folder::FolderSource;
use crate::sources::json::json_source::JsonSource;
use crate::sources::jsonl::JsonlSource;
use crate::sources::parquet::source::ParquetSource;
use crate::sources::webdataset::WebdatasetSource;
use crate::text_lists::builtin_templates::is_builtin_templates;
use crate::text_lists::class_names::read_numbered_names;
use crate::text_lists::templates::read_templates;

/// A table that names one source, and says how its rows are used. Exactly one of the sources must be there; the config
/// is checked before it is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceTable {
    /// A comma-separated table; tab-separated if its extension is `tsv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvSource>,
    /// A tab-separated table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tsv: Option<CsvSource>,
    /// JSON lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jsonl: Option<JsonlSource>,
    /// JSON in any form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<JsonSource>,
    /// A folder of images with captions beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderSource>,
    /// Tar shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webdataset: Option<WebdatasetSource>,
    /// A folder of images per class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassesSource>,
    /// COCO captions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coco: Option<CocoSource>,
    /// Parquet tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parquet: Option<ParquetSource>,
    /// Features of images and texts, computed by another program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeaturesSource>,
    /// How often each pair occurs in an epoch, on average. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// A file with one row number (1-based, without header) or image name per line: only these rows are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<PathBuf>,
    /// A file of prompt templates: captions are class names, which take the place of `{c}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templates: Option<PathBuf>,
    /// A file of class names: captions are 0-based numbers of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classnames: Option<PathBuf>,
    /// Where captions are drawn: the weight of each caption column; with one column, of the first, second, ... caption
    /// of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption_weights: Option<Vec<f64>>,
}

impl SourceTable {
    /// The sources of the table by their keys: exactly one in a valid config.
    #[must_use]
    pub fn sources(&self) -> Vec<(&'static str, Source)> {
        let mut found = Vec::new();
        found.extend(self.csv.clone().map(|source| ("csv", Source::Csv(source))));
        found.extend(self.tsv.clone().map(|source| ("tsv", Source::Tsv(source))));
        found.extend(self.jsonl.clone().map(|source| ("jsonl", Source::Jsonl(source))));
        found.extend(self.json.clone().map(|source| ("json", Source::Json(source))));
        found.extend(self.folder.clone().map(|source| ("folder", Source::Folder(source))));
        found.extend(self.webdataset.clone().map(|source| ("webdataset", Source::Webdataset(source))));
        found.extend(self.classes.clone().map(|source| ("classes", Source::Classes(source))));
        found.extend(self.coco.clone().map(|source| ("coco", Source::Coco(source))));
        found.extend(self.parquet.clone().map(|source| ("parquet", Source::Parquet(source))));
        found.extend(self.features.clone().map(|source| ("features", Source::Features(source))));
        found
    }

    /// Resolves relative paths against `base`, the directory of the config file.
    pub fn resolve(&mut self, base: &Path) {
        [&mut self.csv, &mut self.tsv].into_iter().flatten().for_each(|source| source.resolve(base));
        self.jsonl.iter_mut().for_each(|source| source.resolve(base));
        self.json.iter_mut().for_each(|source| source.resolve(base));
        self.folder.iter_mut().for_each(|source| source.resolve(base));
        self.webdataset.iter_mut().for_each(|source| source.resolve(base));
        self.classes.iter_mut().for_each(|source| source.resolve(base));
        self.coco.iter_mut().for_each(|source| source.resolve(base));
        self.parquet.iter_mut().for_each(|source| source.resolve(base));
        self.features.iter_mut().for_each(|source| source.resolve(base));
        for path in [&mut self.only, &mut self.templates, &mut self.classnames].into_iter().flatten() {
            if !is_builtin_templates(path) {
                *path = base.join(&path);
            }
        }
    }

    /// Reads the listing of images and captions; no image is opened.
    ///
    /// # Errors
    /// As for [`Source::read`]; [`DataError::Loader`] unless the table has exactly one source.
    pub fn read(&self) -> Result<Dataset, DataError> {
        let (source, selection) = self.source_and_selection()?;
        let usage = self.usage()?;
        let classnames = self.class_names()?;
        let mut dataset = match &source {
            // These know themselves what is the number of a class.
            Source::Webdataset(source) => source.read_named(selection, NumberLabels::Named(&classnames), None)?,
            Source::Classes(source) => {
                let names = self.classnames.as_deref().map(|file| (file, classnames.as_slice()));
                source.read_named(selection, names)?
            }
            other if classnames.is_empty() => other.read_selected(selection)?,
            other => other.read_selected(selection)?.with_class_names(&classnames)?,
        };
        if dataset.captions().all(|caption| is_number(caption.text)) {
            let warning = self.warning_of_numbers(dataset.num_captions(), dataset.caption(0).text);
            dataset.warnings.extend(warning);
        }
        dataset.parts.iter_mut().for_each(|part| part.use_as(&usage));
        Ok(dataset)
    }

    /// Reads the shards of a `webdataset` source in segments: `take` is given the pairs of a few shards at a time. The
    /// data set that is returned has the last of them, and the notes, warnings and skipped rows of all. How pairs are
    /// used is not set.
    ///
    /// # Errors
    /// As for [`SourceTable::read`], and those of `take`; [`DataError::Loader`] for a source of another kind.
    pub(crate) fn read_segments(
        &self,
        take: &mut dyn FnMut(Dataset) -> Result<(), DataError>,
    ) -> Result<Dataset, DataError> {
        let (source, selection) = self.source_and_selection()?;
        let Source::Webdataset(source) = &source else {
            return Err(DataError::Loader { reason: "only shards are read in segments".to_owned() });
        };
        source.read_named(selection, NumberLabels::Named(&self.class_names()?), Some(take))
    }

    /// How the pairs of the source are used.
    ///
    /// # Errors
    /// Those of the file of templates; [`DataError::Loader`] unless the table has exactly one source.
    pub(crate) fn usage(&self) -> Result<PartUse, DataError> {
        let templates = self.templates.as_deref().map(read_templates).transpose();
        let caption_weights = self.caption_weights.clone().unwrap_or_default();
        // A single weight is that of every caption, either way.
        let has_columns = self.sources().iter().any(|(_, source)| source.num_caption_columns() > 1);
        Ok(PartUse {
            weight: self.weight.unwrap_or(1.0),
            weights_by_place: caption_weights.len() > 1 && !has_columns,
            caption_weights,
            templates: templates.map_err(DataError::of_key("templates"))?.unwrap_or_default(),
        })
    }

    /// The warning that all captions, of which `first` is the first, are numbers; `None`: that is meant.
    pub(crate) fn warning_of_numbers(&self, count: usize, first: &str) -> Option<String> {
        self.classnames.is_none().then(|| {
            format!(
                "all {count} captions are numbers, such as `{first}`; if they are classes, name a file of class names \
                 with `classnames`"
            )
        })
    }

    fn class_names(&self) -> Result<Vec<String>, DataError> {
        let names = self.classnames.as_deref().map(read_numbered_names).transpose();
        Ok(names.map_err(DataError::of_key("classnames"))?.unwrap_or_default())
    }

    /// As [`SourceTable::read`], with labels as they are written: numbers are not replaced by the names of classes.
    ///
    /// # Errors
    /// As for [`SourceTable::read`].
    pub fn read_labels(&self) -> Result<Dataset, DataError> {
        match self.source_and_selection()? {
            (Source::Webdataset(source), selection) => source.read_named(selection, NumberLabels::Kept, None),
            (source, selection) => source.read_selected(selection),
        }
    }

    fn source_and_selection(&self) -> Result<(Source, Option<Selection>), DataError> {
        let mut sources = self.sources();
        let (Some((_, source)), true) = (sources.pop(), sources.is_empty()) else {
            return Err(DataError::Loader { reason: "a source table needs exactly one source".to_owned() });
        };
        let selection = self.only.as_deref().map(Selection::read).transpose().map_err(DataError::of_key("only"))?;
        Ok((source, selection))
    }
}

/// Whether a caption is a number.
pub(crate) fn is_number(caption: &str) -> bool {
    caption.parse::<u64>().is_ok()
}

impl From<Source> for SourceTable {
    fn from(source: Source) -> Self {
        let mut table = Self::default();
        match source {
            Source::Csv(source) => table.csv = Some(source),
            Source::Tsv(source) => table.tsv = Some(source),
            Source::Jsonl(source) => table.jsonl = Some(source),
            Source::Json(source) => table.json = Some(source),
            Source::Folder(source) => table.folder = Some(source),
            Source::Webdataset(source) => table.webdataset = Some(source),
            Source::Classes(source) => table.classes = Some(source),
            Source::Coco(source) => table.coco = Some(source),
            Source::Parquet(source) => table.parquet = Some(source),
            Source::Features(source) => table.features = Some(source),
        }
        table
    }
}
