//! The horizontal pass. It works on strips of rows that are turned into columns, so that one weight is multiplied with
//! the bytes of all rows.

use crate::images::resize_pillow::kernels::{Kernels, level};
use crate::images::resize_pillow::products::{CHANNELS, PairWeights, Products, STRIP_ROWS};
use crate::images::resize_pillow::transpose::{TILE, to_columns, to_rows};

/// The weights of the horizontal axis, for pairs of columns.
pub(super) struct PairKernels {
    /// The source columns that the outputs need: first, and one past the last.
    span: (usize, usize),
    /// First pair of each output column, counted from the first column of the span.
    first: Vec<usize>,
    /// The weights of all output columns. Some are zero, so that each has equally many: loops of varying length cost
    /// wrong branches.
    weights: Vec<PairWeights>,
    /// Pairs of an output column.
    pairs: usize,
}

impl PairKernels {
    pub(super) fn new(kernels: &Kernels) -> Self {
        let span = kernels.span();
        let of_output = |index| {
            let (first, weights) = kernels.get(index);
            (first - span.0, weights)
        };
        let outputs = 0..kernels.len();
        let pairs = outputs.clone().map(|index| {
            let (first, weights) = of_output(index);
            (first + weights.len()).div_ceil(2) - first / 2
        });
        // At least one, so that the weights can be cut into groups.
        let pairs = pairs.max().unwrap_or(0).max(1);
        let mut all = vec![PairWeights::default(); pairs * kernels.len()];
        for (index, all) in outputs.clone().zip(all.chunks_exact_mut(pairs)) {
            let (first, weights) = of_output(index);
            for (tap, &weight) in weights.iter().enumerate() {
                let at = first % 2 + tap;
                all[at / 2].set(at % 2, weight);
            }
        }
        let first = outputs.map(|index| of_output(index).0 / 2).collect();
        Self { span, first, weights: all, pairs }
    }
}

/// Filters every row of `source` (`width` pixels each) along x.
#[inline(always)]
pub(super) fn horizontal(unit: impl Products, source: &[u8], width: usize, kernels: &PairKernels) -> Vec<u8> {
    let PairKernels { span: (begin, end), first, weights, pairs } = kernels;
    let (begin, end) = (begin * CHANNELS, end * CHANNELS);
    let stride = width * CHANNELS;
    let out_stride = first.len() * CHANNELS;
    let mut out = vec![0u8; source.len() / stride * out_stride];
    // A span of an odd number of columns has zeros after it.
    let mut columns = vec![[0u8; STRIP_ROWS]; (end - begin + CHANNELS).next_multiple_of(TILE)];
    // Pairs past the end have weights of zero.
    let mut strip = vec![[[0; STRIP_ROWS]; CHANNELS]; columns.len() / (2 * CHANNELS) + pairs];
    let mut filtered = vec![[0u8; STRIP_ROWS]; out_stride.next_multiple_of(TILE)];
    for (rows, out_rows) in source.chunks(stride * STRIP_ROWS).zip(out.chunks_mut(out_stride * STRIP_ROWS)) {
        to_columns(&mut columns, rows.chunks_exact(stride).map(|row| &row[begin..end]));
        for (pairs, columns) in strip.iter_mut().zip(columns.as_chunks::<{ 2 * CHANNELS }>().0) {
            for (channel, pair) in pairs.iter_mut().enumerate() {
                *pair = unit.pair(columns[channel], columns[channel + CHANNELS]);
            }
        }
        let outputs = first.iter().zip(weights.chunks_exact(*pairs));
        for ((&first, weights), pixels) in outputs.zip(filtered.as_chunks_mut::<CHANNELS>().0) {
            let sums = unit.sums(&strip[first..first + pairs], weights);
            for (pixels, sums) in pixels.iter_mut().zip(&sums) {
                for (pixel, &sum) in pixels.iter_mut().zip(sums) {
                    *pixel = level(sum);
                }
            }
        }
        to_rows(&filtered, out_rows.chunks_exact_mut(out_stride));
    }
    out
}
