//! Retrieval in both directions. An image may have several captions: each of them is a right answer.
//!
//! Metrics have the names and definitions of CLIP_benchmark (`metrics/zeroshot_retrieval.py`), at k = 1, 5 and 10:
//!
//! - `image_retrieval_recall@k`: fraction of texts with their image among the k highest-scoring images.
//! - `text_retrieval_recall@k`: fraction of images of which a text is among the k highest-scoring texts.
//!
//! and beside them, for both directions (`image_retrieval_`, `text_retrieval_`):
//!
//! - `median_rank`: median over the queries of the place of the first right answer, from 1.
//! - `mrr`: mean over the queries of 1 / that place.
//! - `map@10`: mean over the queries of the average precision among the 10 highest-scoring answers: the sum of the
//!   precisions at the right ones, divided by the number of right answers or 10, whichever is less (as `ml_metrics`).
//! - `recall@k_ci95`: a 95 % interval of the recall (see `bootstrap`), over the images with all of their texts.
//!
//! `num_texts` is a count; `num_distinct_texts` counts equal ones once, if there are any.
//!
//! Captions that are equal, as those of images of one class, are one caption of all their images: any of these is
//! right. CLIP_benchmark counts them as misses. Without equal captions, the figures are the same.

use serde_json::{Map, Value, json};

use crate::error::TrainError;
use crate::eval::metrics::bootstrap;
use crate::eval::metrics::details::{DetailEmbeds, Found, RetrievalDetails};
use crate::eval::metrics::right_answers::RightAnswers;
use crate::eval::metrics::scores::{Answer, NO_PLACE, Scores};
use crate::eval::metrics::top::Top;

/// The values of k.
const RECALL_AT: [usize; 3] = [1, 5, 10];

/// Answers to a query.
pub(crate) const ANSWERS: usize = 10;

/// What a retrieval finds in one direction.
struct Direction {
    /// Of each query, the answers before its first right one; `None` without a right answer.
    ranks: Vec<Option<usize>>,
    top: Top,
    /// Of each query, the average precision among the first answers.
    precisions: Vec<f64>,
    num_answers: usize,
}

/// Retrieval in both directions.
pub(crate) struct Retrieved {
    /// Of each text, the row of its image.
    image_of_text: Vec<usize>,
    right: RightAnswers,
    images: Direction,
    texts: Direction,
}

impl Direction {
    fn of<'r>(scores: &Scores<'_>, right: impl Fn(usize) -> &'r [usize]) -> Result<Self, TrainError> {
        let ranks = scores.ranks(&right)?;
        let top = Top::of(scores, ANSWERS, 1.0)?;
        let precision = |row: usize| {
            let (right, mut found, mut sum) = (right(row), 0_usize, 0.0);
            for (place, answer) in top.row(row).iter().enumerate() {
                if !answer.score.is_nan() && right.binary_search(&answer.column).is_ok() {
                    found += 1;
                    sum += found as f64 / (place + 1) as f64;
                }
            }
            sum / right.len().min(ANSWERS) as f64
        };
        let precisions = (0..top.len()).map(precision).collect();
        Ok(Self { ranks, precisions, num_answers: scores.num_columns(), top })
    }

    /// The fractions of some queries with a right answer among the first, for each k.
    fn recalls(&self, queries: impl Iterator<Item = usize>) -> [f64; RECALL_AT.len()] {
        let (mut hits, mut count) = ([0_usize; RECALL_AT.len()], 0_usize);
        for rank in queries.filter_map(|query| self.ranks[query]) {
            count += 1;
            hits.iter_mut().zip(RECALL_AT).for_each(|(hits, k)| *hits += usize::from(rank < k));
        }
        hits.map(|hits| hits as f64 / count.max(1) as f64)
    }

    /// Median rank, mean reciprocal rank and mean average precision.
    fn ranking(&self) -> [(&'static str, f64); 3] {
        // A query without any score has its right answer behind all others.
        let place = |rank: usize| if rank == NO_PLACE { self.num_answers } else { rank + 1 };
        let reciprocal = |rank: usize| if rank == NO_PLACE { 0.0 } else { 1.0 / (rank + 1) as f64 };
        let ranks: Vec<usize> = self.ranks.iter().copied().flatten().collect();
        let count = ranks.len().max(1) as f64;
        let mut places: Vec<usize> = ranks.iter().copied().map(place).collect();
        places.sort_unstable();
        let middle = |at: usize| places.get(at).map_or(0.0, |&place| place as f64);
        let median = f64::midpoint(middle(places.len().saturating_sub(1) / 2), middle(places.len() / 2));
        let with_answer = self.ranks.iter().zip(&self.precisions).filter(|(rank, _)| rank.is_some());
        let precision = with_answer.map(|(_, precision)| precision).sum::<f64>();
        let reciprocals = ranks.iter().copied().map(reciprocal).sum::<f64>();
        [("median_rank", median), ("mrr", reciprocals / count), ("map@10", precision / count)]
    }

    /// Of each query, the best answers. `right` returns the right ones, ascending.
    fn found<'r>(&self, right: impl Fn(usize) -> &'r [usize]) -> Vec<Vec<Found>> {
        let answers = |query: usize| {
            let found = |answer: &Answer| {
                let is_right = right(query).binary_search(&answer.column).is_ok();
                Found { row: answer.column, score: answer.score, is_right }
            };
            self.top.row(query).iter().map(found).collect()
        };
        (0..self.top.len()).map(answers).collect()
    }
}

