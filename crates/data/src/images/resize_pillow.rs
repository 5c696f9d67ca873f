//! Resizes images byte for byte as Pillow does (`src/libImaging/Resample.c` of Pillow 13): a separable filter, one pass
//! per axis, in 22-bit fixed point, rounded and clipped to bytes between the passes.
//!
//! The horizontal pass comes first, except for images that lose more than twice as many rows as columns. Pillow 13
//! introduced this exception, so earlier releases differ on such images by a few levels.
//!
//! The inner loops are written to vectorise: the horizontal pass works on a transposed strip of rows, so that both
//! passes multiply one weight with a run of bytes. The loops are compiled for several vector units, and the best of the
//! machine is chosen at run time: 32-bit products are slow on the oldest.

use pulp::{Arch, Simd, WithSimd};

use crate::images::filter::Filter;
use crate::images::rgb_image::RgbImage;

/// Fraction bits of a weight: 32 bits minus 8 for a sample and 2 for overshoot (`PRECISION_BITS` of Resample.c).
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Bytes of an RGB pixel.
const CHANNELS: usize = 3;

/// Rows per strip of the horizontal pass.
const STRIP_ROWS: usize = 16;

/// Bytes of one column of a strip.
const STRIP_BYTES: usize = STRIP_ROWS * CHANNELS;

/// Bytes summed at a time: the number of 32-bit sums in a vector of 512 bits.
const LANES: usize = 16;

/// A rectangle of the resized image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Resizes like `image.resize((width, height), resample)` of Pillow.
#[must_use]
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    resize_window(image, width, height, filter, Window { x: 0, y: 0, width, height })
}

/// Computes only the part `window` of the result of [`resize`]. The window is clipped to the resized image.
#[must_use]
pub fn resize_window(image: &RgbImage, width: u32, height: u32, filter: Filter, window: Window) -> RgbImage {
    let x = window.x.min(width);
    let y = window.y.min(height);
    let window = Window { x, y, width: window.width.min(width - x), height: window.height.min(height - y) };
    if window.width == 0 || window.height == 0 || image.width == 0 || image.height == 0 {
        return RgbImage::black(window.width, window.height);
    }
    if filter == Filter::Nearest {
        return resize_nearest(image, width, height, window);
    }
    let columns = (width != image.width).then(|| Kernels::new(image.width, width, window.x, window.width, filter));
    let rows = (height != image.height).then(|| Kernels::new(image.height, height, window.y, window.height, filter));

    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let vertical_first = lost(image.height, height) > 0 && lost(image.height, height) > 2 * lost(image.width, width);
    let data = Arch::new().dispatch(Passes { image, window, columns, rows, vertical_first });
    RgbImage { width: window.width, height: window.height, data }
}

/// The two passes. An axis without kernels keeps its size.
struct Passes<'a> {
    image: &'a RgbImage,
    window: Window,
    columns: Option<Kernels>,
    rows: Option<Kernels>,
    vertical_first: bool,
}

impl WithSimd for Passes<'_> {
    type Output = Vec<u8>;

    // Code that should use the vector unit must be inlined from here on.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<u8> {
        let stride = self.image.width as usize * CHANNELS;
        // Only the source rows that the window needs.
        let (first_row, end_row) = match &self.rows {
            Some(kernels) => kernels.span(),
            None => (self.window.y as usize, (self.window.y + self.window.height) as usize),
        };
        let source = &self.image.data[first_row * stride..end_row * stride];
        match &self.rows {
            Some(kernels) if self.vertical_first => self.narrow(&vertical(source, stride, first_row, kernels)),
            Some(kernels) => vertical(&self.narrow(source), self.window.width as usize * CHANNELS, first_row, kernels),
            None => self.narrow(source),
        }
    }
}

impl Passes<'_> {
    /// Filters rows of the image along x, to the columns of the window.
    #[inline(always)]
    fn narrow(&self, rows: &[u8]) -> Vec<u8> {
        if let Some(kernels) = &self.columns {
            return horizontal(rows, self.image.width as usize, kernels);
        }
        let [start, end] = [self.window.x, self.window.x + self.window.width].map(|x| x as usize * CHANNELS);
        rows.chunks_exact(self.image.width as usize * CHANNELS).flat_map(|row| &row[start..end]).copied().collect()
    }
}

/// The weights of one axis, for consecutive output positions.
struct Kernels {
    /// First source position of each output position.
    first: Vec<usize>,
    /// All weights in fixed point, grouped by position.
    weights: Vec<i32>,
    /// The weights of output position `i` are `weights[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
}

