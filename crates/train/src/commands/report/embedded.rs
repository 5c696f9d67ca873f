//! A sample of embeddings with their matching pairs: the map, the histograms of similarities, the modality gap.

use std::collections::{BTreeMap, BTreeSet};

use dualenc_data::{Dataset, counted, mix};
use dualenc_report::{Report, Similarities, embedding_map, modality_gap, similarities};

use crate::eval::metrics::details::{ClassDetails, RetrievalDetails};

/// Pairs of the map and the histograms: as many points a side as stay apart.
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
    /// Number of pairs that these are a sample of.
    pub all_pairs: usize,
}

impl Embedded {
    /// A sample of the embeddings of a retrieval.
    pub fn of_retrieval(found: &RetrievalDetails, dataset: &Dataset, seed: u64) -> Self {
        let (images, texts) = (&found.image_embeds, &found.text_embeds);
        let pairs: Vec<[usize; 2]> =
            found.image_of_caption.iter().enumerate().map(|(text, &image)| [image, text]).collect();
        Self::sample((images.dim, &images.values, &texts.values), &pairs, seed).titled(
            |row| shown_path(dataset, found.images[row]),
            |row| {
                let caption = found.captions[row];
                (dataset.caption(caption).text.to_owned(), dataset.caption_id(caption))
            },
        )
    }

    /// A sample of the embeddings of a classification: of its images and of its classes.
    pub fn of_classes(found: &ClassDetails, dataset: &Dataset, seed: u64) -> Self {
        let labels = found.predictions.iter().map(|it| &it.labels).enumerate();
        let pairs: Vec<[usize; 2]> =
            labels.flat_map(|(row, labels)| labels.iter().map(move |&class| [row, class])).collect();
        let (images, classes) = (&found.image_embeds, &found.class_embeds);
        Self::sample((images.dim, &images.values, &classes.values), &pairs, seed).titled(
            |row| shown_path(dataset, found.predictions[row].image),
            |row| (found.classes[row].name.clone(), row as u64),
        )
    }

    /// At most [`MOST_PAIRS`] pairs, and the rows that belong to them.
    pub fn sampled(&self, seed: u64) -> Self {
        let part = Self::sample((self.dim, &self.images, &self.texts), &self.pairs, seed);
        let text = |row: usize| (self.text_titles[row].clone(), self.text_ids[row]);
        part.titled(|row| self.image_titles[row].clone(), text)
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
        let (matching, other) = self.cosines(seed);
        let all = self.num_other();
        let note = format!("Other pairs: a random sample of {} of {}.", other.len(), counted(all, "pair"));
        let note = (other.len() < all).then_some(note);
        report.similarities = Some(Similarities { note, ..similarities(&matching, &other) });
        report.modality_gap = modality_gap(&self.images, &self.texts, self.dim);
        let (images, texts) = ((&self.images[..], &self.image_titles[..]), (&self.texts[..], &self.text_titles[..]));
        let mut map = embedding_map(images, texts, self.pairs.clone(), self.dim);
        let pairs = counted(self.pairs.len(), "matching pair");
        map.note = Some(if self.pairs.len() < self.all_pairs {
            format!("{of}: a random sample of {pairs} of {}.", self.all_pairs)
        } else {
            format!("{of}: all {pairs}.")
        });
        report.map = Some(map);
    }

    /// At most [`MOST_PAIRS`] of `pairs`, and the rows that belong to them: the whole may be as large as the memory.
    fn sample((dim, images, texts): (usize, &[f32], &[f32]), all: &[[usize; 2]], seed: u64) -> Sample {
        let chosen = sample(all.len(), MOST_PAIRS, &[seed, STREAMS[0]]);
        let pairs: Vec<[usize; 2]> = chosen.iter().map(|&pair| all[pair]).collect();
        let side = |place: usize| -> BTreeMap<usize, usize> {
            let rows: BTreeSet<usize> = pairs.iter().map(|pair| pair[place]).collect();
            rows.into_iter().enumerate().map(|(new, row)| (row, new)).collect()
        };
        let (image_rows, text_rows) = (side(0), side(1));
        let part = |values: &[f32], rows: &BTreeMap<usize, usize>| {
            rows.keys().flat_map(|&row| &values[row * dim..][..dim]).copied().collect()
        };
        let part = Self {
            dim,
            images: part(images, &image_rows),
            texts: part(texts, &text_rows),
            pairs: pairs.iter().map(|[image, text]| [image_rows[image], text_rows[text]]).collect(),
            all_pairs: all.len(),
            ..Self::default()
        };
        Sample { part, images: image_rows.into_keys().collect(), texts: text_rows.into_keys().collect() }
    }

    /// The texts of each image, by their ids.
    fn own_texts(&self) -> BTreeMap<usize, BTreeSet<u64>> {
        let mut own: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        for [image, text] in &self.pairs {
            own.entry(*image).or_default().insert(self.text_ids[*text]);
        }
        own
    }

    /// Number of pairs of an image and a text that is not one of its own.
    fn num_other(&self) -> usize {
        let mut texts: BTreeMap<u64, usize> = BTreeMap::new();
        self.text_ids.iter().for_each(|id| *texts.entry(*id).or_default() += 1);
        let own = |ids: &BTreeSet<u64>| ids.iter().filter_map(|id| texts.get(id)).sum::<usize>();
        self.own_texts().values().map(|ids| self.text_ids.len() - own(ids)).sum()
    }

    /// Cosines of the matching pairs, and of images with texts of other images.
    fn cosines(&self, seed: u64) -> (Vec<f32>, Vec<f32>) {
        let own = self.own_texts();
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

/// A sample that has no titles yet, and the rows that it is from.
struct Sample {
    part: Embedded,
    images: Vec<usize>,
    texts: Vec<usize>,
}

impl Sample {
    /// The sample with the title of each image, and the title and the id of each text, by their rows in the whole.
    fn titled(self, image: impl Fn(usize) -> String, text: impl Fn(usize) -> (String, u64)) -> Embedded {
        let (text_titles, text_ids) = self.texts.into_iter().map(text).unzip();
        Embedded { image_titles: self.images.into_iter().map(image).collect(), text_titles, text_ids, ..self.part }
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
            all_pairs: 2,
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

    #[test]
    fn samples_say_what_they_are_of() {
        let values: Vec<f32> = (0..3_000).map(|row| row as f32).collect();
        let pairs: Vec<[usize; 2]> = (0..3_000).map(|row| [row, 2_999 - row]).collect();
        let title = |row: usize| row.to_string();
        let part = Embedded::sample((1, &values, &values), &pairs, 1).titled(title, |row| (title(row), row as u64));
        assert_eq!((part.images.len(), part.texts.len(), part.all_pairs), (MOST_PAIRS, MOST_PAIRS, 3_000));
        for [image, text] in &part.pairs {
            assert_eq!(part.images[*image] + part.texts[*text], 2_999.0);
            assert_eq!(part.image_titles[*image], part.images[*image].to_string());
            assert_eq!(part.text_ids[*text] as f32, part.texts[*text]);
        }
        let mut report = Report::default();
        part.add_to(&mut report, 1, "Pairs");
        let found = report.similarities.unwrap();
        let expected = format!("Other pairs: a random sample of {} of 999000 pairs.", found.other.total());
        assert_eq!(found.note.unwrap(), expected);
        assert_eq!(report.map.unwrap().note.unwrap(), "Pairs: a random sample of 1000 matching pairs of 3000.");
    }
}
