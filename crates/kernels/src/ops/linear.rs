//! Linear layers, `x W + b`: one product per chunk of rows or, for few rows, per some columns. The backward pass
//! computes all gradients in one or two parallel passes.

use burn::tensor::{Tensor, module};

use crate::portable::forms::is_remote;
use crate::portable::graph::with_gradients;
use crate::portable::products::{affine, product};
use crate::portable::row_products::{column_sums, linear_gradients, transposed_product};

/// A linear layer, `[rows, out]`, of `x` `[rows, in]`, `weight` `[in, out]` and `bias` `[out]`.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(&x)
        && let Some(y) = fused::linear(&x, &[&weight], &[bias.as_ref()])
    {
        return y;
    }
    plain(x, weight, bias)
}

/// The form in Burn's own operations, with the gradients that Burn derives on the host, where its runs go on with the
/// same bits. Those of the parameters are computed from slices of the rows elsewhere.
pub(crate) fn plain(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    if !is_remote(&x.device()) {
        return module::linear(x, weight, bias);
    }
    if !x.is_autodiff() && !weight.is_autodiff() && !bias.as_ref().is_some_and(Tensor::is_autodiff) {
        return affine(x, weight, bias);
    }
    let (input, factors) = (x.clone().without_autodiff(), weight.clone().without_autodiff());
    let output = affine(input.clone(), factors.clone(), bias.clone().map(Tensor::without_autodiff));
    let inputs = [x.clone().into_dispatch(), weight.clone().into_dispatch()];
    let of_input =
        move |gradient: &Tensor<2>| product(gradient.clone(), factors.clone(), [false, true]).into_dispatch();
    let tracked = match &bias {
        None => with_gradients(inputs, output, move |gradient, [x, weight]| {
            let of_weight = || transposed_product(input.clone(), gradient.clone()).into_dispatch();
            [x.then(|| of_input(&gradient)), weight.then(of_weight)]
        }),
        Some(bias) => {
            let [x, weight] = inputs;
            with_gradients([x, weight, bias.clone().into_dispatch()], output, move |gradient, [x, weight, bias]| {
                let of_input = x.then(|| of_input(&gradient));
                if weight && bias {
                    let (of_weight, of_bias) = linear_gradients(input.clone(), gradient);
                    return [of_input, Some(of_weight.into_dispatch()), Some(of_bias.into_dispatch())];
                }
                let of_weight = weight.then(|| transposed_product(input.clone(), gradient.clone()).into_dispatch());
                [of_input, of_weight, bias.then(|| column_sums(gradient).into_dispatch())]
            })
        }
    };
    tracked.unwrap_or_else(|| module::linear(x, weight, bias))
}

/// Three linear layers of the same shape on one input, side by side: `[rows, 3 * out]` of `x` `[rows, in]`, `weights`
/// `[in, out]` and `biases` `[out]`. This is the projection to query, key and value that [`attention`] takes.
///
/// [`attention`]: crate::attention
///
/// # Panics
///
/// If the shapes do not fit.
pub fn linear3(x: Tensor<2>, weights: [Tensor<2>; 3], biases: [Option<Tensor<1>>; 3]) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(&x)
        && let Some(y) = fused::linear(&x, &weights.each_ref(), &biases.each_ref().map(Option::as_ref))
    {
        return y;
    }
    plain3(x, weights, biases)
}

