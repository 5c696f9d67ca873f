//! Coefficients to samples: the accurate integer transform of libjpeg (`jidctint.c`, after Loeffler, Ligtenberg and
//! Moschytz, 1989), and its forms for blocks of 4, 2 and 1 samples along a side (`jidctred.c`).
//!
//! Factors have 13 bits behind the point, and sums between the two passes 2 bits.

use super::tables::Quantisation;
use super::unit::Unit;

/// Coefficients of a block, row by row.
pub(super) type Block = [i16; 64];

const FACTOR_BITS: i32 = 13;
const PASS_BITS: i32 = 2;

/// A factor in fixed point.
const fn fixed(factor: f64) -> i32 {
    (factor * (1 << FACTOR_BITS) as f64 + 0.5) as i32
}

/// Writes the samples of `blocks`, which lie side by side, into `out`, which has `stride` samples from row to row. Then
/// all coefficients are 0.
#[inline(always)]
pub(super) fn transform_all<U: Unit>(
    unit: U,
    blocks: &mut [Block],
    table: &Quantisation,
    side: usize,
    (out, stride): (&mut [u8], usize),
) {
    for (column, block) in blocks.iter_mut().enumerate() {
        let out = &mut out[column * side..];
        match side {
            8 if is_flat(block) => {
                let level = level(i32::from(block[0]) * i32::from(table[0]));
                for row in 0..8 {
                    out[row * stride..row * stride + 8].fill(level);
                }
            }
            8 => transform_8(unit, block, table, out, stride),
            4 => transform_4(unit, block, table, out, stride),
            2 => transform_2(unit, block, table, out, stride),
            _ => out[0] = level(i32::from(block[0]) * i32::from(table[0])),
        }
        *block = [0; 64];
    }
}

/// Whether no coefficient but the first differs from 0.
#[inline(always)]
fn is_flat(block: &Block) -> bool {
    let mut bits = 0;
    for &coefficient in &block[1..] {
        bits |= coefficient;
    }
    bits == 0
}

/// The sample of a first coefficient: the mean of a block, times 8.
#[inline(always)]
fn level(dc: i32) -> u8 {
    (((dc + 4) >> 3) + 128).clamp(0, 255) as u8
}

/// Bits to drop after the first pass, and after the second, which also divides by 8.
const AFTER_COLUMNS: i32 = FACTOR_BITS - PASS_BITS;
const AFTER_ROWS: i32 = FACTOR_BITS + PASS_BITS + 3;

#[inline(always)]
fn transform_8<U: Unit>(unit: U, block: &Block, table: &Quantisation, out: &mut [u8], stride: usize) {
    let columns = pass_8::<U, AFTER_COLUMNS>(unit, rows_of(unit, block, table));
    let rows = unit.transposed(pass_8::<U, AFTER_ROWS>(unit, unit.transposed(columns)));
    for (row, lanes) in rows.into_iter().enumerate() {
        out[row * stride..row * stride + 8].copy_from_slice(&unit.samples(lanes));
    }
}

/// Rows of coefficients times their factors.
#[inline(always)]
fn rows_of<U: Unit>(unit: U, block: &Block, table: &Quantisation) -> [U::Lanes; 8] {
    let (block, table) = (block.as_chunks::<8>().0, table.as_chunks::<8>().0);
    let row = |index: usize| unit.products(&block[index], &table[index]);
    [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)]
}

/// The transform of 8 values of each column, divided by 2^`BITS`.
#[inline(always)]
fn pass_8<U: Unit, const BITS: i32>(unit: U, rows: [U::Lanes; 8]) -> [U::Lanes; 8] {
    let (plus, minus) = (|a, b| unit.plus(a, b), |a, b| unit.minus(a, b));
    // Even part.
    let z1 = unit.times(plus(rows[2], rows[6]), const { fixed(0.541_196_1) });
    let even2 = plus(z1, unit.times(rows[6], const { -fixed(1.847_759_065) }));
    let even3 = plus(z1, unit.times(rows[2], const { fixed(0.765_366_865) }));
    let even0 = unit.shifted_left::<FACTOR_BITS>(plus(rows[0], rows[4]));
    let even1 = unit.shifted_left::<FACTOR_BITS>(minus(rows[0], rows[4]));
    let even = [plus(even0, even3), plus(even1, even2), minus(even1, even2), minus(even0, even3)];
    // Odd part.
    let (z1, z2) = (plus(rows[7], rows[1]), plus(rows[5], rows[3]));
    let (z3, z4) = (plus(rows[7], rows[3]), plus(rows[5], rows[1]));
    let z5 = unit.times(plus(z3, z4), const { fixed(1.175_875_602) });
    let z1 = unit.times(z1, const { -fixed(0.899_976_223) });
    let z2 = unit.times(z2, const { -fixed(2.562_915_447) });
    let z3 = plus(unit.times(z3, const { -fixed(1.961_570_56) }), z5);
    let z4 = plus(unit.times(z4, const { -fixed(0.390_180_644) }), z5);
    let odd = [
        plus(plus(unit.times(rows[1], const { fixed(1.501_321_11) }), z1), z4),
        plus(plus(unit.times(rows[3], const { fixed(3.072_711_026) }), z2), z3),
        plus(plus(unit.times(rows[5], const { fixed(2.053_119_869) }), z2), z4),
        plus(plus(unit.times(rows[7], const { fixed(0.298_631_336) }), z1), z3),
    ];
    let upper = |row: usize| unit.rounded::<BITS>(plus(even[row], odd[row]));
    let lower = |row: usize| unit.rounded::<BITS>(minus(even[row], odd[row]));
    [upper(0), upper(1), upper(2), upper(3), lower(3), lower(2), lower(1), lower(0)]
}

