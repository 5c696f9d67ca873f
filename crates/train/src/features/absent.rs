//! Features of towers that are absent: rows of the data set, which another program has computed. Their files are the
//! input of a run, so that nothing is computed and nothing is cached.

use std::sync::Arc;

use dualenc_data::{Dataset, FeatureTable, ImageRef};
use dualenc_model::{DualEncoder, Tower};
use rayon::prelude::*;

use crate::error::TrainError;
use crate::features::image_index::ImageSet;

/// Rows that a thread reads at once: less than a millisecond's work.
const ROWS_PER_TASK: usize = 256;

/// Refuses data that a tower cannot take: features where it takes images or texts, images or texts where it is absent,
/// and features of another width. `found`: the width of the features of the data. `what`: the data, in words.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_side(
    tower: Tower,
    (is_absent, width): (bool, usize),
    found: Option<usize>,
    what: &str,
) -> Result<(), TrainError> {
    let side = tower.kind();
    let problem = match (is_absent, found) {
        (false, None) => return Ok(()),
        (true, Some(found)) if found == width => return Ok(()),
        (true, Some(found)) => {
            format!(
                "{what}: features of {side}s with {found} values, but the model takes {width}; use the encoder whose \
                 features it was trained on"
            )
        }
        (false, Some(_)) => {
            let inputs = if tower == Tower::Image { "images" } else { "texts" };
            format!("{what}: features of {side}s, but the model has a {tower}: give it the {inputs} themselves")
        }
        (true, None) => no_tower(tower, what),
    };
    Err(TrainError::Usage(problem))
}

/// The message that a model without `tower` is given images or texts.
pub(crate) fn no_tower(tower: Tower, what: &str) -> String {
    let (side, flag) = (tower.kind(), if tower == Tower::Image { "--images" } else { "--texts" });
    format!(
        "{what}: {side}s, but the model has no {tower}: it was trained on features from files. Compute the features of \
         these {side}s with the same encoder, and pass their file to `dualenc embed {flag} FILE`"
    )
}

/// Refuses images and texts as such for a model that lacks a tower for them. `what`: the images and texts, in words.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_complete(model: &DualEncoder, what: &str) -> Result<(), TrainError> {
    check_side(Tower::Image, image_side(model), None, what)?;
    check_side(Tower::Text, text_side(model), None, what)
}

/// As [`check_side`], for both sides of a data set.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_dataset(dataset: &Dataset, model: &DualEncoder, what: &str) -> Result<(), TrainError> {
    check_side(Tower::Image, image_side(model), dataset.image_feature_width(), what)?;
    check_side(Tower::Text, text_side(model), dataset.text_feature_width(), what)
}

/// Whether the image tower is absent, and the width of its outputs.
pub(crate) fn image_side(model: &DualEncoder) -> (bool, usize) {
    (model.image_tower.is_absent(), model.image_tower.width())
}

/// Whether the text tower is absent, and the width of its outputs.
pub(crate) fn text_side(model: &DualEncoder) -> (bool, usize) {
    (model.text_tower.is_absent(), model.text_tower.pooled_width())
}

/// Refuses images of `set` that a tower of this kind cannot take. Sources do not mix: if the tower is there, the first
/// image tells what all are.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_images(set: &ImageSet, side: (bool, usize)) -> Result<(), TrainError> {
    for image in 0..if side.0 { set.len() } else { set.len().min(1) } {
        let reference = set.reference(image);
        let width = match &reference {
            ImageRef::FeatureRow { table, .. } => Some(table.width()),
            _ => None,
        };
        if !side.0 || width != Some(side.1) {
            check_side(Tower::Image, side, width, &format!("`{}`", reference.key()))?;
        }
    }
    Ok(())
}

/// Reads the rows that `find` finds for `numbers`, `[rows, width]`, flat, on all cores if they are many. Rows that
/// follow each other in a table are read at once.
fn rows(
    numbers: &[usize],
    width: usize,
    find: impl Fn(usize) -> Result<(Arc<FeatureTable>, u64), TrainError> + Sync,
) -> Result<Vec<f32>, TrainError> {
    let mut values = vec![0.0; numbers.len() * width];
    let tasks = values.par_chunks_mut(width.max(1) * ROWS_PER_TASK).zip(numbers.par_chunks(ROWS_PER_TASK));
    tasks.try_for_each_init(Vec::new, |buffer, (mut out, numbers)| {
        let places = numbers.iter().map(|&number| find(number)).collect::<Result<Vec<_>, _>>()?;
        for run in places.chunk_by(|(one, row), (other, next)| Arc::ptr_eq(one, other) && row + 1 == *next) {
            let (now, later) = out.split_at_mut(run.len() * width);
            run[0].0.read_run(run[0].1, now, buffer)?;
            out = later;
        }
        Ok::<_, TrainError>(())
    })?;
    Ok(values)
}

/// The rows of images of `set`, `[images, width]`, flat.
///
/// # Errors
/// [`TrainError::Data`] when a file cannot be read; [`TrainError::Internal`] for an image that is no row of this width.
pub(crate) fn image_rows(set: &ImageSet, images: &[usize], width: usize) -> Result<Vec<f32>, TrainError> {
    rows(images, width, |image| match set.reference(image) {
        ImageRef::FeatureRow { table, row } if table.width() == width => Ok((table, row)),
        other => Err(TrainError::Internal(format!("`{}` is no row of {width} values", other.key()))),
    })
}

/// The rows of captions, `[captions, width]`, flat.
///
/// # Errors
/// As for [`image_rows`].
pub(crate) fn caption_rows(dataset: &Dataset, captions: &[usize], width: usize) -> Result<Vec<f32>, TrainError> {
    rows(captions, width, |caption| match dataset.caption(caption).features {
        Some((table, row)) if table.width() == width => Ok((Arc::clone(table), row)),
        _ => Err(TrainError::Internal(format!("caption {caption} is no row of {width} values"))),
    })
}

/// Refuses a table with rows that cannot be used, where each row is needed.
///
/// # Errors
/// [`TrainError::Usage`] with the first such row.
pub(crate) fn check_rows(table: &FeatureTable) -> Result<(), TrainError> {
    match (0..table.num_rows()).find_map(|row| Some((row, table.fault(row)?))) {
        Some((row, fault)) => Err(TrainError::Usage(format!("`{}`: {fault}", table.key(row)))),
        None => Ok(()),
    }
}
