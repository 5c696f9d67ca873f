//! Linear layers with products in bf16.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
use crate::cpu::bf16::row_sums::panels::{Side, panels};
use crate::cpu::bf16::row_sums::sums::{Factor, row_sums};
use crate::cpu::bf16::unit::Unit;
use crate::cpu::bf16::weights::{Weight, affine};
use crate::cpu::column_sums::column_sums;
use crate::cpu::gemm::Matrix;

#[derive(Debug, Clone)]
struct Saved {
    unit: Unit,
    /// `[rows, input]`.
    x: Values,
    /// `[input, output]` each.
    weights: Vec<Values>,
    input: usize,
    output: usize,
}

/// Layers of one shape side by side, `[rows, output of all]`. Inputs: `x`, then all weights, then all biases, of which
/// `with_bias` says which are there. No size is 0.
pub(crate) fn linear<const I: usize>(
    unit: Unit,
    inputs: [Input; I],
    with_bias: &[bool],
    [rows, input, output]: [usize; 3],
) -> Tensor<2> {
    let count = with_bias.len();
    let forward = |values: &[Values; I], _| {
        let (weights, biases) = values[1..].split_at(count);
        let packed: Vec<Weight> = weights
            .iter()
            .zip(biases.iter().zip(with_bias))
            .map(|(weight, (bias, is_there))| {
                Weight::packed(Matrix::new(weight.get(), output), is_there.then(|| bias.get()))
            })
            .collect();
        let out = affine(unit, Matrix::new(values[0].get(), input), &packed.iter().collect::<Vec<_>>());
        let saved = Saved { unit, x: values[0].clone(), weights: weights.to_vec(), input, output };
        (flex_tensor(out, [rows, count * output]), saved)
    };
    custom_op(inputs, forward, |saved, gradient, needed| backward(&saved, &gradient, needed))
}

fn backward<const I: usize>(saved: &Saved, gradient: &Values, needed: [bool; I]) -> [Option<FlexTensor>; I] {
    let Saved { unit, x, weights, input, output } = saved;
    let (unit, input, output, count) = (*unit, *input, *output, weights.len());
    let (x, gradient) = (Matrix::new(x.get(), input), Matrix::new(gradient.get(), count * output));
    let of_part = |part: usize| gradient.cols(part * output, output);
    let weights_needed = needed[1..=count].contains(&true);
    let [left, right] = match weights_needed {
        true => [panels(&[x], Side::Left), panels(&(0..count).map(of_part).collect::<Vec<_>>(), Side::Right)],
        false => Default::default(),
    };
    std::array::from_fn(|position| match position {
        _ if !needed[position] => None,
        0 => {
            let weights: Vec<Matrix<'_>> = weights.iter().map(|weight| Matrix::new(weight.get(), output)).collect();
            let of_x = affine(unit, gradient, &[&Weight::transposed(&weights)]);
            Some(flex_tensor(of_x, [x.num_rows(), input]))
        }
        _ if position <= count => {
            let values = row_sums(unit, Factor::new(&left, input, 0), Factor::new(&right, output, position - 1));
            Some(flex_tensor(values, [input, output]))
        }
        _ => Some(flex_tensor(column_sums(of_part(position - 1 - count)), [output])),
    })
}
