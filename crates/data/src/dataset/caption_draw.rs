//! Which of an image's captions a sample has: all of them in turn, one, or several at once.

use crate::dataset::part::Part;
use crate::dataset::{CaptionMode, Dataset, Pair, samples};
use crate::random::{CAPTION_STREAM, SLOT_STREAM, mix};

/// How [`CaptionMode::Slots`] draws the captions of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptionSlots {
    /// Captions per sample, at least 1.
    pub count: usize,
    /// Whether the first is always the image's first caption: of the first column, key or list entry that it has.
    pub pin_first: bool,
}

impl Default for CaptionSlots {
    /// One caption, drawn.
    fn default() -> Self {
        Self { count: 1, pin_first: false }
    }
}

impl Dataset {
    /// Pair `index` of `0..num_pairs(mode)`, with its first caption: a pure function of (seed, epoch, index). All
    /// epochs have the same pairs unless captions or the share of a source are drawn.
    ///
    /// # Panics
    /// If `index` is out of range.
    #[must_use]
    pub fn pair(&self, mode: CaptionMode, index: usize, seed: u64, epoch: u64) -> Pair {
        self.sample(mode, CaptionSlots::default(), index, seed, epoch).0
    }

    /// As [`Dataset::pair`], and the numbers of its further captions: `slots.count - 1` with [`CaptionMode::Slots`],
    /// else none.
    ///
    /// Captions are drawn without replacement: by the key u^(1/weight), u uniform in (0, 1) and a pure function of
    /// (seed, epoch, index, caption) (Efraimidis and Spirakis 2006, algorithm A). The first has the distribution of
    /// [`CaptionMode::One`]. Captions of weight 0 are drawn only if an image has no other. An image with fewer captions
    /// than slots repeats them in the order in which they were drawn.
    ///
    /// # Panics
    /// If `index` is out of range.
    #[must_use]
    pub fn sample(
        &self,
        mode: CaptionMode,
        slots: CaptionSlots,
        index: usize,
        seed: u64,
        epoch: u64,
    ) -> (Pair, Vec<usize>) {
        let mut draw = index;
        for (number, part) in self.parts.iter().enumerate() {
            let range = samples(part, mode);
            let draws = part.draws(range.len());
            if draw >= draws {
                draw -= draws;
                continue;
            }
            let sample = range.start + part.sample(draw, range.len(), number, seed, epoch);
            return match mode {
                CaptionMode::All => (Pair { image: self.caption(sample).image, caption: sample }, Vec::new()),
                CaptionMode::One => {
                    let random = mix(seed, &[CAPTION_STREAM, epoch, index as u64]);
                    (Pair { image: sample, caption: self.draw_one(sample, part, random) }, Vec::new())
                }
                CaptionMode::Slots => {
                    let key = mix(seed, &[SLOT_STREAM, epoch, index as u64]);
                    let drawn = self.draw_several(sample, part, slots, key);
                    (Pair { image: sample, caption: drawn[0] }, drawn[1..].to_vec())
                }
            };
        }
        // The index is past the end, as documented.
        panic!("pair {index} of {}", self.num_pairs(mode))
    }

    /// The weight of a caption of `part`, which is number `place` of its image.
    fn weight(&self, part: &Part, place: usize, caption: u32) -> f64 {
        let weights = &part.caption_weights;
        if part.weights_by_place {
            return weights.get(place).or(weights.last()).copied().unwrap_or(1.0);
        }
        weights.get(usize::from(self.caption(caption as usize).slot)).copied().unwrap_or(1.0)
    }

