//! A sample of embeddings with their matching pairs: the map, the histograms of similarities, the modality gap.

use std::collections::{BTreeMap, BTreeSet};

use dualenc_data::{Dataset, counted, mix};
use dualenc_report::{Report, embedding_map, modality_gap, similarities};

use crate::eval::metrics::details::{ClassDetails, RetrievalDetails};

/// Pairs of the map and the histograms, which hold at most so many points a side.
const MOST_PAIRS: usize = 1000;

/// Texts that each image is compared with besides its own: enough for a smooth histogram.
const OTHERS: u64 = 16;

/// Set the draws of pairs and of other texts apart.
const STREAMS: [u64; 2] = [0x6d61_7070, 0x6f74_6865];

/// Embeddings of images and texts, and which of them belong together.
#[derive(Debug, Clone, Default)]
pub(super) struct Embedded {
    /// Values per row.
    pub dim: usize,
    /// Shape `[images, dim]`, flat, L2-normalised.
    pub images: Vec<f32>,
    /// Shape `[texts, dim]`, likewise.
    pub texts: Vec<f32>,
    /// A path for each image.
    pub image_titles: Vec<String>,
    /// A text for each row.
    pub text_titles: Vec<String>,
    /// One id per text, which equal texts share.
    pub text_ids: Vec<u64>,
    /// Rows of an image and of a text that belong together.
    pub pairs: Vec<[usize; 2]>,
}

impl Embedded {
    /// The embeddings of a retrieval.
    pub fn of_retrieval(found: &RetrievalDetails, dataset: &Dataset) -> Self {
        let (images, texts) = (&found.image_embeds, &found.text_embeds);
        Self {
            dim: images.dim,
            images: images.values.clone(),
            texts: texts.values.clone(),
            image_titles: found.images.iter().map(|&image| shown_path(dataset, image)).collect(),
            text_titles: found.captions.iter().map(|&caption| dataset.caption(caption).text.to_owned()).collect(),
            text_ids: found.captions.iter().map(|&caption| dataset.caption_id(caption)).collect(),
            pairs: found.image_of_caption.iter().enumerate().map(|(text, &image)| [image, text]).collect(),
        }
    }

    /// The embeddings of a classification: of its images and of its classes.
    pub fn of_classes(found: &ClassDetails, dataset: &Dataset) -> Self {
        let labels = |(row, labels): (usize, &Vec<usize>)| labels.iter().map(move |&class| [row, class]).collect();
        let pairs: Vec<Vec<[usize; 2]>> =
            found.predictions.iter().map(|it| &it.labels).enumerate().map(labels).collect();
        Self {
            dim: found.image_embeds.dim,
            images: found.image_embeds.values.clone(),
            texts: found.class_embeds.values.clone(),
            image_titles: found.predictions.iter().map(|it| shown_path(dataset, it.image)).collect(),
            text_titles: found.classes.iter().map(|class| class.name.clone()).collect(),
            text_ids: (0..found.classes.len() as u64).collect(),
            pairs: pairs.concat(),
        }
    }

    /// The embedding of an image.
    pub fn image(&self, row: usize) -> &[f32] {
        &self.images[row * self.dim..][..self.dim]
    }

    /// The embedding of a text.
    pub fn text(&self, row: usize) -> &[f32] {
        &self.texts[row * self.dim..][..self.dim]
    }

    /// Fills the embeddings of a report. `of`: which embeddings these are, such as "the pairs of evaluation `x`".
    pub fn add_to(&self, report: &mut Report, seed: u64, of: &str) {
        let part = self.sampled(seed);
        let (matching, other) = part.cosines(seed);
        report.similarities = Some(similarities(&matching, &other));
        report.modality_gap = modality_gap(&part.images, &part.texts, part.dim);
        let (images, texts) = ((&part.images[..], &part.image_titles[..]), (&part.texts[..], &part.text_titles[..]));
        let mut map = embedding_map(images, texts, part.pairs.clone(), part.dim);
        let (pairs, all) = (counted(part.pairs.len(), "matching pair"), self.pairs.len());
        map.note = Some(if part.pairs.len() < all {
            format!("{of}: a random sample of {pairs} of {all}.")
        } else {
            format!("{of}: all {pairs}.")
        });
        report.map = Some(map);
    }

