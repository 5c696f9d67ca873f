//! Answers of evaluations as tables of classes and as examples of retrieval.

use std::collections::HashSet;

use dualenc_data::{Dataset, counted};
use dualenc_report::{
    CalibrationBin, ClassResult, Classification, Confusion, FoundImage, FoundText, ImageQuery, RetrievalExamples,
    TextQuery,
};

use crate::commands::report::embedded::{dot, sample, shown_path};
use crate::commands::report::thumbnails::Thumbnails;
use crate::eval::metrics::details::{ClassDetails, Found, RetrievalDetails};

/// Queries in each direction: half with a right first answer, half with a wrong one.
const QUERIES: usize = 6;

/// Answers of a query that are shown.
const ANSWERS: usize = 5;

/// Set the draws of captions and of images apart.
const STREAMS: [u64; 2] = [0x6361_7074, 0x696d_6167];

/// The classes of a classification at `step`. `ece`: its metric.
pub(super) fn classification(found: &ClassDetails, step: u64, ece: Option<f64>) -> Classification {
    let class = |it: &crate::eval::metrics::details::ClassResult| ClassResult {
        name: it.name.clone(),
        images: it.images as u64,
        hits: it.hits as u64,
        predicted: it.predicted as u64,
        average_precision: it.average_precision,
    };
    let confusion = |it: &crate::eval::metrics::details::Confusion| Confusion {
        label: it.label,
        predicted: it.predicted,
        count: it.count as u64,
    };
    let bin = |it: &crate::eval::metrics::calibration::CalibrationBin| CalibrationBin {
        count: it.count as u64,
        confidence: it.confidence,
        accuracy: it.accuracy,
    };
    Classification {
        step: Some(step),
        classes: found.classes.iter().map(class).collect(),
        confusions: found.confusions.iter().map(confusion).collect(),
        calibration: found.calibration.iter().map(bin).collect(),
        ece,
    }
}

/// Some queries of a retrieval with what the model of `step` found.
pub(super) fn examples(
    found: &RetrievalDetails,
    dataset: &Dataset,
    (step, seed): (u64, u64),
    thumbnails: &mut Thumbnails,
) -> RetrievalExamples {
    let mut picture = |row: usize| {
        let image = found.images[row];
        thumbnails.show(&dataset.image(image), shown_path(dataset, image))
    };
    let text = |row: usize| dataset.caption(found.captions[row]).text.to_owned();
    let id = |row: usize| dataset.caption_id(found.captions[row]);
    let asked = first_of_equals(0..found.captions.len(), |row| id(*row));
    let texts = choose(&found.images_found, &asked, [seed, STREAMS[0]]).into_iter().map(|query| TextQuery {
        text: text(query),
        found: found.images_found[query]
            .iter()
            .take(ANSWERS)
            .map(|it| FoundImage { picture: picture(it.row), score: f64::from(it.score), is_match: it.is_right })
            .collect(),
        rank: Some(image_rank(found, query)),
    });
    let texts: Vec<TextQuery> = texts.collect();
    let asked: Vec<usize> = (0..found.captions_found.len()).collect();
    let images = choose(&found.captions_found, &asked, [seed, STREAMS[1]]).into_iter().map(|query| {
        let answers = first_of_equals(found.captions_found[query].iter().copied(), |it| id(it.row));
        let rank = first_right(&answers);
        let text = |it: Found| FoundText { text: text(it.row), score: f64::from(it.score), is_match: it.is_right };
        ImageQuery { picture: picture(query), found: answers.into_iter().take(ANSWERS).map(text).collect(), rank }
    });
    let images: Vec<ImageQuery> = images.collect();
    let chosen = format!(
        "Answers at step {step} to {} and {}, drawn at random by the seed of the run. Where there are enough of both, \
         half have a right first answer and half a wrong one, so they do not show how often answers are right. Equal \
         captions are shown once.",
        counted(texts.len(), "caption"),
        counted(images.len(), "image")
    );
    RetrievalExamples { chosen, texts, images }
}

