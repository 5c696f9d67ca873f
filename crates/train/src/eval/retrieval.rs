//! Retrieval in both directions. An image may have several captions: each of them is a right answer.
//!
//! Metrics have the names and definitions of CLIP_benchmark (`metrics/zeroshot_retrieval.py`), at k = 1, 5 and 10:
//!
//! - `image_retrieval_recall@k`: fraction of texts whose image is among the k highest-scoring images.
//! - `text_retrieval_recall@k`: fraction of images of which a text is among the k highest-scoring texts.
//!
//! `num_texts` is a count.

use serde_json::{Map, Value, json};

use crate::error::TrainError;
use crate::eval::scores::Scores;

/// The values of k.
const RECALL_AT: [usize; 3] = [1, 5, 10];

/// Metrics of the scores of all texts (rows) with all images (columns). `image_of_text`: the column of each row's
/// image.
///
/// # Errors
/// Those of [`Scores::ranks`].
pub(crate) fn metrics(scores: &Scores<'_>, image_of_text: &[usize]) -> Result<Map<String, Value>, TrainError> {
    let text_to_image = scores.ranks(|text| std::slice::from_ref(&image_of_text[text]))?;
    let mut texts_of_image = vec![Vec::new(); scores.columns.len() / scores.dim.max(1)];
    for (text, &image) in image_of_text.iter().enumerate() {
        texts_of_image[image].push(text);
    }
    let by_image = Scores { rows: scores.columns, columns: scores.rows, ..*scores };
    // An image without a caption has no right answer and is left out.
    let image_to_text = by_image.ranks(|image| &texts_of_image[image])?;
    let mut metrics = Map::new();
    metrics.insert("num_texts".to_owned(), json!(image_of_text.len()));
    for (name, ranks) in [("image_retrieval_recall", &text_to_image), ("text_retrieval_recall", &image_to_text)] {
        let ranks: Vec<usize> = ranks.iter().copied().flatten().collect();
        for k in RECALL_AT {
            let hits = ranks.iter().filter(|&&rank| rank < k).count();
            metrics.insert(format!("{name}@{k}"), json!(hits as f64 / ranks.len().max(1) as f64));
        }
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Compute;
    use crate::stop_flag::StopFlag;

    #[test]
    fn any_true_caption_is_a_hit() {
        // Two images, orthogonal; texts 0 and 1 belong to image 0, text 2 to image 1.
        let texts = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]].concat();
        let images = [[1.0, 0.0], [0.0, 1.0]].concat();
        let compute = Compute::select("cpu", None).unwrap();
        for tile in [1, 2, 3, 6, 100] {
            let stop = StopFlag::default();
            let scores = Scores { rows: &texts, columns: &images, dim: 2, device: &compute.device, stop: &stop, tile };
            let metrics = metrics(&scores, &[0, 0, 1]).unwrap();
            // Texts 0 and 2 rank their image first, text 1 second.
            assert_eq!(metrics["image_retrieval_recall@1"], json!(2.0 / 3.0));
            assert_eq!(metrics["image_retrieval_recall@5"], json!(1.0));
            // Image 0 ranks text 0 first; image 1 ranks text 1 first, which belongs to image 0.
            assert_eq!(metrics["text_retrieval_recall@1"], json!(0.5));
            assert_eq!(&metrics["num_texts"], &json!(3));
        }
    }
}
