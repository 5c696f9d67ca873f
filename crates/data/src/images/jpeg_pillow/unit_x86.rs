//! Sums and products with AVX2.

use std::arch::x86_64::{__m128i, __m256i};

use pulp::x86::V3;

use super::unit::Unit;
use super::ycc::{BLUE, GREEN_OF_CB, GREEN_OF_CR, HALF, RED};

impl Unit for V3 {
    type Lanes = __m256i;

    #[inline(always)]
    fn products(self, coefficients: &[i16; 8], factors: &[i16; 8]) -> __m256i {
        let wide = |values: &[i16; 8]| self.avx2._mm256_cvtepi16_epi32(pulp::cast(*values));
        self.avx2._mm256_mullo_epi32(wide(coefficients), wide(factors))
    }

    #[inline(always)]
    fn plus(self, left: __m256i, right: __m256i) -> __m256i {
        self.avx2._mm256_add_epi32(left, right)
    }

    #[inline(always)]
    fn minus(self, left: __m256i, right: __m256i) -> __m256i {
        self.avx2._mm256_sub_epi32(left, right)
    }

    #[inline(always)]
    fn times(self, lanes: __m256i, factor: i32) -> __m256i {
        self.avx2._mm256_mullo_epi32(lanes, self.avx._mm256_set1_epi32(factor))
    }

    #[inline(always)]
    fn shifted_left<const BITS: i32>(self, lanes: __m256i) -> __m256i {
        self.avx2._mm256_slli_epi32::<BITS>(lanes)
    }

    #[inline(always)]
    fn rounded<const BITS: i32>(self, lanes: __m256i) -> __m256i {
        let half = self.avx._mm256_set1_epi32(1 << (BITS - 1));
        self.avx2._mm256_srai_epi32::<BITS>(self.avx2._mm256_add_epi32(lanes, half))
    }

    /// Pairs of rows, then of words of 64 bits, then of halves of the vector.
    #[inline(always)]
    fn transposed(self, rows: [__m256i; 8]) -> [__m256i; 8] {
        let unit = self.avx2;
        let words = |a, b| [unit._mm256_unpacklo_epi32(a, b), unit._mm256_unpackhi_epi32(a, b)];
        let pairs = |a, b| [unit._mm256_unpacklo_epi64(a, b), unit._mm256_unpackhi_epi64(a, b)];
        let [ab, ab_high] = words(rows[0], rows[1]);
        let [cd, cd_high] = words(rows[2], rows[3]);
        let [ef, ef_high] = words(rows[4], rows[5]);
        let [gh, gh_high] = words(rows[6], rows[7]);
        let ([a, b], [c, d]) = (pairs(ab, cd), pairs(ab_high, cd_high));
        let ([e, f], [g, h]) = (pairs(ef, gh), pairs(ef_high, gh_high));
        let low = |a, b| unit._mm256_permute2x128_si256::<0x20>(a, b);
        let high = |a, b| unit._mm256_permute2x128_si256::<0x31>(a, b);
        [low(a, e), low(b, f), low(c, g), low(d, h), high(a, e), high(b, f), high(c, g), high(d, h)]
    }

    #[inline(always)]
    fn samples(self, lanes: __m256i) -> [u8; 8] {
        let lanes = self.avx2._mm256_add_epi32(lanes, self.avx._mm256_set1_epi32(128));
        let [low, high]: [__m128i; 2] = pulp::cast(lanes);
        let narrow = self.sse2._mm_packs_epi32(low, high);
        let [samples, _]: [[u8; 8]; 2] = pulp::cast(self.sse2._mm_packus_epi16(narrow, narrow));
        samples
    }

    #[inline(always)]
    fn ycc_to_rgb(self, [y, cb, cr]: [&[u8]; 3], pixels: &mut [u8]) -> usize {
        /// The bytes of four pixels without the fourth of each.
        const WITHOUT_FOURTH: [i8; 16] = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1];
        let (unit, avx) = (self.avx2, self.avx);
        let wide = |bytes: &[u8; 8]| {
            let mut both = [0; 16];
            both[..8].copy_from_slice(bytes);
            unit._mm256_cvtepu8_epi32(pulp::cast(both))
        };
        let of_128 = avx._mm256_set1_epi32(128);
        let half = avx._mm256_set1_epi32(HALF);
        let times = |lanes, factor: i32| unit._mm256_mullo_epi32(lanes, avx._mm256_set1_epi32(factor));
        let (zero, most) = (avx._mm256_setzero_si256(), avx._mm256_set1_epi32(255));
        let level = |y, sum| {
            let sum = unit._mm256_srai_epi32::<16>(unit._mm256_add_epi32(sum, half));
            unit._mm256_min_epi32(unit._mm256_max_epi32(unit._mm256_add_epi32(y, sum), zero), most)
        };
        let order: __m128i = pulp::cast(WITHOUT_FOURTH);
        let blocks = y.as_chunks::<8>().0.iter().zip(cb.as_chunks::<8>().0).zip(cr.as_chunks::<8>().0);
        let mut done = 0;
        for ((y, cb), cr) in blocks {
            // The second of two writes of 16 bytes has four bytes of the next pixels.
            let Some(out) = pixels.get_mut(3 * done..3 * done + 28) else { break };
            let y = wide(y);
            let cb = unit._mm256_sub_epi32(wide(cb), of_128);
            let cr = unit._mm256_sub_epi32(wide(cr), of_128);
            let r = level(y, times(cr, RED));
            let g = level(y, unit._mm256_add_epi32(times(cb, GREEN_OF_CB), times(cr, GREEN_OF_CR)));
            let b = level(y, times(cb, BLUE));
            let gb = unit._mm256_or_si256(unit._mm256_slli_epi32::<8>(g), unit._mm256_slli_epi32::<16>(b));
            let [low, high]: [__m128i; 2] = pulp::cast(unit._mm256_or_si256(r, gb));
            let [low, high]: [[u8; 16]; 2] =
                [low, high].map(|words| pulp::cast(self.ssse3._mm_shuffle_epi8(words, order)));
            out[..16].copy_from_slice(&low);
            out[12..].copy_from_slice(&high);
            done += 8;
        }
        done
    }
}
