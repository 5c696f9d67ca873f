//! Zero-shot classification of images with several classes each. The metric has CLIP_benchmark's name and definition
//! (`metrics/zeroshot_classification.py`):
//!
//! - `mean_average_precision`: mean over the classes with images of the average precision, which is the mean of the
//!   precision at each right image, in descending order of scores.
//! - `mean_average_precision_ci95`: a 95 % interval (see `bootstrap`), over the images; absent if it had no width.
//!
//! CLIP_benchmark counts a class without an image as 0; here it is left out, as it is in `mean_per_class_recall`.

use serde_json::{Map, Value, json};

use crate::error::TrainError;
use crate::eval::metrics::bootstrap;
use crate::eval::metrics::details::{ClassDetails, ClassResult, DetailEmbeds, Prediction};
use crate::eval::metrics::scores::Scores;
use crate::eval::metrics::top::Top;
use crate::eval::metrics::zero_shot::answers;

/// Images with several classes each, and what a model answers.
pub(crate) struct MultiLabel<'a> {
    pub classes: &'a [String],
    /// The numbers of the images.
    pub images: &'a [usize],
    /// The classes of each image, ascending.
    pub labels: &'a [&'a [usize]],
    /// Of each class, the images in descending order of scores.
    orders: Vec<Vec<usize>>,
    /// Of each image, the best classes.
    pub top: &'a Top,
}

