//! The structure loss over slices: the rows of a tile are spread over all cores, and the gradient is computed with the
//! loss.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
use crate::cpu::gemm::{Matrix, matmul, matmul_add};
use crate::cpu::simd::{exp, ln, max, sum, vectorised};
use crate::cpu::uninit::par_rows;
use crate::structure::tiled::EPS;

/// Rows per task of the gradient.
const TASK_ROWS: usize = 128;

/// [`structure_loss`](crate::structure_loss) in tiles of at most `tile` similarities of each matrix, but at least one
/// row. `None` if an input is not for the fused operations.
pub fn structure_loss(
    reference: &Tensor<2>,
    embeds: &Tensor<2>,
    temperature: f64,
    rows: Range<usize>,
    tile: usize,
) -> Option<Tensor<1>> {
    let ([batch, width], [_, dim]) = (reference.dims(), embeds.dims());
    let inputs = [Input::new(reference.clone().without_autodiff())?, Input::new(embeds.clone())?];
    let forward = |[reference, embeds]: &[Values; 2], tracked: bool| {
        let pass = Pass {
            reference: Matrix::new(reference.get(), width),
            embeds: Matrix::new(embeds.get(), dim),
            factor: temperature.recip() as f32,
            tile_rows: (tile / batch.max(1)).clamp(1, rows.len().max(1)),
            rows,
            batch,
            dim,
            tracked,
        };
        let (loss, gradient) = pass.run();
        (flex_tensor(vec![loss as f32], [1]), (gradient, [batch, dim]))
    };
    Some(custom_op(inputs, forward, backward))
}

/// The forward pass has computed the gradient; here it is multiplied by the gradient of the loss.
fn backward(
    (mut gradient, shape): (Vec<f32>, [usize; 2]),
    output: Values,
    [_, needed]: [bool; 2],
) -> [Option<FlexTensor>; 2] {
    let factor = output.get()[0];
    if needed && factor != 1.0 {
        gradient.par_iter_mut().for_each(|value| *value *= factor);
    }
    [None, needed.then(|| flex_tensor(gradient, shape))]
}

struct Pass<'a> {
    /// `[batch, width]`.
    reference: Matrix<'a>,
    /// `[batch, dim]`.
    embeds: Matrix<'a>,
    /// The inverse temperature.
    factor: f32,
    /// Those of the similarities that this pass computes.
    rows: Range<usize>,
    batch: usize,
    dim: usize,
    tile_rows: usize,
    /// Whether the gradient is needed.
    tracked: bool,
}

impl Pass<'_> {
    /// The loss and, where it is needed, its gradient `[batch, dim]`.
    fn run(&self) -> (f64, Vec<f32>) {
        let Self { batch, dim, .. } = *self;
        let mut gradient = vec![0.0; if self.tracked { batch * dim } else { 0 }];
        let mut total = 0.0;
        for first in self.rows.clone().step_by(self.tile_rows) {
            let rows = self.tile_rows.min(self.rows.end - first);
            let mut before = self.similarities(self.reference, first, rows);
            let mut after = self.similarities(self.embeds, first, rows);
            let of_rows = before.par_chunks_mut(batch).zip(after.par_chunks_mut(batch));
            let of_rows: Vec<f32> = of_rows.map(|(before, after)| row_divergence(before, after)).collect();
            total += of_rows.into_iter().map(f64::from).sum::<f64>();
            if self.tracked {
                self.add_gradient(&mut gradient, Matrix::new(&after, batch), first, rows);
            }
        }
        let share = self.factor / batch as f32;
        gradient.par_iter_mut().for_each(|value| *value *= share);
        (total / batch as f64, gradient)
    }

    /// Rows `first..first + rows` of the similarities of `vectors`, `[rows, batch]`.
    fn similarities(&self, vectors: Matrix<'_>, first: usize, rows: usize) -> Vec<f32> {
        par_rows(rows, self.batch, |start, out| {
            let out = matmul(vectors.rows(first + start, out.len() / self.batch), vectors.t(), out);
            out.iter_mut().for_each(|value| *value *= self.factor);
            out
        })
    }

    /// Adds the gradient by the embeddings of the similarities of some rows: each similarity is a product of an
    /// embedding of the tile and one of the batch.
    fn add_gradient(&self, gradient: &mut [f32], slopes: Matrix<'_>, first: usize, rows: usize) {
        let dim = self.dim;
        let of_tile = self.embeds.rows(first, rows);
        gradient.par_chunks_mut(TASK_ROWS * dim).enumerate().for_each(|(task, out)| {
            let slopes = slopes.cols(task * TASK_ROWS, out.len() / dim).t();
            matmul_add(slopes, of_tile, out, dim);
        });
        let of_rows = gradient[first * dim..][..rows * dim].par_chunks_mut(TASK_ROWS * dim);
        of_rows.enumerate().for_each(|(task, out)| {
            matmul_add(slopes.rows(task * TASK_ROWS, out.len() / dim), self.embeds, out, dim);
        });
    }
}

vectorised! {
    /// The divergence of a row, from its similarities before and after; replaces the latter by the derivatives, and the
    /// former by intermediate values.
    fn row_divergence(before: &'a mut [f32], after: &'a mut [f32]) -> f32 {
        let count = before.len();
        let after = &mut after[..count];
        for row in [&mut *before, &mut *after] {
            let top = max(row, f32::MIN);
            row.iter_mut().for_each(|value| *value = exp(*value - top));
            let share = sum([row], |[value]| value).recip();
            row.iter_mut().for_each(|value| *value *= share);
        }
        let value = sum([before, after], |[p, q]| {
            let (p, q) = (p + EPS, q + EPS);
            let mean = 0.5 * (p + q);
            mean * (ln(mean) - 0.5 * (ln(p) + ln(q)))
        });
        for (p, q) in before.iter_mut().zip(&*after) {
            let (low, high) = (*p + EPS, *q + EPS);
            let log_ratio = ln(0.5 * (low + high)) - 0.5 * (ln(low) + ln(high));
            // The derivative by a probability, less a constant of the row, which the softmax cancels.
            *p = 0.5 * (log_ratio + 0.5 * (*q - *p) / high) * *q;
        }
        let total = sum([before], |[slope]| slope);
        for (slope, q) in before.iter().zip(&mut *after) {
            *q = slope - *q * total;
        }
        value
    }
}
