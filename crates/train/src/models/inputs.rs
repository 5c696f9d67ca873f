//! The image processor of a tower.

use std::path::Path;

use dualenc_data::ImageProcessor;

use crate::error::TrainError;
use crate::events::{Event, Observer};

/// The image processor of the tower in `dir`, with a warning where its settings are the defaults of the family.
///
/// # Errors
/// [`TrainError::Data`] when `preprocessor_config.json` cannot be read.
pub(crate) fn image_processor(dir: &Path, observer: &mut dyn Observer) -> Result<ImageProcessor, TrainError> {
    let processor = ImageProcessor::from_dir(dir)?;
    if processor.is_default() {
        observer.on(Event::Warning(format!(
            "`{}` has no `preprocessor_config.json`; images are processed with the defaults of its family: {}",
            dir.display(),
            processor.describe()
        )));
    }
    Ok(processor)
}
