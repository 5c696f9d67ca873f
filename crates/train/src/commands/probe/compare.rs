//! Figures of an image and a text feature set.

use std::collections::{HashMap, HashSet};

use burn::tensor::Tensor;
use dualenc_model::parameters;

use crate::commands::probe::feature_set::{FeatureSet, Protocol};
use crate::commands::probe::report::Recall;
use crate::error::TrainError;
use crate::eval::metrics::right_answers::RightAnswers;
use crate::eval::metrics::scores::{Scores, TILE_SCORES, normalize_rows};

/// Places that recall counts.
const PLACES: [usize; 2] = [1, 5];

/// The mean share of neighbours that both feature sets agree on (Huh et al., 2024, arXiv:2405.07987, sec. 3). NaN if a
/// feature set does not vary.
pub(super) fn mutual_neighbors(one: &FeatureSet, other: &FeatureSet) -> f64 {
    if one.spread <= 0.0 || other.spread <= 0.0 {
        return f64::NAN;
    }
    overlap(&one.neighbors, &other.neighbors)
}

/// The mean share of numbers that are in both of two ascending lists of equal lengths.
fn overlap(one: &[Vec<usize>], other: &[Vec<usize>]) -> f64 {
    let shared = one.iter().zip(other).map(|(one, other)| {
        let both = one.iter().filter(|row| other.binary_search(row).is_ok()).count();
        both as f64 / one.len().max(1) as f64
    });
    shared.sum::<f64>() / one.len().max(1) as f64
}

/// Linear centred kernel alignment (Kornblith et al., 2019, arXiv:1905.00414) with the unbiased estimator of HSIC (Song
/// et al., 2012, as in Nguyen et al., 2021, arXiv:2010.15327, eq. 3), which does not grow with the width of the
/// features. NaN if a feature set does not vary.
///
/// # Errors
/// [`TrainError::Model`] when the device cannot return its data.
pub(super) fn kernel_alignment(one: &FeatureSet, other: &FeatureSet) -> Result<f64, TrainError> {
    if one.spread <= 0.0 || other.spread <= 0.0 {
        return Ok(f64::NAN);
    }
    Ok(one.dependence(other)? / (one.spread * other.spread).sqrt())
}

/// Recall of a closed-form alignment on the pairs that it is not fitted to. `caption_ids`: of these pairs; equal
/// captions share one, and are right answers to all of their images.
///
/// # Errors
/// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set.
pub(super) fn held_out_recall(
    image: &FeatureSet,
    text: &FeatureSet,
    caption_ids: &[u64],
    protocol: &Protocol<'_>,
) -> Result<Recall, TrainError> {
    let (Some(shares), Some(fitted), Some(tested)) = (&image.tested, &text.fitted, &text.tested) else {
        return Ok(Recall { image: [f64::NAN; 2], text: [f64::NAN; 2] });
    };
    let rows = |tensor: Tensor<2>| -> Result<Vec<f32>, TrainError> {
        let mut values = parameters::host(tensor)?.values;
        normalize_rows(&mut values, text.width);
        Ok(values)
    };
    let images = rows(shares.clone().matmul(fitted.clone()))?;
    let texts = rows(tested.clone())?;
    let pairs = caption_ids.len();
    let answers = RightAnswers::new(&(0..pairs).collect::<Vec<_>>(), caption_ids, pairs);
    let (dim, device, stop) = (text.width, protocol.device, protocol.stop);
    let scores = |rows, columns| Scores { rows, columns, dim, device, stop, tile: TILE_SCORES };
    let recall = |ranks: Vec<Option<usize>>| {
        PLACES.map(|place| {
            let hits = ranks.iter().flatten().filter(|&&rank| rank < place).count();
            hits as f64 / pairs.max(1) as f64
        })
    };
    Ok(Recall {
        image: recall(scores(&texts, &images).ranks(|text| answers.images(text))?),
        text: recall(scores(&images, &texts).ranks(|image| answers.texts(image))?),
    })
}

/// What recall unrelated features have on average: the order of answers is random, and equal captions, which have equal
/// features, come one after the other. `caption_ids`: as for [`held_out_recall`].
pub(super) fn chance(caption_ids: &[u64]) -> Recall {
    let mut sizes: HashMap<u64, usize> = HashMap::new();
    caption_ids.iter().for_each(|&id| *sizes.entry(id).or_default() += 1);
    let groups: Vec<usize> = sizes.into_values().collect();
    let mean = |hit: &dyn Fn(usize) -> f64| {
        groups.iter().map(|&size| size as f64 * hit(size)).sum::<f64>() / caption_ids.len().max(1) as f64
    };
    let image = PLACES.map(|place| mean(&|size| image_chance(caption_ids.len(), size, place)));
    // Depends on the size only.
    let of_size = |place: usize| -> HashMap<usize, f64> {
        groups.iter().collect::<HashSet<_>>().into_iter().map(|&it| (it, text_chance(&groups, it, place))).collect()
    };
    let text = PLACES.map(|place| {
        let of_size = of_size(place);
        mean(&|size| of_size[&size])
    });
    Recall { image, text }
}