impl Retrieved {
    /// Ranks all texts (rows of `scores`) for all images (columns), and the other way round. `image_of_text`: the
    /// column of each row's image; `caption_ids`: one per row, which equal captions share.
    ///
    /// # Errors
    /// Those of [`Scores::ranks`].
    pub fn of(scores: &Scores<'_>, image_of_text: Vec<usize>, caption_ids: &[u64]) -> Result<Self, TrainError> {
        let right = RightAnswers::new(&image_of_text, caption_ids, scores.num_columns());
        let images = Direction::of(scores, |text| right.images(text))?;
        let by_image = Scores { rows: scores.columns, columns: scores.rows, ..*scores };
        // An image without a caption has no right answer and is left out.
        let texts = Direction::of(&by_image, |image| right.texts(image))?;
        Ok(Self { image_of_text, right, images, texts })
    }

    /// Metrics by name.
    pub fn metrics(&self) -> Map<String, Value> {
        let (num_texts, num_images) = (self.image_of_text.len(), self.texts.ranks.len());
        let mut texts_of_image = vec![Vec::new(); num_images];
        self.image_of_text.iter().enumerate().for_each(|(text, &image)| texts_of_image[image].push(text));
        let texts_of = |images: &[usize]| -> Vec<usize> {
            images.iter().flat_map(|&image| texts_of_image[image].iter().copied()).collect()
        };
        let by_text = |images: &[usize]| self.images.recalls(texts_of(images).into_iter());
        let by_image = |images: &[usize]| self.texts.recalls(images.iter().copied());
        let recalls = [self.images.recalls(0..num_texts), self.texts.recalls(0..num_images)];
        let ends = [bootstrap::intervals(num_images, by_text), bootstrap::intervals(num_images, by_image)];
        let directions = [("image_retrieval", &self.images), ("text_retrieval", &self.texts)];
        let mut metrics = Map::new();
        metrics.insert("num_texts".to_owned(), json!(num_texts));
        if self.right.num_captions() < num_texts {
            metrics.insert("num_distinct_texts".to_owned(), json!(self.right.num_captions()));
        }
        let units = texts_of_image.iter().filter(|texts| !texts.is_empty()).count() as f64;
        for ((name, direction), (recalls, ends)) in directions.into_iter().zip(recalls.into_iter().zip(ends)) {
            for (k, (recall, ends)) in RECALL_AT.into_iter().zip(recalls.into_iter().zip(ends)) {
                metrics.insert(format!("{name}_recall@{k}"), json!(recall));
                let ends = bootstrap::of_fraction(recall, ends, units);
                bootstrap::insert(&mut metrics, &format!("{name}_recall@{k}"), ends);
            }
            for (kind, value) in direction.ranking() {
                metrics.insert(format!("{name}_{kind}"), json!(value));
            }
        }
        metrics
    }

    /// The answers to all queries. `images`, `captions`: the number of each row in the data.
    pub fn details(
        self,
        (images, image_embeds): (Vec<usize>, DetailEmbeds),
        (captions, text_embeds): (Vec<usize>, DetailEmbeds),
    ) -> RetrievalDetails {
        let images_found = self.images.found(|text| self.right.images(text));
        let captions_found = self.texts.found(|image| self.right.texts(image));
        let image_of_caption = self.image_of_text;
        RetrievalDetails { images, captions, image_of_caption, images_found, captions_found, image_embeds, text_embeds }
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
            let metrics = Retrieved::of(&scores, vec![0, 0, 1], &[7, 8, 9]).unwrap().metrics();
            // Texts 0 and 2 rank their image first, text 1 second.
            assert_eq!(metrics["image_retrieval_recall@1"], json!(2.0 / 3.0));
            assert_eq!(metrics["image_retrieval_recall@5"], json!(1.0));
            // Image 0 ranks text 0 first; image 1 ranks text 1 first, which belongs to image 0.
            assert_eq!(metrics["text_retrieval_recall@1"], json!(0.5));
            assert_eq!((&metrics["num_texts"], metrics.get("num_distinct_texts")), (&json!(3), None));
            // Two images with captions: 2 / (2 + 1.96^2).
            let low = metrics["image_retrieval_recall@5_ci95"][0].as_f64().unwrap();
            assert!((low - 0.342_38).abs() < 1e-5, "{low}");
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
        let metrics = |ids: &[u64]| Retrieved::of(&scores, vec![0, 1, 2], ids).unwrap().metrics();
        assert_eq!(metrics(&[7, 7, 9])["num_distinct_texts"], json!(2));
        let recall = |ids: &[u64]| {
            let metrics = metrics(ids);
            ["image_retrieval_recall@1", "text_retrieval_recall@1"].map(|name| metrics[name].as_f64().unwrap())
        };
        // Text 0 ranks image 1 first, which has the same caption. Image 0 ranks text 2 first, image 1 text 0.
        assert_eq!(recall(&[7, 7, 9]), [1.0, 2.0 / 3.0]);
        assert_eq!(recall(&[7, 8, 9]), [2.0 / 3.0, 1.0 / 3.0]);
    }
}
