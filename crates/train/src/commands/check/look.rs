//! What an image looks like in about 400 bytes, to find copies that were resized, compressed again, cropped a little or
//! made brighter.
//!
//! Images are compared by the correlation of small versions: brightness at 16x16 and colour differences at 8x8. A hash
//! of gradient bits, such as dHash, is not enough: large empty areas give equal bits, so that most drawings on one
//! ground look alike to it. Images without contrast are not compared.

use dualenc_data::{Filter, RgbImage, resize};
use rayon::prelude::*;

/// Columns and rows of brightness.
const LUMA_GRID: u32 = 16;

/// Columns and rows of each colour difference: JPEG stores colours at half the resolution.
const CHROMA_GRID: u32 = 8;

/// Numbers of a look.
const VALUES: usize = (LUMA_GRID * LUMA_GRID + 2 * CHROMA_GRID * CHROMA_GRID) as usize;

/// Standard deviation, in levels of 255, below which an image is too plain to be compared. At 3, the rounding of pixels
/// to levels (0.29) is 1 % of the energy, as much as copies may differ.
const MIN_CONTRAST: f64 = 3.0;

/// Correlation of copies, at least. Measured by the tests: of 40 textures, all copies are above it that are JPEG of
/// quality 50 to 95, have a quarter to 1.5 times the size, are cropped by 1 %, or are 20 levels brighter; and 95 % of
/// those cropped by 2 %. None of 540 drawings in three pairs of colours is as close to another one.
const MIN_CORRELATION: f64 = 0.99;

/// Levels of 255 by which the mean colour of copies may differ in the same direction: twice the change of brightness
/// that the tests make.
const MAX_SHIFT: i32 = 40;

/// Levels of 255 by which the mean colour of copies may differ otherwise. Of copies of the drawings in
/// `data/tiny/train` at half the size in JPEG of quality 75, the mean colours of 95 % differ by at most 11.
const MAX_TINT: i32 = 12;

/// Bands of sign bits. Two looks with a correlation of 0.99 differ in the sign along a random direction with a
/// probability of acos(0.99) / pi = 4.5 % (M. Charikar, "Similarity Estimation Techniques from Rounding Algorithms",
/// 2002), so that they agree in one of 10 bands of 20 bits with a probability of 99.4 %.
const BANDS: usize = 10;

/// Sign bits of a band: as many values as there are images in a large data set, a million.
const BAND_BITS: usize = 20;

/// Images of one band that are compared: more are all alike to this measure.
const MAX_PER_BAND: usize = 1024;

/// The looks of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Look {
    /// Deviations from the mean, scaled so that the largest is 127: brightness by rows, then two colour differences.
    values: [i8; VALUES],
    /// Mean red, green and blue.
    mean: [u8; 3],
}

impl Look {
    /// `None`: the image has too little contrast to be compared.
    pub fn of(image: &RgbImage) -> Option<Self> {
        let (luma, _, _) = planes(&resize(image, LUMA_GRID, LUMA_GRID, Filter::Bilinear));
        let (_, blue, red) = planes(&resize(image, CHROMA_GRID, CHROMA_GRID, Filter::Bilinear));
        // A cell of colour stands for four of brightness.
        let weight = f64::from(LUMA_GRID / CHROMA_GRID);
        let parts = [(&luma, 1.0), (&blue, weight), (&red, weight)];
        let mut deviations = Vec::with_capacity(VALUES);
        for (plane, weight) in parts {
            let mean = plane.iter().sum::<f64>() / plane.len() as f64;
            deviations.extend(plane.iter().map(|value| weight * (value - mean)));
        }
        let energy: f64 = deviations.iter().map(|value| value * value).sum();
        if energy < MIN_CONTRAST * MIN_CONTRAST * luma.len() as f64 {
            return None;
        }
        let most = deviations.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        let mut values = [0; VALUES];
        for (value, deviation) in values.iter_mut().zip(deviations) {
            *value = (deviation / most * 127.0).round() as i8;
        }
        let mut mean = [0; 3];
        mean.copy_from_slice(&resize(image, 1, 1, Filter::Box).data);
        Some(Self { values, mean })
    }

