//! Retrieval both ways; a hit is any of the true matches, so several captions of one image are all right answers.

use serde_json::{Map, Value, json};

use crate::eval::zero_shot::rank_of;

/// The ranks that count as found, as CLIP_benchmark reports them.
const RECALL_AT: [usize; 3] = [1, 5, 10];

/// Collects ranks while scores come by in blocks, so that no matrix of all pairs is kept.
#[derive(Debug)]
pub struct RetrievalRanks {
    /// Image of each text.
    image_of_text: Vec<usize>,
    num_images: usize,
    text_to_image: Vec<usize>,
}

impl RetrievalRanks {
    /// For texts whose true images are given.
    pub fn new(image_of_text: Vec<usize>, num_images: usize) -> Self {
        Self { image_of_text, num_images, text_to_image: Vec::new() }
    }

    /// Takes the scores `[texts in block, images]`, flat, of the next texts.
    pub fn add_texts(&mut self, scores: &[f32]) {
        for row in scores.chunks_exact(self.num_images.max(1)) {
            let image = self.image_of_text[self.text_to_image.len()];
            self.text_to_image.push(rank_of(row, image));
        }
    }

    /// The figures, given the scores `[images, texts]` block by block through `scores_of_images`.
    ///
    /// # Errors
    /// Those of `scores_of_images`.
    pub fn figures<E>(
        self,
        mut scores_of_images: impl FnMut(std::ops::Range<usize>) -> Result<Vec<f32>, E>,
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
                // An image without caption has no right answer and is no question.
                image_to_text.extend(texts_of_image[image].iter().map(|&text| rank_of(row, text)).min());
            }
        }
        let mut figures = Map::new();
        figures.insert("num_images".to_owned(), json!(self.num_images));
        figures.insert("num_texts".to_owned(), json!(num_texts));
        for (name, ranks) in
            [("image_retrieval_recall", &self.text_to_image), ("text_retrieval_recall", &image_to_text)]
        {
            for at in RECALL_AT {
                let found = ranks.iter().filter(|&&rank| rank < at).count();
                figures.insert(format!("{name}@{at}"), json!(found as f64 / ranks.len().max(1) as f64));
            }
        }
        Ok(figures)
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
        let by_image = |images: std::ops::Range<usize>| {
            Ok::<_, ()>(images.flat_map(|image| by_text.map(|row| row[image])).collect())
        };
        let figures = ranks.figures(by_image, 1).unwrap();
        // Text to image: texts 0 and 2 find theirs first, text 1 second.
        assert_eq!(figures["image_retrieval_recall@1"], json!(2.0 / 3.0));
        assert_eq!(figures["image_retrieval_recall@5"], json!(1.0));
        // Image 0 finds text 0 first; image 1 finds text 1 (not its own) first.
        assert_eq!(figures["text_retrieval_recall@1"], json!(0.5));
        assert_eq!((&figures["num_images"], &figures["num_texts"]), (&json!(2), &json!(3)));
    }
}
