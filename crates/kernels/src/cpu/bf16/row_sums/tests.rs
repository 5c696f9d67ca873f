//! Every set of instructions that this processor has, and their arithmetic in plain Rust, against sums in f64.

use crate::cpu::bf16::packing::round;
use crate::cpu::bf16::row_sums::panels::{PANEL_DEPTH, Panel, Side, panels, panels_of_chunk};
use crate::cpu::bf16::row_sums::sums::{Factor, row_sums};
use crate::cpu::bf16::tests::{assert_close, numbers, rounded};
use crate::cpu::bf16::unit::Unit;
use crate::cpu::gemm::Matrix;

/// The sums of both columns' products, and of the sizes of these products.
fn expected(left: &[f32], right: &[f32], [input, output]: [usize; 2]) -> Vec<[f64; 2]> {
    let (left, right) = (rounded(left), rounded(right));
    let mut sums = vec![[0.0; 2]; input * output];
    for (left, right) in left.chunks_exact(input).zip(right.chunks_exact(output)) {
        for (sums, left) in sums.chunks_exact_mut(output).zip(left) {
            for ([sum, size], right) in sums.iter_mut().zip(right) {
                *sum += left * right;
                *size += (left * right).abs();
            }
        }
    }
    sums
}

fn run(unit: Unit, left: &[f32], right: &[f32], [input, output]: [usize; 2]) -> Vec<f32> {
    let left = panels(&[Matrix::new(left, input)], Side::Left);
    let right = panels(&[Matrix::new(right, output)], Side::Right);
    row_sums(unit, Factor::new(&left, input, 0), Factor::new(&right, output, 0))
}

/// Shapes with and without rest: chunks are 128 rows, of which four are summed from 0; blocks are 32 columns, and a
/// task has two of the left factor.
#[test]
fn row_sums_match_sums_in_f64() {
    let sizes = [1, 31, 32, 33, 64, 65, 100];
    for unit in Unit::all_tested() {
        for rows in [0, 1, 2, 31, 32, 127, 128, 129, 512, 513, 1100] {
            for (n, input) in sizes.into_iter().enumerate() {
                let output = sizes[(n * 4 + rows) % sizes.len()];
                let (left, right) = (numbers(1, rows * input), numbers(2, rows * output));
                let what = format!("{}, {rows} rows, {input} x {output}", unit.name());
                let found = run(unit, &left, &right, [input, output]);
                assert_close(&what, &found, &expected(&left, &right, [input, output]));
            }
        }
    }
}

#[test]
fn parts_stand_side_by_side() {
    let (rows, input, output) = (150, 40, 33);
    let (left, right) = (numbers(1, rows * input), numbers(2, rows * 3 * output));
    let parts = [0, 1, 2].map(|part| Matrix::new(&right, 3 * output).cols(part * output, output));
    for unit in Unit::all_tested() {
        let left_panels = panels(&[Matrix::new(&left, input)], Side::Left);
        let all = panels(&parts, Side::Right);
        for (part, matrix) in parts.into_iter().enumerate() {
            let own: Vec<f32> = (0..rows).flat_map(|row| matrix.row(row)).copied().collect();
            let found = row_sums(unit, Factor::new(&left_panels, input, 0), Factor::new(&all, output, part));
            assert_eq!(found, run(unit, &left, &own, [input, output]), "{}, part {part}", unit.name());
        }
    }
}

#[test]
fn threads_do_not_change_sums() {
    let (rows, shape) = (1300, [200, 70]);
    let (left, right) = (numbers(1, rows * shape[0]), numbers(2, rows * shape[1]));
    for unit in Unit::all_tested() {
        let expected = run(unit, &left, &right, shape);
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| run(unit, &left, &right, shape)) == expected, "{}, {threads}", unit.name());
        }
    }
}

#[test]
fn numbers_stand_in_the_order_of_sums() {
    let (rows, cols) = (70, 45);
    let number = |row: usize, col: usize| (row * cols + col) as f32 / 8.0;
    let values: Vec<f32> = (0..rows * cols).map(|at| number(at / cols, at % cols)).collect();
    let packed = |side| panels_of_chunk(Matrix::new(&values, cols), side);
    let (left, right): (Vec<Panel>, Vec<Panel>) = (packed(Side::Left), packed(Side::Right));
    assert_eq!((left.len(), right.len()), (2, 2));
    for row in 0..128 {
        for col in 0..64 {
            let expected = if row < rows && col < cols { round(number(row, col)) } else { 0 };
            let tile = col % 32 / 16 * PANEL_DEPTH + row / 32;
            let found = right[col / 32][tile].0[row % 32 / 2][col % 16 * 2 + row % 2];
            assert_eq!(found, expected, "right: {row}, {col}");
            assert_eq!(left[col / 32][tile].0[col % 16][row % 32], expected, "left: {row}, {col}");
        }
    }
}