    /// One of the captions of `image`, by 64 random bits.
    fn draw_one(&self, image: usize, part: &Part, random: u64) -> usize {
        let captions = self.captions_of(image);
        let weights = || captions.iter().enumerate().map(|(place, &caption)| self.weight(part, place, caption));
        let total: f64 = weights().sum();
        // An image may have captions of weight 0 alone.
        if part.caption_weights.is_empty() || total <= 0.0 {
            return captions[(random % captions.len() as u64) as usize] as usize;
        }
        // 53 bits are exact in a double.
        let mut left = (random >> 11) as f64 / (1u64 << 53) as f64 * total;
        let mut drawn = captions[0];
        for (caption, weight) in captions.iter().zip(weights()).filter(|(_, weight)| *weight > 0.0) {
            drawn = *caption;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        drawn as usize
    }

    /// `slots.count` captions of `image`. `key`: random bits of the sample.
    fn draw_several(&self, image: usize, part: &Part, slots: CaptionSlots, key: u64) -> Vec<usize> {
        let captions = self.captions_of(image);
        let pinned = slots.pin_first.then(|| self.first_of(captions));
        // The logarithm of u^(1/weight): the order is the same.
        let mut keys: Vec<(f64, u32)> = Vec::with_capacity(captions.len());
        let is_weighted = captions.iter().enumerate().any(|(place, &it)| self.weight(part, place, it) > 0.0);
        for (place, &caption) in captions.iter().enumerate() {
            let weight = if is_weighted { self.weight(part, place, caption) } else { 1.0 };
            if weight > 0.0 && Some(caption) != pinned {
                // Half a step from 0 and from 1, so that the logarithm is finite and below 0.
                let uniform = ((mix(key, &[place as u64]) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
                keys.push((uniform.ln() / weight, caption));
            }
        }
        keys.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let drawn: Vec<u32> = pinned.into_iter().chain(keys.into_iter().map(|(_, caption)| caption)).collect();
        // Every image has a caption, and one of them has a weight or is pinned.
        drawn.iter().cycle().take(slots.count.max(1)).map(|&caption| caption as usize).collect()
    }

    /// The first of the captions of an image that come from its first column.
    fn first_of(&self, captions: &[u32]) -> u32 {
        let column = |caption: u32| self.caption(caption as usize).slot;
        let earlier = |first: u32, &other: &u32| if column(other) < column(first) { other } else { first };
        captions.iter().fold(captions[0], earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::builder::DatasetBuilder;
    use crate::images::location::ImageRef;

    /// Epochs that are counted. The standard deviation of a frequency p is sqrt(p (1 - p) / 20,000), at most 0.0036.
    const EPOCHS: u64 = 20_000;

    /// More than five standard deviations.
    const BOUND: f64 = 0.02;

    /// One image with captions of these columns.
    fn image_of(columns: &[u8]) -> Dataset {
        let mut builder = DatasetBuilder::new("");
        for (number, &column) in columns.iter().enumerate() {
            builder.push_slot(ImageRef::File("a.png".into()), &format!("caption {number}"), column);
        }
        builder.build()
    }

    fn draw(dataset: &Dataset, count: usize, pin_first: bool, epoch: u64) -> Vec<usize> {
        let (pair, more) = dataset.sample(CaptionMode::Slots, CaptionSlots { count, pin_first }, 0, 5, epoch);
        std::iter::once(pair.caption).chain(more).collect()
    }

    /// How often each caption is in each slot, of `EPOCHS`.
    fn frequencies(dataset: &Dataset, count: usize, pin_first: bool) -> Vec<Vec<f64>> {
        let mut counts = vec![vec![0.0; dataset.num_captions()]; count];
        for epoch in 0..EPOCHS {
            for (slot, caption) in draw(dataset, count, pin_first, epoch).into_iter().enumerate() {
                counts[slot][caption] += 1.0 / EPOCHS as f64;
            }
        }
        counts
    }

    #[track_caller]
    fn assert_near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        let is_near = found
            .iter()
            .zip(expected)
            .all(|(found, expected)| if *expected == 0.0 { *found == 0.0 } else { (found - expected).abs() < BOUND });
        assert!(is_near, "{found:?} instead of {expected:?}");
    }

    #[test]
    fn captions_are_drawn_without_replacement() {
        let dataset = image_of(&[0; 5]);
        let mut orders = std::collections::BTreeSet::new();
        for epoch in 0..2000 {
            let mut drawn = draw(&dataset, 3, false, epoch);
            assert_eq!(drawn, draw(&dataset, 3, false, epoch));
            assert_eq!(drawn[..2], draw(&dataset, 2, false, epoch), "further slots do not change the first");
            orders.insert(drawn.clone());
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), 3);
        }
        assert_eq!(orders.len(), 5 * 4 * 3, "every order appears");
        frequencies(&dataset, 2, false).iter().for_each(|slot| assert_near(slot, &[0.2; 5]));
    }

    #[test]
    fn weights_are_those_of_successive_draws() {
        let weights = [1.0, 2.0, 5.0];
        let dataset = image_of(&[0, 1, 2]).with_use(1.0, &weights, &[]);
        let found = frequencies(&dataset, 2, false);
        assert_near(&found[0], &weights.map(|weight| weight / 8.0));
        // The second of two successive draws: over the first ones, the share of what is left.
        let second = |caption: usize| -> f64 {
            let others = (0..3).filter(|&first| first != caption);
            others.map(|first| weights[first] / 8.0 * weights[caption] / (8.0 - weights[first])).sum()
        };
        assert_near(&found[1], &[second(0), second(1), second(2)]);
    }

    #[test]
    fn weight_zero_is_never_drawn() {
        let weighted = |weights: &[f64]| image_of(&[0, 1, 2]).with_use(1.0, weights, &[]);
        let found = frequencies(&weighted(&[0.0, 3.0, 1.0]), 2, false);
        assert_near(&found[0], &[0.0, 0.75, 0.25]);
        assert_near(&found[1], &[0.0, 0.25, 0.75]);
        assert_near(&frequencies(&weighted(&[0.0; 3]), 1, false)[0], &[1.0 / 3.0; 3]);
    }

    #[test]
    fn places_have_weights_without_columns() {
        let dataset = image_of(&[0; 4]).with_use(1.0, &[4.0, 2.0, 1.0], &[]).with_weights_by_place();
        assert_near(&frequencies(&dataset, 1, false)[0], &[0.5, 0.25, 0.125, 0.125]);
        let one = |epoch| dataset.pair(CaptionMode::One, 0, 5, epoch).caption;
        let first = (0..EPOCHS).filter(|&epoch| one(epoch) == 0).count() as f64 / EPOCHS as f64;
        assert!((first - 0.5).abs() < BOUND, "{first}");
        let first_alone = image_of(&[0; 4]).with_use(1.0, &[1.0, 0.0], &[]).with_weights_by_place();
        assert!((0..100).all(|epoch| first_alone.pair(CaptionMode::One, 0, 5, epoch).caption == 0));
    }

    #[test]
    fn pinned_slot_is_the_first_column() {
        // Rows may lack the first column: its first caption counts, wherever it is.
        let dataset = image_of(&[1, 0, 1, 0]).with_use(1.0, &[0.0, 1.0], &[]);
        let found = frequencies(&dataset, 2, true);
        assert_eq!(found[0][1], found[0].iter().sum::<f64>(), "always the first of column 0");
        assert_near(&found[1], &[0.5, 0.0, 0.5, 0.0]);
        assert_eq!(draw(&image_of(&[2, 1]), 2, true, 0), [1, 0], "the first column that the image has");
    }

    #[test]
    fn few_captions_repeat_in_order() {
        let dataset = image_of(&[0, 0]);
        for epoch in 0..50 {
            let drawn = draw(&dataset, 5, false, epoch);
            assert_eq!((drawn[2], drawn[3], drawn[4]), (drawn[0], drawn[1], drawn[0]));
            assert_ne!(drawn[0], drawn[1]);
        }
        assert_eq!(draw(&dataset, 3, true, 9), [0, 1, 0]);
        assert_eq!(draw(&image_of(&[0]), 3, false, 0), [0; 3]);
    }

    #[test]
    fn draws_depend_on_seed_epoch_and_sample() {
        let mut builder = DatasetBuilder::new("");
        for row in 0..400 {
            builder.push(ImageRef::File(format!("{}.png", row % 50).into()), &format!("caption {row}"));
        }
        let dataset = builder.build();
        let slots = CaptionSlots { count: 2, pin_first: false };
        let places = |index, seed, epoch| -> Vec<usize> {
            let (pair, more) = dataset.sample(CaptionMode::Slots, slots, index, seed, epoch);
            std::iter::once(pair.caption).chain(more).map(|caption| caption / 50).collect()
        };
        let drawn = |seed, epoch| (0..50).map(|index| places(index, seed, epoch)).collect::<Vec<_>>();
        assert_eq!(drawn(1, 1), drawn(1, 1));
        assert_ne!(drawn(1, 1), drawn(1, 2));
        assert_ne!(drawn(1, 1), drawn(2, 1));
        assert!(drawn(1, 1).iter().any(|places| *places != drawn(1, 1)[0]), "images draw other places");
    }
}
