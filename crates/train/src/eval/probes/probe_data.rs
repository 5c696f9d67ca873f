//! The data of a probe: labelled images, each on the train or the test side.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dualenc_data::{ClassLabels, ContentId, Dataset, counted, mix};

use crate::config::{EvalSection, Task};
use crate::error::TrainError;
use crate::eval::fingerprint::Fingerprint;
use crate::eval::given_by::GivenBy;
use crate::eval::labelled_images::{LabelledImages, one_class};

/// Seed of the split, if no train side is given (ASCII `probe`).
const SEED: u64 = 0x70_726f_6265;

/// Which classifier is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    /// The votes of this many neighbours.
    Neighbors(usize),
    /// A linear classifier.
    Linear,
}

/// Labelled images on two sides.
#[derive(Debug)]
pub(crate) struct ProbeData {
    pub kind: ProbeKind,
    /// The images of both sides, with the numbers of their classes as captions.
    pub data: Arc<Dataset>,
    /// The class of each image.
    pub labels: Vec<usize>,
    pub classes: Vec<String>,
    /// Whether an image is on the train side.
    pub is_train: Vec<bool>,
    /// Whether the sides are halves of the same data.
    pub is_split: bool,
    warnings: Vec<String>,
}

/// Images of the two sides that can be used: their places among all that can be used.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sides {
    pub train: Vec<usize>,
    pub test: Vec<usize>,
    /// Images that would be on the train side, if no image of the test side had the same bytes.
    pub copies: Vec<usize>,
}

impl ProbeData {
    /// Reads the sides of `[eval.NAME]`; `None` if it names no data. `validation`: labelled pairs to use then.
    ///
    /// # Errors
    /// As for [`LabelledImages::open`]; [`TrainError::Usage`] when an image has several classes, or the train side
    /// lacks a class.
    pub fn open(
        name: &str,
        section: &EvalSection,
        validation: Option<&Arc<Dataset>>,
        given_by: GivenBy,
    ) -> Result<Option<Self>, TrainError> {
        let kind = match section.task {
            Task::Knn => ProbeKind::Neighbors(section.neighbors()),
            _ => ProbeKind::Linear,
        };
        let Some(test) = LabelledImages::open(section, validation)? else { return Ok(None) };
        let test_labels = single(name, &test.labels)?;
        if section.train_images.is_none() && section.train_data.is_none() {
            return Self::split(name, kind, &test, test_labels, given_by).map(Some);
        }
        let (images, data) = (section.train_images.clone(), section.train_data.clone());
        let train_section = EvalSection { images, data, image_features: None, labels: None, ..section.clone() };
        let train = LabelledImages::open(&train_section, None)?
            .ok_or_else(|| TrainError::Internal("a train side without data".to_owned()))?;
        let mut classes = test.labels.names.clone();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for (number, class) in classes.iter().enumerate() {
            numbers.entry(class.clone()).or_insert(number);
        }
        // With a list of class names, both sides have its numbers, and names may repeat.
        let same_numbers = train.labels.names == test.labels.names;
        let mut number_of = |class: usize| {
            let name = &train.labels.names[class];
            if same_numbers {
                return class;
            }
            *numbers.entry(name.clone()).or_insert_with(|| {
                classes.push(name.clone());
                classes.len() - 1
            })
        };
        let train_labels: Vec<usize> = single(name, &train.labels)?.into_iter().map(&mut number_of).collect();
        check_classes(name, &classes, &train_labels, &test_labels, given_by)?;
        let is_train = [vec![true; train_labels.len()], vec![false; test_labels.len()]].concat();
        let data = Dataset::concat(vec![Dataset::clone(&train.data), Dataset::clone(&test.data)]);
        let labels = [train_labels, test_labels].concat();
        Ok(Some(Self { kind, data: Arc::new(data), labels, classes, is_train, is_split: false, warnings: Vec::new() }))
    }

