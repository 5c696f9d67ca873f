//! k-nearest-neighbour classification (Wu et al., 2018, arXiv:1805.01978, sec. 3.4, as in DINO's `eval_knn.py`): each
//! of the k train images with the highest cosine similarity votes for its class, with the weight `exp(similarity /
//! 0.07)`.

use crate::error::TrainError;
use crate::eval::metrics::scores::{NO_PLACE, Scores};
use crate::eval::metrics::top::Top;

/// The temperature of the votes: Wu et al., sec. 3.4; `--temperature` of DINO's `eval_knn.py`.
const TEMPERATURE: f64 = 0.07;

/// Of each test image, the number of classes before its own. `scores`: of the test images (rows) with the train images
/// (columns). A class without a vote has no place.
///
/// # Errors
/// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set.
pub(crate) fn ranks(
    scores: &Scores<'_>,
    neighbors: usize,
    train_labels: &[usize],
    test_labels: &[usize],
    num_classes: usize,
) -> Result<Vec<usize>, TrainError> {
    let top = Top::of(scores, neighbors, 1.0 / TEMPERATURE)?;
    let rank = |(row, &label): (usize, &usize)| {
        let mut votes = vec![0.0; num_classes];
        for answer in top.row(row).iter().filter(|answer| !answer.score.is_nan()) {
            votes[train_labels[answer.column]] += (f64::from(answer.score) / TEMPERATURE).exp();
        }
        if votes[label] > 0.0 { place(&votes, label) } else { NO_PLACE }
    };
    Ok(test_labels.iter().enumerate().map(rank).collect())
}

/// The number of classes before `label` in descending order of scores. Ties are in order of classes; a score that is
/// not a number has no place.
pub(crate) fn place(scores: &[f64], label: usize) -> usize {
    let own = scores[label];
    if own.is_nan() {
        return NO_PLACE;
    }
    let is_before = |(class, score): (usize, f64)| score > own || (score == own && class < label);
    scores.iter().copied().enumerate().filter(|&it| is_before(it)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Compute;
    use crate::stop_flag::StopFlag;

    #[test]
    fn near_votes_weigh_more() {
        let compute = Compute::select("cpu", None).unwrap();
        let stop = StopFlag::default();
        // One near image of class 1, two farther ones of class 0, and one of class 2 beyond the neighbours.
        let columns = [0.9, 0.8, 0.8, 0.1, f32::NAN];
        let ranks_of = |rows: &[f32], labels: &[usize], k| {
            let scores = Scores { rows, columns: &columns, dim: 1, device: &compute.device, stop: &stop, tile: 1000 };
            ranks(&scores, k, &[1, 0, 0, 2, 2], labels, 4).unwrap()
        };
        // exp(.9 / .07) = 4.2 * exp(.8 / .07), more than the two votes of class 0.
        assert_eq!(ranks_of(&[1.0; 4], &[0, 1, 2, 3], 3), [1, 0, NO_PLACE, NO_PLACE]);
        assert_eq!(ranks_of(&[1.0; 2], &[0, 2], 5), [1, 2]);
        assert_eq!(ranks_of(&[f32::NAN], &[0], 3), [NO_PLACE]);
    }

    #[test]
    fn nan_has_no_place() {
        let scores = [0.5, f64::NAN, 0.5, 0.7];
        assert_eq!([0, 1, 2, 3].map(|label| place(&scores, label)), [1, NO_PLACE, 2, 0]);
    }
}
