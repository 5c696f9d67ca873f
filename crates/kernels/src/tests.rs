//! Compares every fused operation with the same formula in Burn's own operations: values and all gradients.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData, module};

use super::*;

mod contrastive;
mod independence;
mod loss_rows;
mod portable;
mod rms_norm;

/// Relative to the largest value of a tensor, for values and gradients: four units in the last place. At most 3.2e-7
/// was measured.
const TOLERANCE: f32 = 4.8e-7;

/// The same where a gradient is a sum over hundreds of rows, or a derivative of nearly equal terms is taken; at most
/// 1.3e-6 was measured.
pub(crate) const LONG_SUM_TOLERANCE: f32 = 2.5e-6;

/// Pseudo-random numbers of about -1.5..1.5, a different sequence per `seed`.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let fraction = |n: usize| (((n as u64 + 1) * (seed * 2 + 7919)) as f64 * 0.618_033_988_749).fract();
    (0..count).map(|n| (4.0 * fraction(n) - 2.0 + (n as f64 * 12.9898).sin()) as f32 * 0.5).collect()
}

pub(crate) fn constant<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers(seed, shape.iter().product()), shape), &Device::flex())
}

/// Whether this processor multiplies in bf16; says so if it does not.
#[expect(clippy::print_stderr, reason = "says what is not tested")]
pub(crate) fn has_bf16() -> bool {
    let has = bf16_instructions().is_some();
    if !has {
        eprintln!("skipped: this processor has neither AMX nor AVX512_BF16");
    }
    has
}

fn leaf<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
    constant(seed, shape).autodiff().require_grad()
}

pub(crate) fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.without_autodiff().into_data().try_into_vec().unwrap()
}

#[track_caller]
pub(crate) fn assert_close(what: &str, tolerance: f32, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * scale, "{what}[{index}]: {found}, expected {expected}");
    }
}

/// The inputs of an operation, `m` the matrices and `v` the vectors.
struct Inputs {
    m: Vec<Tensor<2>>,
    v: Vec<Option<Tensor<1>>>,
}

/// Compares outputs and gradients of `fused` and `plain`. `matrices` and `vectors` are the shapes of the inputs.
fn compare(
    what: &str,
    tolerance: f32,
    matrices: &[[usize; 2]],
    vectors: &[Option<usize>],
    fused: impl Fn(&Inputs) -> Tensor<2>,
    plain: impl Fn(&Inputs) -> Tensor<2>,
) {
    let inputs = |make: &dyn Fn(u64, [usize; 2]) -> Tensor<2>, vector: &dyn Fn(u64, [usize; 1]) -> Tensor<1>| {
        let matrices = matrices.iter().enumerate().map(|(n, shape)| make(n as u64, *shape)).collect();
        let vectors = vectors.iter().enumerate().map(|(n, len)| len.map(|len| vector(90 + n as u64, [len]))).collect();
        Inputs { m: matrices, v: vectors }
    };
    let untracked = inputs(&constant, &constant);
    assert_close(what, tolerance, &values(fused(&untracked)), &values(plain(&untracked)));

    let runs = [&fused as &dyn Fn(&Inputs) -> Tensor<2>, &plain].map(|run| {
        let inputs = inputs(&leaf, &leaf);
        let output = run(&inputs);
        let weights = constant(77, output.dims());
        let mut gradients = (output.clone() * weights).sum().backward();
        let of_matrices = inputs.m.iter().map(|x| values(x.grad_remove(&mut gradients).unwrap())).collect::<Vec<_>>();
        let vectors = inputs.v.iter().flatten();
        let of_vectors = vectors.map(|x| values(x.grad_remove(&mut gradients).unwrap())).collect::<Vec<_>>();
        (values(output), of_matrices, of_vectors)
    });
    let [(output, matrices, vectors), (expected, expected_matrices, expected_vectors)] = runs;
    assert_close(&format!("{what}, tracked"), tolerance, &output, &expected);
    for (n, (found, expected)) in matrices.iter().zip(&expected_matrices).enumerate() {
        assert_close(&format!("{what}, gradient of matrix {n}"), tolerance, found, expected);
    }
    for (n, (found, expected)) in vectors.iter().zip(&expected_vectors).enumerate() {
        assert_close(&format!("{what}, gradient of vector {n}"), tolerance, found, expected);
    }
}

#[test]
fn linear_matches_plain() {
    for (rows, input, output) in [(1, 3, 5), (128, 96, 70), (301, 200, 33), (1, 64, 128), (129, 128, 64), (512, 64, 64)]
    {
        for bias in [Some(output), None] {
            compare(
                &format!("linear {rows}x{input}x{output}"),
                TOLERANCE,
                &[[rows, input], [input, output]],
                &[bias],
                |Inputs { m, v }| linear(m[0].clone(), m[1].clone(), v[0].clone()),
                |Inputs { m, v }| module::linear(m[0].clone(), m[1].clone(), v[0].clone()),
            );
        }
    }
}