impl<'a> MultiLabel<'a> {
    /// Ranks all images for every class. `scores`: of the images (rows) with the classes (columns).
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set.
    pub fn of(
        scores: &Scores<'_>,
        classes: &'a [String],
        (images, labels): (&'a [usize], &'a [&'a [usize]]),
        top: &'a Top,
    ) -> Result<Self, TrainError> {
        let by_class = Scores { rows: scores.columns, columns: scores.rows, ..*scores };
        let mut orders = Vec::with_capacity(classes.len());
        by_class.blocks(|tiles| {
            let mut rows = vec![Vec::with_capacity(images.len()); tiles.rows.len()];
            tiles.each(|scores, columns| {
                rows.iter_mut().zip(scores.chunks_exact(columns.len())).for_each(|(row, part)| row.extend(part));
            })?;
            orders.extend(rows.iter().map(|row| descending(row)));
            Ok(())
        })?;
        Ok(Self { classes, images, labels, orders, top })
    }

    /// Metrics by name.
    pub fn metrics(&self) -> Map<String, Value> {
        let mut sizes = vec![0_usize; self.classes.len()];
        self.labels.iter().for_each(|labels| labels.iter().for_each(|&class| sizes[class] += 1));
        // As in `mean_per_class_recall`, a class counts as often as its images were drawn.
        let mean = |counts: &[usize]| {
            let mut drawn = vec![0_usize; self.classes.len()];
            for (labels, &count) in self.labels.iter().zip(counts) {
                labels.iter().for_each(|&class| drawn[class] += count);
            }
            let (mut precisions, mut shares) = (0.0, 0.0);
            for (class, (&drawn, &size)) in drawn.iter().zip(&sizes).enumerate().filter(|(_, (drawn, _))| **drawn > 0) {
                let share = drawn as f64 / size as f64;
                precisions += share * self.average_precision(class, counts);
                shares += share;
            }
            [precisions / shares]
        };
        let [value] = mean(&vec![1; self.images.len()]);
        let [ends] = bootstrap::intervals(self.images.len(), |units| {
            let mut counts = vec![0; self.images.len()];
            units.iter().for_each(|&unit| counts[unit] += 1);
            mean(&counts)
        });
        let mut metrics = Map::new();
        metrics.insert("num_classes".to_owned(), json!(self.classes.len()));
        metrics.insert("mean_average_precision".to_owned(), json!(value));
        // At 0 or 1 no resample differs, and the score interval is of fractions only.
        if ends[0] < ends[1] {
            bootstrap::insert(&mut metrics, "mean_average_precision", ends);
        }
        metrics
    }

    /// Average precision of a class: the mean over its images of the precision at their places, where image `i` is
    /// there `counts[i]` times. NaN without an image of the class.
    fn average_precision(&self, class: usize, counts: &[usize]) -> f64 {
        let (mut found, mut place, mut sum) = (0_usize, 0_usize, 0.0);
        for &image in &self.orders[class] {
            let is_right = self.labels[image].binary_search(&class).is_ok();
            for _ in 0..counts[image] {
                place += 1;
                if is_right {
                    found += 1;
                    sum += found as f64 / place as f64;
                }
            }
        }
        sum / found as f64
    }

    /// The answers, image by image and class by class.
    pub fn details(&self, image_embeds: DetailEmbeds, class_embeds: DetailEmbeds) -> ClassDetails {
        let counts = vec![1; self.images.len()];
        let class = |(class, name): (usize, &String)| {
            let average_precision = Some(self.average_precision(class, &counts)).filter(|it| !it.is_nan());
            ClassResult { name: name.clone(), average_precision, ..ClassResult::default() }
        };
        let mut classes: Vec<ClassResult> = self.classes.iter().enumerate().map(class).collect();
        let mut predictions = Vec::with_capacity(self.images.len());
        for (row, (&image, &labels)) in self.images.iter().zip(self.labels).enumerate() {
            let answers = answers(self.top, row);
            let first = answers.first().map(|&(class, _)| class);
            for &label in labels {
                classes[label].images += 1;
                classes[label].hits += usize::from(first == Some(label));
            }
            first.into_iter().for_each(|first| classes[first].predicted += 1);
            predictions.push(Prediction { image, labels: labels.to_vec(), answers });
        }
        ClassDetails {
            classes,
            confusions: Vec::new(),
            calibration: Vec::new(),
            predictions,
            image_embeds,
            class_embeds,
        }
    }
}

/// The numbers of scores in descending order. Ties are in order of numbers; scores that are no numbers come last.
fn descending(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // The sum makes a negative zero positive: the two are equal.
    let key = |at: usize| if scores[at].is_nan() { f32::NEG_INFINITY } else { scores[at] + 0.0 };
    order.sort_by(|&one, &other| key(other).total_cmp(&key(one)).then(one.cmp(&other)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Compute;
    use crate::eval::metrics::zero_shot::ANSWERS;
    use crate::stop_flag::StopFlag;

    /// The metrics of images with the embeddings `rows`, where class `n` is the axis `n`.
    fn metrics(rows: &[f32], labels: &[&[usize]], classes: usize) -> Map<String, Value> {
        let names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
        let columns: Vec<f32> = (0..classes * classes).map(|at| f32::from(at % (classes + 1) == 0)).collect();
        let compute = Compute::select("cpu", None).unwrap();
        let (device, stop) = (&compute.device, &StopFlag::default());
        let scores = Scores { rows, columns: &columns, dim: classes, device, stop, tile: 10_000 };
        let top = Top::of(&scores, ANSWERS, 1.0).unwrap();
        let images: Vec<usize> = (0..labels.len()).collect();
        MultiLabel::of(&scores, &names, (&images, labels), &top).unwrap().metrics()
    }

    #[test]
    fn sure_precision_has_no_interval() {
        let found = metrics(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], &[&[0], &[1], &[0, 1]], 2);
        assert_eq!((&found["mean_average_precision"], found.get("mean_average_precision_ci95")), (&json!(1.0), None));
    }

    #[test]
    fn rare_classes_widen_the_interval() {
        // One image a class. Every other image looks like the class before its own.
        let (classes, labels) = (60, (0..60).collect::<Vec<usize>>());
        let rows: Vec<f32> = labels.iter().flat_map(|it| (0..60).map(move |at| f32::from(at == it / 2 * 2))).collect();
        let labels: Vec<&[usize]> = labels.chunks(1).collect();
        let found = metrics(&rows, &labels, classes);
        let ends = [0, 1].map(|end| found["mean_average_precision_ci95"][end].as_f64().unwrap());
        // Two standard errors of 60 values, half of which are near 1 and half near 0, on each side: 0.25.
        assert!(ends[1] - ends[0] > 0.22, "{ends:?}");
    }

    #[test]
    fn order_is_stable_and_nan_last() {
        assert_eq!(descending(&[f32::NAN, 0.1, -0.0, 0.3, 0.0]), [3, 1, 2, 4, 0]);
    }
}
