//! Randomness as a pure function of where it is used: a seed and a few words give the bits, so there is no generator
//! state to save, and a resumed run draws what an uninterrupted one draws.

/// `2^64 / golden ratio`: the increment of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
/// generators").
pub(crate) const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// Stream numbers: the first word after the seed in each use of [`mix`] in this crate. They must differ.
pub(crate) const ORDER_STREAM: u64 = 0x006F_7264_6572;
/// Where an order with windows starts in the data set, and the order of its blocks.
pub(crate) const SHIFT_STREAM: u64 = 0x0073_6869_6674;
/// The order within a window.
pub(crate) const WINDOW_STREAM: u64 = 0x7769_6E64_6F77;
/// The choice of one caption per image and epoch.
pub(crate) const CAPTION_STREAM: u64 = 0x0063_6170_7469_6F6E;
/// The choice of several captions per image and epoch.
pub(crate) const SLOT_STREAM: u64 = 0x0073_6C6F_7473;
/// Prompts and word dropout of the captions after the first of a sample.
pub(crate) const SLOT_TEXT_STREAM: u64 = 0x0073_6C6F_7474_7874;
/// Augmentation.
pub(crate) const VIEW_STREAM: u64 = 0xa06;
/// The share of a source with a fractional weight.
pub(crate) const MIX_STREAM: u64 = 0x006D_6978;
/// The choice of a prompt template.
pub(crate) const TEMPLATE_STREAM: u64 = 0x0074_656D_706C;
/// Word dropout.
pub(crate) const WORD_STREAM: u64 = 0x3026d;

/// The output function of SplitMix64, with the constants of David Stafford's variant 13.
pub(crate) const fn finalize(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A counter-based hash: 64 well-mixed bits that depend on the seed and on every word, in order.
///
/// All randomness of a run comes from here, for example `mix(seed, &[DROPOUT_STREAM, step])`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_depends_on_all_words() {
        let all =
            [mix(0, &[]), mix(0, &[0]), mix(0, &[0, 0]), mix(1, &[0]), mix(0, &[1]), mix(0, &[1, 0]), mix(0, &[0, 1])];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn mix_is_pinned() {
        // A change here changes the order of every run.
        assert_eq!(mix(42, &[1, 2, 3]), 15_447_688_824_239_286_014);
    }
}
