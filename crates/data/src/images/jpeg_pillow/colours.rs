//! Samples to rows of pixels: chroma is interpolated to the size of the image (libjpeg's `jdsample.c`), YCbCr becomes
//! RGB.

use std::ops::Range;

use super::frame::{Component, Frame};
use super::planes::{Plane, Planes};
use super::unit::Unit;
use super::ycc::rgb;

/// Bytes behind a row of pixels that may be written over.
pub(super) const SLACK: usize = 4;

/// Appends the pixels of the rows `range` of the image to `data`. `pixels` has room for a row and [`SLACK`]
/// bytes.
#[inline(always)]
pub(super) fn write_rows<U: Unit>(
    unit: U,
    frame: &Frame,
    planes: &mut Planes,
    range: Range<usize>,
    (pixels, data): (&mut [u8], &mut Vec<u8>),
) {
    for row in range {
        for (index, component) in frame.components.iter().enumerate() {
            if component.columns_per_sample > 1 || component.rows_per_sample > 1 {
                let (plane, pixels, sums) = planes.parts(index);
                interpolate(component, plane, row, frame.is_smooth, pixels, sums);
            }
        }
        let samples = |index: usize| {
            let component = &frame.components[index];
            let is_whole = component.columns_per_sample == 1 && component.rows_per_sample == 1;
            let samples = if is_whole { planes.plane(index).row(row) } else { &planes.rows[index] };
            &samples[..frame.width]
        };
        if frame.components.len() == 1 {
            data.extend_from_slice(samples(0));
            continue;
        }
        match frame.is_ycc {
            true => ycc_to_rgb(unit, [samples(0), samples(1), samples(2)], pixels),
            false => {
                let planes = samples(0).iter().zip(samples(1)).zip(samples(2));
                for (pixel, ((&r, &g), &b)) in pixels.as_chunks_mut().0.iter_mut().zip(planes) {
                    *pixel = [r, g, b];
                }
            }
        }
        data.extend_from_slice(&pixels[..3 * frame.width]);
    }
}

/// The samples of `component` in row `row` of the image, at its width.
///
/// Twice as many pixels as samples are interpolated by a triangle: 3/4 of the nearer sample and 1/4 of the other, where
/// halves are rounded up and down in turns. Other ratios repeat samples, and so do images of two samples in width.
#[inline(always)]
fn interpolate(component: &Component, plane: &Plane, row: usize, is_smooth: bool, pixels: &mut [u8], sums: &mut [u16]) {
    let near = row / component.rows_per_sample;
    let samples = &plane.row(near)[..component.width];
    let last_row = component.height - 1;
    let other = match row.is_multiple_of(2) {
        true => plane.row(near.saturating_sub(1)),
        false => plane.row((near + 1).min(last_row)),
    };
    let is_wide = component.width > 2;
    match (component.columns_per_sample, component.rows_per_sample) {
        (2, 1) if is_smooth && is_wide => {
            let sums = &mut sums[..component.width + 2];
            for (sum, &sample) in sums[1..].iter_mut().zip(samples) {
                *sum = u16::from(sample);
            }
            double_columns::<1, 2, 2>(sums, pixels);
        }
        (2, 2) if is_smooth && is_wide => {
            let sums = &mut sums[..component.width + 2];
            for ((sum, &near), &other) in sums[1..].iter_mut().zip(samples).zip(other) {
                *sum = 3 * u16::from(near) + u16::from(other);
            }
            double_columns::<8, 7, 4>(sums, pixels);
        }
        (1, 2) if is_smooth => {
            let rounding = 1 + (row % 2) as u16;
            for ((pixel, &near), &other) in pixels.iter_mut().zip(samples).zip(other) {
                *pixel = ((3 * u16::from(near) + u16::from(other) + rounding) >> 2) as u8;
            }
        }
        (columns, _) => {
            for (pixels, &sample) in pixels.chunks_mut(columns).zip(samples) {
                pixels.fill(sample);
            }
        }
    }
}

/// Two pixels for each of `sums` but the first and the last, which become copies of their neighbours.
#[inline(always)]
fn double_columns<const LEFT: u16, const RIGHT: u16, const SHIFT: u16>(sums: &mut [u16], pixels: &mut [u8]) {
    let len = sums.len();
    (sums[0], sums[len - 1]) = (sums[1], sums[len - 2]);
    let (left, middle, right) = (&sums[..len - 2], &sums[1..len - 1], &sums[2..]);
    let sums = left.iter().zip(middle).zip(right);
    for (pair, ((&left, &middle), &right)) in pixels.as_chunks_mut::<2>().0.iter_mut().zip(sums) {
        let first = (3 * middle + left + LEFT) >> SHIFT;
        let second = (3 * middle + right + RIGHT) >> SHIFT;
        *pair = (first | second << 8).to_le_bytes();
    }
}

/// Pixels of RGB from rows of Y, Cb and Cr.
#[inline(always)]
fn ycc_to_rgb<U: Unit>(unit: U, [y, cb, cr]: [&[u8]; 3], pixels: &mut [u8]) {
    let done = unit.ycc_to_rgb([y, cb, cr], pixels);
    let rest = y[done..].iter().zip(&cb[done..]).zip(&cr[done..]);
    for (pixel, ((&y, &cb), &cr)) in pixels[3 * done..].as_chunks_mut::<3>().0.iter_mut().zip(rest) {
        *pixel = rgb(y, cb, cr);
    }
}
