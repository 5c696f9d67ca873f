//! Refuses evaluations without enough images or pairs.

use std::collections::HashSet;

use dualenc_data::{Skipped, counted};

use crate::error::TrainError;
use crate::eval::evaluation::Evaluation;
use crate::eval::labelled_images::LabelledImages;
use crate::eval::open_task::{OpenTask, check_pool_size};

/// Unreadable images that an error names.
const NAMED_IMAGES: usize = 10;

impl Evaluation {
    /// Looks for missing and empty files, and checks that enough images remain; no image is decoded.
    ///
    /// # Errors
    /// As for [`Evaluation::run`], of the images.
    pub(crate) fn check_files(&self) -> Result<(), TrainError> {
        let absent = self.task.absent()?;
        if absent.is_empty() {
            return Ok(());
        }
        self.check_unreadable(self.images().num_images(), &absent)?;
        let numbers: HashSet<usize> = absent.iter().map(|skipped| skipped.image).collect();
        self.check_usable(|image| !numbers.contains(&image))
    }

    /// Checks that enough images remain of those for which `is_usable` is true.
    ///
    /// # Errors
    /// [`TrainError::Usage`] as for [`Evaluation::run`]: without an image, with a class without one, or with too few
    /// pairs for one pool.
    pub(crate) fn check_usable(&self, is_usable: impl Fn(usize) -> bool) -> Result<(), TrainError> {
        let total = self.images().num_images();
        if !(0..total).any(&is_usable) {
            return Err(TrainError::Usage(format!(
                "evaluation `{}`: none of {} can be used",
                self.name,
                counted(total, "image")
            )));
        }
        match &self.task {
            OpenTask::ZeroShot(images) => self.check_classes(images, &is_usable),
            OpenTask::Probe(probe) => {
                let (train, test): (Vec<usize>, Vec<usize>) =
                    (0..total).filter(|&image| is_usable(image)).partition(|&image| probe.is_train[image]);
                probe.check(&self.name, (&train, &[]), &test, self.given_by)
            }
            OpenTask::Loss { dataset, pool_size, .. } => {
                let usable = dataset.captions().filter(|caption| is_usable(caption.image));
                check_pool_size(&self.name, usable.count(), *pool_size, self.given_by)
            }
            OpenTask::Retrieval(_) => Ok(()),
        }
    }

    /// Refuses a set of images of which too many are unreadable.
    pub(crate) fn check_unreadable(&self, total: usize, bad: &[Skipped]) -> Result<(), TrainError> {
        if bad.len() as f64 <= self.max_bad_fraction * total as f64 {
            return Ok(());
        }
        let first = bad.iter().take(NAMED_IMAGES).map(|skipped| format!("  {}: {}", skipped.key, skipped.reason));
        let limit = self.given_by.name("data.max_bad_fraction");
        Err(TrainError::Usage(format!(
            "evaluation `{}`: {} of {total} images cannot be used, more than {limit} = {} allows: {}\n{}\nrepair or \
             remove them, or raise {limit}",
            self.name,
            bad.len(),
            self.max_bad_fraction,
            Skipped::by_cause(bad),
            first.collect::<Vec<_>>().join("\n")
        )))
    }

    /// Refuses data with a class of which no image can be used. `is_usable`: of an image.
    pub(crate) fn check_classes(
        &self,
        images: &LabelledImages,
        is_usable: impl Fn(usize) -> bool,
    ) -> Result<(), TrainError> {
        let labels = &images.labels;
        let mut has_image = vec![false; labels.names.len()];
        let usable = (0..labels.num_images()).filter(|&image| is_usable(image));
        usable.for_each(|image| labels.of(image).iter().for_each(|&class| has_image[class] = true));
        // A class without an image in the data is the user's choice, and in the warnings.
        let lost = labels.names.iter().zip(labels.sizes().into_iter().zip(has_image));
        let without = lost.filter(|(_, (images, has_image))| *images > 0 && !has_image);
        let names: Vec<String> = without.map(|(class, _)| format!("the class `{class}`")).collect();
        let Some(first) = names.first() else { return Ok(()) };
        let more = if names.len() > 1 { format!(" and of {} other classes", names.len() - 1) } else { String::new() };
        Err(TrainError::Usage(format!(
            "evaluation `{}`: no image of {first}{more} can be read; repair them, or remove the folder and \
             its class name",
            self.name
        )))
    }
}
