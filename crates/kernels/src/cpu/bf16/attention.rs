//! One head of attention over one sequence, on one thread.

use crate::cpu::bf16::product::{Columns, Rows, whole_blocks, with_kept, write_between};
use crate::cpu::bf16::tiles::{BLOCK, pack_transposed, pack_weight};
use crate::cpu::bf16::unit::Ready;
use crate::cpu::gemm::Matrix;
use crate::cpu::uninit::Scratch;

/// Rows from which on a sequence is worth the rows and columns that fill up blocks.
pub(crate) const FEWEST_ROWS: usize = BLOCK;

/// Scores that [`attend`] computes for a sequence of this many rows.
pub(crate) fn num_scores(rows: usize) -> usize {
    rows.next_multiple_of(BLOCK).pow(2)
}

/// `softmax(Q K^T) V`, written to `out`, rows `stride` values apart; other values of `out` stay as they are. `softmax`
/// gets the scores and the distance of their rows, and makes each row probabilities, up to the end of the distance.
pub(crate) fn attend(
    ready: &Ready,
    [query, key, value]: [Matrix<'_>; 3],
    softmax: impl FnOnce(&mut [f32], usize),
    scores: &mut Scratch,
    (out, stride): (&mut [f32], usize),
) {
    let (rows, dim) = (query.num_rows(), query.num_cols());
    with_kept(|[query_memory, key_memory, value_memory, memory]| {
        let queries = Rows::packed(query_memory, query);
        let keys = Columns::packed(key_memory, dim, rows, |tiles| pack_transposed(key, tiles));
        let values = Columns::packed(value_memory, rows, dim, |tiles| pack_weight(value, tiles));
        let bias = vec![[0.0; BLOCK]; keys.blocks()];
        let scores = whole_blocks(ready, &queries, keys, &bias, scores.uninit(num_scores(rows)));
        let distance = keys.blocks() * BLOCK;
        softmax(scores, distance);
        let probabilities = Rows::packed(memory, Matrix::new(scores, distance).rows(0, rows));
        write_between(ready, &probabilities, values, out, stride);
    });
}