#[test]
fn linear3_matches_plain() {
    for biases in [[Some(24); 3], [Some(24), None, Some(24)], [None; 3]] {
        let three = |Inputs { m, v }: &Inputs| {
            linear3(m[0].clone(), [1, 2, 3].map(|n| m[n].clone()), [0, 1, 2].map(|n| v[n].clone()))
        };
        let plain = |Inputs { m, v }: &Inputs| {
            let each = (0..3).map(|n| module::linear(m[0].clone(), m[n + 1].clone(), v[n].clone()));
            Tensor::cat(each.collect(), 1)
        };
        compare("three linears", TOLERANCE, &[[150, 40], [40, 24], [40, 24], [40, 24]], &biases, three, plain);
        let biases = biases.map(|bias| bias.map(|_| 64));
        compare(
            "three by columns",
            LONG_SUM_TOLERANCE,
            &[[150, 64], [64, 64], [64, 64], [64, 64]],
            &biases,
            three,
            plain,
        );
    }
}

#[test]
fn mlp_and_activations_match_plain() {
    for activation in Activation::ALL {
        // Its derivative subtracts nearly equal numbers, here and in Burn.
        let tolerance = if activation == Activation::GeluTanh { LONG_SUM_TOLERANCE } else { TOLERANCE };
        for biased in [true, false] {
            for [rows, input, hidden, output] in [[150, 20, 48, 12], [150, 64, 128, 64]] {
                compare(
                    &format!("mlp {activation:?} {input}x{hidden}x{output}"),
                    tolerance,
                    &[[rows, input], [input, hidden], [hidden, output]],
                    &[biased.then_some(hidden), biased.then_some(output)],
                    |Inputs { m, v }| {
                        mlp(m[0].clone(), (m[1].clone(), v[0].clone()), activation, (m[2].clone(), v[1].clone()))
                    },
                    |Inputs { m, v }| {
                        let middle = activation.plain(module::linear(m[0].clone(), m[1].clone(), v[0].clone()));
                        module::linear(middle, m[2].clone(), v[1].clone())
                    },
                );
            }
        }
        compare(
            &format!("{activation:?}"),
            tolerance,
            &[[151, 63]],
            &[],
            |Inputs { m, .. }| activation.forward(m[0].clone() * 3.0),
            |Inputs { m, .. }| activation.plain(m[0].clone() * 3.0),
        );
    }
}

#[test]
fn layer_norm_matches_plain() {
    for (rows, width) in [(1, 7), (130, 48), (300, 65)] {
        for bias in [Some(width), None] {
            compare(
                &format!("layer norm {rows}x{width}"),
                LONG_SUM_TOLERANCE,
                &[[rows, width]],
                &[Some(width), bias],
                |Inputs { m, v }| layer_norm(m[0].clone(), v[0].clone().unwrap(), v[1].clone(), 1e-5),
                |Inputs { m, v }| module::layer_norm(m[0].clone(), v[0].clone().unwrap(), v[1].clone(), 1e-5),
            );
        }
    }
}

#[test]
fn residual_and_dropout_match_plain() {
    for mask in [None, Some(DropoutMask::new(5, 0.3))] {
        for scale in [None, Some(40)] {
            compare(
                "residual",
                TOLERANCE,
                &[[150, 40]; 2],
                &[scale],
                |Inputs { m, v }| residual(m[0].clone(), m[1].clone(), v[0].clone(), mask),
                |Inputs { m, v }| {
                    let branch = mask.map_or(m[1].clone(), |mask| mask.plain(m[1].clone()));
                    m[0].clone() + v[0].clone().map_or(branch.clone(), |scale| branch * scale.unsqueeze())
                },
            );
        }
    }
    let mask = DropoutMask::new(9, 0.2);
    compare(
        "dropout",
        0.0,
        &[[33, 21]],
        &[],
        |Inputs { m, .. }| mask.apply(m[0].clone()),
        |Inputs { m, .. }| mask.plain(m[0].clone()),
    );
}

#[test]
fn embedding_sums_gradients_of_repeats() {
    let indices = vec![3, 0, 3, 6, 2, 3];
    let plain_indices = Tensor::from_data([3, 0, 3, 6, 2, 3], &Device::flex());
    compare(
        "embedding",
        0.0,
        &[[7, 5]],
        &[],
        |Inputs { m, .. }| embedding(m[0].clone(), indices.clone()),
        |Inputs { m, .. }| m[0].clone().select(0, plain_indices.clone()),
    );
}

