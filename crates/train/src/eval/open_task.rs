//! The data of an evaluation, read and checked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::{
    CLASS_PLACEHOLDER, Dataset, DatasetBuilder, ImageRef, LeftOut, Skipped, class_folder, read_class_names,
    read_templates, repeated_names,
};

use crate::config::{Duplicates, Loss, Task};
use crate::error::TrainError;
use crate::eval::fingerprint::Fingerprint;
use crate::eval::zero_shot::prompts;
use crate::features::image_index::ImageList;
use crate::loss::contrastive::Objective;

/// Repeated class names that a warning lists.
const MAX_LISTED: usize = 10;

/// A task with its data.
#[derive(Debug)]
pub(crate) enum OpenTask {
    ZeroShot {
        /// Holds one folder per class.
        root: PathBuf,
        images: Arc<Vec<ImageRef>>,
        labels: Vec<usize>,
        classes: Vec<String>,
        templates: Vec<String>,
        /// Files in the class folders that are no images.
        left_out: LeftOut,
    },
    Retrieval(Arc<Dataset>),
    Loss {
        dataset: Arc<Dataset>,
        pool_size: usize,
        objective: Objective,
    },
}

impl OpenTask {
    /// Reads the folder of classes at `path`, and the files of class names and templates, if given.
    ///
    /// # Errors
    /// [`TrainError::Usage`], [`TrainError::Data`] or [`TrainError::Read`] when one is missing, empty or malformed.
    pub fn zero_shot(path: &Path, classnames: Option<&Path>, templates: Option<&Path>) -> Result<Self, TrainError> {
        let folder = class_folder(path)?;
        let classes = match classnames {
            Some(names) => class_names(names, path, folder.classes.len())?,
            None => folder.classes,
        };
        let templates = match templates {
            Some(path) => read_templates(path)?,
            None => vec![CLASS_PLACEHOLDER.to_owned()],
        };
        let (images, labels) = folder.images.into_iter().unzip();
        let (root, images, left_out) = (path.to_owned(), Arc::new(images), folder.left_out);
        Ok(Self::ZeroShot { root, images, labels, classes, templates, left_out })
    }

    /// What may make its figures other than the model is.
    pub fn warnings(&self) -> Vec<String> {
        let Self::ZeroShot { classes, root, left_out, .. } = self else {
            let of = |dataset: &Dataset| dataset.warnings.iter().cloned().chain(dataset.null_words()).collect();
            return self.dataset().map_or(Vec::new(), of);
        };
        let left_out = left_out.describe().map(|files| format!("`{}`: {files}", root.display()));
        let repeated = repeated_names(classes);
        let shown: Vec<String> = repeated.iter().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
        let more = if repeated.len() > MAX_LISTED { ", .." } else { "" };
        let repeated = (!repeated.is_empty()).then(|| {
            format!(
                "several classes have the same name, so that no model can tell them apart: {}{more}; give them \
                 different names with `classnames`",
                shown.join(", ")
            )
        });
        left_out.into_iter().chain(repeated).collect()
    }

    /// What is measured.
    pub fn task(&self) -> Task {
        match self {
            Self::ZeroShot { .. } => Task::ZeroShot,
            Self::Retrieval(_) => Task::Retrieval,
            Self::Loss { .. } => Task::Loss,
        }
    }

    /// Its pairs, unless it classifies.
    pub fn dataset(&self) -> Option<&Dataset> {
        match self {
            Self::ZeroShot { .. } => None,
            Self::Retrieval(dataset) | Self::Loss { dataset, .. } => Some(dataset),
        }
    }

    /// The images it encodes.
    pub fn images(&self) -> Arc<dyn ImageList> {
        match self {
            Self::ZeroShot { images, .. } => Arc::clone(images) as Arc<dyn ImageList>,
            Self::Retrieval(dataset) | Self::Loss { dataset, .. } => Arc::clone(dataset) as Arc<dyn ImageList>,
        }
    }

    /// The texts it encodes: prompts or captions.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::ZeroShot { classes, templates, .. } => prompts(classes, templates),
            Self::Retrieval(dataset) | Self::Loss { dataset, .. } => {
                dataset.captions().map(|caption| caption.text.to_owned()).collect()
            }
        }
    }

    /// The missing and empty files, in the order of the images; no image is decoded.
    ///
    /// # Errors
    /// [`TrainError::Data`] when the system cannot tell the length of a file.
    pub fn absent(&self) -> Result<Vec<Skipped>, TrainError> {
        let survey = match self {
            Self::ZeroShot { root, images, labels, .. } => labelled(root, images, labels).survey()?,
            Self::Retrieval(dataset) | Self::Loss { dataset, .. } => dataset.survey()?,
        };
        Ok(survey.absent)
    }

    /// What is measured, as a hash.
    ///
    /// # Errors
    /// [`TrainError::Data`] when the size of an image cannot be read.
    pub fn fingerprint(&self) -> Result<String, TrainError> {
        let new = Fingerprint::new(self.task().name());
        let new = match self {
            Self::ZeroShot { root, images, labels, classes, templates, .. } => {
                let data = labelled(root, images, labels).fingerprint()?;
                new.bytes("data", &data).texts("classes", classes).texts("templates", templates)
            }
            Self::Retrieval(dataset) => {
                let new = new.bytes("data", &dataset.fingerprint()?);
                // Figures of earlier versions are comparable unless images share a caption.
                if has_shared_captions(dataset) { new.text("equal_captions", "one") } else { new }
            }
            Self::Loss { dataset, pool_size, objective } => {
                // The task does not smooth labels.
                let Objective { loss, duplicates, label_smoothing: _ } = objective;
                let loss = match loss {
                    Loss::Softmax => "softmax",
                    Loss::Sigmoid => "sigmoid",
                };
                let duplicates = match duplicates {
                    Duplicates::Positives => "positives",
                    Duplicates::Mask => "mask",
                    Duplicates::Ignore => "ignore",
                };
                let new = new.bytes("data", &dataset.fingerprint()?).text("pool_size", &pool_size.to_string());
                new.text("loss", loss).text("duplicates", duplicates)
            }
        };
        Ok(new.finish())
    }
}

