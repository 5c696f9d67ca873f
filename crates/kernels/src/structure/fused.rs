//! The structure loss over slices: the blocks of a tile are spread over all cores, and the gradient is computed with
//! the loss.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::contrastive::blocks::{EmbedGradients, Factors, LogitBlock, LogitRows, Tiles};
use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
use crate::cpu::gemm::Matrix;
use crate::cpu::simd::{exp, ln, max, sum, vectorised};
use crate::structure::tiled::EPS;

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
        let scale = temperature.recip() as f32;
        let [reference, embeds] = [(reference, width), (embeds, dim)].map(|(vectors, width)| {
            let text = Matrix::new(vectors.get(), width);
            Factors { image: text.rows(rows.start, rows.len()), text, scale, bias: 0.0 }
        });
        let pass =
            Pass { reference, embeds, first: rows.start, batch, tiles: Tiles::new(rows.len(), batch, tile), tracked };
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
    /// The vectors of some rows, and all of them.
    reference: Factors<'a>,
    embeds: Factors<'a>,
    /// The first of these rows in the batch.
    first: usize,
    batch: usize,
    tiles: Tiles,
    /// Whether the gradient is needed.
    tracked: bool,
}

impl Pass<'_> {
    /// The loss and, where it is needed, its gradient `[batch, dim]`.
    fn run(&self) -> (f64, Vec<f32>) {
        let batch = self.batch;
        // No similarity is left out but those that only fill up a panel, which are not read.
        let [reference, embeds] =
            [self.reference, self.embeds].map(|factors| LogitRows::new(factors, batch, self.first, 0.0));
        let mut gradients = self.tracked.then(|| EmbedGradients::new(self.embeds));
        let mut total = 0.0;
        for rows in self.tiles.images() {
            let (before, _) = reference.blocks(rows.clone(), |_| ());
            let (mut after, _) = embeds.blocks(rows, |_| ());
            let blocks = before.par_iter().zip(&mut after);
            let of_blocks: Vec<f64> = blocks.map(|(before, after)| divergence(before, after)).collect();
            total += of_blocks.into_iter().sum::<f64>();
            drop(before);
            if let Some(gradients) = &mut gradients {
                gradients.add(&after);
            }
        }
        let batch = batch as f64;
        let gradient = gradients.map_or_else(Vec::new, |gradients| {
            // Each similarity is a product of an embedding of a row and one of the batch.
            let [of_rows, mut gradient] = gradients.finish(self.embeds.scale / batch as f32);
            let own = &mut gradient[self.first * self.embeds.image.num_cols()..][..of_rows.len()];
            own.par_iter_mut().zip(of_rows).for_each(|(sum, value)| *sum += value);
            gradient
        });
        (total / batch, gradient)
    }
}

/// The divergences of the rows of a block, from their similarities before and after; replaces the latter by the
/// derivatives.
fn divergence(before: &LogitBlock, after: &mut LogitBlock) -> f64 {
    let [mut of_before, mut of_after] = [before, &*after].map(LogitBlock::new_row);
    let rows = (0..before.rows).map(|row| {
        before.read_row(row, &mut of_before);
        after.read_row(row, &mut of_after);
        let value = row_divergence(&mut of_before, &mut of_after);
        after.write_row(row, &of_after);
        f64::from(value)
    });
    rows.sum()
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