/// Four rows of four samples, from all coefficients but those of row and column 4.
#[inline(always)]
fn transform_4<U: Unit>(unit: U, block: &Block, table: &Quantisation, out: &mut [u8], stride: usize) {
    let rows = pass_4::<U, { AFTER_COLUMNS + 1 }>(unit, rows_of(unit, block, table));
    let columns = pass_4::<U, { AFTER_ROWS + 1 }>(unit, unit.transposed(rows));
    for (row, lanes) in unit.transposed(columns).into_iter().take(4).enumerate() {
        out[row * stride..row * stride + 4].copy_from_slice(&unit.samples(lanes)[..4]);
    }
}

/// The first four values of each column, divided by 2^`BITS`; the other four are copies.
#[inline(always)]
fn pass_4<U: Unit, const BITS: i32>(unit: U, rows: [U::Lanes; 8]) -> [U::Lanes; 8] {
    let (plus, minus) = (|a, b| unit.plus(a, b), |a, b| unit.minus(a, b));
    let first = unit.shifted_left::<{ FACTOR_BITS + 1 }>(rows[0]);
    let second =
        plus(unit.times(rows[2], const { fixed(1.847_759_065) }), unit.times(rows[6], const { -fixed(0.765_366_865) }));
    let even = [plus(first, second), minus(first, second)];
    let odd0 = plus(
        plus(
            unit.times(rows[7], const { -fixed(0.509_795_579) }),
            unit.times(rows[5], const { -fixed(0.601_344_887) }),
        ),
        plus(unit.times(rows[3], const { fixed(0.899_976_223) }), unit.times(rows[1], const { fixed(2.562_915_447) })),
    );
    let odd1 = plus(
        plus(unit.times(rows[7], const { -fixed(0.211_164_243) }), unit.times(rows[5], const { fixed(1.451_774_981) })),
        plus(unit.times(rows[3], const { -fixed(2.172_734_803) }), unit.times(rows[1], const { fixed(1.061_594_337) })),
    );
    let a = unit.rounded::<BITS>(plus(even[0], odd0));
    let b = unit.rounded::<BITS>(plus(even[1], odd1));
    let c = unit.rounded::<BITS>(minus(even[1], odd1));
    let d = unit.rounded::<BITS>(minus(even[0], odd0));
    [a, b, c, d, a, b, c, d]
}

/// Two rows of two samples, from the coefficients of odd rows and columns and the first ones.
#[inline(always)]
fn transform_2<U: Unit>(unit: U, block: &Block, table: &Quantisation, out: &mut [u8], stride: usize) {
    let rows = pass_2::<U, { AFTER_COLUMNS + 2 }>(unit, rows_of(unit, block, table));
    let columns = pass_2::<U, { AFTER_ROWS + 2 }>(unit, unit.transposed(rows));
    for (row, lanes) in unit.transposed(columns).into_iter().take(2).enumerate() {
        out[row * stride..row * stride + 2].copy_from_slice(&unit.samples(lanes)[..2]);
    }
}

/// The first two values of each column, divided by 2^`BITS`; the others are copies.
#[inline(always)]
fn pass_2<U: Unit, const BITS: i32>(unit: U, rows: [U::Lanes; 8]) -> [U::Lanes; 8] {
    let even = unit.shifted_left::<{ FACTOR_BITS + 2 }>(rows[0]);
    let left = unit.plus(
        unit.times(rows[7], const { -fixed(0.720_959_822) }),
        unit.times(rows[5], const { fixed(0.850_430_095) }),
    );
    let right = unit
        .plus(unit.times(rows[3], const { -fixed(1.272_758_58) }), unit.times(rows[1], const { fixed(3.624_509_785) }));
    let odd = unit.plus(left, right);
    let a = unit.rounded::<BITS>(unit.plus(even, odd));
    let b = unit.rounded::<BITS>(unit.minus(even, odd));
    [a, b, a, b, a, b, a, b]
}
