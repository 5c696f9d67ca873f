//! The same products in plain Rust: what the instructions are compared with.

use crate::cpu::bf16::tiles::{BLOCK, TILE_DEPTH, TILE_ROWS, Tile};
use crate::cpu::uninit::Uninit;

/// `a b + bias`, as `amx` and `avx512` compute it, up to the order of sums.
pub(crate) fn multiply(a: [&[Tile]; 2], b: [&[Tile]; 2], bias: &[f32; BLOCK], out: &mut Uninit, stride: usize) {
    let number = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    for row in 0..BLOCK {
        for column in 0..BLOCK {
            let (left, right) = (a[row / TILE_ROWS], b[column / TILE_ROWS]);
            let products = left.iter().zip(right).flat_map(|(left, right)| {
                (0..TILE_DEPTH).map(|at| {
                    let weight = right.0[at / 2][column % TILE_ROWS * 2 + at % 2];
                    number(left.0[row % TILE_ROWS][at]) * number(weight)
                })
            });
            out[row * stride + column].write(products.sum::<f32>() + bias[column]);
        }
    }
}
