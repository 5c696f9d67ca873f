use super::*;
use crate::random::mix;

/// One pass sample by sample, along x or along y.
fn plain_pass(image: &RgbImage, kernels: &Kernels, is_along_x: bool) -> RgbImage {
    let outputs = kernels.len() as u32;
    let (width, height) = if is_along_x { (outputs, image.height) } else { (image.width, outputs) };
    let mut data = Vec::new();
    for y in 0..height as usize {
        for x in 0..width as usize {
            let (first, weights) = kernels.get(if is_along_x { x } else { y });
            for channel in 0..CHANNELS {
                let products = weights.iter().enumerate().map(|(tap, &weight)| {
                    let (x, y) = if is_along_x { (first + tap, y) } else { (x, first + tap) };
                    i64::from(weight) * i64::from(image.data[(y * image.width as usize + x) * CHANNELS + channel])
                });
                data.push(((products.sum::<i64>() + (1 << 21)) >> 22).clamp(0, 255) as u8);
            }
        }
    }
    RgbImage { width, height, data }
}

/// The whole resize sample by sample.
fn plain(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let along_x = |image: &RgbImage| match width == image.width {
        true => image.clone(),
        false => plain_pass(image, &Kernels::new((image.width, image.width.into()), width, 0, width, filter), true),
    };
    let along_y = |image: &RgbImage| match height == image.height {
        true => image.clone(),
        false => {
            plain_pass(image, &Kernels::new((image.height, image.height.into()), height, 0, height, filter), false)
        }
    };
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    if lost(image.height, height) > 0 && lost(image.height, height) > 2 * lost(image.width, width) {
        along_x(&along_y(image))
    } else {
        along_y(&along_x(image))
    }
}

fn cut(image: &RgbImage, window: Window) -> RgbImage {
    let rows = window.y..(window.y + window.height).min(image.height);
    let columns = window.x as usize..(window.x + window.width).min(image.width) as usize;
    let pixels = image.data.as_chunks::<CHANNELS>().0;
    let data = rows.clone().flat_map(|y| &pixels[(y * image.width) as usize..][columns.clone()]).flatten().copied();
    RgbImage { width: columns.len() as u32, height: rows.len() as u32, data: data.collect() }
}

/// Every vector unit of this machine, and none.
fn units() -> Vec<Arch> {
    let mut units = vec![Arch::new(), Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    if let Arch::V4(unit) = Arch::new() {
        units.push(Arch::V3(*unit));
    }
    units
}

#[test]
fn every_unit_computes_the_plain_sums() {
    for case in 0..60u64 {
        let random = |place: u64, below: u32| (mix(case, &[place]) % u64::from(below)) as u32;
        // Up to three tiles and six strips, with parts of them at the end; sometimes an axis keeps its size.
        let (from_width, from_height) = (1 + random(0, 64), 1 + random(1, 90));
        let width = if random(2, 6) == 0 { from_width } else { 1 + random(3, 64) };
        let height = if random(4, 6) == 0 { from_height } else { 1 + random(5, 60) };
        let bytes = from_width as usize * from_height as usize * CHANNELS;
        // Many extremes, as their sums overshoot.
        let byte = |at: usize| (i32::from(mix(case, &[6, at as u64]) as u8) * 2 - 128).clamp(0, 255) as u8;
        let image = RgbImage { width: from_width, height: from_height, data: (0..bytes).map(byte).collect() };
        let window = Window {
            x: random(7, width),
            y: random(8, height),
            width: 1 + random(9, width),
            height: 1 + random(10, height),
        };
        for filter in Filter::ALL.into_iter().filter(|&filter| filter != Filter::Nearest) {
            let expected = plain(&image, width, height, filter);
            let extent = (f64::from(image.width), f64::from(image.height));
            for unit in units() {
                let context =
                    format!("{from_width}x{from_height} to {width}x{height}, {filter:?}, {window:?}, {unit:?}");
                let whole = Window { x: 0, y: 0, width, height };
                assert!(resize_on(unit, (&image, extent), (width, height), filter, whole) == expected, "{context}");
                let part = resize_on(unit, (&image, extent), (width, height), filter, window);
                assert!(part == cut(&expected, window), "{context}");
            }
        }
    }
}
