//! What turns files into the inputs of towers: a tokenizer and an image processor, which have to fit them.

use std::path::Path;

use dualenc_data::{DataError, ImageProcessor, Tokenizer};
use dualenc_model::{ImageTower, TextTower};

use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::compatibility::{check_image_size, check_vocabulary};

/// Runs both at once: `first`, which uses one core, on a thread of its own.
pub(crate) fn beside<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (B, A) {
    std::thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        (second, first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// The tokenizer of `tower` in `dir`. `early`: the one for `max_tokens`, if it is read already.
///
/// # Errors
/// [`TrainError::Data`] when it cannot be loaded; [`TrainError::Usage`] when it does not fit the tower.
pub(crate) fn tokenizer_of(
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
    Ok(tokenizer)
}

/// The image processor of `tower` in `dir`.
///
/// # Errors
/// [`TrainError::Data`] when it cannot be loaded; [`TrainError::Usage`] when the tower cannot see images of its size.
pub(crate) fn processor_of(
    tower: &ImageTower,
    dir: &Path,
    image_size: Option<usize>,
    observer: &mut dyn Observer,
) -> Result<ImageProcessor, TrainError> {
    let mut processor = ImageProcessor::from_dir(dir)?;
    if processor.is_default() {
        observer.on(Event::Warning(format!(
            "`{}` has no `preprocessor_config.json`; images are processed with the defaults of its family: {}",
            dir.display(),
            processor.describe()
        )));
    }
    if let Some(size) = image_size {
        processor = processor.with_image_size(u32::try_from(size).unwrap_or(u32::MAX));
    }
    check_image_size(&processor, tower)?;
    Ok(processor)
}
