//! The data of an evaluation, read and checked.

use std::collections::HashMap;
use std::sync::Arc;

use dualenc_data::{Dataset, Skipped};
use dualenc_model::{DualEncoder, Tower};

use crate::config::{Duplicates, Loss, Task};
use crate::error::TrainError;
use crate::eval::fingerprint::Fingerprint;
use crate::eval::given_by::GivenBy;
use crate::eval::labelled_images::LabelledImages;
use crate::eval::probes::probe_data::ProbeData;
use crate::features::absent::{check_side, image_side, text_side};
use crate::features::image_index::ImageList;
use crate::loss::contrastive::Objective;

/// A task with its data.
#[derive(Debug)]
pub(crate) enum OpenTask {
    ZeroShot(LabelledImages),
    Probe(ProbeData),
    Retrieval(Arc<Dataset>),
    Loss { dataset: Arc<Dataset>, pool_size: usize, objective: Objective },
}

impl OpenTask {
    /// What may make its figures other than the model is.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::ZeroShot(images) => images.warnings(),
            Self::Probe(probe) => probe.warnings(),
            Self::Retrieval(dataset) | Self::Loss { dataset, .. } => {
                let all = dataset.warnings.iter().cloned().chain(dataset.null_words());
                all.chain(one_answer(dataset).filter(|_| matches!(self, Self::Retrieval(_)))).collect()
            }
        }
    }

    /// What is measured.
    pub fn task(&self) -> Task {
        match self {
            Self::ZeroShot(_) => Task::ZeroShot,
            Self::Probe(probe) => probe.task(),
            Self::Retrieval(_) => Task::Retrieval,
            Self::Loss { .. } => Task::Loss,
        }
    }

    /// Its images, with captions, or with the numbers of their classes.
    pub fn data(&self) -> &Arc<Dataset> {
        match self {
            Self::ZeroShot(LabelledImages { data, .. }) | Self::Probe(ProbeData { data, .. }) => data,
            Self::Retrieval(dataset) | Self::Loss { dataset, .. } => dataset,
        }
    }

    /// Its pairs, unless it classifies.
    pub fn dataset(&self) -> Option<&Dataset> {
        match self {
            Self::ZeroShot(_) | Self::Probe(_) => None,
            Self::Retrieval(dataset) | Self::Loss { dataset, .. } => Some(dataset),
        }
    }

    /// The images it encodes.
    pub fn images(&self) -> Arc<dyn ImageList> {
        Arc::clone(self.data()) as Arc<dyn ImageList>
    }

    /// Refuses data that the towers of `model` cannot take. `what`: the data, in words.
    ///
    /// # Errors
    /// [`TrainError::Usage`].
    pub fn check_towers(&self, model: &DualEncoder, what: &str) -> Result<(), TrainError> {
        check_side(Tower::Image, image_side(model), self.data().image_feature_width(), what)?;
        let text = match self {
            Self::ZeroShot(images) => images.class_rows.as_ref().map(|rows| rows.table.width()),
            Self::Probe(_) => return Ok(()),
            Self::Retrieval(dataset) | Self::Loss { dataset, .. } => dataset.text_feature_width(),
        };
        check_side(Tower::Text, text_side(model), text, what)
    }

    /// The texts it encodes: prompts or captions; none where it has features of them.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::ZeroShot(images) if images.class_rows.is_some() => Vec::new(),
            Self::Retrieval(dataset) | Self::Loss { dataset, .. } if dataset.text_feature_width().is_some() => {
                Vec::new()
            }
            Self::ZeroShot(images) => images.prompts().concat(),
            Self::Probe(_) => Vec::new(),
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
        Ok(self.data().survey()?.absent)
    }

    /// What is measured, as a hash.
    ///
    /// # Errors
    /// [`TrainError::Data`] when the size of an image cannot be read.
    pub fn fingerprint(&self) -> Result<String, TrainError> {
        let new = Fingerprint::new(self.task().name());
        let new = match self {
            Self::ZeroShot(images) => images.add_to(new)?,
            Self::Probe(probe) => probe.add_to(new)?,
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

/// The warning that there is one image or one caption only, so that nothing can be confused with it.
fn one_answer(dataset: &Dataset) -> Option<String> {
    let first = dataset.num_captions().checked_sub(1).map(|_| dataset.caption_id(0));
    let what = if dataset.num_images() == 1 {
        "there is one image"
    } else if (0..dataset.num_captions()).all(|caption| Some(dataset.caption_id(caption)) == first) {
        "all captions are equal"
    } else {
        return None;
    };
    Some(format!("{what}, so every answer is right: the figures tell nothing; add other pairs"))
}

/// Whether a caption belongs to several images.
fn has_shared_captions(dataset: &Dataset) -> bool {
    let mut image_of = HashMap::new();
    let image = |caption: usize| dataset.caption(caption).image;
    (0..dataset.num_captions()).any(|it| *image_of.entry(dataset.caption_id(it)).or_insert(image(it)) != image(it))
}

/// Refuses pools that are larger than the data.
pub(crate) fn check_pool_size(
    name: &str,
    num_pairs: usize,
    pool_size: usize,
    given_by: GivenBy,
) -> Result<(), TrainError> {
    if num_pairs >= pool_size {
        return Ok(());
    }
    let way_out = match num_pairs {
        // A pair has no negatives in a pool of its own.
        0 | 1 => "add data".to_owned(),
        _ => format!("set {} to at most {num_pairs}, or add data", given_by.name("pool_size")),
    };
    Err(TrainError::Usage(format!(
        "evaluation `{name}`: {} fill one pool of {pool_size}; {way_out}",
        if num_pairs == 1 { "1 pair does not".to_owned() } else { format!("{num_pairs} pairs do not") }
    )))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use dualenc_data::{ClassLabels, DatasetBuilder, ImageRef};

    use super::*;

    fn zero_shot(root: &Path, classes: &[&str], labels: &[usize], template: &str) -> OpenTask {
        let mut data = DatasetBuilder::new(root);
        for (image, label) in ["a.png", "b.png"].into_iter().zip(labels) {
            data.push(ImageRef::File(root.join(image)), &label.to_string());
        }
        let names: Vec<Vec<String>> = classes.iter().map(|&class| vec![class.to_owned()]).collect();
        let labels = ClassLabels::new(names.concat(), labels.iter().map(|&label| vec![label]));
        let templates = root.join(format!("{}.txt", template.len()));
        fs::write(&templates, template).unwrap();
        OpenTask::ZeroShot(LabelledImages::new(data.build(), labels, names, Some(&templates)).unwrap())
    }

    fn dataset(root: &Path, captions: [&str; 2]) -> Arc<Dataset> {
        let mut data = DatasetBuilder::new(root);
        for (image, caption) in ["a.png", "b.png"].into_iter().zip(captions) {
            data.push(ImageRef::File(root.join(image)), caption);
        }
        Arc::new(data.build())
    }

    #[test]
    fn single_answers_are_warned_of() {
        let root = Path::new("/data");
        let warned = |task: OpenTask| task.warnings().iter().any(|it| it.contains("so every answer is right"));
        assert!(warned(OpenTask::Retrieval(dataset(root, ["x", "x"]))));
        assert!(!warned(OpenTask::Retrieval(dataset(root, ["x", "y"]))));
        let mut one = DatasetBuilder::new(root);
        for caption in ["x", "y"] {
            one.push(ImageRef::File(root.join("a.png")), caption);
        }
        assert!(warned(OpenTask::Retrieval(Arc::new(one.build()))));
        let dir = tempfile::tempdir().unwrap();
        assert!(warned(zero_shot(dir.path(), &["x"], &[0, 0], "{c}")));
        assert!(!warned(zero_shot(dir.path(), &["x", "y"], &[0, 1], "{c}")));
    }

    #[test]
    fn fingerprint_covers_every_part() {
        let folder = |bytes: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            for image in ["a.png", "b.png"] {
                fs::write(dir.path().join(image), bytes).unwrap();
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
