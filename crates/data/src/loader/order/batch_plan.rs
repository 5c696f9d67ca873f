//! How epochs are divided into batches.

use crate::loader::order::epoch_order::EpochOrder;
use crate::loader::order::windowed_order::WindowedOrder;

/// How an epoch of `len` samples is divided into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// Seed of the order.
    pub seed: u64,
    /// Samples per batch.
    pub batch_size: usize,
    /// Samples per epoch.
    pub len: usize,
    /// Whether each epoch has a new order; otherwise it is that of the data set.
    pub shuffle: bool,
    /// With `shuffle`: the samples among which each is shuffled, so that the data set is read in blocks; `None`: all.
    pub window: Option<usize>,
}

impl BatchPlan {
    /// Batches per epoch. A partial last batch is dropped when shuffling; otherwise it counts if it has at least two
    /// samples (a contrastive loss over one pair is constant).
    #[must_use]
    pub const fn batches_per_epoch(&self) -> usize {
        if self.batch_size == 0 {
            return 0;
        }
        let whole = self.len / self.batch_size;
        whole + (!self.shuffle && self.len % self.batch_size >= 2) as usize
    }

    /// The samples of batch `step_in_epoch` of `epoch`, in order; empty past the end of the epoch.
    #[must_use]
    pub fn batch(&self, epoch: u64, step_in_epoch: usize) -> Vec<usize> {
        if step_in_epoch >= self.batches_per_epoch() {
            return Vec::new();
        }
        let start = step_in_epoch * self.batch_size;
        let positions = start..self.len.min(start + self.batch_size);
        if let Some(order) = self.windows(epoch) {
            return order.samples(positions).collect();
        }
        let order = EpochOrder::new(self.seed, epoch, self.len, self.shuffle);
        positions.map(|position| order.index(position)).collect()
    }

    /// The order of `epoch` if it has windows. A window of all samples is none.
    pub(crate) fn windows(&self, epoch: u64) -> Option<WindowedOrder> {
        let window = self.window.filter(|&window| self.shuffle && window < self.len)?;
        Some(WindowedOrder::new(self.seed, epoch, self.len, window))
    }

    /// The epoch and the step within it of a 0-based global step; `None` if an epoch has no batch.
    #[must_use]
    pub const fn locate(&self, step: u64) -> Option<(u64, usize)> {
        let batches = self.batches_per_epoch() as u64;
        if batches == 0 {
            return None;
        }
        Some((step / batches, (step % batches) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_batches() {
        let plan = |len, shuffle| BatchPlan { seed: 0, batch_size: 4, len, shuffle, window: None };
        assert_eq!(plan(10, true).batches_per_epoch(), 2);
        assert_eq!(plan(10, false).batches_per_epoch(), 3);
        assert_eq!(plan(9, false).batches_per_epoch(), 2, "a last batch of one is dropped");
        assert_eq!(plan(10, false).batch(0, 2), vec![8, 9]);
        assert_eq!(plan(3, true).batches_per_epoch(), 0);
        assert_eq!(plan(3, true).locate(0), None);
        assert_eq!(plan(10, true).locate(5), Some((2, 1)));
        assert!(plan(10, true).batch(0, 2).is_empty());
    }

    #[test]
    fn windows_change_order_alone() {
        let plan = |window, shuffle| BatchPlan { seed: 3, batch_size: 8, len: 100, shuffle, window };
        let all = |plan: BatchPlan| (0..plan.batches_per_epoch()).flat_map(|at| plan.batch(1, at)).collect::<Vec<_>>();
        let (whole, windowed) = (all(plan(None, true)), all(plan(Some(32), true)));
        assert_eq!((whole.len(), windowed.len()), (96, 96));
        assert_ne!(whole, windowed);
        assert_eq!(all(plan(Some(100), true)), whole, "a window of all samples is the whole set");
        assert_eq!(all(plan(Some(32), false)), all(plan(None, false)), "what is not shuffled has no windows");
    }
}
