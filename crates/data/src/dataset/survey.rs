//! What is known of the images before any is decoded: the fingerprint, files that are missing or empty, and rows of
//! features that cannot be used.

use crate::dataset::Dataset;
use crate::error::{DataError, ImageError};
use crate::images::location::ImageRef;
use crate::skipped::Skipped;

/// What is known of the images before any is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// [`Dataset::fingerprint`].
    pub fingerprint: [u8; 32],
    /// The files that are missing or empty and the rows that cannot be used, in data-set order.
    pub absent: Vec<Skipped>,
}

impl Dataset {
    /// Looks at the length of every image file, on a few threads; of a data set with an index, at what that says.
    ///
    /// # Errors
    /// [`DataError::Read`] if the system cannot tell the length of a file. A missing file is no error.
    pub fn survey(&self) -> Result<Survey, DataError> {
        let mut absent = Vec::new();
        if let Some(known) = &self.known
            && let Some(fingerprint) = known.fingerprint
        {
            known.empty_images.iter().for_each(|&image| absent.extend(self.absent(image as usize)));
            return Ok(Survey { fingerprint, absent });
        }
        let has_rows = self.image_feature_width().is_some();
        let fingerprint = self.fingerprint_with(|image, len| {
            if len == 0 || len == u64::MAX || has_rows && self.is_faulty_row(image) {
                absent.extend(self.absent(image));
            }
        })?;
        Ok(Survey { fingerprint, absent })
    }

    /// Whether an image is a row of features with a fault, all of which were found when the table was opened.
    fn is_faulty_row(&self, image: usize) -> bool {
        matches!(self.image(image), ImageRef::FeatureRow { table, row } if table.fault(row).is_some())
    }

    /// An image file that seemed to be missing or empty, unless it no longer does.
    fn absent(&self, image: usize) -> Option<Skipped> {
        let location = self.image(image);
        // A missing file is asked for once more, since its error says why there is none.
        let error = match location.read() {
            Err(DataError::Image { source, .. }) => source,
            Ok(bytes) if bytes.is_empty() => ImageError::Empty,
            // It has appeared since, or cannot be read now: the loader will see.
            Ok(_) | Err(_) => return None,
        };
        Some(Skipped::new(image, location.key(), &error))
    }
}

#[cfg(test)]
mod tests {
    use crate::dataset::builder::DatasetBuilder;
    use crate::images::location::ImageRef;
    use crate::skipped::Skipped;

    #[test]
    fn absent_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = DatasetBuilder::new(dir.path());
        for (name, bytes) in [("a.png", Some("x")), ("b.png", None), ("c.png", Some("")), ("d.png", Some("<html>"))] {
            let path = dir.path().join(name);
            bytes.iter().for_each(|bytes| std::fs::write(&path, bytes).unwrap());
            builder.push(ImageRef::File(path), name);
        }
        let dataset = builder.build();
        let survey = dataset.survey().unwrap();
        assert_eq!(survey.fingerprint, dataset.fingerprint().unwrap());
        let found: Vec<_> = survey.absent.iter().map(|it| (it.image, it.cause.as_str(), it.reason.as_str())).collect();
        let missing = "cannot be read: No such file or directory (os error 2)";
        assert_eq!(found, [(1, "not found", missing), (2, "empty file", "the file is empty")]);
        assert_eq!(Skipped::by_cause(&survey.absent), "empty file (1), not found (1)");
    }
}
