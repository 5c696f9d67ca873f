//! Antialiased resizing of single-precision values as in torch (`_upsample_bilinear2d_aa` and `_upsample_bicubic2d_aa`,
//! `UpSampleKernel.cpp` of PyTorch), for the one processor that rescales before it resizes.
//!
//! The method is Pillow's, horizontal pass first, but weights and sums are f32 and nothing is rounded between the
//! passes.

use crate::images::filter::Filter;
use crate::images::rgb_image::RgbImage;

/// Maps the bytes of `image` through `values` (one table per channel) and resizes to `[3, height, width]`, flat.
pub(crate) fn resize_float(
    image: &RgbImage,
    values: &[[f32; 256]; 3],
    width: u32,
    height: u32,
    filter: Filter,
) -> Vec<f32> {
    let (out_width, plane) = (width as usize, width as usize * height as usize);
    let mut out = vec![0.0; plane * 3];
    if image.width == 0 || image.height == 0 || plane == 0 {
        return out;
    }
    let columns = taps(image.width, width, filter);
    let rows = taps(image.height, height, filter);
    let pixels = image.data.as_chunks::<3>().0;
    for (channel, (values, out)) in values.iter().zip(out.chunks_exact_mut(plane)).enumerate() {
        let mut line = vec![0.0; image.width as usize];
        let mut narrowed = Vec::with_capacity(image.height as usize * out_width);
        for row in pixels.chunks_exact(image.width as usize) {
            line.iter_mut().zip(row).for_each(|(value, pixel)| *value = values[usize::from(pixel[channel])]);
            narrowed.extend(columns.iter().map(|taps| {
                let inputs = &line[taps.first..taps.first + taps.weights.len()];
                inputs.iter().zip(&taps.weights).fold(0.0, |sum, (value, weight)| sum + value * weight)
            }));
        }
        for (taps, out_row) in rows.iter().zip(out.chunks_exact_mut(out_width)) {
            let inputs = narrowed.chunks_exact(out_width).skip(taps.first);
            for (weight, row) in taps.weights.iter().zip(inputs) {
                out_row.iter_mut().zip(row).for_each(|(sum, value)| *sum += value * weight);
            }
        }
    }
    out
}

/// The source positions and weights of one output position.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

/// The taps of each output position (`_compute_indices_min_size_weights_aa`): in f32, except for the halves, which C++
/// adds in f64.
fn taps(source: u32, target: u32, filter: Filter) -> Vec<Taps> {
    if source == target {
        return (0..source as usize).map(|first| Taps { first, weights: vec![1.0] }).collect();
    }
    let scale = source as f32 / target as f32;
    let filter_scale = scale.max(1.0);
    let support = filter.support() as f32 * filter_scale;
    let inverse = 1.0 / filter_scale;
    (0..target)
        .map(|position| {
            let center = (f64::from(scale) * (f64::from(position) + 0.5)) as f32;
            // Truncation towards zero after adding a half, as C casts do.
            let first = ((f64::from(center - support) + 0.5) as i64).max(0);
            let end = ((f64::from(center + support) + 0.5) as i64).min(i64::from(source));
            let mut weights: Vec<f32> = (first..end)
                .map(|x| {
                    filter.weight(((f64::from(x as f32 - center) + 0.5) * f64::from(inverse)) as f32 as f64) as f32
                })
                .collect();
            let sum: f32 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= sum);
            }
            Taps { first: first as usize, weights }
        })
        .collect()
}
