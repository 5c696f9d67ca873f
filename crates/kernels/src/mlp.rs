//! `activation(x W + b) V + c`, chunk by chunk of rows: the wide middle is used in a core's cache right after it is made;
//! the gradient keeps what the activation was applied to, and applies it again.

use burn::tensor::{Tensor, module};

use crate::Activation;

/// Weight `[in, out]` and bias `[out]` of a linear.
pub type LinearWeights = (Tensor<2>, Option<Tensor<1>>);

/// `[rows, in]` to `[rows, out]` through `up`, `activation` and `down`.
pub fn mlp(x: Tensor<2>, up: LinearWeights, activation: Activation, down: LinearWeights) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::record::is_fused(&x)
        && let Some(y) = fused::mlp(&x, &up, activation, &down)
    {
        return y;
    }
    module::linear(activation.plain(module::linear(x, up.0, up.1)), down.0, down.1)
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;

    use super::LinearWeights;
    use crate::Activation;
    use crate::buffer::{Blank, CHUNK_ROWS, Scratch, by_groups, by_rows, chunk_ends};
    use crate::linear::fused::{affine, column_sums, optional, weight_gradient};
    use crate::product::{Matrix, product};
    use crate::record::{Input, Values, record, tensor};

    pub fn mlp(x: &Tensor<2>, up: &LinearWeights, activation: Activation, down: &LinearWeights) -> Option<Tensor<2>> {
        let inputs = [
            Input::of(x.clone())?,
            Input::of(up.0.clone())?,
            optional(up.1.as_ref())?,
            Input::of(down.0.clone())?,
            optional(down.1.as_ref())?,
        ];
        let shape = Shape {
            rows: x.dims()[0],
            widths: [up.0.dims()[0], up.0.dims()[1], down.0.dims()[1]],
            biased: [up.1.is_some(), down.1.is_some()],
            activation,
        };
        Some(record(inputs, move |values, tracked| shape.forward(values, tracked), backward))
    }

    #[derive(Debug, Clone, Copy)]
    struct Shape {
        rows: usize,
        /// Input, middle and output.
        widths: [usize; 3],
        biased: [bool; 2],
        activation: Activation,
    }

    #[derive(Debug, Clone)]
    struct Kept {
        shape: Shape,
        x: Values,
        up: Values,
        down: Values,
        /// `[rows, middle]`, what the activation is applied to.
        middle: Values,
    }

    impl Shape {
        fn forward(self, [x, up, up_bias, down, down_bias]: &[Values; 5], tracked: bool) -> (FlexTensor, Option<Kept>) {
            let [input, width, output] = self.widths;
            let layers = Layers {
                x: Matrix::new(x.get(), input),
                up: (up.get(), self.biased[0].then(|| up_bias.get())),
                down: (down.get(), self.biased[1].then(|| down_bias.get())),
                activation: self.activation,
            };
            if !tracked {
                let values = by_rows(self.rows, output, |first, out| {
                    let count = out.len() / output;
                    let mut middle = Scratch::new(CHUNK_ROWS * width);
                    layers.fall(layers.rise(first, count, middle.blank(count * width)), width, out)
                });
                return (tensor(values, [self.rows, output]), None);
            }
            let [values, middle] = by_groups(&chunk_ends(self.rows), [output, width], |first, [out, middle]| {
                let middle = layers.rise(first, out.len() / output, middle);
                [layers.fall(middle, width, out), middle]
            });
            let middle = Values::from(tensor(middle, [self.rows, width]));
            let kept = Kept { shape: self, x: x.clone(), up: up.clone(), down: down.clone(), middle };
            (tensor(values, [self.rows, output]), Some(kept))
        }
    }

    /// Both linears, each with its bias.
    struct Layers<'a> {
        x: Matrix<'a>,
        up: (&'a [f32], Option<&'a [f32]>),
        down: (&'a [f32], Option<&'a [f32]>),
        activation: Activation,
    }

    impl Layers<'_> {
        /// What the activation of `count` rows is applied to.
        fn rise<'a>(&self, first: usize, count: usize, out: &'a mut Blank) -> &'a mut [f32] {
            affine(self.x.rows(first, count), self.up.0, self.up.1, out)
        }

        /// The output of rows of `width` that [`Layers::rise`] gave.
        fn fall<'a>(&self, middle: &[f32], width: usize, out: &'a mut Blank) -> &'a mut [f32] {
            let mut active = Scratch::new(middle.len());
            let active = self.activation.map(active.blank(middle.len()), middle);
            affine(Matrix::new(active, width), self.down.0, self.down.1, out)
        }
    }

    fn backward(kept: Option<Kept>, gradient: Values, needed: [bool; 5]) -> [Option<FlexTensor>; 5] {
        let Some(Kept { shape, x, up, down, middle }) = kept else { return [const { None }; 5] };
        let Shape { rows, widths: [input, width, output], activation, .. } = shape;
        let gradient = Matrix::new(gradient.get(), output);
        let (up, down) = (Matrix::new(up.get(), width).t(), Matrix::new(down.get(), output).t());
        let part = |wanted: bool, cols: usize| if wanted { cols } else { 0 };
        // In one pass over the rows: the gradients of the input and of the middle, and the activations once more.
        let cols = [part(needed[0], input), width, part(needed[3], width)];
        let ends = chunk_ends(rows);
        let [x_gradient, middle_gradient, active] = by_groups(&ends, cols, |first, [x_out, middle_out, active_out]| {
            let count = middle_out.len() / width;
            let before = &middle.get()[first * width..][..middle_out.len()];
            let inner = product(gradient.rows(first, count), down, middle_out);
            activation.multiply_slope(inner, before);
            let x_out: &mut Blank = x_out;
            let x_out = match needed[0] {
                true => product(Matrix::new(inner, width), up, x_out),
                false => Default::default(),
            };
            let active_out: &mut Blank = active_out;
            let active_out = match needed[3] {
                true => activation.map(active_out, before),
                false => Default::default(),
            };
            [x_out, inner, active_out]
        });
        let middle_gradient = Matrix::new(&middle_gradient, width);
        let up_gradient = || tensor(weight_gradient(Matrix::new(x.get(), input), middle_gradient), [input, width]);
        let down_gradient = || tensor(weight_gradient(Matrix::new(&active, width), gradient), [width, output]);
        [
            needed[0].then(|| tensor(x_gradient, [rows, input])),
            needed[1].then(up_gradient),
            needed[2].then(|| tensor(column_sums(middle_gradient), [width])),
            needed[3].then(down_gradient),
            needed[4].then(|| tensor(column_sums(gradient), [output])),
        ]
    }
}