#[test]
fn attention_matches_formula() {
    for lengths in [vec![5, 5, 5], vec![1, 130, 7, 16, 33], vec![2; 90]] {
        for causal in [false, true] {
            for dropout in [None, Some(DropoutMask::new(11, 0.25))] {
                for dim in [8, 32] {
                    let heads = 3;
                    let sequences = Sequences { lengths: lengths.clone().into(), heads, causal, dropout };
                    let rows = lengths.iter().sum();
                    compare(
                        &format!(
                            "attention {lengths:?} of {dim} columns, causal {causal} dropout {}",
                            dropout.is_some()
                        ),
                        TOLERANCE,
                        &[[rows, 3 * heads * dim]],
                        &[],
                        |Inputs { m, .. }| attention(&m[0], &sequences).unwrap(),
                        |Inputs { m, .. }| attention_by_formula(m[0].clone(), &sequences, dim),
                    );
                }
            }
        }
    }
}

/// Softmax attention by its formula, sequence by sequence and head by head.
fn attention_by_formula(qkv: Tensor<2>, sequences: &Sequences, dim: usize) -> Tensor<2> {
    let (heads, longest) = (sequences.heads, *sequences.lengths.iter().max().unwrap());
    let width = heads * dim;
    let factors = sequences.dropout.map(|mask| mask.factors(sequences.lengths.len() * heads * longest * longest));
    let mut start = 0;
    let each = sequences.lengths.iter().enumerate().map(|(n, &rows)| {
        let x = qkv.clone().narrow(0, start, rows);
        start += rows;
        let of_head = |head: usize| {
            let part = |part: usize| x.clone().narrow(1, part * width + head * dim, dim);
            let scores = part(0).matmul(part(1).transpose()) / (dim as f32).sqrt();
            let hidden = (0..rows * rows).map(|i| sequences.causal && i % rows > i / rows).collect::<Vec<_>>();
            let hidden = Tensor::from_data(TensorData::new(hidden, [rows, rows]), &Device::flex());
            let p = softmax(scores.mask_fill(hidden, f32::MIN), 1);
            let p = match &factors {
                None => p,
                Some(factors) => {
                    let place = |i: usize| (((n * heads) + head) * longest + i / rows) * longest + i % rows;
                    let factors: Vec<f32> = (0..rows * rows).map(|i| factors[place(i)]).collect();
                    p * Tensor::from_data(TensorData::new(factors, [rows, rows]), &Device::flex())
                }
            };
            p.matmul(part(2))
        };
        Tensor::cat((0..heads).map(of_head).collect(), 1)
    });
    Tensor::cat(each.collect(), 0)
}

#[test]
fn constant_weight_keeps_input_gradient() {
    let (x, weight) = (leaf(1, [140, 12]), constant(2, [12, 6]));
    let mut gradients = linear(x.clone(), weight.clone(), None).sum().backward();
    let expected = leaf(1, [140, 12]);
    let mut expected_gradients = module::linear(expected.clone(), weight, None).sum().backward();
    assert_close(
        "input",
        TOLERANCE,
        &values(x.grad_remove(&mut gradients).unwrap()),
        &values(expected.grad_remove(&mut expected_gradients).unwrap()),
    );
}

#[test]
fn activations_are_finite_at_extremes() {
    // Beyond 1e19 the square in the derivative of the tanh approximation overflows, as in PyTorch.
    let extremes = [-1e18, -1e9, -1e4, -100.0, -90.0, -88.0, -50.0, 50.0, 88.0, 90.0, 1e4, 1e9];
    for activation in Activation::ALL {
        let x = Tensor::<1>::from_data(extremes, &Device::flex()).autodiff().require_grad();
        let y = activation.forward(x.clone());
        let slopes = values(x.grad_remove(&mut y.clone().sum().backward()).unwrap());
        let far = Tensor::from_data([f32::MIN, -1e30], &Device::flex());
        assert!(values(activation.forward::<1>(far)).iter().all(|&y| y == 0.0), "{activation:?}");
        for ((x, y), slope) in extremes.into_iter().zip(values(y)).zip(slopes) {
            let (limit, limit_slope) = if x > 0.0 { (x, 1.0) } else { (0.0, 0.0) };
            assert!((y - limit).abs() <= 1e-15 * limit.abs().max(1.0), "{activation:?}({x}) = {y}");
            assert!((slope - limit_slope).abs() <= 1e-15, "{activation:?}'({x}) = {slope}");
        }
    }
}

fn packed(lengths: &[usize], heads: usize) -> Sequences {
    Sequences { lengths: lengths.into(), heads, causal: false, dropout: None }
}

#[test]
fn attention_without_rows_is_empty() {
    assert_eq!(attention(&constant(1, [0, 12]), &packed(&[], 2)).unwrap().dims(), [0, 4]);
    assert!(attention(&constant(1, [5, 12]), &packed(&[2, 2], 2)).is_none());
}

