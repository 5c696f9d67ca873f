//! From features to the metrics of a probe: `acc1`, `acc5` and `mean_per_class_recall` of the test side, on the
//! features of the image tower, and with `_embeds` after these names on the projected embeddings.

use serde_json::{Map, Value, json};

use crate::error::TrainError;
use crate::eval::metrics::scores::{Scores, TILE_SCORES, normalize_rows};
use crate::eval::metrics::zero_shot::accuracy;
use crate::eval::probes::knn;
use crate::eval::probes::probe_data::{ProbeData, ProbeKind, Sides};
use crate::eval::probes::ridge::{Labelled, RidgeClassifier};
use crate::eval::usable::UsableImages;
use crate::stop_flag::StopFlag;

/// Suffix of the metrics of projected embeddings.
const EMBEDS: &str = "_embeds";

/// Measures a probe. The rows of `images` are features of the tower, `width` values, and projected embeddings after
/// them.
///
/// # Errors
/// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set;
/// [`TrainError::Internal`] when a feature is not finite.
pub(crate) fn probe(
    probe: &ProbeData,
    images: &UsableImages,
    sides: &Sides,
    width: usize,
    device: &burn::tensor::Device,
    stop: &StopFlag,
) -> Result<Map<String, Value>, TrainError> {
    let mut metrics = Map::new();
    metrics.insert("num_classes".to_owned(), json!(probe.classes.len()));
    metrics.insert("num_train_images".to_owned(), json!(sides.train.len()));
    metrics.insert("train_side".to_owned(), json!(if probe.is_split { "split" } else { "given" }));
    if !sides.copies.is_empty() {
        metrics.insert("num_train_copies".to_owned(), json!(sides.copies.len()));
    }
    let labels = |places: &[usize]| places.iter().map(|&it| probe.labels[images.numbers[it]]).collect::<Vec<_>>();
    let (train_labels, test_labels) = (labels(&sides.train), labels(&sides.test));
    for (suffix, columns) in [("", 0..width), (EMBEDS, width..images.dim)] {
        let dim = columns.len();
        let rows = |places: &[usize]| {
            let row = |&place: &usize| images.embeds[place * images.dim..][columns.clone()].iter().copied();
            places.iter().flat_map(row).collect::<Vec<f32>>()
        };
        let (mut train, mut test) = (rows(&sides.train), rows(&sides.test));
        let ranks = match probe.kind {
            ProbeKind::Neighbors(neighbors) => {
                metrics.insert("neighbors".to_owned(), json!(neighbors.min(sides.train.len())));
                normalize_rows(&mut train, dim);
                normalize_rows(&mut test, dim);
                let scores = Scores { rows: &test, columns: &train, dim, device, stop, tile: TILE_SCORES };
                knn::ranks(&scores, neighbors, &train_labels, &test_labels, probe.classes.len())?
            }
            ProbeKind::Linear => {
                let train = Labelled { features: &train, labels: &train_labels, dim };
                let (classifier, l2) = RidgeClassifier::fit_best(train, probe.classes.len())?;
                metrics.insert(format!("l2{suffix}"), json!(l2));
                classifier.ranks(Labelled { features: &test, labels: &test_labels, dim })
            }
        };
        metrics.extend(accuracy(&ranks, &test_labels, probe.classes.len(), suffix));
        if let Some(signal) = stop.signal() {
            return Err(TrainError::Stopped { signal });
        }
    }
    Ok(metrics)
}
