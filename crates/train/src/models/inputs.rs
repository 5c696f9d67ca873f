//! What turns files into the inputs of a model.

use std::path::Path;

use dualenc_data::{ImageProcessor, recorded_max_tokens};
use dualenc_model::TextTower;

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

/// The number of tokens to which the whole model in `dir` cuts texts, as transformers does: `model_max_length`, where
/// it is lower than the positions of its text tower.
///
/// # Errors
/// [`TrainError::Data`] when a file of the tokenizer is malformed or cannot be read.
pub(crate) fn recorded_limit(dir: &Path, tower: &TextTower) -> Result<usize, TrainError> {
    let recorded = recorded_max_tokens(dir)?;
    Ok(recorded.filter(|limit| *limit < tower.config().max_tokens()).unwrap_or(usize::MAX))
}