    /// Halves each class. The odd image, and so the only one of a class, is on the train side.
    fn split(
        name: &str,
        kind: ProbeKind,
        all: &LabelledImages,
        labels: Vec<usize>,
        given_by: GivenBy,
    ) -> Result<Self, TrainError> {
        let classes = all.labels.names.clone();
        let is_train = halves(&labels, classes.len());
        let num_train = is_train.iter().filter(|&&is_train| is_train).count();
        let keys = (given_by.name("train_images"), given_by.name("train_data"));
        if num_train == labels.len() {
            return Err(TrainError::Usage(format!(
                "evaluation `{name}`: no class has two images, one to learn from and one to test; name the images to \
                 learn from with {} or {}",
                keys.0, keys.1
            )));
        }
        let mut data = Dataset::clone(&all.data);
        data.notes.push(format!(
            "the labelled data are split: half of each class, {}, is learned from, and the other {} are tested; name \
             other images to learn from with {} or {}",
            counted(num_train, "image"),
            labels.len() - num_train,
            keys.0,
            keys.1
        ));
        let alone = all.labels.sizes().into_iter().filter(|&images| images == 1).count();
        let warnings = match alone {
            0 => Vec::new(),
            _ => vec![format!(
                "{alone} of {} classes have one image, which is learned from, so that none is tested; means over the \
                 classes leave them out",
                classes.len()
            )],
        };
        Ok(Self { kind, data: Arc::new(data), labels, classes, is_train, is_split: true, warnings })
    }

    /// What may make the figures other than the model is.
    pub fn warnings(&self) -> Vec<String> {
        let all = self.data.warnings.iter().chain(&self.warnings).cloned();
        all.chain(one_class(&self.classes)).collect()
    }

    /// The task that it is for.
    pub fn task(&self) -> Task {
        match self.kind {
            ProbeKind::Neighbors(_) => Task::Knn,
            ProbeKind::Linear => Task::LinearProbe,
        }
    }

    /// Number of test images of each class.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.classes.len()];
        let test = self.labels.iter().zip(&self.is_train).filter(|(_, is_train)| !**is_train);
        test.for_each(|(&label, _)| sizes[label] += 1);
        sizes
    }

    /// The sides of the images that can be used. `numbers`: of these images; `contents`: what their files hold.
    pub fn sides(&self, numbers: &[usize], contents: &[ContentId]) -> Sides {
        let tested: HashSet<&ContentId> =
            numbers.iter().zip(contents).filter(|(image, _)| !self.is_train[**image]).map(|(_, it)| it).collect();
        let mut sides = Sides::default();
        for (place, (&image, content)) in numbers.iter().zip(contents).enumerate() {
            match (self.is_train[image], tested.contains(content)) {
                (false, _) => sides.test.push(place),
                (true, false) => sides.train.push(place),
                (true, true) => sides.copies.push(place),
            }
        }
        sides
    }

    /// Refuses images that can be used of which none is tested, or a class that is tested has none to learn from.
    /// `copies`: images of the train side that have the bytes of a tested one.
    ///
    /// # Errors
    /// [`TrainError::Usage`].
    pub fn check(
        &self,
        name: &str,
        (train, copies): (&[usize], &[usize]),
        test: &[usize],
        given_by: GivenBy,
    ) -> Result<(), TrainError> {
        let labels = |images: &[usize]| images.iter().map(|&image| self.labels[image]).collect::<Vec<_>>();
        if test.is_empty() {
            return Err(TrainError::Usage(format!("evaluation `{name}`: no image of the test side can be used")));
        }
        let (learned, test, copied) = (labels(train), labels(test), labels(copies));
        let lacking = |class: &&usize| test.contains(class) && !learned.contains(class);
        if let Some(&class) = copied.iter().find(lacking) {
            return Err(TrainError::Usage(format!(
                "evaluation `{name}`: of the class `{}`, the train side has only copies of tested images, which are \
                 not learned from; add other images of it to {} or {}",
                self.classes[class],
                given_by.name("train_images"),
                given_by.name("train_data"),
            )));
        }
        check_classes(name, &self.classes, &learned, &test, given_by)
    }

    /// Adds what is measured to a fingerprint.
    ///
    /// # Errors
    /// [`TrainError::Data`] when the size of an image cannot be read.
    pub fn add_to(&self, fingerprint: Fingerprint) -> Result<Fingerprint, TrainError> {
        let sides: Vec<u8> = self.is_train.iter().map(|&is_train| u8::from(is_train)).collect();
        let fingerprint = fingerprint.bytes("data", &self.data.fingerprint()?).texts("classes", &self.classes);
        let fingerprint = fingerprint.bytes("sides", &sides);
        Ok(match self.kind {
            ProbeKind::Neighbors(neighbors) => fingerprint.text("neighbors", &neighbors.to_string()),
            ProbeKind::Linear => fingerprint,
        })
    }
}

