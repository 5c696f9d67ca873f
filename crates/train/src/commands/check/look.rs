//! What an image looks like in 20 bytes, to find copies that were resized or compressed again.
//!
//! The gradient bits are those of dHash (N. Krawetz, "Kind of Like That", 2013): each says whether a pixel of the image
//! at 9x8 is brighter than its right neighbour. Mean colours are compared too, since drawings often differ in nothing
//! else.

use dualenc_data::{Filter, RgbImage, resize};

/// Columns and rows of gradient bits.
const GRID: u32 = 8;

/// Difference in brightness that counts, in levels of 255: noise of a compressed flat area stays below it.
const MIN_STEP: i32 = 2;

/// Gradient bits in which copies may differ. Measured on the 312 drawings in `data/tiny/train`: of copies at half the
/// size in JPEG of quality 75, 99 % differ in at most 4; 10 of 48,516 pairs of drawings come as close.
pub(crate) const MAX_BITS: u32 = 4;

/// Levels of 255 by which each mean colour of copies may differ: 95 % of the copies above differ by at most 11.
pub(crate) const MAX_LEVELS: u8 = 12;

/// Bands of gradient bits: one more than [`MAX_BITS`], so that copies agree in one of them at least.
const BANDS: usize = MAX_BITS as usize + 1;

/// Bits of a band: the last one is shorter.
const BAND_BITS: usize = (GRID * GRID) as usize / BANDS + 1;

/// Width of a cell of mean colour, so that copies are in the same or in adjacent cells.
const CELL: u16 = MAX_LEVELS as u16 + 1;

/// Images of one cell that are compared: more are all alike to this measure.
const MAX_PER_CELL: usize = 1024;

/// The looks of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Look {
    gradient: u64,
    /// Mean colours of the four quarters, `[4, 3]`.
    colors: [u8; 12],
}

impl Look {
    pub fn of(image: &RgbImage) -> Self {
        let small = resize(image, GRID + 1, GRID, Filter::Bilinear);
        // The luma of ITU-R BT.601, as Pillow's `convert("L")`.
        let luma = |rgb: &[u8]| (i32::from(rgb[0]) * 299 + i32::from(rgb[1]) * 587 + i32::from(rgb[2]) * 114) / 1000;
        let mut gradient = 0;
        for row in small.data.chunks_exact(3 * (GRID + 1) as usize) {
            let row: Vec<i32> = row.chunks_exact(3).map(luma).collect();
            for pair in row.windows(2) {
                gradient = gradient << 1 | u64::from(pair[1] - pair[0] > MIN_STEP);
            }
        }
        let mut colors = [0; 12];
        for (color, &value) in colors.iter_mut().zip(&resize(image, 2, 2, Filter::Box).data) {
            *color = value;
        }
        Self { gradient, colors }
    }

    /// Whether two images look like copies.
    pub fn is_near(&self, other: &Self) -> bool {
        (self.gradient ^ other.gradient).count_ones() <= MAX_BITS
            && self.colors.iter().zip(&other.colors).all(|(one, two)| one.abs_diff(*two) <= MAX_LEVELS)
    }

    fn band(&self, band: usize) -> u64 {
        self.gradient >> (band * BAND_BITS) & ((1 << BAND_BITS) - 1)
    }

    /// The cell of the mean red, green and blue.
    fn cell(&self) -> [i64; 3] {
        std::array::from_fn(|channel| {
            let sum: u16 = self.colors.iter().skip(channel).step_by(3).map(|&color| u16::from(color)).sum();
            i64::from(sum / 4 / CELL)
        })
    }
}

fn key(band: u64, cell: [i64; 3]) -> u64 {
    // A cell number is at most 255 / 13 + 1.
    cell.iter().fold(band, |key, &number| key << 8 | (number + 1) as u64)
}