impl Kernels {
    /// `precompute_coeffs` and `normalize_coeffs_8bpc` of Resample.c, for the outputs `start..start + count` of
    /// `target`.
    fn new(source: u32, target: u32, start: u32, count: u32, filter: Filter) -> Self {
        let scale = f64::from(source) / f64::from(target);
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let inverse = 1.0 / filter_scale;
        let mut kernels = Self {
            first: Vec::with_capacity(count as usize),
            weights: Vec::new(),
            ends: Vec::with_capacity(count as usize),
        };
        let mut weights = Vec::new();
        for position in start..start + count {
            let center = (f64::from(position) + 0.5) * scale;
            // Truncation towards zero after adding a half, as C casts do.
            let min = ((center - support + 0.5) as i64).max(0);
            let max = ((center + support + 0.5) as i64).min(i64::from(source));
            weights.clear();
            weights.extend((min..max).map(|x| filter.weight((x as f64 - center + 0.5) * inverse)));
            let sum: f64 = weights.iter().sum();
            kernels.first.push(min as usize);
            kernels.weights.extend(weights.iter().map(|&weight| {
                let weight = if sum == 0.0 { weight } else { weight / sum };
                let fixed = weight * f64::from(1 << PRECISION_BITS);
                (if weight < 0.0 { fixed - 0.5 } else { fixed + 0.5 }) as i32
            }));
            kernels.ends.push(kernels.weights.len());
        }
        kernels
    }

    fn len(&self) -> usize {
        self.first.len()
    }

    /// First source position and weights of output `index`.
    fn get(&self, index: usize) -> (usize, &[i32]) {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        (self.first[index], &self.weights[start..self.ends[index]])
    }

    /// The range of source positions that the outputs need: first, and one past the last.
    fn span(&self) -> (usize, usize) {
        let last = self.len() - 1;
        let (start, weights) = self.get(last);
        (self.first[0], start + weights.len())
    }
}

/// Weighted sums of `N` bytes at a time; `taps` are the weights with their bytes.
#[inline(always)]
fn sums<'a, const N: usize>(taps: impl Iterator<Item = (i32, &'a [u8; N])>) -> [u8; N] {
    let mut sums = [1i32 << (PRECISION_BITS - 1); N];
    for (weight, bytes) in taps {
        for lane in 0..N {
            // Weights sum to one, so nothing overflows; wrapping avoids checks, which would prevent vectorisation.
            sums[lane] = sums[lane].wrapping_add(i32::from(bytes[lane]).wrapping_mul(weight));
        }
    }
    let mut bytes = [0u8; N];
    for lane in 0..N {
        bytes[lane] = (sums[lane] >> PRECISION_BITS).clamp(0, 255) as u8;
    }
    bytes
}

/// Filters every row of `source` (`width` pixels each) along x.
#[inline(always)]
fn horizontal(source: &[u8], width: usize, kernels: &Kernels) -> Vec<u8> {
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

/// Filters `source` along y. Its rows have `stride` bytes; the first is row `first_row` of the image.
#[inline(always)]
fn vertical(source: &[u8], stride: usize, first_row: usize, kernels: &Kernels) -> Vec<u8> {
    let mut out = vec![0u8; kernels.len() * stride];
    for (index, out_row) in out.chunks_exact_mut(stride).enumerate() {
        let (first, weights) = kernels.get(index);
        let start = (first - first_row) * stride;
        let rows = &source[start..start + weights.len() * stride];
        let taps = || weights.iter().copied().zip(rows.chunks_exact(stride));
        let (blocks, tail) = out_row.as_chunks_mut::<LANES>();
        for (block, bytes) in blocks.iter_mut().enumerate() {
            *bytes = sums(taps().map(|(weight, row)| (weight, &row.as_chunks().0[block])));
        }
        let done = stride - tail.len();
        for (column, byte) in tail.iter_mut().enumerate() {
            let column = done + column;
            [*byte] = sums(taps().map(|(weight, row)| (weight, &row.as_chunks::<1>().0[column])));
        }
    }
    out
}

/// Nearest neighbour as in `ImagingScaleAffine` of Pillow's Geometry.c: positions are accumulated, not multiplied.
fn resize_nearest(image: &RgbImage, width: u32, height: u32, window: Window) -> RgbImage {
    let positions = |source: u32, target: u32, start: u32, count: u32| {
        let step = f64::from(source) / f64::from(target);
        let mut at = step * 0.5;
        let mut positions = Vec::with_capacity(count as usize);
        for position in 0..start + count {
            if position >= start {
                positions.push((at as usize).min(source as usize - 1));
            }
            at += step;
        }
        positions
    };
    let columns = positions(image.width, width, window.x, window.width);
    let rows = positions(image.height, height, window.y, window.height);
    let stride = image.width as usize * CHANNELS;
    let mut data = Vec::with_capacity(rows.len() * columns.len() * CHANNELS);
    for row in rows {
        let row = &image.data[row * stride..(row + 1) * stride];
        for &column in &columns {
            data.extend_from_slice(&row[column * CHANNELS..(column + 1) * CHANNELS]);
        }
    }
    RgbImage { width: window.width, height: window.height, data }
}
