//! The same products in plain Rust: what the instructions are compared with.

use crate::cpu::bf16::tile::{BLOCK, Sums, TILE_DEPTH, TILE_ROWS, Tile};

/// Replaces `sums` by `a b + bias`, or without a bias adds `a b`, as `amx` and `avx512` do, up to the order of the two
/// products of a pair.
pub(crate) fn sums(a: [&[Tile]; 2], b: [&[Tile]; 2], bias: Option<&[f32; BLOCK]>, sums: &mut Sums) {
    for (at, sum) in sums.0.iter_mut().enumerate() {
        let [row, column] = [at / BLOCK, at % BLOCK];
        *sum = add_products(bias.map_or(*sum, |bias| bias[column]), a, b, [row, column]);
    }
}

/// One value of the product, added to `start`.
fn add_products(start: f32, a: [&[Tile]; 2], b: [&[Tile]; 2], [row, column]: [usize; 2]) -> f32 {
    let number = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    let (left, right) = (a[row / TILE_ROWS], b[column / TILE_ROWS]);
    let products = left.iter().zip(right).flat_map(|(left, right)| {
        (0..TILE_DEPTH).map(|at| {
            let weight = right.0[at / 2][column % TILE_ROWS * 2 + at % 2];
            number(left.0[row % TILE_ROWS][at]) * number(weight)
        })
    });
    products.fold(start, |sum, product| sum + product)
}