/// Whether a caption belongs to several images.
fn has_shared_captions(dataset: &Dataset) -> bool {
    let mut image_of = HashMap::new();
    let image = |caption: usize| dataset.caption(caption).image;
    (0..dataset.num_captions()).any(|it| *image_of.entry(dataset.caption_id(it)).or_insert(image(it)) != image(it))
}

/// The images of a task with their labels as captions.
fn labelled(root: &Path, images: &[ImageRef], labels: &[usize]) -> Dataset {
    let mut data = DatasetBuilder::new(root);
    for (image, label) in images.iter().zip(labels) {
        data.push(image.clone(), &label.to_string());
    }
    data.build()
}

fn class_names(path: &Path, images: &Path, num_folders: usize) -> Result<Vec<String>, TrainError> {
    let names = read_class_names(path)?;
    if names.len() == num_folders {
        return Ok(names);
    }
    Err(TrainError::Usage(format!(
        "`{}` has {} class names, but `{}` has {num_folders} class folders; expected one name per line, in the sorted \
         order of the folders",
        path.display(),
        names.len(),
        images.display(),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero_shot(root: &Path, classes: &[&str], labels: &[usize], template: &str) -> OpenTask {
        OpenTask::ZeroShot {
            root: root.to_owned(),
            images: Arc::new(["a.png", "b.png"].map(|name| ImageRef::File(root.join(name))).to_vec()),
            labels: labels.to_vec(),
            classes: classes.iter().map(|&class| class.to_owned()).collect(),
            templates: vec![template.to_owned()],
            left_out: LeftOut::default(),
        }
    }

    fn dataset(root: &Path, captions: [&str; 2]) -> Arc<Dataset> {
        let mut data = DatasetBuilder::new(root);
        for (image, caption) in ["a.png", "b.png"].into_iter().zip(captions) {
            data.push(ImageRef::File(root.join(image)), caption);
        }
        Arc::new(data.build())
    }

    #[test]
    fn fingerprint_covers_every_part() {
        let folder = |bytes: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            for image in ["a.png", "b.png"] {
                std::fs::write(dir.path().join(image), bytes).unwrap();
            }
            dir
        };
        let (dir, moved, grown) = (folder(b"12"), folder(b"34"), folder(b"123"));
        let loss = |root: &Path, pool_size, objective| OpenTask::Loss {
            dataset: dataset(root, ["x", "y"]),
            pool_size,
            objective,
        };
        let (root, default) = (dir.path(), Objective::default());
        let same = [
            [zero_shot(root, &["x", "y"], &[0, 1], "{c}"), zero_shot(moved.path(), &["x", "y"], &[0, 1], "{c}")],
            [OpenTask::Retrieval(dataset(root, ["x", "y"])), OpenTask::Retrieval(dataset(moved.path(), ["x", "y"]))],
            [loss(root, 2, default), loss(moved.path(), 2, Objective { label_smoothing: 0.1, ..default })],
        ];
        for [one, other] in &same {
            assert_eq!(one.fingerprint().unwrap(), other.fingerprint().unwrap(), "moving the data changes nothing");
        }
        let others = [
            zero_shot(root, &["x", "z"], &[0, 1], "{c}"),
            zero_shot(root, &["x", "y"], &[1, 0], "{c}"),
            zero_shot(root, &["x", "y"], &[0, 1], "a {c}"),
            zero_shot(grown.path(), &["x", "y"], &[0, 1], "{c}"),
            OpenTask::Retrieval(dataset(root, ["x", "z"])),
            OpenTask::Retrieval(dataset(grown.path(), ["x", "y"])),
            loss(root, 3, default),
            loss(grown.path(), 2, default),
            loss(root, 2, Objective { loss: Loss::Sigmoid, ..default }),
            loss(root, 2, Objective { duplicates: Duplicates::Mask, ..default }),
        ];
        let mut all: Vec<String> =
            same.iter().map(|[one, _]| one).chain(&others).map(|task| task.fingerprint().unwrap()).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
