//! The data of zero-shot classification: images, their classes, and the prompts of each class.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::{
    CLASS_NAMES_FILE, CLASS_PLACEHOLDER, ClassLabels, Dataset, DatasetBuilder, SourceTable, TEMPLATES_FILE,
    class_folder, counted, read_class_synonyms, read_numbered_synonyms, read_templates, recognise, repeated_names,
};

use crate::config::{EvalData, EvalSection};

use crate::error::TrainError;
use crate::eval::class_rows::{ClassRows, class_labels, labelled_rows};
use crate::eval::encoder::Encoder;
use crate::eval::fingerprint::Fingerprint;
use crate::eval::metrics::zero_shot::prompts;

/// Names that a warning lists.
const MAX_LISTED: usize = 10;

/// Labelled images.
#[derive(Debug)]
pub(crate) struct LabelledImages {
    /// The images, with the numbers of their classes as captions.
    pub data: Arc<Dataset>,
    pub labels: ClassLabels,
    /// Every name of each class; the first is its title in `labels`.
    names: Vec<Vec<String>>,
    templates: Vec<String>,
    /// Features of the prompts, in place of `names` and `templates`.
    pub class_rows: Option<ClassRows>,
}

/// The files of a section that describe its classes.
#[derive(Clone, Copy, Default)]
struct Described<'a> {
    classnames: Option<&'a Path>,
    templates: Option<&'a Path>,
}

impl LabelledImages {
    /// Reads the images and classes of `[eval.NAME]`; `None` if it names none. `validation`: labelled pairs to use
    /// then.
    ///
    /// # Errors
    /// [`TrainError::Usage`], [`TrainError::Data`] or [`TrainError::Read`] when a folder or file is missing, empty or
    /// malformed, or labels do not fit the class names.
    pub fn open(section: &EvalSection, validation: Option<&Arc<Dataset>>) -> Result<Option<Self>, TrainError> {
        let class_rows = ClassRows::open(section)?;
        let images = match labelled_rows(section)? {
            Some((data, labels)) => {
                let names = section.classnames.as_deref().map(read_numbered_synonyms).transpose()?;
                let (labels, names) = class_labels(labels, names, class_rows.as_ref())?;
                Some(Self::new(data, labels, names, section.templates.as_deref())?)
            }
            None => Self::open_images(section, validation)?,
        };
        let Some(images) = images else { return Ok(None) };
        let classes = images.names.len();
        match class_rows {
            Some(rows) if rows.of_class.len() != classes => Err(TrainError::Usage(format!(
                "`{}` has features of {} classes, but the images have {classes} classes; expected features of each, in \
                 the same order",
                rows.table.path().display(),
                rows.of_class.len(),
            ))),
            class_rows => Ok(Some(Self { class_rows, ..images })),
        }
    }

    /// As [`LabelledImages::open`], of images that are files.
    fn open_images(section: &EvalSection, validation: Option<&Arc<Dataset>>) -> Result<Option<Self>, TrainError> {
        let described =
            Described { classnames: section.classnames.as_deref(), templates: section.templates.as_deref() };
        if let Some(folder) = &section.images {
            return Self::of_folder(folder, described).map(Some);
        }
        let table = match &section.data {
            Some(EvalData::Path(path)) => recognise(path)?.source,
            Some(EvalData::Source(table)) => (**table).clone(),
            None => {
                return validation.map(|validation| Self::of_names(validation, described)).transpose();
            }
        };
        let described = Described {
            classnames: described.classnames.or(table.classnames.as_deref()),
            templates: described.templates.or(table.templates.as_deref()),
        };
        match &table.classes {
            Some(classes) if table.only.is_none() => Self::of_folder(&classes.path, described).map(Some),
            _ => Self::of_table(&table, described).map(Some),
        }
    }

