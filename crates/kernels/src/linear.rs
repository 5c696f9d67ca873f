//! `x W + b`, with the gradients of all three in as many passes.

use burn::tensor::{Tensor, module};

/// `[rows, in]`, `[in, out]` and `[out]` to `[rows, out]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::record::is_fused(&x)
        && let Some(y) = fused::linear(&x, &[&weight], &[bias.as_ref()])
    {
        return y;
    }
    module::linear(x, weight, bias)
}

/// The outputs of three linears side by side, `[rows, in]` to `[rows, 3 * out]`: query, key and value.
pub fn linear3(x: Tensor<2>, weights: [Tensor<2>; 3], biases: [Option<Tensor<1>>; 3]) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::record::is_fused(&x)
        && let Some(y) = fused::linear(&x, &weights.each_ref(), &biases.each_ref().map(Option::as_ref))
    {
        return y;
    }
    let each = weights.into_iter().zip(biases);
    Tensor::cat(each.map(|(weight, bias)| module::linear(x.clone(), weight, bias)).collect(), 1)
}

#[cfg(feature = "flex")]
pub(crate) mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;
    use rayon::prelude::*;

    use crate::buffer::{Blank, by_groups, by_rows, ends_of, repeat};
    use crate::product::{Matrix, product, product_into};
    use crate::record::{Input, Values, record, tensor};
    use crate::simd::vectorised;

    /// Rows of a weight's gradient that one task makes: enough tasks for many cores, each a product of full speed.
    const WEIGHT_ROWS: usize = 96;

    /// Columns that one task sums: whole cache lines.
    const SUM_COLUMNS: usize = 64;

    /// One linear, or three of one size side by side.
    pub fn linear<const N: usize>(
        x: &Tensor<2>,
        weights: &[&Tensor<2>; N],
        biases: &[Option<&Tensor<1>>; N],
    ) -> Option<Tensor<2>> {
        let [rows, _] = x.dims();
        let [input, output] = weights[0].dims();
        let mut inputs = vec![Input::of(x.clone())?];
        for weight in weights {
            inputs.push(Input::of((*weight).clone())?);
        }
        for bias in biases {
            inputs.push(optional(*bias)?);
        }
        let with_bias = biases.map(|bias| bias.is_some());
        // `2 N + 1` inputs; the two cases are spelled out because the graph counts inputs in its types.
        match N {
            1 => run::<3>(inputs.try_into().ok()?, &with_bias, rows, input, output),
            3 => run::<7>(inputs.try_into().ok()?, &with_bias, rows, input, output),
            _ => None,
        }
    }

    #[derive(Debug, Clone)]
    struct Kept {
        x: Values,
        weights: Vec<Values>,
        input: usize,
        output: usize,
    }

    fn run<const I: usize>(
        inputs: [Input; I],
        with_bias: &[bool],
        rows: usize,
        input: usize,
        output: usize,
    ) -> Option<Tensor<2>> {
        let count = with_bias.len();
        let forward = |values: &[Values; I], _| {
            let x = Matrix::new(values[0].get(), input);
            let weights = &values[1..=count];
            let stride = count * output;
            let bias = side_by_side(&values[1 + count..], with_bias, output);
            let out = by_rows(rows, stride, |first, out| {
                let x = x.rows(first, out.len() / stride);
                if let [weight] = weights {
                    return affine(x, weight.get(), with_bias[0].then_some(&bias), out);
                }
                let out = repeat(out, &bias);
                for (n, weight) in weights.iter().enumerate() {
                    product_into(x, Matrix::new(weight.get(), output), &mut out[n * output..], stride, true);
                }
                out
            });
            let kept = Kept { x: values[0].clone(), weights: weights.to_vec(), input, output };
            (tensor(out, [rows, count * output]), kept)
        };
        Some(record(inputs, forward, |kept, gradient, needed| backward(&kept, &gradient, needed)))
    }

    /// `x W + b` on this thread: rows that start as the bias and gain the product.
    pub fn affine<'a>(x: Matrix<'_>, weight: &[f32], bias: Option<&[f32]>, out: &'a mut Blank) -> &'a mut [f32] {
        let width = out.len() / x.num_rows().max(1);
        let weight = Matrix::new(weight, width);
        match bias {
            Some(bias) => {
                let out = repeat(out, bias);
                product_into(x, weight, out, width, true);
                out
            }
            None => product(x, weight, out),
        }
    }

    /// A bias that need not be there.
    pub fn optional(bias: Option<&Tensor<1>>) -> Option<Input> {
        match bias {
            Some(bias) => Input::of(bias.clone()),
            None => Some(Input::none()),
        }
    }

    fn backward<const I: usize>(kept: &Kept, gradient: &Values, needed: [bool; I]) -> [Option<FlexTensor>; I] {
        let Kept { x, weights, input, output } = kept;
        let (input, output, count) = (*input, *output, weights.len());
        let stride = count * output;
        let gradient = Matrix::new(gradient.get(), stride);
        let rows = gradient.num_rows();
        let part = |n: usize| gradient.cols(n * output, output);
        std::array::from_fn(|place| match place {
            _ if !needed[place] => None,
            0 => {
                let values = by_rows(rows, input, |first, out| {
                    let out_rows = out.len() / input;
                    let chunk = |n| part(n).rows(first, out_rows);
                    let weight = |n: usize| Matrix::new(weights[n].get(), output).t();
                    let out = product(chunk(0), weight(0), out);
                    (1..count).for_each(|n| product_into(chunk(n), weight(n), out, input, true));
                    out
                });
                Some(tensor(values, [rows, input]))
            }
            _ if place <= count => {
                let values = weight_gradient(Matrix::new(x.get(), input), part(place - 1));
                Some(tensor(values, [input, output]))
            }
            _ => Some(tensor(column_sums(part(place - 1 - count)), [output])),
        })
    }

    /// `x^T gradient`, `[in, out]`.
    pub fn weight_gradient(x: Matrix<'_>, gradient: Matrix<'_>) -> Vec<f32> {
        let (input, output) = (x.num_cols(), gradient.num_cols());
        let [values] = by_groups(&ends_of(input, WEIGHT_ROWS), [output], |first, [out]| {
            [product(x.cols(first, out.len() / output).t(), gradient, out)]
        });
        values
    }

    vectorised! {
        fn add_rows(sums: &'a mut [f32], rows: Matrix<'a>) {
            for row in 0..rows.num_rows() {
                sums.iter_mut().zip(rows.row(row)).for_each(|(sum, value)| *sum += value);
            }
        }
    }

    /// The sum of each column.
    pub fn column_sums(gradient: Matrix<'_>) -> Vec<f32> {
        let mut sums = vec![0.0; gradient.num_cols()];
        sums.par_chunks_mut(SUM_COLUMNS).enumerate().for_each(|(block, sums)| {
            let columns = gradient.cols(block * SUM_COLUMNS, sums.len());
            add_rows(sums, columns);
        });
        sums
    }

    fn side_by_side(biases: &[Values], there: &[bool], output: usize) -> Vec<f32> {
        let part = |(bias, there): (&Values, &bool)| if *there { bias.get().to_vec() } else { vec![0.0; output] };
        biases.iter().zip(there).flat_map(part).collect()
    }
}
