//! The share of one source in an epoch of several.

use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

use crate::loader::order::epoch_order::EpochOrder;
use crate::random::{MIX_STREAM, mix};

/// The images and captions of one source in a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// [`crate::Dataset::fingerprint`] takes paths relative to this directory, so that moving the source does not
    /// change it.
    pub(crate) root: PathBuf,
    /// Numbers of its images.
    pub images: Range<usize>,
    /// Numbers of its captions.
    pub captions: Range<usize>,
    /// How often each pair occurs in an epoch, on average.
    pub weight: f64,
    /// Where captions are drawn: the weight of each column, or of each place if [`Part::weights_by_place`]; all 1 if
    /// empty.
    pub caption_weights: Vec<f64>,
    /// Whether the weights are those of the first, second, ... caption of an image, instead of columns.
    pub weights_by_place: bool,
    /// Prompt templates: captions are class names, which take the place of `{c}` in a template drawn for each pair.
    /// None if empty: captions are used as they are.
    pub templates: Vec<String>,
    /// The names of all classes in the order of their numbers, if captions are class names and the source lists them.
    pub(crate) class_names: Vec<String>,
}

/// How the pairs of a source are used: see [`Part`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PartUse {
    pub(crate) weight: f64,
    pub(crate) caption_weights: Vec<f64>,
    pub(crate) weights_by_place: bool,
    pub(crate) templates: Vec<String>,
}

impl Part {
    /// A source with weight 1.
    pub(crate) fn new(root: PathBuf, images: Range<usize>, captions: Range<usize>) -> Self {
        Self {
            root,
            images,
            captions,
            weight: 1.0,
            caption_weights: Vec::new(),
            weights_by_place: false,
            templates: Vec::new(),
            class_names: Vec::new(),
        }
    }

    /// Sets how its pairs are used.
    pub(crate) fn use_as(&mut self, of: &PartUse) {
        self.weight = of.weight;
        self.caption_weights.clone_from(&of.caption_weights);
        self.weights_by_place = of.weights_by_place;
        self.templates.clone_from(&of.templates);
    }

    /// Number of draws an epoch from `len` samples.
    pub(crate) fn draws(&self, len: usize) -> usize {
        if self.weight == 1.0 {
            return len;
        }
        // At least one sample, so that no source is lost to rounding.
        ((len as f64 * self.weight).round() as usize).max(usize::from(len > 0))
    }

    /// The sample of `0..len` that draw `draw` of an epoch is: every sample `weight` times, rounded down, then a share
    /// of them. The shares of successive epochs go through a fixed random order, so that all samples come equally
    /// often. `number`: of this part in the data set.
    pub(crate) fn sample(&self, draw: usize, len: usize, number: usize, seed: u64, epoch: u64) -> usize {
        let whole = (self.weight.floor() as usize).saturating_mul(len);
        if draw < whole || len == 0 {
            return draw % len.max(1);
        }
        let share = self.draws(len).saturating_sub(whole).max(1);
        let order = EpochOrder::new(mix(seed, &[MIX_STREAM, number as u64]), 0, len, true);
        let start = (u128::from(epoch) * share as u128 % len as u128) as usize;
        order.index((start + (draw - whole)) % len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weight: f64, len: usize, epochs: u64) -> Vec<usize> {
        let part = Part { weight, ..Part::new(PathBuf::new(), 0..len, 0..len) };
        let mut counts = vec![0; len];
        for epoch in 0..epochs {
            (0..part.draws(len)).for_each(|draw| counts[part.sample(draw, len, 0, 7, epoch)] += 1);
        }
        counts
    }

    #[test]
    fn weights_are_frequencies() {
        assert_eq!(counts(1.0, 5, 1), [1; 5]);
        assert_eq!(counts(2.0, 5, 1), [2; 5]);
        let half = counts(0.5, 10, 1);
        assert_eq!((half.iter().sum::<usize>(), half.iter().max()), (5, Some(&1)));
        assert_eq!(counts(0.5, 10, 2), [1; 10], "two halves are the whole");
        assert_eq!(counts(2.5, 10, 2), [5; 10]);
        assert_eq!(counts(0.3, 10, 10), [3; 10]);
        assert_eq!(counts(0.001, 10, 10), [1; 10], "never nothing");
        assert!(counts(0.3, 0, 1).is_empty());
    }

    #[test]
    fn shares_depend_on_seed_and_part() {
        let part = Part { weight: 0.1, ..Part::new(PathBuf::new(), 0..1000, 0..1000) };
        let share = |number, seed| (0..100).map(|draw| part.sample(draw, 1000, number, seed, 0)).collect::<Vec<_>>();
        assert_eq!(share(0, 1), share(0, 1));
        assert_ne!(share(0, 1), share(1, 1));
        assert_ne!(share(0, 1), share(0, 2));
    }
}
