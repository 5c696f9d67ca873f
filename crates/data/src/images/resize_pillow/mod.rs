//! Resizes images byte for byte as Pillow does (`src/libImaging/Resample.c` of Pillow 13): a separable filter, one pass
//! per axis, in 22-bit fixed point, rounded and clipped to bytes between the passes.
//!
//! The horizontal pass comes first, except for images that lose more than twice as many rows as columns. Pillow 13
//! introduced this exception, so earlier releases differ on such images by a few levels.
//!
//! The loops are compiled for several vector units, and the best of the machine is chosen at run time. All compute the
//! same integers.
//!
//! This file has [`resize`], the order of the passes and the vertical pass. The others:
//! - `kernels`: the weights of one axis
//! - `horizontal`: the horizontal pass, over strips of rows
//! - `few_taps`: the same for kernels of few weights
//! - `transpose`: rows of bytes to columns of a strip, and back
//! - `products`: products of weights and bytes on each vector unit

mod few_taps;
mod horizontal;
mod kernels;
mod products;
mod transpose;

use pulp::{Arch, Simd, WithSimd};

use crate::images::filter::Filter;
use crate::images::resize_pillow::few_taps::horizontal_of_few;
use crate::images::resize_pillow::horizontal::{PairKernels, horizontal};
use crate::images::resize_pillow::kernels::{Kernels, LANES, sums};
use crate::images::resize_pillow::products::{CHANNELS, Portable, Products};
use crate::images::rgb_image::RgbImage;

/// Kernels with fewer weights than this are multiplied whole. From 500 to 298 columns (7 weights) halves take 1.07 of
/// the time, with 8 to 14 weights the same within 2 %, and with 22 two thirds; measured on a Xeon with AVX-512.
const PAIRED_TAPS: usize = 16;

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
    resize_box(image, (image.width.into(), image.height.into()), (width, height), filter, window)
}

/// [`resize_window`] of a box of `image` to `(width, height)`: the part from its upper left corner to `extent`, its
/// width and height, as `image.resize((width, height), resample, (0, 0, *extent))` of Pillow.
pub(crate) fn resize_box(
    image: &RgbImage,
    extent: (f64, f64),
    size: (u32, u32),
    filter: Filter,
    window: Window,
) -> RgbImage {
    resize_on(Arch::new(), (image, extent), size, filter, window)
}

/// [`resize_box`] to `(width, height)` on the vector unit `arch`.
fn resize_on(
    arch: Arch,
    (image, extent): (&RgbImage, (f64, f64)),
    (width, height): (u32, u32),
    filter: Filter,
    window: Window,
) -> RgbImage {
    let x = window.x.min(width);
    let y = window.y.min(height);
    let window = Window { x, y, width: window.width.min(width - x), height: window.height.min(height - y) };
    if window.width == 0 || window.height == 0 || image.width == 0 || image.height == 0 {
        return RgbImage::black(window.width, window.height);
    }
    if filter == Filter::Nearest {
        return resize_nearest(image, width, height, window);
    }
    let kernels = |source: u32, extent: f64, target: u32, start: u32, count: u32| {
        let is_resized = source != target || extent != f64::from(source);
        is_resized.then(|| Kernels::new((source, extent), target, start, count, filter))
    };
    let columns = kernels(image.width, extent.0, width, window.x, window.width);
    let rows = kernels(image.height, extent.1, height, window.y, window.height);

    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let vertical_first = lost(image.height, height) > 0 && lost(image.height, height) > 2 * lost(image.width, width);
    let passes = Passes { image, window, columns, rows, vertical_first, unit: Portable };
    let data = match arch {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(unit) => Simd::vectorize(unit, passes.on(unit)),
        #[cfg(target_arch = "x86_64")]
        Arch::V3(unit) => Simd::vectorize(unit, passes.on(unit)),
        arch => arch.dispatch(passes),
    };
    RgbImage { width: window.width, height: window.height, data }
}

/// The two passes. An axis without kernels keeps its size.
struct Passes<'a, P> {
    image: &'a RgbImage,
    window: Window,
    columns: Option<Kernels>,
    rows: Option<Kernels>,
    vertical_first: bool,
    /// What multiplies in the horizontal pass.
    unit: P,
}

impl<P: Products> WithSimd for Passes<'_, P> {
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

impl<'a, P: Products> Passes<'a, P> {
    /// The same passes with the products of `unit`.
    fn on<Q: Products>(self, unit: Q) -> Passes<'a, Q> {
        let Self { image, window, columns, rows, vertical_first, unit: _ } = self;
        Passes { image, window, columns, rows, vertical_first, unit }
    }

    /// Filters rows of the image along x, to the columns of the window.
    #[inline(always)]
    fn narrow(&self, rows: &[u8]) -> Vec<u8> {
        if let Some(kernels) = &self.columns {
            let width = self.image.width as usize;
            return match kernels.most_taps() < PAIRED_TAPS {
                true => horizontal_of_few(rows, width, kernels),
                false => horizontal(self.unit, rows, width, &PairKernels::new(kernels)),
            };
        }
        let [start, end] = [self.window.x, self.window.x + self.window.width].map(|x| x as usize * CHANNELS);
        rows.chunks_exact(self.image.width as usize * CHANNELS).flat_map(|row| &row[start..end]).copied().collect()
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

#[cfg(test)]
mod tests;