/// `all` without those that have the id of an earlier one.
fn first_of_equals<T>(all: impl Iterator<Item = T>, id: impl Fn(&T) -> u64) -> Vec<T> {
    let mut known = HashSet::new();
    all.filter(|it| known.insert(id(it))).collect()
}

/// Some of `queries`: those with a right first answer first.
fn choose(found: &[Vec<Found>], queries: &[usize], key: [u64; 2]) -> Vec<usize> {
    let is_right = |query: &usize| found[*query].first().is_some_and(|first| first.is_right);
    let (right, wrong): (Vec<usize>, Vec<usize>) = queries.iter().copied().partition(is_right);
    let most = |own: usize, other: usize| (QUERIES / 2).max(QUERIES.saturating_sub(other)).min(own);
    let pick = |queries: &[usize], count: usize| -> Vec<usize> {
        sample(queries.len(), count, &key).into_iter().map(|at| queries[at]).collect()
    };
    let wrong_count = most(wrong.len(), right.len());
    let right_count = most(right.len(), wrong.len());
    [pick(&right, right_count), pick(&wrong, wrong_count)].concat()
}

/// The rank of the first right answer, from 1; `None` if it is not among those that were kept.
fn first_right(found: &[Found]) -> Option<u64> {
    found.iter().position(|it| it.is_right).map(|place| place as u64 + 1)
}

/// The rank of the first right image of a caption, from 1, also beyond the answers that were kept.
fn image_rank(found: &RetrievalDetails, query: usize) -> u64 {
    first_right(&found.images_found[query]).unwrap_or_else(|| {
        let dim = found.text_embeds.dim;
        let caption = &found.text_embeds.values[query * dim..][..dim];
        let score = |row: usize| dot(caption, &found.image_embeds.values[row * dim..][..dim]);
        let own = score(found.image_of_caption[query]);
        1 + (0..found.images.len()).filter(|&row| score(row) > own).count() as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_queries_are_wrong() {
        let choose = |found: &[Vec<Found>], key| choose(found, &(0..found.len()).collect::<Vec<_>>(), key);
        let query = |is_right| vec![Found { row: 0, score: 0.5, is_right }];
        let mixed: Vec<Vec<Found>> = (0..40).map(|number| query(number % 4 > 0)).collect();
        let chosen = choose(&mixed, [1, 2]);
        let wrong = chosen.iter().filter(|&&number| number % 4 == 0).count();
        assert_eq!((chosen.len(), wrong), (6, 3), "{chosen:?}");
        let all_right: Vec<Vec<Found>> = (0..40).map(|_| query(true)).collect();
        assert_eq!(choose(&all_right, [1, 2]).len(), 6);
        assert_eq!(choose(&all_right[..2], [1, 2]), [0, 1]);
        assert_eq!(choose(&[], [1, 2]), [0; 0]);
    }

    #[test]
    fn equal_captions_are_shown_once() {
        let ids = [7, 8, 7, 7, 9, 8];
        let asked = first_of_equals(0..ids.len(), |row| ids[*row]);
        assert_eq!(asked, [0, 1, 4]);
        let answer = |row| Found { row, score: 0.5, is_right: ids[row] == 9 };
        let found: Vec<Vec<Found>> = vec![[3, 0, 2, 4, 1].map(answer).to_vec(); ids.len()];
        let mut chosen = choose(&found, &asked, [1, 2]);
        chosen.sort_unstable();
        assert_eq!(chosen, [0, 1, 4], "a query and its copies are one");
        let answers = first_of_equals(found[0].iter().copied(), |it| ids[it.row]);
        assert_eq!(answers.iter().map(|it| it.row).collect::<Vec<_>>(), [3, 4, 1]);
        assert_eq!(first_right(&answers), Some(2));
    }
}