#[test]
#[should_panic = "0 heads do not divide a width of 4"]
fn attention_without_heads_panics() {
    attention(&constant(1, [5, 12]), &packed(&[5], 0));
}

#[test]
#[should_panic = "3 heads do not divide a width of 4"]
fn attention_with_uneven_heads_panics() {
    attention(&constant(1, [5, 12]), &packed(&[5], 3));
}

#[test]
#[should_panic = "a sequence is empty"]
fn attention_with_empty_sequence_panics() {
    attention(&constant(1, [5, 12]), &packed(&[2, 0, 3], 2));
}

#[test]
#[should_panic = "13 columns are not query, key and value"]
fn attention_with_uneven_columns_panics() {
    attention(&constant(1, [5, 13]), &packed(&[5], 2));
}

#[test]
#[should_panic = "shape of the text embeddings of a batch"]
fn loss_of_unequal_batches_panics() {
    let loss = PairLoss::Sigmoid { positives: [].into(), masked: [].into() };
    let (image, text, scale) = (constant(1, [4, 6]), constant(2, [6, 4]), constant(3, [1]));
    let logits = Logits { image_embeds: &image, text_embeds: &text, logit_scale: &scale, logit_bias: None };
    pair_loss(logits, &loss);
}

/// A layer norm of no rows still has gradients of the shapes of its parameters.
#[test]
fn layer_norm_of_no_rows_has_zero_gradients() {
    let (x, weight, bias) = (leaf(1, [0, 6]), leaf(2, [6]), leaf(3, [6]));
    let mut gradients = layer_norm(x, weight.clone(), Some(bias.clone()), 1e-5).sum().backward();
    assert_eq!(values(weight.grad_remove(&mut gradients).unwrap()), [0.0; 6]);
    assert_eq!(values(bias.grad_remove(&mut gradients).unwrap()), [0.0; 6]);
}

/// A bias is the only input that trains.
#[test]
fn loss_reaches_bias_alone() {
    let loss = PairLoss::Sigmoid { positives: [].into(), masked: [].into() };
    let (image, text, scale) = (constant(1, [4, 6]), constant(2, [4, 6]), constant(3, [1]));
    for fused in [true, false] {
        let bias = leaf(4, [1]);
        let logits = Logits { image_embeds: &image, text_embeds: &text, logit_scale: &scale, logit_bias: Some(&bias) };
        let loss = if fused { pair_loss(logits, &loss) } else { tiled_pair_loss(logits, &loss, None, usize::MAX) };
        let gradient = values(bias.grad_remove(&mut loss.backward()).unwrap());
        assert!(gradient[0].abs() > 1e-3, "fused: {fused}");
    }
}

#[test]
fn gates_match_plain() {
    compare(
        "gate",
        TOLERANCE,
        &[[151, 163]; 2],
        &[],
        |Inputs { m, .. }| gated(m[0].clone() * 6.0, m[1].clone()),
        |Inputs { m, .. }| (m[0].clone() * 6.0).clamp(0.0, 6.0) * m[1].clone(),
    );
    compare(
        "plain gate",
        TOLERANCE,
        &[[151, 163]; 2],
        &[],
        |Inputs { m, .. }| ops::gate::plain(m[0].clone() * 6.0, m[1].clone()),
        |Inputs { m, .. }| (m[0].clone() * 6.0).clamp(0.0, 6.0) * m[1].clone(),
    );
    // A gate alone that trains, and what it lets through alone.
    let (gate, up) = (leaf(1, [9, 40]), constant(2, [9, 40]));
    assert!(gate.grad(&gated(gate.clone(), up.clone()).sum().backward()).is_some());
    let up = up.autodiff().require_grad();
    assert!(up.grad(&gated(constant(1, [9, 40]), up.clone()).sum().backward()).is_some());
}

#[test]
fn gates_are_limited_in_half_precision() {
    let half = |values: [f32; 4]| {
        Tensor::<1>::from_data(values, &Device::flex()).cast(burn::tensor::FloatDType::F16).autodiff().require_grad()
    };
    let (gate, up) = (half([60000.0, 3.0, 2.0, -1.0]), half([60000.0, -5000.0, 10.0, 5.0]));
    let y = gated(gate.clone(), up.clone());
    let wide = |x: Tensor<1>| values(x.cast(burn::tensor::FloatDType::F32));
    assert_eq!(wide(y.clone()), [6000.0, -3000.0, 20.0, 0.0]);
    let mut gradients = y.sum().backward();
    assert_eq!(wide(gate.grad_remove(&mut gradients).unwrap()), [0.0, -1000.0, 10.0, 0.0]);
    assert_eq!(wide(up.grad_remove(&mut gradients).unwrap()), [0.0, 0.0, 2.0, 0.0]);
}
