//! Sums and products on each vector unit: those of eight columns of a block, and colours of a row.

/// Eight numbers at once.
pub(super) trait Unit: Copy {
    /// Eight numbers.
    type Lanes: Copy;

    /// Products of coefficients and their factors.
    fn products(self, coefficients: &[i16; 8], factors: &[i16; 8]) -> Self::Lanes;

    fn plus(self, left: Self::Lanes, right: Self::Lanes) -> Self::Lanes;

    fn minus(self, left: Self::Lanes, right: Self::Lanes) -> Self::Lanes;

    fn times(self, lanes: Self::Lanes, factor: i32) -> Self::Lanes;

    fn shifted_left<const BITS: i32>(self, lanes: Self::Lanes) -> Self::Lanes;

    /// Divided by a power of two, rounded.
    fn rounded<const BITS: i32>(self, lanes: Self::Lanes) -> Self::Lanes;

    /// The columns of eight rows.
    fn transposed(self, rows: [Self::Lanes; 8]) -> [Self::Lanes; 8];

    /// As samples, which have 128 in the place of 0, from 0 to 255.
    fn samples(self, lanes: Self::Lanes) -> [u8; 8];

    /// Pixels of RGB from Y, Cb and Cr, rounded as in `ycc`. Returns how many, from the left.
    fn ycc_to_rgb(self, ycc: [&[u8]; 3], pixels: &mut [u8]) -> usize;
}

/// Any machine.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Unit for Portable {
    type Lanes = [i32; 8];

    fn products(self, coefficients: &[i16; 8], factors: &[i16; 8]) -> [i32; 8] {
        std::array::from_fn(|lane| i32::from(coefficients[lane]) * i32::from(factors[lane]))
    }

    fn plus(self, left: [i32; 8], right: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|lane| left[lane].wrapping_add(right[lane]))
    }

    fn minus(self, left: [i32; 8], right: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|lane| left[lane].wrapping_sub(right[lane]))
    }

    fn times(self, lanes: [i32; 8], factor: i32) -> [i32; 8] {
        lanes.map(|value| value.wrapping_mul(factor))
    }

    fn shifted_left<const BITS: i32>(self, lanes: [i32; 8]) -> [i32; 8] {
        lanes.map(|value| value << BITS)
    }

    fn rounded<const BITS: i32>(self, lanes: [i32; 8]) -> [i32; 8] {
        lanes.map(|value| value.wrapping_add(1 << (BITS - 1)) >> BITS)
    }

    fn transposed(self, rows: [[i32; 8]; 8]) -> [[i32; 8]; 8] {
        std::array::from_fn(|column| rows.map(|row| row[column]))
    }

    fn samples(self, lanes: [i32; 8]) -> [u8; 8] {
        lanes.map(|value| value.wrapping_add(128).clamp(0, 255) as u8)
    }

    fn ycc_to_rgb(self, _: [&[u8]; 3], _: &mut [u8]) -> usize {
        0
    }
}