/// The probability that one of `right` of `total` images is among the first `place`, in random order.
fn image_chance(total: usize, right: usize, place: usize) -> f64 {
    let miss = |at: usize| (total - right).saturating_sub(at) as f64 / (total - at) as f64;
    1.0 - (0..place.min(total)).map(miss).product::<f64>()
}

/// The probability that fewer than `place` captions are before those of a group of `size`, where the groups of equal
/// captions are in random order. `groups`: the sizes of all.
fn text_chance(groups: &[usize], size: usize, place: usize) -> f64 {
    // Of the other groups: how many sets of `count` groups have `captions` captions in all.
    let mut sets = vec![vec![0.0; place]; place];
    sets[0][0] = 1.0;
    let mut is_own = true;
    for &other in groups {
        if other == size && std::mem::take(&mut is_own) {
            continue;
        }
        for count in (0..place.saturating_sub(1)).rev() {
            for captions in 0..place.saturating_sub(other) {
                sets[count + 1][captions + other] += sets[count][captions];
            }
        }
    }
    // Any number of groups may be before, each as probably, and any set of as many groups.
    let others = groups.len() - 1;
    let mut num_sets = 1.0;
    let mut probability = 0.0;
    for (count, sets) in sets.iter().enumerate().take(others + 1) {
        probability += sets.iter().sum::<f64>() / num_sets / groups.len() as f64;
        num_sets *= (others - count) as f64 / (count + 1) as f64;
    }
    probability
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use dualenc_data::mix;
    use serde_json::Value;

    use super::*;
    use crate::commands::probe::feature_set::Side;
    use crate::commands::probe::towers::Features;
    use crate::device::Compute;
    use crate::stop_flag::StopFlag;

    const PAIRS: usize = 120;

    fn noise(seed: u64, width: usize) -> Vec<f32> {
        (0..PAIRS * width).map(|at| (mix(seed, &[at as u64]) % 2001) as f32 / 1000.0 - 1.0).collect()
    }

    /// `values` rotated in the planes of neighbouring dimensions, scaled.
    fn rotated(values: &[f32], width: usize) -> Vec<f32> {
        let mut rotated = values.to_vec();
        for row in rotated.chunks_exact_mut(width) {
            for at in 0..width - 1 {
                let (a, b) = (row[at], row[at + 1]);
                (row[at], row[at + 1]) = (3.0 * (0.6 * a - 0.8 * b), 3.0 * (0.8 * a + 0.6 * b));
                // Keeps the scale of both alike.
                (row[at], row[at + 1]) = (row[at] / 3.0, row[at + 1] / 3.0);
            }
        }
        rotated.iter().map(|value| value * 5.0).collect()
    }

    fn with_sets(values: [Vec<f32>; 2], width: usize, check: impl Fn(&FeatureSet, &FeatureSet, &Protocol<'_>)) {
        let compute = Compute::select("cpu", None).unwrap();
        let stop = StopFlag::default();
        let protocol = Protocol { neighbors: 10, fitted: PAIRS / 2, device: &compute.device, stop: &stop };
        let features = |values| Features { tower: "t".to_owned(), layer: 1, num_layers: 1, pool: "cls", width, values };
        let [image, text] = values;
        let image = FeatureSet::new(features(image), Side::Image, &protocol).unwrap();
        let text = FeatureSet::new(features(text), Side::Text, &protocol).unwrap();
        check(&image, &text, &protocol);
    }

    #[test]
    fn rotation_changes_nothing() {
        let values = noise(1, 8);
        for other in [values.clone(), rotated(&values, 8)] {
            with_sets([values.clone(), other], 8, |image, text, protocol| {
                assert!((mutual_neighbors(image, text) - 1.0).abs() < 1e-9);
                assert!((kernel_alignment(image, text).unwrap() - 1.0).abs() < 1e-5);
                let ids: Vec<u64> = (0..PAIRS as u64 / 2).collect();
                let recall = held_out_recall(image, text, &ids, protocol).unwrap();
                assert_eq!((recall.image, recall.text), ([1.0; 2], [1.0; 2]));
            });
        }
    }

    #[test]
    fn noise_is_at_chance() {
        with_sets([noise(1, 8), noise(2, 8)], 8, |image, text, protocol| {
            let chance = 10.0 / (PAIRS as f64 - 1.0);
            assert!((mutual_neighbors(image, text) - chance).abs() < 0.03);
            assert!(kernel_alignment(image, text).unwrap().abs() < 0.03);
            let ids: Vec<u64> = (0..PAIRS as u64 / 2).collect();
            let recall = held_out_recall(image, text, &ids, protocol).unwrap();
            assert!(recall.image[0] < 0.1 && recall.text[0] < 0.1 && recall.image[1] < 0.25, "{recall:?}");
        });
    }

    #[test]
    fn equal_captions_are_one_answer() {
        with_sets([noise(1, 8), noise(2, 8)], 8, |image, text, protocol| {
            let recall = held_out_recall(image, text, &[7; PAIRS / 2], protocol).unwrap();
            assert_eq!((recall.image, recall.text), ([1.0; 2], [1.0; 2]));
        });
    }

    #[test]
    fn chance_counts_equal_captions() {
        // Without equal captions, the right answer is among the first k of n in k / n of the orders.
        let found = chance(&(0..20).collect::<Vec<_>>());
        for (found, expected) in found.image.into_iter().chain(found.text).zip([0.05, 0.25, 0.05, 0.25]) {
            assert!((found - expected).abs() < 1e-12, "{found}, {expected}");
        }
        // Captions of 5 + 1 images. A text of the five finds one of them first in 5 of 6 orders, the other in 1 of 6.
        // Of two captions, either is first; behind it are 1 or 5 texts.
        let found = chance(&[1, 1, 1, 1, 1, 2]);
        let expected = [[26.0 / 36.0, 35.0 / 36.0], [0.5, (5.0 + 0.5) / 6.0]];
        for (found, expected) in found.image.into_iter().chain(found.text).zip(expected.concat()) {
            assert!((found - expected).abs() < 1e-12, "{found}, {expected}");
        }
    }

    #[test]
    fn noise_with_few_captions_is_at_chance() {
        let ids: Vec<u64> = (0..PAIRS as u64).map(|at| mix(7, &[at]) % 7 / 2).collect();
        let tested = &ids[PAIRS / 2..];
        let (runs, sums) = (60, RefCell::new([0.0; 4]));
        for run in 0..runs {
            let captions = noise(100 + run, 8);
            let text = ids.iter().flat_map(|&id| captions[id as usize * 8..][..8].to_vec()).collect();
            with_sets([noise(200 + run, 8), text], 8, |image, text, protocol| {
                let recall = held_out_recall(image, text, tested, protocol).unwrap();
                let found = recall.image.into_iter().chain(recall.text);
                sums.borrow_mut().iter_mut().zip(found).for_each(|(sum, found)| *sum += found / runs as f64);
            });
        }
        let chance = chance(tested);
        let expected = [chance.image, chance.text].concat();
        // R@1 would be 1 / 60 if no captions were equal.
        assert!(expected[0] > 0.25 && expected[2] > 0.2, "{expected:?}");
        let found = sums.into_inner();
        assert!(found.iter().zip(&expected).all(|(one, other)| (one - other).abs() < 0.05), "{found:?}, {expected:?}");
    }

    #[test]
    fn constant_features_have_no_figures() {
        // A value without an exact mean, too.
        with_sets([vec![0.1; PAIRS * 4], noise(2, 4)], 4, |image, text, protocol| {
            assert!(mutual_neighbors(image, text).is_nan());
            assert!(kernel_alignment(image, text).unwrap().is_nan());
            let recall = held_out_recall(image, text, &[7; PAIRS / 2], protocol).unwrap();
            assert!(recall.image[0].is_nan() && recall.text[1].is_nan());
        });
    }

    #[test]
    fn equals_numpy() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/metrics/metrics.json");
        let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let compute = Compute::select("cpu", None).unwrap();
        let stop = StopFlag::default();
        for case in fixture["alignment"].as_array().unwrap() {
            let set = |name: &str, side: usize| {
                let values: Vec<f32> =
                    case[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect();
                let width = case["widths"][side].as_u64().unwrap() as usize;
                let protocol = Protocol { neighbors: 10, fitted: 30, device: &compute.device, stop: &stop };
                let features = Features { tower: "t".to_owned(), layer: 1, num_layers: 1, pool: "cls", width, values };
                FeatureSet::new(features, Side::Text, &protocol).unwrap()
            };
            let (one, other) = (set("one", 0), set("other", 1));
            let found = [kernel_alignment(&one, &other).unwrap(), mutual_neighbors(&one, &other)];
            for (found, name) in found.into_iter().zip(["cka", "mutual_knn"]) {
                let expected = case[name].as_f64().unwrap();
                assert!((found - expected).abs() < 1e-5, "{name}: {found}, {expected}");
            }
        }
    }
}
