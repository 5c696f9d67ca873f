//! Two linear layers with an activation between, in one pass over chunks of rows: the wide hidden values are used while
//! they are in a core's cache. Batches of few rows are computed by columns. The backward pass saves the input of the
//! activation and applies the activation again.

use burn::tensor::Tensor;

use crate::ops::activation::Activation;
use crate::ops::linear;

/// Weight `[in, out]` and bias `[out]` of a linear layer.
pub type LinearWeights = (Tensor<2>, Option<Tensor<1>>);

/// `activation(x W_up + b_up) W_down + b_down`, `[rows, out]`, of `x` `[rows, in]`, `up` `[in, hidden]` and `down`
/// `[hidden, out]`.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn mlp(x: Tensor<2>, up: LinearWeights, activation: Activation, down: LinearWeights) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(&x)
        && let Some(y) = fused::mlp(&x, &up, activation, &down)
    {
        return y;
    }
    linear::plain(activation.plain(linear::plain(x, up.0, up.1)), down.0, down.1)
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;

    use super::LinearWeights;
    use crate::arguments::mlp_shape::MlpShape;
    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
    use crate::cpu::chunks::{CHUNK_ROWS, chunk_ends};
    use crate::cpu::column_sums::column_sums;
    use crate::cpu::gemm::Matrix;
    use crate::cpu::product::blocked::{Block, Blocks, blocked_cols, each_panel, pack_block, pack_one};
    use crate::cpu::product::by_columns::{ByColumns, are_few};
    use crate::cpu::product::output::Plus;
    use crate::cpu::product::panels::{Joined, Panels};
    use crate::cpu::product::row_sums::row_sums;
    use crate::cpu::product::rows::{Layout, Rows, product};
    use crate::cpu::product::tile::PANEL;
    use crate::cpu::uninit::{Buffer, Scratch, Uninit, par_buffers, par_groups, par_rows};
    use crate::ops::activation::Activation;
    use crate::ops::linear::fused::{assert_bias_shapes, cols_if};
    use crate::rounded::mlp as rounded;
    use crate::rounded::scope::unit;

    pub fn mlp(x: &Tensor<2>, up: &LinearWeights, activation: Activation, down: &LinearWeights) -> Option<Tensor<2>> {
        let inputs = [
            Input::new(x.clone())?,
            Input::new(up.0.clone())?,
            Input::optional(up.1.as_ref())?,
            Input::new(down.0.clone())?,
            Input::optional(down.1.as_ref())?,
        ];
        let shape = MlpShape {
            rows: x.dims()[0],
            input: up.0.dims()[0],
            hidden: up.0.dims()[1],
            output: down.0.dims()[1],
            up_has_bias: up.1.is_some(),
            down_has_bias: down.1.is_some(),
            activation,
        };
        assert_eq!(x.dims()[1], shape.input, "columns of the input of an MLP");
        assert_eq!(down.0.dims()[0], shape.hidden, "inner width of an MLP");
        assert_bias_shapes(&[up.1.as_ref()], shape.hidden);
        assert_bias_shapes(&[down.1.as_ref()], shape.output);
        if let Some(unit) =
            unit().filter(|_| [shape.rows, shape.input, shape.hidden, shape.output].iter().all(|&size| size > 0))
        {
            return Some(rounded::mlp(unit, inputs, shape));
        }
        Some(custom_op(inputs, move |values, tracked| shape.forward(values, tracked), backward))
    }

    #[derive(Debug, Clone)]
    struct Saved {
        shape: MlpShape,
        x: Values,
        up: Values,
        down: Values,
        /// `[rows, hidden]`, the input of the activation: in one block if [`MlpShape::is_one_block`], or in several.
        before: Values,
    }

    impl MlpShape {
        /// Whether the hidden values are one block, since products are computed by columns.
        fn is_one_block(&self) -> bool {
            are_few(self.rows, &[self.input, self.hidden, self.output])
        }

        /// Saves nothing unless `tracked`.
        fn forward(
            self,
            [x, up, up_bias, down, down_bias]: &[Values; 5],
            tracked: bool,
        ) -> (FlexTensor, Option<Saved>) {
            let Self { rows, input, hidden, output, .. } = self;
            let up_bias = if self.up_has_bias { Plus::Row(up_bias.get()) } else { Plus::Nothing };
            let down_bias = if self.down_has_bias { Plus::Row(down_bias.get()) } else { Plus::Nothing };
            let (up_weight, down_weight) = (Matrix::new(up.get(), hidden), Matrix::new(down.get(), output));
            let width = blocked_cols(hidden);
            let saved = |before: Vec<f32>| {
                let before = Values::from(flex_tensor(before, [rows, width]));
                Saved { shape: self, x: x.clone(), up: up.clone(), down: down.clone(), before }
            };
            if self.is_one_block() {
                let (x, up) = (Rows::Plain(Matrix::new(x.get(), input)), [up_weight]);
                let up = ByColumns::new(x, &up, Joined::Beside, up_bias);
                let [before, active] =
                    each_panel([rows; 2], [false, true], hidden / PANEL, |scratch, panel, [before, active]| {
                        let before = up.panel(panel, scratch, before);
                        let active = self.activation.map(active, before);
                        [before, active]
                    });
                let (active, down) = (Rows::Blocked(Block::new(active.get(), rows, hidden)), [down_weight]);
                let values = ByColumns::new(active, &down, Joined::Beside, down_bias).row_major();
                return (flex_tensor(values, [rows, output]), tracked.then(|| saved(before.into_vec())));
            }
            let layers = Layers {
                x: Matrix::new(x.get(), input),
                up: Panels::beside(&[up_weight]),
                up_bias,
                down: Panels::beside(&[down_weight]),
                down_bias,
                activation: self.activation,
            };
            if !tracked {
                let values = par_rows(rows, output, |first, out| {
                    let count = out.len() / output;
                    let mut scratch = Scratch::new(count * width);
                    layers.down(layers.up(first, count, scratch.uninit(count * width)), count, out)
                });
                return (flex_tensor(values, [rows, output]), None);
            }
            let ends = chunk_ends(rows, CHUNK_ROWS);
            let [values, before] = par_groups(&ends, [output, width], |first, [out, before]| {
                let count = before.len() / width;
                let before = layers.up(first, count, before);
                [layers.down(before, count, out), before]
            });
            (flex_tensor(values, [rows, output]), Some(saved(before)))
        }
    }

    /// The parameters and the input of both layers.
    struct Layers<'a> {
        x: Matrix<'a>,
        up: Panels,
        up_bias: Plus<'a>,
        down: Panels,
        down_bias: Plus<'a>,
        activation: Activation,
    }

    impl Layers<'_> {
        /// The block of inputs of the activation, `[count, hidden]`, of rows `first..first + count`.
        fn up<'a>(&self, first: usize, count: usize, out: &'a mut Uninit) -> &'a mut [f32] {
            product(Rows::Plain(self.x.rows(first, count)), &self.up, self.up_bias, Layout::Blocked, out)
        }

        /// The outputs, `[count, output]`, of what [`Layers::up`] returned.
        fn down<'a>(&self, before: &[f32], count: usize, out: &'a mut Uninit) -> &'a mut [f32] {
            let mut scratch = Scratch::new(before.len());
            let active = self.activation.map(scratch.uninit(before.len()), before);
            let active = Rows::Blocked(Block::new(active, count, self.down.depth()));
            product(active, &self.down, self.down_bias, Layout::Plain, out)
        }
    }

    fn backward(saved: Option<Saved>, gradient: Values, needed: [bool; 5]) -> [Option<FlexTensor>; 5] {
        let Some(Saved { shape, x, up, down, before }) = saved else {
            unreachable!("`custom_op` runs the backward function only after a tracked forward function, which saves")
        };
        let MlpShape { rows, input, hidden, output, activation, .. } = shape;
        let (x, gradient) = (Matrix::new(x.get(), input), Matrix::new(gradient.get(), output));
        let [_, up_needed, up_bias_needed, down_needed, _] = needed;
        let hidden_needed = needed[0] || up_needed || up_bias_needed;
        if shape.is_one_block() {
            let before = before.get();
            let (down, up) = ([Matrix::new(down.get(), output).t()], [Matrix::new(up.get(), hidden).t()]);
            let of_inner = ByColumns::new(Rows::Plain(gradient), &down, Joined::Beside, Plus::Nothing);
            let sizes = [cols_if(hidden_needed, rows), cols_if(down_needed, rows)];
            let [inner, active] = each_panel(sizes, [true; 2], hidden / PANEL, |scratch, panel, [inner, active]| {
                let before = &before[panel * rows * PANEL..][..rows * PANEL];
                let mut filled: [&mut [f32]; 2] = Default::default();
                if hidden_needed {
                    filled[0] = of_inner.panel(panel, scratch, inner);
                }
                match (hidden_needed, down_needed) {
                    (true, true) => filled[1] = activation.map_and_multiply_slope(active, filled[0], before),
                    (true, false) => activation.multiply_slope(filled[0], before),
                    (false, true) => filled[1] = activation.map(active, before),
                    (false, false) => {}
                }
                filled
            });
            let pack = |needed: bool, x| if needed { pack_one(x) } else { Buffer::default() };
            let (up_left, down_right) = rayon::join(|| pack(up_needed, x), || pack(down_needed, gradient));
            let factors = Factors { up: [up_left, inner], down: [active, down_right], in_one: true };
            let of_x = || {
                let inner = Rows::Blocked(Block::new(factors.up[1].get(), rows, hidden));
                ByColumns::new(inner, &up, Joined::Beside, Plus::Nothing).row_major()
            };
            return factors.gradients(shape, gradient, needed, of_x);
        }
        let packed = |matrix: Matrix<'_>| Panels::below(&[matrix.t()]);
        let down = hidden_needed.then(|| packed(Matrix::new(down.get(), output)));
        let up = needed[0].then(|| packed(Matrix::new(up.get(), hidden)));
        // One pass over the rows: the gradient of `x`, and both factors of the weights' gradients, blocked. The factors
        // of `up` are `x` and the gradient of the hidden values, those of `down` the activations and `gradient`.
        let width = blocked_cols(hidden);
        let cols = [
            cols_if(needed[0], input),
            cols_if(up_needed, blocked_cols(input)),
            cols_if(hidden_needed, width),
            cols_if(down_needed, width),
            cols_if(down_needed, blocked_cols(output)),
        ];
        let ends = chunk_ends(rows, CHUNK_ROWS);
        let aligned = [false, true, true, true, true];
        let [of_x, up_left, up_right, down_left, down_right] = par_buffers(&ends, cols, aligned, |first, out| {
            let [of_x, up_left, up_right, down_left, down_right] = out;
            let count = CHUNK_ROWS.min(rows - first);
            let before = &before.get()[first * width..][..count * width];
            let gradient = gradient.rows(first, count);
            let mut filled: [&mut [f32]; 5] = Default::default();
            if let Some(down) = &down {
                let inner = product(Rows::Plain(gradient), down, Plus::Nothing, Layout::Blocked, up_right);
                if down_needed {
                    filled[3] = activation.map_and_multiply_slope(down_left, inner, before);
                } else {
                    activation.multiply_slope(inner, before);
                }
                if let Some(up) = &up {
                    let inner = Rows::Blocked(Block::new(inner, count, hidden));
                    filled[0] = product(inner, up, Plus::Nothing, Layout::Plain, of_x);
                }
                if up_needed {
                    filled[1] = pack_block(x.rows(first, count), up_left);
                }
                filled[2] = inner;
            } else if down_needed {
                filled[3] = activation.map(down_left, before);
            }
            if down_needed {
                filled[4] = pack_block(gradient, down_right);
            }
            filled
        });
        let factors = Factors { up: [up_left, up_right], down: [down_left, down_right], in_one: false };
        factors.gradients(shape, gradient, needed, || of_x.into_vec())
    }

    /// The factors of the weights' gradients in blocks, empty if they are not needed.
    struct Factors {
        /// The input of the MLP and the gradient of the hidden values.
        up: [Buffer; 2],
        /// The activations and the gradient of the output.
        down: [Buffer; 2],
        /// Whether all rows are one block.
        in_one: bool,
    }

    impl Factors {
        /// The gradients of the input, which `of_x` computes, and of the parameters, in one pass, so that no thread
        /// waits for another between them.
        fn gradients(
            &self,
            shape: MlpShape,
            gradient: Matrix<'_>,
            needed: [bool; 5],
            of_x: impl FnOnce() -> Vec<f32> + Send,
        ) -> [Option<FlexTensor>; 5] {
            let MlpShape { rows, input, hidden, output, .. } = shape;
            let [x, of_hidden] = [(&self.up[0], input), (&self.up[1], hidden)];
            let [active, of_output] = [(&self.down[0], hidden), (&self.down[1], output)];
            let blocks = |(buffer, cols)| self.blocks(buffer, rows, cols);
            let sums = |left, right| row_sums(blocks(left), blocks(right));
            let of_up = || flex_tensor(sums(x, of_hidden), [input, hidden]);
            let of_up_bias = || flex_tensor(blocks(of_hidden).column_sums(), [hidden]);
            let of_down = || flex_tensor(sums(active, of_output), [hidden, output]);
            let of_down_bias = || flex_tensor(column_sums(gradient), [output]);
            let (of_x, ((of_up, of_up_bias), (of_down, of_down_bias))) = rayon::join(
                || needed[0].then(|| flex_tensor(of_x(), [rows, input])),
                || {
                    rayon::join(
                        || rayon::join(|| needed[1].then(of_up), || needed[2].then(of_up_bias)),
                        || rayon::join(|| needed[3].then(of_down), || needed[4].then(of_down_bias)),
                    )
                },
            );
            [of_x, of_up, of_up_bias, of_down, of_down_bias]
        }

        fn blocks<'a>(&self, buffer: &'a Buffer, rows: usize, cols: usize) -> Blocks<'a> {
            let blocks = Blocks::new(buffer.get(), rows, cols, [0, 1]);
            if self.in_one { blocks.in_one() } else { blocks }
        }
    }
}
