//! Retrieval in both directions. An image may have several captions: each of them is a right answer.
//!
//! Metrics have the names and definitions of CLIP_benchmark (`metrics/zeroshot_retrieval.py`), at k = 1, 5 and 10:
//!
//! - `image_retrieval_recall@k`: fraction of texts whose image is among the k highest-scoring images.
//! - `text_retrieval_recall@k`: fraction of images of which a text is among the k highest-scoring texts.
//!
//! `num_images` and `num_texts` are counts.

use std::ops::Range;

use serde_json::{Map, Value, json};

use crate::eval::scores::rank_of;

/// The values of k.
const RECALL_AT: [usize; 3] = [1, 5, 10];

/// Collects ranks from blocks of scores, so that the matrix of all pairs is never in memory.
#[derive(Debug)]
pub(crate) struct RetrievalRanks {
    /// The image of each text.
    image_of_text: Vec<usize>,
    num_images: usize,
    text_to_image: Vec<usize>,
}

impl RetrievalRanks {
    /// `image_of_text`: the row of each text's image.
    pub fn new(image_of_text: Vec<usize>, num_images: usize) -> Self {
        Self { image_of_text, num_images, text_to_image: Vec::new() }
    }

    /// Adds the next texts. `scores`: shape `[texts, images]`, flat.
    pub fn add_texts(&mut self, scores: &[f32]) {
        for row in scores.chunks_exact(self.num_images.max(1)) {
            let image = self.image_of_text[self.text_to_image.len()];
            self.text_to_image.push(rank_of(row, image));
        }
    }

    /// The metrics. `scores_of_images` returns scores of a range of images, shape `[images, texts]`, flat; `block` is
    /// the size of a range.
    ///
    /// # Errors
    /// Those of `scores_of_images`.
    pub fn metrics<E>(
        self,
        mut scores_of_images: impl FnMut(Range<usize>) -> Result<Vec<f32>, E>,
        block: usize,
    ) -> Result<Map<String, Value>, E> {
        let num_texts = self.image_of_text.len();
        let mut texts_of_image = vec![Vec::new(); self.num_images];
        for (text, &image) in self.image_of_text.iter().enumerate() {
            texts_of_image[image].push(text);
        }
        let mut image_to_text = Vec::new();
        for start in (0..self.num_images).step_by(block.max(1)) {
            let images = start..(start + block).min(self.num_images);
            let scores = scores_of_images(images.clone())?;
            for (row, image) in scores.chunks_exact(num_texts.max(1)).zip(images) {
                // An image without a caption has no right answer and is left out.
                image_to_text.extend(texts_of_image[image].iter().map(|&text| rank_of(row, text)).min());
            }
        }
        let mut metrics = Map::new();
        metrics.insert("num_images".to_owned(), json!(self.num_images));
        metrics.insert("num_texts".to_owned(), json!(num_texts));
        for (name, ranks) in
            [("image_retrieval_recall", &self.text_to_image), ("text_retrieval_recall", &image_to_text)]
        {
            for k in RECALL_AT {
                let hits = ranks.iter().filter(|&&rank| rank < k).count();
                metrics.insert(format!("{name}@{k}"), json!(hits as f64 / ranks.len().max(1) as f64));
            }
        }
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_true_caption_is_a_hit() {
        // Two images; texts 0 and 1 belong to image 0, text 2 to image 1.
        let by_text = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]];
        let mut ranks = RetrievalRanks::new(vec![0, 0, 1], 2);
        ranks.add_texts(&by_text[..2].concat());
        ranks.add_texts(&by_text[2]);
        let by_image =
            |images: Range<usize>| Ok::<_, ()>(images.flat_map(|image| by_text.map(|row| row[image])).collect());
        let metrics = ranks.metrics(by_image, 1).unwrap();
        // Texts 0 and 2 rank their image first, text 1 second.
        assert_eq!(metrics["image_retrieval_recall@1"], json!(2.0 / 3.0));
        assert_eq!(metrics["image_retrieval_recall@5"], json!(1.0));
        // Image 0 ranks text 0 first; image 1 ranks text 1 first, which belongs to image 0.
        assert_eq!(metrics["text_retrieval_recall@1"], json!(0.5));
        assert_eq!((&metrics["num_images"], &metrics["num_texts"]), (&json!(2), &json!(3)));
    }
}