/// Which images are on the train side: half of each class, and the odd one.
fn halves(labels: &[usize], num_classes: usize) -> Vec<bool> {
    let mut of_class = vec![Vec::new(); num_classes];
    labels.iter().enumerate().for_each(|(image, &label)| of_class[label].push(image));
    let mut is_train = vec![false; labels.len()];
    for mut images in of_class {
        images.sort_by_key(|&image| mix(SEED, &[image as u64]));
        images.iter().take(images.len().div_ceil(2)).for_each(|&image| is_train[image] = true);
    }
    is_train
}

/// The class of each image.
fn single(name: &str, labels: &ClassLabels) -> Result<Vec<usize>, TrainError> {
    let class = |image: usize| match labels.of(image) {
        [class] => Ok(*class),
        several => Err(TrainError::Usage(format!(
            "evaluation `{name}`: an image has {} classes; a probe needs one class an image: remove the other rows",
            several.len()
        ))),
    };
    (0..labels.num_images()).map(class).collect()
}

fn check_classes(
    name: &str,
    classes: &[String],
    train: &[usize],
    test: &[usize],
    given_by: GivenBy,
) -> Result<(), TrainError> {
    let learned: HashSet<usize> = train.iter().copied().collect();
    let mut lacking: Vec<usize> = test.iter().copied().filter(|class| !learned.contains(class)).collect();
    lacking.sort_unstable();
    lacking.dedup();
    let Some(&first) = lacking.first() else { return Ok(()) };
    let more = match lacking.len() - 1 {
        0 => String::new(),
        1 => " and of another class".to_owned(),
        others => format!(" and of {others} other classes"),
    };
    Err(TrainError::Usage(format!(
        "evaluation `{name}`: the train side has no usable image of the class `{}`{more}, which {} tested; add images \
         to {} or {}, or name classes alike on both sides",
        classes[first],
        if lacking.len() == 1 { "is" } else { "are" },
        given_by.name("train_images"),
        given_by.name("train_data"),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_every_class() {
        let labels: Vec<usize> = (0..40).map(|image| image % 3).chain([3]).collect();
        let is_train = halves(&labels, 4);
        let count = |class| is_train.iter().zip(&labels).filter(|(train, label)| **train && **label == class).count();
        assert_eq!([0, 1, 2, 3].map(count), [7, 7, 7, 1]);
        assert_eq!(halves(&labels, 4), is_train, "the same each time");
        assert!(is_train.iter().take(20).any(|train| *train) && is_train.iter().take(20).any(|train| !train));
    }

    #[test]
    fn classes_to_learn_from_are_checked() {
        let classes = ["red".to_owned(), "blue".to_owned()];
        check_classes("x", &classes, &[0, 1], &[1], GivenBy::Config).unwrap();
        let error = check_classes("x", &classes, &[0], &[1, 1, 0], GivenBy::Config).unwrap_err().to_string();
        assert!(error.contains("no usable image of the class `blue`, which is tested"), "{error}");
    }
}
