//! Captions that are class names, as numbers.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;

use crate::dataset::Dataset;
use crate::dataset::captions::{Caption, CaptionTable};
use crate::dataset::label_readings::{Digits, LabelReadings, Undecided};
use crate::dataset::part::Part;
use crate::error::DataError;

/// The classes of labelled images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassLabels {
    /// The names of the classes.
    pub names: Vec<String>,
    /// The classes of image `i` are `of_image[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
    of_image: Vec<usize>,
}

impl ClassLabels {
    /// Labels by image: ascending numbers of its classes.
    #[must_use]
    pub fn new(names: Vec<String>, labels: impl Iterator<Item = Vec<usize>>) -> Self {
        let mut all = Self { names, ..Self::default() };
        for mut labels in labels {
            labels.sort_unstable();
            labels.dedup();
            all.of_image.extend(labels);
            all.ends.push(all.of_image.len());
        }
        all
    }

    /// The classes of an image, ascending.
    #[must_use]
    pub fn of(&self, image: usize) -> &[usize] {
        &self.of_image[self.range(image)]
    }

    fn range(&self, image: usize) -> Range<usize> {
        image.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[image]
    }

    /// Number of images.
    #[must_use]
    pub fn num_images(&self) -> usize {
        self.ends.len()
    }

    /// Whether an image has several classes.
    #[must_use]
    pub fn has_several(&self) -> bool {
        self.of_image.len() > self.ends.len()
    }

    /// Number of images of each class.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.names.len()];
        self.of_image.iter().for_each(|&class| sizes[class] += 1);
        sizes
    }
}

impl Dataset {
    /// The captions as names of classes. The classes are those that the sources list, in their order, and else the
    /// distinct captions, sorted byte by byte.
    #[must_use]
    pub fn class_labels(&self) -> ClassLabels {
        let mut names: Vec<String> = Vec::new();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut add = |name: &str| {
            if !numbers.contains_key(name) {
                numbers.insert(name.to_owned(), names.len());
                names.push(name.to_owned());
            }
        };
        self.parts().iter().flat_map(|part| &part.class_names).for_each(|name| add(name));
        let found: BTreeSet<&str> = self.captions().map(|caption| caption.text).collect();
        found.into_iter().for_each(add);
        let number = |&caption: &u32| numbers[self.caption(caption as usize).text];
        let labels = (0..self.num_images()).map(|image| self.captions_of(image).iter().map(number).collect());
        ClassLabels::new(names, labels)
    }

    /// The captions as numbers or names of the classes `names`, which may repeat a name if no caption is that name.
    ///
    /// # Errors
    /// [`DataError::Loader`] for a caption that is neither the number nor the name of one class, and for captions of
    /// digits that could be numbers or names of other classes, if no caption has one reading alone.
    pub fn class_labels_of(&self, names: &[String]) -> Result<ClassLabels, DataError> {
        let (readings, digits) = self.readings(names)?;
        let number = |image: usize, caption: u32| {
            let label = self.caption(caption as usize).text;
            readings.number(label, digits).map_err(|problem| self.wrong_label(image, label, &problem))
        };
        let of_image = |image: usize| self.captions_of(image).iter().map(|&caption| number(image, caption)).collect();
        let labels = (0..self.num_images()).map(of_image).collect::<Result<Vec<Vec<usize>>, DataError>>()?;
        Ok(ClassLabels::new(names.to_vec(), labels.into_iter()))
    }

    /// The same images with the names of their classes as captions. Captions are 0-based class numbers, or names.
    ///
    /// # Errors
    /// As for [`Dataset::class_labels_of`], but several classes may have a name that is a caption.
    pub fn with_class_names(self, names: &[String]) -> Result<Self, DataError> {
        let (readings, digits) = self.readings(names)?;
        let mut captions = CaptionTable::default();
        for caption in self.captions() {
            let name = readings.name(caption.text, digits);
            let text = name.map_err(|problem| self.wrong_label(caption.image, caption.text, &problem))?;
            captions.push(Caption { text, ..caption });
        }
        captions.shrink();
        Ok(Self { captions, known: None, ..self }.with_classes(names))
    }

    /// What the captions say of labels for the classes `names`.
    fn readings(&self, names: &[String]) -> Result<(LabelReadings, Digits), DataError> {
        let mut readings = LabelReadings::new(names);
        self.captions().for_each(|caption| readings.note(caption.text));
        let digits = readings.digits().map_err(|Undecided { label, problem }| {
            let first = self.captions().find(|caption| caption.text == label);
            self.wrong_label(first.map_or(0, |caption| caption.image), &label, &problem)
        })?;
        Ok((readings, digits))
    }

    fn wrong_label(&self, image: usize, label: &str, problem: &str) -> DataError {
        let key = self.image(image).key();
        DataError::Loader { reason: format!("image `{key}` has the label `{label}`; {problem}") }
    }