    /// Reads a folder of images per class, of which the class names have the order of the sorted folders.
    fn of_folder(path: &Path, described: Described<'_>) -> Result<Self, TrainError> {
        let folder = class_folder(path)?;
        let mut warning = None;
        let names = match described.classnames {
            Some(file) => {
                let names = read_class_synonyms(file)?;
                warning = folder.check_names(path, file, &titles(&names))?;
                names
            }
            None => folder.classes.into_iter().map(|name| vec![name]).collect(),
        };
        let mut data = DatasetBuilder::new(path);
        for (image, label) in &folder.images {
            data.push(image.clone(), &label.to_string());
        }
        let mut data = data.build();
        data.warnings.extend(warning);
        data.warnings.extend(folder.left_out.describe().map(|files| format!("`{}`: {files}", path.display())));
        let labels = ClassLabels::new(titles(&names), folder.images.iter().map(|(_, label)| vec![*label]));
        Self::new(data, labels, names, described.templates)
    }

    /// Reads a table or shards with labels as captions.
    fn of_table(table: &SourceTable, described: Described<'_>) -> Result<Self, TrainError> {
        let mut data = table.read_labels()?;
        let found = |name: &str| beside(&data, name);
        let classnames = described.classnames.map(Path::to_owned).or_else(|| found(CLASS_NAMES_FILE));
        let templates = described.templates.map(Path::to_owned).or_else(|| found(TEMPLATES_FILE));
        for (what, given, file) in
            [("class names", described.classnames, &classnames), ("prompt templates", described.templates, &templates)]
        {
            if let (None, Some(file)) = (given, file) {
                data.notes.push(format!("{what} from `{}`", file.display()));
            }
        }
        let Some(classnames) = classnames else {
            if data.has_numbers_as_captions() {
                data.warnings.push(
                    "all labels are numbers, which are the names of the classes then; name a file of class names with \
                     `classnames`"
                        .to_owned(),
                );
            }
            return Self::of_names(&data, Described { classnames: None, templates: templates.as_deref() });
        };
        let names = names_for(&data, &classnames)?;
        let labels = data.class_labels_of(&titles(&names))?;
        Self::new(data.with_labels(&labels), labels, names, templates.as_deref())
    }

    /// Takes captions as the names of classes. The class names that a section gives are in the order of the classes of
    /// the data.
    fn of_names(data: &Dataset, described: Described<'_>) -> Result<Self, TrainError> {
        let mut labels = data.class_labels();
        let mut names: Vec<Vec<String>> = labels.names.iter().map(|name| vec![name.clone()]).collect();
        if let Some(file) = described.classnames {
            names = names_for(data, file)?;
            labels = data.class_labels_of(&titles(&names))?;
        }
        let mut images = Self::new(data.with_labels(&labels), labels, names, described.templates)?;
        if let (None, Some(part)) = (described.templates, data.parts().first().filter(|it| !it.templates.is_empty())) {
            images.templates.clone_from(&part.templates);
        }
        Ok(images)
    }

    /// Images with the classes `labels`; `names`: every name of each class.
    ///
    /// # Errors
    /// [`TrainError::Data`] when `templates` cannot be read.
    pub fn new(
        data: Dataset,
        labels: ClassLabels,
        names: Vec<Vec<String>>,
        templates: Option<&Path>,
    ) -> Result<Self, TrainError> {
        let templates = match templates {
            Some(path) => read_templates(path)?,
            None => vec![CLASS_PLACEHOLDER.to_owned()],
        };
        Ok(Self { data: Arc::new(data), labels, names, templates, class_rows: None })
    }

    /// The prompts of every class: each of its names in each template.
    pub fn prompts(&self) -> Vec<Vec<String>> {
        self.names.iter().map(|names| prompts(names, &self.templates)).collect()
    }

