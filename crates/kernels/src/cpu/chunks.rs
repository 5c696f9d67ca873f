//! Sizes of parallel tasks. They are fixed, so results do not depend on the number of threads.

/// Elements per task of an element-wise pass over a flat buffer: 64 KiB of `f32`, which fits a core's L2 cache.
///
/// Optimisers also add up chunks of this size: another size changes the last bits of gradient norms and of Adafactor.
pub const CHUNK: usize = 1 << 14;

/// Rows per task of a pass over a matrix.
///
/// The activations of a common MLP (1536 wide) then stay in a core's cache, and a matrix product this tall runs at full
/// speed.
#[cfg(feature = "flex")]
pub(crate) const CHUNK_ROWS: usize = 128;

/// End index of each chunk when `count` items are cut into chunks of `size`; the last chunk may be shorter.
#[cfg(feature = "flex")]
pub(crate) fn chunk_ends(count: usize, size: usize) -> Vec<usize> {
    (0..count.div_ceil(size)).map(|chunk| ((chunk + 1) * size).min(count)).collect()
}
