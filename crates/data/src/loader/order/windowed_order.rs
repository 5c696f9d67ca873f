//! An order for data sets that are read in long stretches, such as shards: blocks of successive samples in a random
//! order, shuffled within windows of several blocks. Like [`EpochOrder`], it has no state and no table.

use std::ops::Range;

use crate::loader::order::epoch_order::EpochOrder;
use crate::random::{SHIFT_STREAM, WINDOW_STREAM, mix};

/// Blocks in a window, which are as many places of the data set. A batch has samples of all of them; with more, the
/// stretches that are read at once are shorter. In a window of 65,536 samples of 25 KB a block has 100 MB: a second of
/// reading from a hard disk, beside 0.01 s to find its start.
const BLOCKS_PER_WINDOW: usize = 16;

/// A permutation of `0..len` chosen by (seed, epoch): the sample at a position comes from one of the 16 blocks of the
/// window that the position is in.
///
/// The samples are in a circle, which is cut at a random place of each epoch, so that no block is the same in two
/// epochs. What is left after the last whole block comes last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowedOrder {
    seed: u64,
    epoch: u64,
    len: usize,
    window: usize,
    block: usize,
    /// Where the circle is cut.
    shift: usize,
    blocks: EpochOrder,
}

impl WindowedOrder {
    /// The order of `epoch` in windows of at most `window` samples; 0 counts as 1.
    pub(crate) fn new(seed: u64, epoch: u64, len: usize, window: usize) -> Self {
        let window = window.clamp(1, len.max(1));
        let block = (window / BLOCKS_PER_WINDOW).max(1);
        // A window of whole blocks.
        let window = if window > BLOCKS_PER_WINDOW { block * BLOCKS_PER_WINDOW } else { window };
        let shift = (mix(seed, &[SHIFT_STREAM, epoch]) % len.max(1) as u64) as usize;
        // Its own seed, so that blocks do not have the order that samples have without windows.
        let blocks = EpochOrder::new(mix(seed, &[SHIFT_STREAM]), epoch, len / block, true);
        Self { seed, epoch, len, window, block, shift, blocks }
    }

    /// The positions of window number `number`; empty past the end.
    pub(crate) fn window(&self, number: usize) -> Range<usize> {
        let start = number.saturating_mul(self.window).min(self.len);
        start..self.len.min(start + self.window)
    }

    /// The number of the window that `position` is in.
    pub(crate) fn window_of(&self, position: usize) -> usize {
        position / self.window
    }

    /// The samples at the positions `range`, in order. Positions past the end have none.
    pub(crate) fn samples(&self, range: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        let mut within = None;
        (range.start..range.end.min(self.len)).map(move |position| {
            let number = self.window_of(position);
            let window = self.window(number);
            let order = match within {
                Some((known, order)) if known == number => order,
                _ => {
                    let seed = mix(self.seed, &[WINDOW_STREAM, number as u64]);
                    EpochOrder::new(seed, self.epoch, window.len(), true)
                }
            };
            within = Some((number, order));
            self.in_blocks(window.start + order.index(position - window.start))
        })
    }

    /// The sample at `position` of the blocks in their order, each from its start to its end.
    fn in_blocks(&self, position: usize) -> usize {
        // Positions past the last whole block map to themselves.
        let start = self.blocks.index(position / self.block) * self.block;
        let sample = start + position % self.block + self.shift;
        if sample >= self.len { sample - self.len } else { sample }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SIZES: [(usize, usize); 12] = [
        (0, 8),
        (1, 8),
        (2, 1),
        (17, 16),
        (17, 17),
        (100, 3),
        (100, 0),
        (1000, 64),
        (1000, 100),
        (1024, 64),
        (4097, 4096),
        (500, 9000),
    ];

    #[test]
    fn epoch_is_a_permutation() {
        for (len, window) in SIZES {
            for epoch in 0..3 {
                let order = WindowedOrder::new(7, epoch, len, window);
                let samples: Vec<usize> = order.samples(0..len + 5).collect();
                assert_eq!(samples.len(), len);
                assert_eq!(samples.iter().collect::<BTreeSet<_>>().len(), len, "{len} in windows of {window}");
                assert!(samples.iter().all(|&sample| sample < len));
            }
        }
    }

    #[test]
    fn parts_are_those_of_whole() {
        let order = WindowedOrder::new(7, 3, 1000, 96);
        let whole: Vec<usize> = order.samples(0..1000).collect();
        for start in [0, 1, 95, 96, 500, 990] {
            assert_eq!(order.samples(start..start + 50).collect::<Vec<_>>(), whole[start..1000.min(start + 50)]);
        }
    }

    #[test]
    fn windows_have_few_places() {
        let order = WindowedOrder::new(3, 1, 100_000, 1700);
        // 16 blocks of 106.
        assert_eq!(order.window(1), 1696..3392);
        let mut all = BTreeSet::new();
        for number in 0..100_000 / 1696 {
            let samples: BTreeSet<usize> = order.samples(order.window(number)).collect();
            let starts = samples.iter().filter(|&&it| it == 0 || !samples.contains(&(it - 1))).count();
            // Two blocks may follow each other, and one may lie across the end of the data set.
            assert!((8..=17).contains(&starts), "{starts} places");
            all.extend(samples);
        }
        assert_eq!(all.len(), 100_000 / 1696 * 1696);
    }

    #[test]
    fn order_depends_on_seed_and_epoch() {
        let order = |seed, epoch| WindowedOrder::new(seed, epoch, 1000, 64).samples(0..1000).collect::<Vec<_>>();
        assert_eq!(order(1, 1), order(1, 1));
        assert_ne!(order(1, 1), order(1, 2));
        assert_ne!(order(1, 1), order(2, 1));
    }

    #[test]
    fn samples_are_everywhere_alike() {
        // Each of 40 samples should be among the first 8 of a fifth of 20,000 epochs; the standard deviation is 57.
        let mut first = [0u32; 40];
        for epoch in 0..20_000 {
            WindowedOrder::new(5, epoch, 40, 32).samples(0..8).for_each(|sample| first[sample] += 1);
        }
        assert!(first.iter().all(|&count| count.abs_diff(4000) < 300), "{first:?}");
    }

    #[test]
    fn batches_mix_places() {
        // 64 of 1,600 samples of 16 blocks: 4 of each on average.
        let order = WindowedOrder::new(5, 0, 160_000, 1600);
        for batch in 0..25 {
            let blocks: BTreeSet<usize> = order.samples(batch * 64..(batch + 1) * 64).map(|it| it / 100).collect();
            assert!(blocks.len() > 12, "batch {batch} is of {} places", blocks.len());
        }
    }

    #[test]
    fn windowed_order_is_pinned() {
        // A change here changes the order of runs that are resumed.
        let order = WindowedOrder::new(42, 1, 100, 32);
        assert_eq!(order.samples(0..8).collect::<Vec<_>>(), [22, 72, 49, 71, 21, 82, 62, 12]);
    }
}
