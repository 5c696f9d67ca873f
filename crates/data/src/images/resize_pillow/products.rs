//! Products of weights and bytes on each vector unit.
//!
//! A weight has more than 16 bits, and on x86 products of 32 bits are slow: each takes two micro-operations. `pmaddwd`
//! multiplies 16 bits in one and adds two products. So a weight is multiplied in two halves, for two neighbouring
//! columns at a time. Sums of 32 bits that wrap around are the same in any order, so the result is that of whole
//! products.

use crate::images::resize_pillow::kernels::HALF;

/// Bytes of an RGB pixel.
pub(super) const CHANNELS: usize = 3;

/// Rows of a strip: the number of 32-bit sums in a vector of 512 bits.
pub(super) const STRIP_ROWS: usize = 16;

/// Two neighbouring source columns of one channel. Each row has the byte of the first and, 16 bits higher, of the
/// second.
pub(super) type Pair = [u32; STRIP_ROWS];

/// The sums of each row, for each channel of an output column.
pub(super) type Sums = [[i32; STRIP_ROWS]; CHANNELS];

/// The weights of a pair of columns in halves; those of the second column are 16 bits higher.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PairWeights {
    /// The low [`Self::LOW_BITS`] bits: 15, as `pmaddwd` takes the 16th as a sign.
    low: u32,
    /// The other bits, with the sign. A weight is at most a few times 2^22, so they fit into 16.
    high: u32,
}

impl PairWeights {
    const LOW_BITS: u32 = 15;
    const LOW_MASK: u32 = (1 << Self::LOW_BITS) - 1;

    /// Sets the weight of the first or the second column, which was zero.
    pub(super) fn set(&mut self, column: usize, weight: i32) {
        let shift = if column == 0 { 0 } else { 16 };
        self.low |= (weight.cast_unsigned() & Self::LOW_MASK) << shift;
        self.high |= ((weight >> Self::LOW_BITS).cast_unsigned() & 0xFFFF) << shift;
    }

    /// The weights of both columns.
    fn whole(self) -> [i32; 2] {
        [0, 16].map(|shift| {
            let low = (self.low >> shift) & Self::LOW_MASK;
            (i32::from((self.high >> shift) as i16) << Self::LOW_BITS) | low.cast_signed()
        })
    }
}

/// A way to compute the sums of an output column.
pub(super) trait Products: Copy {
    /// Two columns as a pair.
    fn pair(self, first: [u8; STRIP_ROWS], second: [u8; STRIP_ROWS]) -> Pair;

    /// A half and the products of `pairs` with their `weights`.
    fn sums(self, pairs: &[[Pair; CHANNELS]], weights: &[PairWeights]) -> Sums;
}

/// Whole products, in code for any unit.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Products for Portable {
    #[inline(always)]
    fn pair(self, first: [u8; STRIP_ROWS], second: [u8; STRIP_ROWS]) -> Pair {
        std::array::from_fn(|row| u32::from(first[row]) | u32::from(second[row]) << 16)
    }

    #[inline(always)]
    fn sums(self, pairs: &[[Pair; CHANNELS]], weights: &[PairWeights]) -> Sums {
        let mut sums = [[HALF; STRIP_ROWS]; CHANNELS];
        for (pairs, weights) in pairs.iter().zip(weights) {
            let [first, second] = weights.whole();
            for (sums, pair) in sums.iter_mut().zip(pairs) {
                for row in 0..STRIP_ROWS {
                    let (a, b) = ((pair[row] & 0xFFFF).cast_signed(), (pair[row] >> 16).cast_signed());
                    // Wrapping avoids checks, which would prevent vectorisation.
                    let products = a.wrapping_mul(first).wrapping_add(b.wrapping_mul(second));
                    sums[row] = sums[row].wrapping_add(products);
                }
            }
        }
        sums
    }
}

// A closure would not be compiled for the vector unit, so these use loops.

