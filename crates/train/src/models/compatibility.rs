//! Whether a tokenizer and an image processor fit the towers.

use std::path::Path;

use dualenc_data::{ImageProcessor, Tokenizer};
use dualenc_model::{ImageTower, TextTower};

use crate::error::TrainError;

/// Refuses a tokenizer that produces ids beyond the text tower's word table.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_vocabulary(tokenizer: &Tokenizer, tower: &TextTower, dir: &Path) -> Result<(), TrainError> {
    let rows = tower.config().vocab_size;
    if tokenizer.text_vocab_size() <= rows {
        return Ok(());
    }
    Err(TrainError::Usage(format!(
        "the tokenizer in `{}` has ids up to {}, but the text tower's word table has {rows} rows; use the tokenizer \
         that belongs to the tower",
        dir.display(),
        tokenizer.vocab_size() - 1,
    )))
}

/// Refuses images of a size that the image tower cannot take.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_image_size(processor: &ImageProcessor, tower: &ImageTower) -> Result<(), TrainError> {
    let (multiple, smallest) = (tower.side_multiple() as u32, tower.min_side() as u32);
    let (height, width) = processor.output_size();
    if height % multiple != 0 || width % multiple != 0 {
        return Err(TrainError::Usage(format!(
            "images of {width}x{height} px cannot be divided into the image tower's patches of {multiple} px; set \
             `model.image_size` to a multiple of {multiple}"
        )));
    }
    let patches = height.min(width) as usize / tower.side_multiple();
    if let Some(side) = tower.token_grid().filter(|&side| side > patches) {
        return Err(TrainError::Usage(format!(
            "`model.image_head.token_grid` is {side}, but images of {width}x{height} px have {} x {} patches; choose \
             at most {patches}",
            width / multiple,
            height / multiple
        )));
    }
    if height.min(width) < smallest {
        return Err(TrainError::Usage(format!(
            "images of {width}x{height} px leave the image tower's last feature map empty; set `model.image_size` to \
             at least {smallest}"
        )));
    }
    Ok(())
}