    /// Whether two images look like copies.
    pub fn is_near(&self, other: &Self) -> bool {
        let shifts: [i32; 3] = std::array::from_fn(|at| i32::from(self.mean[at]) - i32::from(other.mean[at]));
        let shift = (shifts.iter().sum::<i32>() / 3).clamp(-MAX_SHIFT, MAX_SHIFT);
        shifts.iter().all(|it| (it - shift).abs() <= MAX_TINT) && self.correlation(other) >= MIN_CORRELATION
    }

    fn correlation(&self, other: &Self) -> f64 {
        let dot = |one: &Self, two: &Self| {
            let products = one.values.iter().zip(&two.values).map(|(a, b)| i32::from(*a) * i32::from(*b));
            f64::from(products.sum::<i32>())
        };
        dot(self, other) / (dot(self, self) * dot(other, other)).sqrt()
    }

    /// The signs along random directions.
    fn bands(&self, directions: &Directions) -> [u32; BANDS] {
        let sign = |direction: &[bool; VALUES]| {
            let sum: i32 =
                self.values.iter().zip(direction).map(|(v, keep)| i32::from(if *keep { *v } else { -*v })).sum();
            u32::from(sum > 0)
        };
        std::array::from_fn(|band| {
            directions.0[band * BAND_BITS..][..BAND_BITS].iter().fold(0, |bits, direction| bits << 1 | sign(direction))
        })
    }
}

/// Brightness and two colour differences, blue and red: the YCbCr of JPEG (ITU-T T.871) without its offset.
fn planes(image: &RgbImage) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut luma, mut blue, mut red) = (Vec::new(), Vec::new(), Vec::new());
    for pixel in image.data.chunks_exact(3) {
        let [r, g, b] = [0, 1, 2].map(|channel| f64::from(pixel[channel]));
        let y = 0.299 * r + 0.587 * g + 0.114 * b;
        luma.push(y);
        blue.push((b - y) / 1.772);
        red.push((r - y) / 1.402);
    }
    (luma, blue, red)
}

/// Random directions: of each, the numbers that count as they are; the others count negatively.
struct Directions(Vec<[bool; VALUES]>);

impl Directions {
    /// The same ones each time.
    fn new() -> Self {
        let mut reader = blake3::Hasher::new_derive_key("dualenc check: directions of looks").finalize_xof();
        let mut direction = || {
            let mut bytes = [0; VALUES];
            reader.fill(&mut bytes);
            bytes.map(|byte| byte & 1 == 1)
        };
        Self((0..BANDS * BAND_BITS).map(|_| direction()).collect())
    }
}

/// Finds images that look alike, in time that grows with their number rather than its square.
pub(crate) struct LookIndex<'a> {
    looks: &'a [&'a Look],
    directions: Directions,
    /// Per band: signs with the numbers of their images, sorted.
    bands: Vec<Vec<(u32, u32)>>,
}

