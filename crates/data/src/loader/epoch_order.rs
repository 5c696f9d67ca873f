//! The order of samples as a pure function of (seed, epoch): any batch of any epoch can be asked for directly, so a
//! resumed run needs no state and replays nothing.

/// `2^64 / golden ratio`: the increment of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
/// generators").
const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// Feistel rounds. Four make a strong permutation of a good round function (Luby and Rackoff 1988); small domains
/// have few bits a half, so twice that.
const FEISTEL_ROUNDS: u64 = 8;

/// Stream number of the epoch order among the uses of [`mix`] in this crate.
const ORDER_STREAM: u64 = 0x006F_7264_6572;

/// The output function of SplitMix64 (the variant 13 constants of David Stafford).
const fn finalize(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A counter-based hash: 64 well-mixed bits that depend on the seed and on every word, in order.
///
/// All randomness of a run comes from here, e.g. `mix(seed, &[DROPOUT_STREAM, step])`, so nothing has a state to save.
#[must_use]
pub const fn mix(seed: u64, words: &[u64]) -> u64 {
    let mut hash = finalize(seed.wrapping_add(GOLDEN_GAMMA));
    let mut i = 0;
    while i < words.len() {
        hash = finalize((hash ^ words[i]).wrapping_add(GOLDEN_GAMMA));
        i += 1;
    }
    // The number of words, so that `[a]` and `[a, b]` are unrelated streams.
    finalize(hash ^ (words.len() as u64).wrapping_mul(GOLDEN_GAMMA))
}

/// A permutation of `0..len` chosen by (seed, epoch).
///
/// A Feistel network on the smallest even number of bits that holds `len`, walked along its cycle until it lands in
/// range (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Against a Fisher-Yates table it needs no
/// memory and no pass over the data set at the start of an epoch, at about 0.1 microseconds an index.
#[derive(Clone, Copy, Debug)]
pub struct EpochOrder {
    key: u64,
    len: u64,
    half_bits: u32,
    shuffle: bool,
}

impl EpochOrder {
    /// The order of epoch `epoch`; the identity unless `shuffle`.
    #[must_use]
    pub const fn new(seed: u64, epoch: u64, len: usize, shuffle: bool) -> Self {
        let len = len as u64;
        let bits = if len <= 2 { 1 } else { (len - 1).ilog2() + 1 };
        Self { key: mix(seed, &[ORDER_STREAM, epoch]), len, half_bits: bits.div_ceil(2), shuffle }
    }

    /// The sample at `position` of the epoch. Positions outside the epoch are their own image.
    #[must_use]
    pub const fn index(&self, position: usize) -> usize {
        let mut value = position as u64;
        if !self.shuffle || value >= self.len {
            return position;
        }
        loop {
            value = self.encrypt(value);
            if value < self.len {
                return value as usize;
            }
        }
    }

    const fn encrypt(&self, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let mut left = value >> self.half_bits;
        let mut right = value & mask;
        let mut round = 0;
        while round < FEISTEL_ROUNDS {
            let word = finalize(self.key.wrapping_add((round << 32 | right).wrapping_mul(GOLDEN_GAMMA)));
            (left, right) = (right, left ^ ((word >> 32) & mask));
            round += 1;
        }
        left << self.half_bits | right
    }
}

/// How an epoch of `len` samples is cut into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of the order.
    pub seed: u64,
    /// Samples a batch.
    pub batch_size: usize,
    /// Samples an epoch.
    pub len: usize,
    /// A new order each epoch; otherwise the order of the data set.
    pub shuffle: bool,
}

impl Plan {
    /// Batches an epoch. The last partial batch is dropped when shuffling; otherwise it is kept if it has at least two
    /// samples (a contrastive loss over one pair is constant).
    #[must_use]
    pub const fn batches_per_epoch(&self) -> usize {
        if self.batch_size == 0 {
            return 0;
        }
        let whole = self.len / self.batch_size;
        whole + (!self.shuffle && self.len % self.batch_size >= 2) as usize
    }

    /// The samples of batch `step_in_epoch` of `epoch`, in order; empty beyond the epoch's end.
    #[must_use]
    pub fn batch(&self, epoch: u64, step_in_epoch: usize) -> Vec<usize> {
        if step_in_epoch >= self.batches_per_epoch() {
            return Vec::new();
        }
        let order = EpochOrder::new(self.seed, epoch, self.len, self.shuffle);
        let start = step_in_epoch * self.batch_size;
        (start..self.len.min(start + self.batch_size)).map(|position| order.index(position)).collect()
    }

    /// Epoch and step in it of a 0-based global step; `None` if an epoch has no batch.
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
    fn every_epoch_is_a_permutation() {
        for len in [0, 1, 2, 3, 4, 5, 16, 17, 1000, 4097] {
            for epoch in 0..3 {
                let order = EpochOrder::new(7, epoch, len, true);
                let mut seen = vec![false; len];
                for position in 0..len {
                    let index = order.index(position);
                    assert!(!std::mem::replace(&mut seen[index], true), "len {len}: {index} twice");
                }
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat_exactly() {
        let order = |seed, epoch| {
            let order = EpochOrder::new(seed, epoch, 1000, true);
            (0..1000).map(|position| order.index(position)).collect::<Vec<_>>()
        };
        assert_eq!(order(1, 1), order(1, 1));
        assert_ne!(order(1, 1), order(1, 2));
        assert_ne!(order(1, 1), order(2, 1));
        assert_ne!(order(1, 1), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn small_orders_are_close_to_uniform() {
        // Each of 5 samples should be first in a fifth of 20,000 epochs; the standard deviation is 57.
        let mut first = [0u32; 5];
        let mut orders = std::collections::HashSet::new();
        for epoch in 0..20_000 {
            let order = EpochOrder::new(3, epoch, 5, true);
            first[order.index(0)] += 1;
            orders.insert((0..5).map(|position| order.index(position)).collect::<Vec<_>>());
        }
        assert!(first.iter().all(|&count| count.abs_diff(4000) < 300), "{first:?}");
        assert_eq!(orders.len(), 120, "all orders of 5 appear");
    }

    #[test]
    fn neighbours_are_torn_apart() {
        let order = EpochOrder::new(11, 0, 10_000, true);
        let near = (1..10_000).filter(|&p| order.index(p).abs_diff(order.index(p - 1)) <= 10).count();
        // 10,000 * 20 / 10,000 = 20 expected by chance.
        assert!(near < 60, "{near} of 9,999 neighbours stayed within 10");
    }

    #[test]
    fn partial_batches_follow_the_rule() {
        let plan = |len, shuffle| Plan { seed: 0, batch_size: 4, len, shuffle };
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
    fn mix_depends_on_every_word_and_their_number() {
        let all =
            [mix(0, &[]), mix(0, &[0]), mix(0, &[0, 0]), mix(1, &[0]), mix(0, &[1]), mix(0, &[1, 0]), mix(0, &[0, 1])];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        // A change here changes the order of every run: it must be meant.
        assert_eq!(mix(42, &[1, 2, 3]), 15_447_688_824_239_286_014);
    }
}
