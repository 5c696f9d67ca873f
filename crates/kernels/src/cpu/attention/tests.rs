//! The gradients of short sequences are those by products of whole matrices, whatever the vectors.

use super::backward::backward;
use super::forward::{self, forward};
use super::head::{Head, HeadDropout, HeadRows};
use super::short_backward::{self, short_backward};
use crate::arguments::dropout_mask::DropoutMask;
use crate::cpu::gemm::Matrix;
use crate::cpu::product::tile::ARCH;
use crate::cpu::uninit::Scratch;
use crate::tests::assert_close;

const TOLERANCE: f32 = 1e-6;

/// Columns of query, key and value each: two heads.
const WIDTH: usize = 64;

fn numbers(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|n| ((n * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// Output, log-sum-exps, gradients by whole matrices, and gradients of a short sequence, of the second head.
fn computed(rows: usize, causal: bool, dropout: Option<HeadDropout>) -> [Vec<f32>; 4] {
    let dim = WIDTH / 2;
    let (qkv, gradient) = (numbers(1, rows * 3 * WIDTH), numbers(2, rows * WIDTH));
    let columns = |part: usize| Matrix::new(&qkv, 3 * WIDTH).cols(part * WIDTH + dim, dim);
    let head = Head { qkv: [0, 1, 2].map(columns), causal, dropout };
    let gradient = Matrix::new(&gradient, WIDTH).cols(dim, dim);
    let (mut out, mut log_sums) = (vec![7.0; rows * WIDTH], vec![7.0; rows]);
    let of_out = HeadRows { values: &mut out[dim..], stride: WIDTH };
    let of_log_sums = HeadRows { values: &mut log_sums, stride: 1 };
    forward(&head, &mut forward::memory(rows, dim), of_out, of_log_sums);
    let [mut plain, mut short] = [(); 2].map(|()| vec![7.0; rows * 3 * WIDTH]);
    let rows_of = |values| HeadRows { values, stride: 3 * WIDTH };
    let mut scratch = [(); 2].map(|()| Scratch::new(rows * rows));
    backward(&head, gradient, (&log_sums, 1), &mut scratch, rows_of(&mut plain[dim..]));
    let mut memory = short_backward::memory(dim);
    // What an earlier sequence left behind.
    memory.parts().into_iter().for_each(|part| part.fill(f32::NAN));
    let is_short = short_backward(&head, gradient, (&log_sums, 1), &mut memory, rows_of(&mut short[dim..]));
    assert_eq!(is_short, rows <= 32, "{rows} rows");
    [out, log_sums, plain, short]
}

#[test]
fn short_gradients_are_those_by_whole_matrices() {
    let mask = HeadDropout { mask: DropoutMask::new(5, 0.3), start: (1 << 32) - 40, distance: 40 };
    for rows in 1..=33 {
        for (causal, dropout) in [(false, None), (true, None), (false, Some(mask)), (true, Some(mask))] {
            let what = format!("{rows} rows, causal {causal}, dropout {}", dropout.is_some());
            let [out, log_sums, plain, short] = computed(rows, causal, dropout);
            ARCH.set(Some(pulp::Arch::Scalar));
            let [plain_out, plain_log_sums, _, plain_short] = computed(rows, causal, dropout);
            ARCH.set(None);
            assert_close(&what, TOLERANCE, &out, &plain_out);
            assert_close(&what, TOLERANCE, &log_sums, &plain_log_sums);
            if rows <= 32 {
                assert_close(&what, TOLERANCE, &short, &plain);
                assert_close(&what, TOLERANCE, &plain_short, &plain);
            }
        }
    }
}

#[test]
fn rows_of_partial_tiles_are_not_short() {
    if matches!(pulp::Arch::new(), pulp::Arch::Scalar) {
        // A tile has 2 columns.
        return;
    }
    let (qkv, gradient, mut out) = (numbers(1, 5 * 36), numbers(2, 5 * 12), [7.0; 5 * 36]);
    let qkv = [0, 1, 2].map(|part| Matrix::new(&qkv, 36).cols(part * 12, 12));
    let head = Head { qkv, causal: false, dropout: None };
    let rows = HeadRows { values: &mut out, stride: 36 };
    let mut memory = short_backward::memory(12);
    assert!(!short_backward(&head, Matrix::new(&gradient, 12), (&[0.0; 5], 1), &mut memory, rows));
    assert_eq!(out, [7.0; 5 * 36]);
}