impl<'a> LookIndex<'a> {
    /// `looks`: fewer than 2^32.
    pub fn new(looks: &'a [&'a Look]) -> Self {
        let directions = Directions::new();
        let keys: Vec<[u32; BANDS]> = looks.par_iter().map(|look| look.bands(&directions)).collect();
        let band = |band: usize| {
            let mut keys: Vec<(u32, u32)> = keys.iter().zip(0..).map(|(keys, number)| (keys[band], number)).collect();
            keys.sort_unstable();
            keys
        };
        Self { looks, bands: (0..BANDS).map(band).collect(), directions }
    }

    /// Calls `found` with the number of each image of the index that looks like `look`, some of them several times,
    /// until it returns false.
    pub fn find(&self, look: &Look, mut found: impl FnMut(usize) -> bool) {
        for (key, keys) in look.bands(&self.directions).iter().zip(&self.bands) {
            let start = keys.partition_point(|(other, _)| other < key);
            for &(_, number) in keys[start..].iter().take_while(|(other, _)| other == key).take(MAX_PER_BAND) {
                if look.is_near(self.looks[number as usize]) && !found(number as usize) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dualenc_data::{Encoding, Limits, decode, encode};

    use super::*;

    /// Pseudo-random numbers (splitmix64).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        }

        /// Between `from` and `to`.
        fn within(&mut self, from: f64, to: f64) -> f64 {
            from + (to - from) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    fn painted(width: u32, height: u32, mut color: impl FnMut(f64, f64) -> [u8; 3]) -> RgbImage {
        let mut data = Vec::new();
        for row in 0..height {
            for column in 0..width {
                data.extend(color(f64::from(column) / f64::from(width), f64::from(row) / f64::from(height)));
            }
        }
        RgbImage { width, height, data }
    }

    /// Noise that is strongest in its coarse parts, as in photographs.
    fn texture(random: &mut Random) -> RgbImage {
        let (width, height) = (240, 180);
        let tone: [f64; 3] = std::array::from_fn(|_| random.within(80.0, 160.0));
        let mut sums: Vec<f64> = (0..width * height).flat_map(|_| tone).collect();
        for octave in 1..7 {
            let (strength, side) = (110.0 * 0.7_f64.powi(octave), 1 << octave);
            let noise = painted(side + 1, side, |_, _| {
                let gray = random.within(40.0, 215.0);
                std::array::from_fn(|_| (gray + random.within(-40.0, 40.0)) as u8)
            });
            let noise = resize(&noise, width, height, Filter::Bicubic);
            sums.iter_mut()
                .zip(noise.data)
                .for_each(|(sum, value)| *sum += (f64::from(value) - 127.5) / 127.5 * strength);
        }
        RgbImage { width, height, data: sums.into_iter().map(|sum| sum.clamp(0.0, 255.0) as u8).collect() }
    }

    /// Letters of 5 columns and 7 rows.
    const LETTERS: [[u8; 7]; 8] = [
        [14, 17, 17, 31, 17, 17, 17],
        [30, 17, 17, 30, 17, 17, 30],
        [14, 17, 16, 16, 16, 17, 14],
        [31, 16, 16, 30, 16, 16, 31],
        [31, 16, 16, 30, 16, 16, 16],
        [17, 17, 17, 31, 17, 17, 17],
        [14, 17, 17, 17, 17, 17, 14],
        [31, 4, 4, 4, 4, 4, 4],
    ];

    /// Simple drawings of one kind in the same colours. Places of one shape differ by at least 4 % of the side.
    fn drawings(kind: &str, [ground, ink]: [[u8; 3]; 2], count: usize, random: &mut Random) -> Vec<RgbImage> {
        let mut places: Vec<(usize, f64, f64, f64)> = Vec::new();
        while places.len() < count {
            let letter = random.next() as usize % LETTERS.len();
            let new = (letter, random.within(0.2, 0.8), random.within(0.2, 0.8), random.within(0.08, 0.2));
            let is_apart = |(l, x, y, s): &(usize, f64, f64, f64)| {
                kind == "letter" && *l != new.0
                    || (x - new.1).abs().max((y - new.2).abs()) > 0.04
                    || (s - new.3).abs() > 0.04
            };
            if places.iter().all(is_apart) {
                places.push(new);
            }
        }
        let draw = |&(letter, x, y, size): &(usize, f64, f64, f64)| {
            let mut heights = vec![0.5];
            for _ in 0..20 {
                let step = random.within(-0.15, 0.15);
                heights.push((heights[heights.len() - 1] + step).clamp(0.1, 0.85));
            }
            let large = painted(336, 336, |column, row| {
                let (dx, dy) = (column - x, row - y);
                let is_ink = match kind {
                    "circle" => dx * dx + dy * dy < size * size,
                    "ring" => (0.6 * size..size).contains(&dx.hypot(dy)),
                    "square" => dx.abs().max(dy.abs()) < size,
                    "triangle" => dy < size && dy > 2.0 * dx.abs() - size,
                    "letter" => {
                        let at = |d: f64, cells: f64| ((d / size + 1.0) / 2.0 * cells).floor();
                        let (column, row) = (at(dx, 5.0), at(dy, 7.0));
                        (0.0..5.0).contains(&column)
                            && (0.0..7.0).contains(&row)
                            && LETTERS[letter][row as usize] >> (4 - column as u32) & 1 == 1
                    }
                    _ => {
                        let at = ((column - 0.1) / 0.8 * 20.0).clamp(0.0, 19.99);
                        let (left, share) = (at as usize, at.fract());
                        let line = heights[left] * (1.0 - share) + heights[left + 1] * share;
                        let is_axis = (column - 0.1).abs() < 0.006 || (row - 0.9).abs() < 0.006;
                        is_axis || column > 0.1 && column < 0.9 && (row - line).abs() < 0.008
                    }
                };
                if is_ink { ink } else { ground }
            });
            resize(&large, 224, 224, Filter::Box)
        };
        places.iter().map(draw).collect()
    }

    fn jpeg(image: &RgbImage, quality: u8) -> RgbImage {
        decode(&encode(image, Encoding::Jpeg(quality)).unwrap(), &Limits::default()).unwrap()
    }

    fn resized(image: &RgbImage, share: f64) -> RgbImage {
        let side = |side: u32| (f64::from(side) * share) as u32;
        resize(image, side(image.width), side(image.height), Filter::Bicubic)
    }

    /// Without `share` of the columns and rows, some at each side.
    fn cropped(image: &RgbImage, share: f64, random: &mut Random) -> RgbImage {
        let cut = |side: u32| (f64::from(side) * share).ceil() as u32;
        let (columns, rows) = (cut(image.width), cut(image.height));
        let (left, top) = (random.next() as u32 % (columns + 1), random.next() as u32 % (rows + 1));
        let (width, height) = (image.width - columns, image.height - rows);
        let row = |row: u32| &image.data[3 * ((row + top) * image.width + left) as usize..][..3 * width as usize];
        RgbImage { width, height, data: (0..height).flat_map(row).copied().collect() }
    }

    fn brighter(image: &RgbImage, levels: i32) -> RgbImage {
        let data = image.data.iter().map(|&value| (i32::from(value) + levels).clamp(0, 255) as u8).collect();
        RgbImage { data, ..*image }
    }

    /// The share of images of which an edited copy is found.
    fn found(images: &[RgbImage], mut edit: impl FnMut(&RgbImage) -> RgbImage) -> f64 {
        let looks: Vec<Look> = images.iter().filter_map(Look::of).collect();
        assert_eq!(looks.len(), images.len());
        let references: Vec<&Look> = looks.iter().collect();
        let index = LookIndex::new(&references);
        let is_found = |(at, image): &(usize, &RgbImage)| {
            let mut is_found = false;
            if let Some(look) = Look::of(&edit(image)) {
                index.find(&look, |other| {
                    is_found = other == *at;
                    !is_found
                });
            }
            is_found
        };
        images.iter().enumerate().filter(is_found).count() as f64 / images.len() as f64
    }

    #[test]
    fn edited_copies_are_found() {
        let mut random = Random(1);
        let images: Vec<RgbImage> = (0..40).map(|_| texture(&mut random)).collect();
        type Edit<'a> = &'a dyn Fn(&RgbImage, &mut Random) -> RgbImage;
        let edits: [(&str, Edit<'_>); 9] = [
            ("quality 50", &|image, _| jpeg(image, 50)),
            ("quality 75", &|image, _| jpeg(image, 75)),
            ("quality 95", &|image, _| jpeg(image, 95)),
            ("half the size", &|image, _| jpeg(&resized(image, 0.5), 75)),
            ("a quarter", &|image, _| jpeg(&resized(image, 0.25), 75)),
            ("larger", &|image, _| jpeg(&resized(image, 1.5), 90)),
            ("cropped by 1 %", &|image, random| jpeg(&cropped(image, 0.01, random), 85)),
            ("cropped by 2 %", &|image, random| jpeg(&cropped(image, 0.02, random), 85)),
            ("brighter", &|image, _| jpeg(&brighter(image, 20), 85)),
        ];
        for (name, edit) in edits {
            let share = found(&images, |image| edit(image, &mut random));
            assert!(share >= 0.9, "{name}: {share}");
        }
        let share = found(&images, |image| brighter(image, -20));
        assert!(share >= 0.9, "darker: {share}");
    }

    const COLORS: [[[u8; 3]; 2]; 3] = [[[255; 3], [0; 3]], [[255; 3], [220, 30, 30]], [[20, 40, 90], [230, 200, 40]]];

    #[test]
    fn copies_of_drawings_are_found() {
        let mut random = Random(2);
        for kind in ["circle", "ring", "square", "triangle", "letter", "plot"] {
            let images = drawings(kind, COLORS[1], 20, &mut random);
            for (name, share) in [
                ("quality 50", found(&images, |image| jpeg(image, 50))),
                ("half the size", found(&images, |image| jpeg(&resized(image, 0.5), 75))),
            ] {
                assert!(share >= 0.9, "{kind}, {name}: {share}");
            }
        }
    }

    #[test]
    fn different_drawings_are_no_copies() {
        let mut random = Random(3);
        let (mut near, mut total) = (0, 0);
        for colors in COLORS {
            let kinds = ["circle", "ring", "square", "triangle", "letter", "plot"];
            let images: Vec<RgbImage> = kinds.iter().flat_map(|kind| drawings(kind, colors, 30, &mut random)).collect();
            let looks: Vec<Look> = images.iter().filter_map(Look::of).collect();
            let is_near = |at: usize| (0..looks.len()).any(|other| other != at && looks[at].is_near(&looks[other]));
            let found = (0..looks.len()).filter(|&at| is_near(at)).count();
            (near, total) = (near + found, total + looks.len());
        }
        assert!(total > 500 && near * 100 <= total, "{near} of {total}");
    }

    #[test]
    fn drawings_of_another_color_are_no_copies() {
        let disc = |ink: [u8; 3], ground: [u8; 3]| {
            let image = painted(96, 96, |x, y| if (x - 0.4).hypot(y - 0.5) < 0.2 { ink } else { ground });
            Look::of(&image).unwrap()
        };
        let look = disc([200, 30, 30], [20, 40, 90]);
        assert!(look.is_near(&look));
        // Green of the same brightness, blue, another ground.
        for (ink, ground) in [
            ([30, 110, 30], [20, 40, 90]),
            ([30, 30, 200], [20, 40, 90]),
            ([200, 30, 30], [90, 40, 20]),
            ([240, 70, 70], [20, 40, 90]),
        ] {
            assert!(!look.is_near(&disc(ink, ground)), "{ink:?} on {ground:?}");
        }
    }

    #[test]
    fn plain_images_are_not_compared() {
        let mut random = Random(4);
        assert_eq!(Look::of(&painted(64, 64, |_, _| [250; 3])), None);
        let noise = painted(64, 64, |_, _| [(120.0 + random.within(0.0, 6.0)) as u8; 3]);
        assert_eq!(Look::of(&noise), None, "noise");
        let dot = painted(224, 224, |x, y| if (x - 0.5).hypot(y - 0.5) < 0.01 { [0; 3] } else { [255; 3] });
        assert_eq!(Look::of(&dot), None, "a dot");
    }

    #[test]
    fn index_finds_what_comparison_finds() {
        // Looks in clusters.
        let mut random = Random(5);
        let mut looks: Vec<Look> = Vec::new();
        for number in 0..300 {
            let mut look = match number % 3 {
                0 => Look {
                    values: std::array::from_fn(|_| random.within(-100.0, 100.0) as i8),
                    mean: std::array::from_fn(|_| random.next() as u8),
                },
                _ => looks[random.next() as usize % number],
            };
            look.values.iter_mut().for_each(|value| *value = value.saturating_add(random.within(-8.0, 8.0) as i8));
            looks.push(look);
        }
        let references: Vec<&Look> = looks.iter().collect();
        let index = LookIndex::new(&references);
        let (mut pairs, mut missed) = (0, 0);
        for look in &looks {
            let mut found = vec![false; looks.len()];
            index.find(look, |number| {
                found[number] = true;
                true
            });
            for (other, found) in looks.iter().zip(found) {
                assert!(!found || look.is_near(other));
                pairs += usize::from(look.is_near(other));
                missed += usize::from(look.is_near(other) && !found);
            }
        }
        assert!(pairs > 600 && missed * 50 <= pairs, "{missed} of {pairs} are missed");
    }
}