/// Finds images that look alike, in time that grows with their number rather than its square.
pub(crate) struct LookIndex<'a> {
    looks: &'a [Look],
    /// Per band: keys with the numbers of their images, sorted.
    bands: Vec<Vec<(u64, u32)>>,
}

impl<'a> LookIndex<'a> {
    /// `looks`: fewer than 2^32.
    pub fn new(looks: &'a [Look]) -> Self {
        let band = |band: usize| {
            let mut keys: Vec<(u64, u32)> =
                looks.iter().zip(0..).map(|(look, number)| (key(look.band(band), look.cell()), number)).collect();
            keys.sort_unstable();
            keys
        };
        Self { looks, bands: (0..BANDS).map(band).collect() }
    }

    /// Calls `found` with the number of each image of the index that looks like `look`, some of them several times,
    /// until it returns false.
    pub fn find(&self, look: &Look, mut found: impl FnMut(usize) -> bool) {
        let [red, green, blue] = look.cell();
        for (band, keys) in self.bands.iter().enumerate() {
            for neighbor in 0..27 {
                let offset = |place: i64| neighbor / place % 3 - 1;
                let cell = [red + offset(1), green + offset(3), blue + offset(9)];
                let key = key(look.band(band), cell);
                let start = keys.partition_point(|(other, _)| *other < key);
                for &(_, number) in keys[start..].iter().take_while(|(other, _)| *other == key).take(MAX_PER_CELL) {
                    if look.is_near(&self.looks[number as usize]) && !found(number as usize) {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture with a disc of one colour on another.
    fn disc(size: u32, [x, y]: [f64; 2], color: [u8; 3], ground: [u8; 3]) -> RgbImage {
        let mut data = Vec::new();
        for row in 0..size {
            for column in 0..size {
                let at = |pixel: u32| f64::from(pixel) / f64::from(size);
                let inside = (at(column) - x).powi(2) + (at(row) - y).powi(2) < 0.06;
                data.extend(if inside { color } else { ground });
            }
        }
        RgbImage { width: size, height: size, data }
    }

    #[test]
    fn resized_copies_look_alike() {
        let image = disc(96, [0.4, 0.5], [200, 30, 30], [20, 40, 90]);
        let look = Look::of(&image);
        assert!(look.is_near(&Look::of(&resize(&image, 40, 40, Filter::Bicubic))));
        let brighter = RgbImage { data: image.data.iter().map(|&value| value.saturating_add(4)).collect(), ..image };
        assert!(look.is_near(&Look::of(&brighter)));
        for other in
            [disc(96, [0.4, 0.5], [30, 30, 200], [20, 40, 90]), disc(96, [0.7, 0.5], [200, 30, 30], [20, 40, 90])]
        {
            assert!(!look.is_near(&Look::of(&other)));
        }
    }

    #[test]
    fn index_finds_what_comparison_finds() {
        // Pseudo-random looks in clusters, by a linear congruential generator.
        let mut state = 1u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut looks: Vec<Look> = Vec::new();
        for number in 0..600 {
            let mut look = match number % 3 {
                0 => Look {
                    gradient: next(1 << 32) << 32 | next(1 << 32),
                    colors: std::array::from_fn(|_| next(256) as u8),
                },
                _ => looks[next(number) as usize],
            };
            for _ in 0..next(4) {
                look.gradient ^= 1 << next(64);
            }
            look.colors.iter_mut().for_each(|color| *color = color.saturating_add(next(8) as u8));
            looks.push(look);
        }
        let index = LookIndex::new(&looks);
        let mut pairs = 0;
        for look in &looks {
            let mut found = vec![false; looks.len()];
            index.find(look, |number| {
                found[number] = true;
                true
            });
            let expected: Vec<bool> = looks.iter().map(|other| look.is_near(other)).collect();
            assert_eq!(found, expected);
            pairs += expected.iter().filter(|near| **near).count() - 1;
        }
        assert!(pairs > 200, "{pairs}");
    }
}