    /// The normalised embeddings of the prompts of all classes, and how many each class has. `on_progress` receives the
    /// number of prompts done and their number.
    ///
    /// # Errors
    /// As for [`Encoder::texts`] and [`Encoder::text_rows`].
    pub fn encode_classes(
        &self,
        encoder: &Encoder<'_>,
        mut on_progress: impl FnMut(usize, usize),
    ) -> Result<(Vec<f32>, Vec<usize>), TrainError> {
        if let Some(ClassRows { table, of_class }) = &self.class_rows {
            let rows = of_class.concat();
            let row = |at: usize| Some((table, rows[at]));
            let embeds = encoder.text_rows(rows.len(), row, |done| on_progress(done, rows.len()))?;
            return Ok((embeds.into_normalized(), of_class.iter().map(Vec::len).collect()));
        }
        let prompts = self.prompts();
        let texts = prompts.concat();
        let embeds = encoder.texts(&texts, |done| on_progress(done, texts.len()))?;
        Ok((embeds.into_normalized(), prompts.iter().map(Vec::len).collect()))
    }

    /// What may make the figures other than the model is.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.data.warnings.clone();
        let listed = |names: &[&str]| {
            let shown: Vec<String> = names.iter().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
            format!("{}{}", shown.join(", "), if names.len() > MAX_LISTED { ", .." } else { "" })
        };
        let repeated = repeated_names(&self.labels.names);
        if !repeated.is_empty() {
            warnings.push(format!(
                "several classes have the same name, so that no model can tell them apart: {}; give them different \
                 names with `classnames`",
                listed(&repeated)
            ));
        }
        warnings.extend(one_class(&self.labels.names));
        let sizes = self.labels.sizes();
        let without = self.labels.names.iter().zip(&sizes).filter(|(_, images)| **images == 0);
        let without: Vec<&str> = without.map(|(name, _)| name.as_str()).collect();
        if !without.is_empty() {
            warnings.push(format!(
                "{} of {} classes have no image: {}; images may be taken for them, and means over the classes leave \
                 them out",
                without.len(),
                sizes.len(),
                listed(&without)
            ));
        }
        if self.labels.has_several() {
            let several = (0..self.labels.num_images()).filter(|&image| self.labels.of(image).len() > 1).count();
            warnings.push(format!(
                "{several} of {} have several classes: the metric is `mean_average_precision`, without an accuracy",
                counted(self.labels.num_images(), "image")
            ));
        }
        warnings
    }

    /// Adds what is measured to a fingerprint.
    ///
    /// # Errors
    /// [`TrainError::Data`] when the size of an image cannot be read.
    pub fn add_to(&self, fingerprint: Fingerprint) -> Result<Fingerprint, TrainError> {
        let fingerprint = fingerprint.bytes("data", &self.data.fingerprint()?).texts("classes", &self.labels.names);
        let fingerprint = match &self.class_rows {
            Some(rows) => fingerprint.bytes("class_features", &rows.bytes()),
            None => fingerprint.texts("templates", &self.templates),
        };
        if self.names.iter().all(|names| names.len() == 1) {
            return Ok(fingerprint);
        }
        Ok(self.names.iter().fold(fingerprint, |fingerprint, names| fingerprint.texts("names", names)))
    }
}

/// The names of the classes of `data`. With numbers among its labels, a line stands for a number, and none may be
/// blank; labels that are all names are found wherever they stand.
fn names_for(data: &Dataset, file: &Path) -> Result<Vec<Vec<String>>, TrainError> {
    let has_numbers = data.captions().any(|label| label.text.parse::<usize>().is_ok());
    Ok(if has_numbers { read_numbered_synonyms(file)? } else { read_class_synonyms(file)? })
}

fn titles(names: &[Vec<String>]) -> Vec<String> {
    names.iter().filter_map(|names| names.first().cloned()).collect()
}

/// A file in the directory of the data, or in the one above it.
fn beside(data: &Dataset, name: &str) -> Option<PathBuf> {
    data.roots().flat_map(|root| root.ancestors().take(2)).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The warning that there is one class only.
pub(crate) fn one_class(names: &[String]) -> Option<String> {
    let [name] = names else { return None };
    Some(format!("there is one class, `{name}`, so every answer is right: the figures tell nothing; add other classes"))
}