/// The form of [`linear3`] in Burn's own operations: on devices one product, in the forward and in the backward pass.
pub(crate) fn plain3(x: Tensor<2>, weights: [Tensor<2>; 3], biases: [Option<Tensor<1>>; 3]) -> Tensor<2> {
    let each = |x: &Tensor<2>, weights: &[Tensor<2>; 3]| {
        let layers = weights.iter().zip(&biases);
        Tensor::cat(layers.map(|(weight, bias)| plain(x.clone(), weight.clone(), bias.clone())).collect(), 1)
    };
    let biased = biases.each_ref().map(Option::is_some);
    if !is_remote(&x.device()) || biased != [biased[0]; 3] {
        return each(&x, &weights);
    }
    let without_graph = weights.each_ref().map(|weight| weight.clone().without_autodiff());
    let factors = join_columns(without_graph);
    let bias = biases.clone().map(|bias| bias.map(|bias| bias.without_autodiff().unsqueeze::<2>()));
    let bias = match bias {
        [Some(first), Some(second), Some(third)] => {
            let joined = join_columns([first, second, third]);
            let [_, triple] = joined.dims();
            Some(joined.reshape([triple]))
        }
        _ => None,
    };
    let input = x.clone().without_autodiff();
    let output = affine(input.clone(), factors.clone(), bias);
    // A node of the graph would make what follows of a locked layer look trained, and have its values dropped.
    let in_graph = [&x].into_iter().chain(&weights).any(Tensor::is_autodiff);
    if !in_graph && !biases.iter().flatten().any(Tensor::is_autodiff) {
        return output;
    }
    let [first, second, third] = weights.each_ref().map(|weight| weight.clone().into_dispatch());
    // Weights stand in for absent biases, since the number of inputs is part of the type.
    let stands_in =
        |n: usize| biases[n].clone().map_or_else(|| weights[n].clone().into_dispatch(), Tensor::into_dispatch);
    let inputs = [x.clone().into_dispatch(), first, second, third, stands_in(0), stands_in(1), stands_in(2)];
    let width = weights[0].dims()[1];
    let tracked = with_gradients(inputs, output, move |gradient: Tensor<2>, needed: [bool; 7]| {
        let (needs_weights, needs_biases) = (needed[1..4].contains(&true), biased[0] && needed[4..].contains(&true));
        let (of_weights, of_biases) = match (needs_weights, needs_biases) {
            (true, true) => {
                let (weights, biases) = linear_gradients(input.clone(), gradient.clone());
                (Some(weights), Some(biases))
            }
            (true, false) => (Some(transposed_product(input.clone(), gradient.clone())), None),
            (false, true) => (None, Some(column_sums(gradient.clone()))),
            (false, false) => (None, None),
        };
        let of_weights = of_weights.map(|all| part_columns(all, width));
        std::array::from_fn(|position| match position {
            _ if !needed[position] => None,
            0 => Some(product(gradient.clone(), factors.clone(), [false, true]).into_dispatch()),
            1..4 => of_weights.as_ref().map(|parts| parts[position - 1].clone().into_dispatch()),
            _ => of_biases.as_ref().map(|all| all.clone().narrow(0, (position - 4) * width, width).into_dispatch()),
        })
    });
    tracked.unwrap_or_else(|| each(&x, &weights))
}

/// Three matrices of the same shape side by side, outside of the graph.
fn join_columns(parts: [Tensor<2>; 3]) -> Tensor<2> {
    #[cfg(feature = "cube")]
    if let Some(joined) = crate::cube::columns::join(&parts) {
        return joined;
    }
    Tensor::cat(parts.to_vec(), 1)
}

/// The parts of [`join_columns`], of `width` columns each.
fn part_columns(x: Tensor<2>, width: usize) -> [Tensor<2>; 3] {
    #[cfg(feature = "cube")]
    if let Some(parts) = crate::cube::columns::part(&x) {
        return parts;
    }
    [0, 1, 2].map(|n| x.clone().narrow(1, n * width, width))
}

