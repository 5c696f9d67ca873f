//! The structure loss in Burn's own operations, for every device. No tile enters the autodiff graph: the gradients are
//! computed beforehand and enter it as constants.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

/// What is added to each probability before its logarithm: `eps` of the authors' `structure_reg`.
pub(super) const EPS: f32 = 1e-12;

/// [`structure_loss`](crate::structure_loss) in Burn's own operations, whatever the device. A tile holds at most `tile`
/// similarities of each matrix, but at least one row.
pub fn tiled_structure_loss(
    reference: &Tensor<2>,
    embeds: &Tensor<2>,
    temperature: f64,
    rows: Range<usize>,
    tile: usize,
) -> Tensor<1> {
    let [batch, _] = embeds.dims();
    let tile_rows = (tile / batch.max(1)).clamp(1, rows.len().max(1));
    let (reference, plain) = (reference.clone().without_autodiff(), embeds.clone().without_autodiff());
    let probabilities = |vectors: &Tensor<2>, start: usize, end: usize| {
        let rows = vectors.clone().slice(start..end);
        softmax(rows.matmul(vectors.clone().transpose()) / temperature, 1)
    };
    let tracked = embeds.is_autodiff();
    let mut loss = Tensor::<1>::zeros([1], &plain.device());
    let (mut of_rows, mut of_all) = (Vec::new(), plain.zeros_like());
    for start in rows.clone().step_by(tile_rows) {
        let end = rows.end.min(start + tile_rows);
        let (before, after) = (probabilities(&reference, start, end), probabilities(&plain, start, end));
        let (p, q) = (before.clone() + EPS, after.clone() + EPS);
        let mean = (p.clone() + q.clone()) * 0.5;
        let log_ratio = mean.clone().log() - (p.log() + q.clone().log()) * 0.5;
        loss = loss + (mean * log_ratio.clone()).sum();
        if tracked {
            // The derivative by a probability, less a constant of the row, which the softmax cancels.
            let slopes = (log_ratio + (after.clone() - before) * 0.5 / q) * 0.5 * after.clone();
            let slopes = slopes.clone() - after * slopes.sum_dim(1);
            of_rows.push(slopes.clone().matmul(plain.clone()));
            of_all = of_all + slopes.transpose().matmul(plain.clone().slice(start..end));
        }
    }
    let loss = loss / batch as f64;
    if !tracked {
        return loss;
    }
    let of_rows = Tensor::cat(of_rows, 0);
    let gradient = match rows.len() == batch {
        true => of_rows + of_all,
        false => of_all.clone().slice_assign(rows.clone(), of_all.slice(rows) + of_rows),
    };
    let gradient = gradient / (batch as f64 * temperature);
    // Linear in the embeddings, so its gradient is exactly the one computed above; its value is subtracted again.
    let surrogate = (embeds.clone() * gradient).sum();
    let value = surrogate.clone().without_autodiff();
    surrogate - value + loss
}
