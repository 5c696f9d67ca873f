//! The gradients of one head of one sequence, by products of whole matrices.

use crate::cpu::attention::head::{Head, HeadRows};
use crate::cpu::gemm::{Matrix, matmul, matmul_into};
use crate::cpu::simd::{exp, sum, vectorised};
use crate::cpu::uninit::Scratch;

/// Writes the gradients of query, key and value from that of the output, `[rows, dim]` each: to the rows of `out`, and
/// from a third and two thirds of the distance of two rows on. `scratch`: room for two matrices `[rows, rows]`.
///
/// With P the probabilities, D their dropout, and G the gradient of the output (Dao et al., 2022, arXiv:2205.14135,
/// app. B.4, with dropout):
/// dV = (D P)^T G; dP = D (G V^T); dS = P (dP - rowsum(P dP)); dQ = dS K / sqrt(dim); dK = dS^T Q / sqrt(dim).
pub(crate) fn backward(
    head: &Head<'_>,
    gradient: Matrix<'_>,
    log_sums: (&[f32], usize),
    scratch: &mut [Scratch; 2],
    out: HeadRows<'_>,
) {
    let ([rows, _], [query, key, value]) = (head.shape(), head.qkv);
    let [for_scores, for_slopes] = scratch;
    let HeadRows { values: out, stride } = out;
    let probabilities = matmul(query, key.t(), for_scores.uninit(rows * rows));
    let slopes = matmul(gradient, value.t(), for_slopes.uninit(rows * rows));
    score_gradients(&mut *probabilities, &mut *slopes, log_sums, head);
    let (probabilities, slopes) = (Matrix::new(probabilities, rows), Matrix::new(slopes, rows));
    matmul_into(slopes, key, out, stride);
    matmul_into(slopes.t(), query, &mut out[stride / 3..], stride);
    matmul_into(probabilities.t(), gradient, &mut out[2 * (stride / 3)..], stride);
}

vectorised! {
    /// Replaces scores by probabilities with dropout, and `slopes`, the gradient of the probabilities, by the gradient
    /// of the scores.
    fn score_gradients(
        scores: &'a mut [f32],
        slopes: &'a mut [f32],
        log_sums: (&'a [f32], usize),
        head: &'a Head<'a>,
    ) {
        let ([rows, _], (log_sums, distance), scale) = (head.shape(), log_sums, head.scale());
        let matrices = scores.chunks_exact_mut(rows).zip(slopes.chunks_exact_mut(rows));
        for (row, (scores, slopes)) in matrices.enumerate() {
            let num_keys = head.num_keys(row);
            scores[num_keys..].fill(0.0);
            slopes[num_keys..].fill(0.0);
            let (probabilities, slopes) = (&mut scores[..num_keys], &mut slopes[..num_keys]);
            let log_sum = log_sums[row * distance];
            probabilities.iter_mut().for_each(|p| *p = exp(p.mul_add(scale, -log_sum)));
            let mask = head.dropout.map(|dropout| dropout.starting_at_row(row));
            if let Some(mask) = mask {
                slopes.iter_mut().enumerate().for_each(|(i, slope)| *slope *= mask.factor(i));
            }
            let mean = sum([probabilities, slopes], |[p, slope]| p * slope);
            for (p, slope) in probabilities.iter_mut().zip(slopes) {
                *slope = *p * (*slope - mean) * scale;
            }
            // The gradient of the values needs the probabilities after dropout, that of the scores those before it.
            if let Some(mask) = mask {
                probabilities.iter_mut().enumerate().for_each(|(i, p)| *p *= mask.factor(i));
            }
        }
    }
}