    /// The same images with the numbers of their classes as captions, ascending.
    #[must_use]
    pub fn with_labels(&self, labels: &ClassLabels) -> Self {
        let (mut captions, mut parts) = (CaptionTable::default(), Vec::new());
        for part in self.parts() {
            let first = captions.len();
            for image in part.images.clone() {
                for class in labels.of(image) {
                    captions.push(Caption { text: &class.to_string(), image, slot: 0, features: None });
                }
            }
            parts.push(Part { captions: first..captions.len(), ..part.clone() });
        }
        self.with_captions(captions, parts)
    }

    /// Whether every caption is a number.
    #[must_use]
    pub fn has_numbers_as_captions(&self) -> bool {
        self.captions().all(|caption| caption.text.parse::<u64>().is_ok())
    }

    /// The directories that the sources are relative to.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        self.parts().iter().map(|part| part.root.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::builder::DatasetBuilder;
    use crate::images::location::ImageRef;

    fn dataset(rows: &[(&str, &str)]) -> Dataset {
        let mut builder = DatasetBuilder::new("");
        rows.iter().for_each(|(image, caption)| {
            builder.push(ImageRef::File(image.into()), caption);
        });
        builder.build()
    }

    #[test]
    fn classes_are_sorted_captions() {
        let labels = dataset(&[("1", "owl"), ("2", "cat"), ("3", "owl")]).class_labels();
        assert_eq!(labels.names, ["cat", "owl"]);
        assert_eq!((labels.of(0), labels.of(1), labels.of(2)), (&[1][..], &[0][..], &[1][..]));
        assert_eq!((labels.has_several(), labels.sizes(), labels.num_images()), (false, vec![1, 2], 3));
    }

    #[test]
    fn listed_classes_hold_their_order() {
        let names = ["owl".to_owned(), "bee".to_owned(), "cat".to_owned()];
        let data = dataset(&[("1", "0"), ("2", "2"), ("1", "2"), ("1", "0")]).with_class_names(&names).unwrap();
        let labels = Dataset::concat(vec![data]).class_labels();
        assert_eq!(labels.names, names);
        assert_eq!((labels.of(0), labels.of(1)), (&[0, 2][..], &[2][..]));
        assert!(labels.has_several());
        assert_eq!(labels.sizes(), [1, 0, 2]);
    }

    #[test]
    fn labels_are_numbers_or_names() {
        let names = ["crane", "bee", "crane"].map(str::to_owned);
        let labels = dataset(&[("1", "2"), ("2", "bee"), ("3", "0")]).class_labels_of(&names).unwrap();
        assert_eq!((labels.of(0), labels.of(1), labels.of(2)), (&[2][..], &[1][..], &[0][..]));
        let error = |label| dataset(&[("x", label)]).class_labels_of(&names).unwrap_err().to_string();
        assert!(error("crane").contains("`x` has the label `crane`; several classes have this name"));
        assert!(error("3").contains("expected a number from 0 to 2, or one of the 3 class names"));
        assert!(error("wasp").contains("expected a number from 0 to 2"));
    }

    #[test]
    fn digits_are_never_guessed() {
        let names = ["1", "2", "3", "4", "5", "6"].map(str::to_owned);
        let labels = |rows: &[(&str, &str)]| dataset(rows).class_labels_of(&names).map_err(|error| error.to_string());
        let named = |rows: &[(&str, &str)]| dataset(rows).with_class_names(&names).map_err(|error| error.to_string());
        let expected = "image `y` has the label `2`; as a number, counted from 0, it is the class `3`, and as a name \
                        it is that of class 1; to mean numbers";
        let either = [("y", "2"), ("z", "3")];
        assert!(labels(&either).unwrap_err().contains(expected) && named(&either).unwrap_err().contains(expected));
        // 6 is the number of no class, and 0 the name of none.
        for (rows, class, name) in
            [([("x", "2"), ("y", "6")], 1, "2"), ([("x", "2"), ("y", "0")], 2, "3"), ([("x", "6"), ("y", "6")], 5, "6")]
        {
            assert_eq!(labels(&rows).unwrap().of(0), [class]);
            assert_eq!(named(&rows).unwrap().caption(0).text, name);
        }
    }

    #[test]
    fn numbers_take_the_place_of_names() {
        let data = dataset(&[("1", "owl"), ("2", "cat"), ("1", "ape")]);
        let numbered = data.with_labels(&data.class_labels());
        let rows: Vec<_> = numbered.captions().map(|caption| (caption.image, caption.text.to_owned())).collect();
        assert_eq!(rows, [(0, "0".to_owned()), (0, "2".to_owned()), (1, "1".to_owned())]);
        assert_eq!(numbered.captions_of(1), [2]);
        assert!(numbered.has_numbers_as_captions() && !data.has_numbers_as_captions());
    }
}
