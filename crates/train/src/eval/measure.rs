//! From embeddings to metrics and, if asked for, the answers behind them.

use serde_json::{Map, Value};

use crate::error::TrainError;
use crate::eval::labelled_images::LabelledImages;
use crate::eval::metrics::details::{DetailEmbeds, Details};
use crate::eval::metrics::multi_label::MultiLabel;
use crate::eval::metrics::retrieval::Retrieved;
use crate::eval::metrics::scores::Scores;
use crate::eval::metrics::top::Top;
use crate::eval::metrics::zero_shot::{ANSWERS, Classified};
use crate::eval::usable::{UsableCaptions, UsableImages};

/// Metrics of a task, and the answers if they were asked for.
type Measured = (Map<String, Value>, Details);

/// Classifies images. `scores`: of the images `numbers` (rows) with the classes (columns). `scale`: of the model, for
/// probabilities.
///
/// # Errors
/// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set.
pub(crate) fn classification(
    scores: &Scores<'_>,
    labelled: &LabelledImages,
    numbers: &[usize],
    scale: f64,
    in_detail: bool,
) -> Result<Measured, TrainError> {
    let (classes, labels) = (&labelled.labels.names, &labelled.labels);
    let of_image: Vec<&[usize]> = numbers.iter().map(|&image| labels.of(image)).collect();
    let top = Top::of(scores, ANSWERS, scale)?;
    let embeds = || (embeds(scores.rows, scores.dim), embeds(scores.columns, scores.dim));
    if labels.has_several() {
        let found = MultiLabel::of(scores, classes, (numbers, &of_image), &top)?;
        let details = in_detail.then(embeds).map(|(images, classes)| Details::Classes(found.details(images, classes)));
        return Ok((found.metrics(), details.unwrap_or(Details::None)));
    }
    let ranks: Option<Vec<usize>> = scores.ranks(|image| of_image[image])?.into_iter().collect();
    let ranks = ranks.ok_or_else(|| TrainError::Internal("an image has no class".to_owned()))?;
    let labels = of_image.concat();
    let found = Classified { classes, images: numbers, labels: &labels, ranks: &ranks, top: &top };
    let details = in_detail.then(embeds).map(|(images, classes)| Details::Classes(found.details(images, classes)));
    Ok((found.metrics(), details.unwrap_or(Details::None)))
}

/// Retrieves images for captions and captions for images. `scores`: of the captions (rows) with the images (columns).
/// `caption_ids`: one per caption, which equal captions share.
///
/// # Errors
/// As for [`classification`].
pub(crate) fn retrieval(
    scores: &Scores<'_>,
    images: &UsableImages,
    (captions, caption_ids): (&UsableCaptions, &[u64]),
    in_detail: bool,
) -> Result<Measured, TrainError> {
    let found = Retrieved::of(scores, captions.image_rows.clone(), caption_ids)?;
    let metrics = found.metrics();
    if !in_detail {
        return Ok((metrics, Details::None));
    }
    let image_side = (images.distinct_numbers(), embeds(scores.columns, scores.dim));
    let text_side = (captions.numbers.clone(), embeds(scores.rows, scores.dim));
    Ok((metrics, Details::Retrieval(found.details(image_side, text_side))))
}

fn embeds(values: &[f32], dim: usize) -> DetailEmbeds {
    DetailEmbeds { dim, values: values.to_vec() }
}