#[cfg(target_arch = "x86_64")]
impl Products for pulp::x86::V4 {
    #[inline(always)]
    fn pair(self, first: [u8; STRIP_ROWS], second: [u8; STRIP_ROWS]) -> Pair {
        let unit = self.avx512f;
        let first = unit._mm512_cvtepu8_epi32(pulp::cast(first));
        let second = unit._mm512_slli_epi32::<16>(unit._mm512_cvtepu8_epi32(pulp::cast(second)));
        pulp::cast(unit._mm512_or_si512(first, second))
    }

    #[inline(always)]
    fn sums(self, pairs: &[[Pair; CHANNELS]], weights: &[PairWeights]) -> Sums {
        let unit = self.avx512f;
        let mut sums = [[unit._mm512_set1_epi32(HALF), unit._mm512_setzero_si512()]; CHANNELS];
        for (pairs, weights) in pairs.iter().zip(weights) {
            let low = unit._mm512_set1_epi32(weights.low.cast_signed());
            let high = unit._mm512_set1_epi32(weights.high.cast_signed());
            for ([of_low, of_high], pair) in sums.iter_mut().zip(pairs) {
                let pair = pulp::cast(*pair);
                *of_low = unit._mm512_add_epi32(*of_low, self.avx512bw._mm512_madd_epi16(pair, low));
                *of_high = unit._mm512_add_epi32(*of_high, self.avx512bw._mm512_madd_epi16(pair, high));
            }
        }
        let mut whole = [[0; STRIP_ROWS]; CHANNELS];
        for (whole, [low, high]) in whole.iter_mut().zip(sums) {
            let high = unit._mm512_slli_epi32::<{ PairWeights::LOW_BITS }>(high);
            *whole = pulp::cast(unit._mm512_add_epi32(low, high));
        }
        whole
    }
}

#[cfg(target_arch = "x86_64")]
impl Products for pulp::x86::V3 {
    #[inline(always)]
    fn pair(self, first: [u8; STRIP_ROWS], second: [u8; STRIP_ROWS]) -> Pair {
        // Interleaved bytes of the two columns are 16-bit pairs without their zeros.
        let (low, high) = (
            self.sse2._mm_unpacklo_epi8(pulp::cast(first), pulp::cast(second)),
            self.sse2._mm_unpackhi_epi8(pulp::cast(first), pulp::cast(second)),
        );
        pulp::cast([self.avx2._mm256_cvtepu8_epi16(low), self.avx2._mm256_cvtepu8_epi16(high)])
    }

    #[inline(always)]
    fn sums(self, pairs: &[[Pair; CHANNELS]], weights: &[PairWeights]) -> Sums {
        let unit = self.avx2;
        let mut whole = [[0; STRIP_ROWS]; CHANNELS];
        // One channel at a time: the sums of all three would not fit into the registers.
        for (channel, whole) in whole.iter_mut().enumerate() {
            let mut sums = [[self.avx._mm256_set1_epi32(HALF), self.avx._mm256_setzero_si256()]; 2];
            for (pairs, weights) in pairs.iter().zip(weights) {
                let low = self.avx._mm256_set1_epi32(weights.low.cast_signed());
                let high = self.avx._mm256_set1_epi32(weights.high.cast_signed());
                let halves: [_; 2] = pulp::cast(pairs[channel]);
                for ([of_low, of_high], rows) in sums.iter_mut().zip(halves) {
                    *of_low = unit._mm256_add_epi32(*of_low, unit._mm256_madd_epi16(rows, low));
                    *of_high = unit._mm256_add_epi32(*of_high, unit._mm256_madd_epi16(rows, high));
                }
            }
            for (whole, [low, high]) in whole.as_chunks_mut::<{ STRIP_ROWS / 2 }>().0.iter_mut().zip(sums) {
                let high = unit._mm256_slli_epi32::<{ PairWeights::LOW_BITS.cast_signed() }>(high);
                *whole = pulp::cast(unit._mm256_add_epi32(low, high));
            }
        }
        whole
    }
}
