//! What turns files into the inputs of a model.

use std::path::Path;

use dualenc_data::{DataError, ImageProcessor, Tokenizer, recorded_max_tokens};
use dualenc_model::{ImageTower, TextTower};

use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::compatibility::{check_image_size, check_vocabulary};

/// The tokenizer of `tower` in `dir`. `early`: the one for `max_tokens`, if it is read already.
pub(super) fn tokenizer_of(
    tower: &TextTower,
    dir: &Path,
    (max_tokens, early): (usize, Option<Result<Tokenizer, DataError>>),
    observer: &mut dyn Observer,
) -> Result<Tokenizer, TrainError> {
    let positions = tower.config().max_tokens();
    if max_tokens > positions && max_tokens != usize::MAX {
        observer.on(Event::Note(format!(
            "captions are truncated to {positions} tokens, the text tower's maximum (`data.max_tokens` is {max_tokens})"
        )));
    }
    let tokenizer = match early {
        Some(tokenizer) if max_tokens <= positions => tokenizer?,
        _ => Tokenizer::from_dir(dir, max_tokens.min(positions))?,
    };
    let tokenizer = match tower.config().pad_to {
        Some(len) => tokenizer.with_padding_to(len)?,
        None => tokenizer,
    };
    check_vocabulary(&tokenizer, tower, dir)?;
    if let Some(warning) = tokenizer.warning() {
        observer.on(Event::Warning(warning));
    }
    Ok(tokenizer)
}

/// The image processor of `tower` in `dir`.
pub(super) fn processor_of(
    tower: &ImageTower,
    dir: &Path,
    image_size: Option<usize>,
    observer: &mut dyn Observer,
) -> Result<ImageProcessor, TrainError> {
    let mut processor = image_processor(dir, observer)?;
    if let Some(size) = image_size {
        processor = processor.with_image_size(u32::try_from(size).unwrap_or(u32::MAX));
    }
    check_image_size(&processor, tower)?;
    Ok(processor)
}

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