    /// At most [`MOST_PAIRS`] pairs, and the rows that belong to them.
    fn sampled(&self, seed: u64) -> Self {
        let chosen = sample(self.pairs.len(), MOST_PAIRS, &[seed, STREAMS[0]]);
        let pairs: Vec<[usize; 2]> = chosen.iter().map(|&pair| self.pairs[pair]).collect();
        let side = |of: fn(&[usize; 2]) -> usize| -> BTreeMap<usize, usize> {
            let rows: BTreeSet<usize> = pairs.iter().map(of).collect();
            rows.into_iter().enumerate().map(|(new, row)| (row, new)).collect()
        };
        let (images, texts) = (side(|pair| pair[0]), side(|pair| pair[1]));
        Self {
            dim: self.dim,
            images: images.keys().flat_map(|&row| self.image(row)).copied().collect(),
            texts: texts.keys().flat_map(|&row| self.text(row)).copied().collect(),
            image_titles: images.keys().map(|&row| self.image_titles[row].clone()).collect(),
            text_titles: texts.keys().map(|&row| self.text_titles[row].clone()).collect(),
            text_ids: texts.keys().map(|&row| self.text_ids[row]).collect(),
            pairs: pairs.iter().map(|[image, text]| [images[image], texts[text]]).collect(),
        }
    }

    /// Cosines of the matching pairs, and of images with texts of other images.
    fn cosines(&self, seed: u64) -> (Vec<f32>, Vec<f32>) {
        let mut own: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        for [image, text] in &self.pairs {
            own.entry(*image).or_default().insert(self.text_ids[*text]);
        }
        let matching = self.pairs.iter().map(|&[image, text]| dot(self.image(image), self.text(text))).collect();
        let count = self.text_ids.len() as u64;
        let mut other = Vec::new();
        for (&image, own) in &own {
            let drawn = (0..OTHERS).map(|draw| (mix(seed, &[STREAMS[1], image as u64, draw]) % count) as usize);
            let drawn: BTreeSet<usize> = drawn.filter(|&text| !own.contains(&self.text_ids[text])).collect();
            other.extend(drawn.into_iter().map(|text| dot(self.image(image), self.text(text))));
        }
        (matching, other)
    }
}

/// At most `most` of the numbers below `count`, drawn by `key`, in ascending order.
pub(super) fn sample(count: usize, most: usize, key: &[u64; 2]) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    if count > most {
        all.sort_by_cached_key(|&number| mix(key[0], &[key[1], number as u64]));
        all.truncate(most);
        all.sort_unstable();
    }
    all
}

/// The path of an image, relative to its data.
pub(super) fn shown_path(dataset: &Dataset, image: usize) -> String {
    let key = dataset.image(image).key();
    let root = dataset.root_of(image).map(|root| root.display().to_string());
    let relative = root.and_then(|root| key.strip_prefix(&root).map(|path| path.trim_start_matches('/').to_owned()));
    relative.filter(|path| !path.is_empty()).unwrap_or(key)
}

/// The cosine of two normalised rows.
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_drawn_without_repetition() {
        assert_eq!(sample(3, 5, &[1, 2]), [0, 1, 2]);
        let drawn = sample(100, 10, &[1, 2]);
        assert_eq!((drawn.len(), drawn.iter().collect::<BTreeSet<_>>().len()), (10, 10));
        assert!(drawn.is_sorted());
        assert_eq!(drawn, sample(100, 10, &[1, 2]));
        assert_ne!(drawn, sample(100, 10, &[2, 2]));
    }

    /// Texts 0 and 1 are equal and belong to image 0; text 2 belongs to image 1.
    fn embedded() -> Embedded {
        Embedded {
            dim: 2,
            images: vec![1.0, 0.0, 0.0, 1.0],
            texts: vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0],
            image_titles: vec!["a".into(), "b".into()],
            text_titles: vec!["x".into(), "x".into(), "y".into()],
            text_ids: vec![7, 7, 8],
            pairs: vec![[0, 0], [1, 2]],
        }
    }

    #[test]
    fn equal_texts_are_no_other_pairs() {
        let (matching, other) = embedded().cosines(3);
        assert_eq!(matching, [1.0, 1.0]);
        assert!(!other.is_empty() && other.iter().all(|cosine| *cosine == 0.0), "{other:?}");
    }

    #[test]
    fn rows_without_a_pair_are_left_out() {
        let part = embedded().sampled(1);
        assert_eq!((part.text_titles, part.pairs), (vec!["x".to_owned(), "y".to_owned()], vec![[0, 0], [1, 1]]));
        assert_eq!(part.texts, [1.0, 0.0, 0.0, 1.0]);
    }
}
