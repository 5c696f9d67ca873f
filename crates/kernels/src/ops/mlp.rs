//! Two linear layers with an activation between, in one pass over chunks of rows: the wide hidden values are used while
//! they are in a core's cache. The backward pass saves the input of the activation and applies the activation again.

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
    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
    use crate::cpu::chunks::{CHUNK_ROWS, chunk_ends};
    use crate::cpu::gemm::{Matrix, matmul};
    use crate::cpu::uninit::{Scratch, Uninit, par_groups, par_rows};
    use crate::ops::activation::Activation;
    use crate::ops::linear::fused::{affine, assert_bias_shapes, column_sums, weight_gradient};

    pub fn mlp(x: &Tensor<2>, up: &LinearWeights, activation: Activation, down: &LinearWeights) -> Option<Tensor<2>> {
        let inputs = [
            Input::new(x.clone())?,
            Input::new(up.0.clone())?,
            Input::optional(up.1.as_ref())?,
            Input::new(down.0.clone())?,
            Input::optional(down.1.as_ref())?,
        ];
        let shape = Shape {
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
        Some(custom_op(inputs, move |values, tracked| shape.forward(values, tracked), backward))
    }

    #[derive(Debug, Clone, Copy)]
    struct Shape {
        rows: usize,
        input: usize,
        hidden: usize,
        output: usize,
        up_has_bias: bool,
        down_has_bias: bool,
        activation: Activation,
    }

    #[derive(Debug, Clone)]
    struct Saved {
        shape: Shape,
        x: Values,
        up: Values,
        down: Values,
        /// `[rows, hidden]`, the input of the activation.
        hidden: Values,
    }

    impl Shape {
        /// Saves nothing unless `tracked`.
        fn forward(
            self,
            [x, up, up_bias, down, down_bias]: &[Values; 5],
            tracked: bool,
        ) -> (FlexTensor, Option<Saved>) {
            let Self { rows, input, hidden, output, .. } = self;
            let layers = Layers {
                x: Matrix::new(x.get(), input),
                up: up.get(),
                up_bias: self.up_has_bias.then(|| up_bias.get()),
                down: down.get(),
                down_bias: self.down_has_bias.then(|| down_bias.get()),
                activation: self.activation,
            };
            if !tracked {
                let values = par_rows(rows, output, |first, out| {
                    let count = out.len() / output;
                    let mut scratch = Scratch::new(CHUNK_ROWS * hidden);
                    layers.down(layers.up(first, count, scratch.uninit(count * hidden)), hidden, out)
                });
                return (flex_tensor(values, [rows, output]), None);
            }
            let ends = chunk_ends(rows, CHUNK_ROWS);
            let [values, hidden_values] = par_groups(&ends, [output, hidden], |first, [out, hidden_out]| {
                let hidden_out = layers.up(first, out.len() / output, hidden_out);
                [layers.down(hidden_out, hidden, out), hidden_out]
            });
            let hidden = Values::from(flex_tensor(hidden_values, [rows, hidden]));
            let saved = Saved { shape: self, x: x.clone(), up: up.clone(), down: down.clone(), hidden };
            (flex_tensor(values, [rows, output]), Some(saved))
        }
    }

    /// The parameters and the input of both layers.
    struct Layers<'a> {
        x: Matrix<'a>,
        up: &'a [f32],
        up_bias: Option<&'a [f32]>,
        down: &'a [f32],
        down_bias: Option<&'a [f32]>,
        activation: Activation,
    }

    impl Layers<'_> {
        /// The inputs of the activation, `[count, hidden]`, of rows `first..first + count`.
        fn up<'a>(&self, first: usize, count: usize, out: &'a mut Uninit) -> &'a mut [f32] {
            affine(self.x.rows(first, count), self.up, self.up_bias, out)
        }

        /// The outputs, `[count, output]`, of what [`Layers::up`] returned, `[count, width]`.
        fn down<'a>(&self, hidden: &[f32], width: usize, out: &'a mut Uninit) -> &'a mut [f32] {
            let mut scratch = Scratch::new(hidden.len());
            let active = self.activation.map(scratch.uninit(hidden.len()), hidden);
            affine(Matrix::new(active, width), self.down, self.down_bias, out)
        }
    }

    fn backward(saved: Option<Saved>, gradient: Values, needed: [bool; 5]) -> [Option<FlexTensor>; 5] {
        let Some(Saved { shape, x, up, down, hidden: before }) = saved else {
            unreachable!("`custom_op` runs the backward function only after a tracked forward function, which saves")
        };
        let Shape { rows, input, hidden, output, activation, .. } = shape;
        let gradient = Matrix::new(gradient.get(), output);
        let (up, down) = (Matrix::new(up.get(), hidden).t(), Matrix::new(down.get(), output).t());
        let cols_if = |wanted: bool, cols: usize| if wanted { cols } else { 0 };
        // One pass over the rows: the gradients of `x` and of the hidden values, and the activations once more.
        let cols = [cols_if(needed[0], input), hidden, cols_if(needed[3], hidden)];
        let ends = chunk_ends(rows, CHUNK_ROWS);
        let [x_gradient, hidden_gradient, active] =
            par_groups(&ends, cols, |first, [x_out, hidden_out, active_out]| {
                let count = hidden_out.len() / hidden;
                let before = &before.get()[first * hidden..][..hidden_out.len()];
                let inner = matmul(gradient.rows(first, count), down, hidden_out);
                activation.multiply_slope(inner, before);
                let x_out: &mut Uninit = x_out;
                let x_out = if needed[0] { matmul(Matrix::new(inner, hidden), up, x_out) } else { Default::default() };
                let active_out: &mut Uninit = active_out;
                let active_out = if needed[3] { activation.map(active_out, before) } else { Default::default() };
                [x_out, inner, active_out]
            });
        let hidden_gradient = Matrix::new(&hidden_gradient, hidden);
        let up_gradient =
            || flex_tensor(weight_gradient(Matrix::new(x.get(), input), hidden_gradient), [input, hidden]);
        let down_gradient = || flex_tensor(weight_gradient(Matrix::new(&active, hidden), gradient), [hidden, output]);
        [
            needed[0].then(|| flex_tensor(x_gradient, [rows, input])),
            needed[1].then(up_gradient),
            needed[2].then(|| flex_tensor(column_sums(hidden_gradient), [hidden])),
            needed[3].then(down_gradient),
            needed[4].then(|| flex_tensor(column_sums(gradient), [output])),
        ]
    }
}