#[cfg(feature = "flex")]
pub(crate) mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;
    use rayon::prelude::*;

    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
    use crate::cpu::chunks::{CHUNK_ROWS, chunk_ends};
    use crate::cpu::column_sums::column_sums;
    use crate::cpu::gemm::Matrix;
    use crate::cpu::product::blocked::{Blocks, blocked_cols, pack_block, pack_one};
    use crate::cpu::product::by_columns::{ByColumns, are_few};
    use crate::cpu::product::output::Plus;
    use crate::cpu::product::panels::{Joined, Panels};
    use crate::cpu::product::row_sums::row_sums;
    use crate::cpu::product::rows::{Layout, Rows, product};
    use crate::cpu::uninit::{par_buffers, par_rows, write_parts};
    use crate::rounded::linear as rounded;
    use crate::rounded::scope::unit;

    /// `N` linear layers of one shape side by side; `None` unless `N` is 1 or 3.
    pub fn linear<const N: usize>(
        x: &Tensor<2>,
        weights: &[&Tensor<2>; N],
        biases: &[Option<&Tensor<1>>; N],
    ) -> Option<Tensor<2>> {
        let [rows, width] = x.dims();
        let [input, output] = weights[0].dims();
        assert_eq!(width, input, "columns of the input of a linear layer");
        assert_bias_shapes(biases, output);
        let mut inputs = vec![Input::new(x.clone())?];
        for weight in weights {
            assert_eq!(weight.dims(), [input, output], "shape of the weight of a linear layer");
            inputs.push(Input::new((*weight).clone())?);
        }
        for bias in biases {
            inputs.push(Input::optional(*bias)?);
        }
        let with_bias = biases.map(|bias| bias.is_some());
        // The number of inputs, `2 N + 1`, is part of the node's type.
        match N {
            1 => run::<3>(inputs.try_into().ok()?, &with_bias, rows, input, output),
            3 => run::<7>(inputs.try_into().ok()?, &with_bias, rows, input, output),
            _ => None,
        }
    }

    /// Panics unless each bias is `[output]`.
    pub fn assert_bias_shapes(biases: &[Option<&Tensor<1>>], output: usize) {
        for bias in biases.iter().flatten() {
            assert_eq!(bias.dims(), [output], "length of the bias of a linear layer");
        }
    }

    #[derive(Debug, Clone)]
    struct Saved {
        /// `[rows, input]`.
        x: Values,
        /// `[input, output]` each.
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
        if let Some(unit) = unit().filter(|_| rows.min(input).min(output) > 0) {
            return Some(rounded::linear(unit, inputs, with_bias, [rows, input, output]));
        }
        let forward = |values: &[Values; I], _| {
            let x = Matrix::new(values[0].get(), input);
            let weights = &values[1..=count];
            let matrices = matrices(weights, output);
            let bias = concat_biases(&values[1 + count..], with_bias, output);
            let plus = if with_bias.contains(&true) { Plus::Row(&bias) } else { Plus::Nothing };
            let stride = count * output;
            let out = if input > 0 && are_few(rows, &[output]) {
                ByColumns::new(Rows::Plain(x), &matrices, Joined::Beside, plus).row_major()
            } else {
                let panels = Panels::beside(&matrices);
                par_rows(rows, stride, |first, out| {
                    product(Rows::Plain(x.rows(first, out.len() / stride)), &panels, plus, Layout::Plain, out)
                })
            };
            let saved = Saved { x: values[0].clone(), weights: weights.to_vec(), input, output };
            (flex_tensor(out, [rows, stride]), saved)
        };
        Some(custom_op(inputs, forward, |saved, gradient, needed| backward(&saved, &gradient, needed)))
    }

    /// Weights `[in, out]`.
    fn matrices(weights: &[Values], output: usize) -> Vec<Matrix<'_>> {
        weights.iter().map(|weight| Matrix::new(weight.get(), output)).collect()
    }

    fn backward<const I: usize>(saved: &Saved, gradient: &Values, needed: [bool; I]) -> [Option<FlexTensor>; I] {
        let Saved { x, weights, input, output } = saved;
        let (input, output, count) = (*input, *output, weights.len());
        let stride = count * output;
        let (x, gradient) = (Matrix::new(x.get(), input), Matrix::new(gradient.get(), stride));
        let rows = gradient.num_rows();
        let weights_needed = needed[1..=count].contains(&true);
        let transposed: Vec<Matrix<'_>> = matrices(weights, output).into_iter().map(Matrix::t).collect();
        let of_bias = |n: usize| needed[1 + count + n].then(|| column_sums(gradient.cols(n * output, output)));
        let of_biases = || (0..count).into_par_iter().map(of_bias).collect();
        // Inputs: `x`, then all weights, then all biases.
        let in_order = |of_x: Option<Vec<f32>>, of_weights: Vec<Option<Vec<f32>>>, of_biases: Vec<Option<Vec<f32>>>| {
            let mut of_x = of_x.map(|values| flex_tensor(values, [rows, input]));
            let mut of_weights = of_weights.into_iter().map(|values| Some(flex_tensor(values?, [input, output])));
            let mut of_biases = of_biases.into_iter().map(|values| Some(flex_tensor(values?, [output])));
            std::array::from_fn(|position| match position {
                0 => of_x.take(),
                _ if position <= count => of_weights.next().flatten(),
                _ => of_biases.next().flatten(),
            })
        };
        if are_few(rows, &[input, output]) {
            let of_x = || ByColumns::new(Rows::Plain(gradient), &transposed, Joined::Below, Plus::Nothing).row_major();
            let of_weights = || {
                let (left, right) = rayon::join(|| pack_one(x), || pack_one(gradient));
                let left = Blocks::new(left.get(), rows, input, [0, 1]).in_one();
                let sums = |n| row_sums(left, Blocks::new(right.get(), rows, output, [n, count]).in_one());
                let of_weight = |n: usize| needed[1 + n].then(|| sums(n));
                (0..count).into_par_iter().map(of_weight).collect()
            };
            let of_parameters = || {
                let of_weights = || if weights_needed { of_weights() } else { Vec::new() };
                rayon::join(of_weights, of_biases)
            };
            // In one pass, so that no thread waits for another between them.
            let (of_x, (of_weights, of_biases)) = rayon::join(|| needed[0].then(of_x), of_parameters);
            return in_order(of_x, of_weights, of_biases);
        }
        let panels = needed[0].then(|| Panels::below(&transposed));
        // One pass over the rows: the gradient of `x`, and both factors of the weights' gradients, blocked.
        let [left_cols, right_cols] = [input, output].map(blocked_cols);
        let cols = [cols_if(needed[0], input), cols_if(weights_needed, left_cols)];
        let cols = [cols[0], cols[1], cols_if(weights_needed, count * right_cols)];
        let ends = chunk_ends(rows, CHUNK_ROWS);
        let [of_x, left, right] = par_buffers(&ends, cols, [false, true, true], |first, out| {
            let [of_x, left, right] = out;
            let chunk = CHUNK_ROWS.min(rows - first);
            let (x, gradient) = (x.rows(first, chunk), gradient.rows(first, chunk));
            let mut filled: [&mut [f32]; 3] = Default::default();
            if let Some(panels) = &panels {
                filled[0] = product(Rows::Plain(gradient), panels, Plus::Nothing, Layout::Plain, of_x);
            }
            if weights_needed {
                filled[1] = pack_block(x, left);
                let each = (0..count).map(|n| gradient.cols(n * output, output));
                filled[2] = write_parts(right, chunk * right_cols, each, pack_block);
            }
            filled
        });
        let sums = |n| {
            let left = Blocks::new(left.get(), rows, input, [0, 1]);
            row_sums(left, Blocks::new(right.get(), rows, output, [n, count]))
        };
        let of_weights = || (0..count).into_par_iter().map(|n| needed[1 + n].then(|| sums(n))).collect();
        let (of_weights, of_biases) = rayon::join(of_weights, of_biases);
        in_order(needed[0].then(|| of_x.into_vec()), of_weights, of_biases)
    }

    /// The number of columns of something that may not be needed.
    pub fn cols_if(needed: bool, cols: usize) -> usize {
        if needed { cols } else { 0 }
    }

    /// Zeros stand in for absent biases.
    fn concat_biases(biases: &[Values], present: &[bool], output: usize) -> Vec<f32> {
        let bias = |(bias, present): (&Values, &bool)| if *present { bias.get().to_vec() } else { vec![0.0; output] };
        biases.iter().zip(present).flat_map(bias).collect()
    }
}
