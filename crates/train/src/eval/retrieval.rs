//! Retrieval in both directions. An image may have several captions: each of them is a right answer.
//!
//! Metrics have the names and definitions of CLIP_benchmark (`metrics/zeroshot_retrieval.py`), at k = 1, 5 and 10:
//!
//! - `image_retrieval_recall@k`: fraction of texts whose image is among the k highest-scoring images.
//! - `text_retrieval_recall@k`: fraction of images of which a text is among the k highest-scoring texts.
//!
//! `num_texts` is a count.
//!
//! Captions that are equal, as those of images of one class, are one caption of all their images: any of these is
//! right. CLIP_benchmark counts them as misses. Without equal captions, the figures are the same.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::error::TrainError;
use crate::eval::scores::Scores;

/// The values of k.
const RECALL_AT: [usize; 3] = [1, 5, 10];

/// Metrics of the scores of all texts (rows) with all images (columns). `image_of_text`: the column of each row's
/// image; `caption_ids`: one per row, which equal captions share.
///
/// # Errors
/// Those of [`Scores::ranks`].
pub(crate) fn metrics(
    scores: &Scores<'_>,
    image_of_text: &[usize],
    caption_ids: &[u64],
) -> Result<Map<String, Value>, TrainError> {
    let answers = Answers::new(image_of_text, caption_ids, scores.columns.len() / scores.dim.max(1));
    let text_to_image = scores.ranks(|text| answers.images(text))?;
    let by_image = Scores { rows: scores.columns, columns: scores.rows, ..*scores };
    // An image without a caption has no right answer and is left out.
    let image_to_text = by_image.ranks(|image| answers.texts(image))?;
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

/// The right answers. Texts with equal captions, and images with the same captions, share theirs: in labelled data,
/// there are few of these lists.
struct Answers {
    /// The caption of each text.
    caption_of_text: Vec<usize>,
    /// The images of each caption, ascending.
    images_of_caption: Vec<Vec<usize>>,
    /// The set of captions of each image.
    set_of_image: Vec<usize>,
    /// The texts of each set, ascending.
    texts_of_set: Vec<Vec<usize>>,
}

impl Answers {
    fn new(image_of_text: &[usize], caption_ids: &[u64], num_images: usize) -> Self {
        let mut numbers = HashMap::new();
        let (mut images_of_caption, mut texts_of_caption) = (Vec::<Vec<usize>>::new(), Vec::<Vec<usize>>::new());
        let mut captions_of_image = vec![Vec::new(); num_images];
        let mut caption_of_text = Vec::with_capacity(image_of_text.len());
        for (text, (&image, &id)) in image_of_text.iter().zip(caption_ids).enumerate() {
            let caption = *numbers.entry(id).or_insert_with(|| {
                images_of_caption.push(Vec::new());
                texts_of_caption.push(Vec::new());
                images_of_caption.len() - 1
            });
            caption_of_text.push(caption);
            images_of_caption[caption].push(image);
            texts_of_caption[caption].push(text);
            captions_of_image[image].push(caption);
        }
        for images in &mut images_of_caption {
            images.sort_unstable();
            images.dedup();
        }
        let (mut sets, mut texts_of_set) = (HashMap::new(), Vec::new());
        let mut set_of = |mut captions: Vec<usize>| {
            captions.sort_unstable();
            captions.dedup();
            *sets.entry(captions).or_insert_with_key(|captions| {
                let mut texts: Vec<usize> = captions.iter().flat_map(|&it| &texts_of_caption[it]).copied().collect();
                texts.sort_unstable();
                texts_of_set.push(texts);
                texts_of_set.len() - 1
            })
        };
        let set_of_image = captions_of_image.into_iter().map(&mut set_of).collect();
        Self { caption_of_text, images_of_caption, set_of_image, texts_of_set }
    }

    fn images(&self, text: usize) -> &[usize] {
        &self.images_of_caption[self.caption_of_text[text]]
    }

    /// None for an image without a caption.
    fn texts(&self, image: usize) -> &[usize] {
        &self.texts_of_set[self.set_of_image[image]]
    }
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
            let metrics = metrics(&scores, &[0, 0, 1], &[7, 8, 9]).unwrap();
            // Texts 0 and 2 rank their image first, text 1 second.
            assert_eq!(metrics["image_retrieval_recall@1"], json!(2.0 / 3.0));
            assert_eq!(metrics["image_retrieval_recall@5"], json!(1.0));
            // Image 0 ranks text 0 first; image 1 ranks text 1 first, which belongs to image 0.
            assert_eq!(metrics["text_retrieval_recall@1"], json!(0.5));
            assert_eq!(&metrics["num_texts"], &json!(3));
        }
    }

    #[test]
    fn equal_captions_are_one() {
        // Three images; texts 0 and 1 are equal, and belong to images 0 and 1.
        let texts = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]].concat();
        let images = [[0.6, 0.8], [0.9, 0.1], [0.1, 0.9]].concat();
        let compute = Compute::select("cpu", None).unwrap();
        let stop = StopFlag::default();
        let scores = Scores { rows: &texts, columns: &images, dim: 2, device: &compute.device, stop: &stop, tile: 100 };
        let recall = |ids: &[u64]| {
            let metrics = metrics(&scores, &[0, 1, 2], ids).unwrap();
            ["image_retrieval_recall@1", "text_retrieval_recall@1"].map(|name| metrics[name].as_f64().unwrap())
        };
        // Text 0 ranks image 1 first, which has the same caption. Image 0 ranks text 2 first, image 1 text 0.
        assert_eq!(recall(&[7, 7, 9]), [1.0, 2.0 / 3.0]);
        assert_eq!(recall(&[7, 8, 9]), [2.0 / 3.0, 1.0 / 3.0]);
        // An image with two captions, one of them shared, and an image without any.
        let answers = Answers::new(&[0, 0, 1, 2], &[5, 6, 6, 7], 4);
        assert_eq!([0, 1, 2, 3].map(|image| answers.texts(image)), [&[0, 1, 2][..], &[1, 2], &[3], &[]]);
        assert_eq!([0, 1, 2, 3].map(|text| answers.images(text)), [&[0][..], &[0, 1], &[0, 1], &[2]]);
    }
}
