//! The horizontal pass for kernels of few weights, with whole products. It is the faster one while the products cost
//! less than what `horizontal` does to each column before and after them.

use crate::images::resize_pillow::kernels::{Kernels, LANES, sums};
use crate::images::resize_pillow::products::{CHANNELS, STRIP_ROWS};

/// Bytes of one column of a strip.
const STRIP_BYTES: usize = STRIP_ROWS * CHANNELS;

/// Filters every row of `source` (`width` pixels each) along x.
#[inline(always)]
pub(super) fn horizontal_of_few(source: &[u8], width: usize, kernels: &Kernels) -> Vec<u8> {
    let stride = width * CHANNELS;
    let out_stride = kernels.len() * CHANNELS;
    let rows = source.len() / stride;
    let (begin, end) = kernels.span();
    let mut out = vec![0u8; rows * out_stride];
    let mut strip = vec![[0u8; STRIP_BYTES]; end - begin];
    for (strip_rows, out_rows) in source.chunks(stride * STRIP_ROWS).zip(out.chunks_mut(out_stride * STRIP_ROWS)) {
        for (row, pixels) in strip_rows.chunks_exact(stride).enumerate() {
            put_row(&mut strip, row, &pixels[begin * CHANNELS..end * CHANNELS]);
        }
        for index in 0..kernels.len() {
            let (first, weights) = kernels.get(index);
            let lanes = &strip[first - begin..first - begin + weights.len()];
            let mut pixels = [0; STRIP_BYTES];
            for (block, pixels) in pixels.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let lanes = lanes.iter().map(|lanes| &lanes.as_chunks().0[block]);
                *pixels = sums(weights.iter().copied().zip(lanes));
            }
            for (row, pixel) in out_rows.chunks_exact_mut(out_stride).zip(pixels.chunks_exact(CHANNELS)) {
                row[index * CHANNELS..(index + 1) * CHANNELS].copy_from_slice(pixel);
            }
        }
    }
    out
}

/// Copies a row into a transposed strip.
///
/// Not inlined, so that the compiler does not use gather and scatter instructions here, which are slower.
#[inline(never)]
fn put_row(strip: &mut [[u8; STRIP_BYTES]], row: usize, pixels: &[u8]) {
    let place = row * CHANNELS;
    // Four bytes are copied at once; the row below overwrites the fourth. The last row has none below it.
    let mut done = 0;
    if place + 4 <= STRIP_BYTES {
        for (lanes, pixel) in strip.iter_mut().zip(pixels.windows(4).step_by(CHANNELS)) {
            lanes[place..place + 4].copy_from_slice(pixel);
            done += 1;
        }
    }
    for (lanes, pixel) in strip[done..].iter_mut().zip(pixels[done * CHANNELS..].chunks_exact(CHANNELS)) {
        lanes[place..place + CHANNELS].copy_from_slice(pixel);
    }
}
