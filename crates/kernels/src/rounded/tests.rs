//! Linear layers and MLPs with products in bf16, by every set of instructions that this processor has and in plain
//! Rust: against those in f32, of rounded inputs and of others. Some tests are for products in f32 as well.

use burn::tensor::{Device, Tensor, TensorData};

use crate::cpu::bf16::packing::round;
use crate::cpu::bf16::unit::Unit;
use crate::ops::activation::Activation;
use crate::ops::linear::{linear, linear3};
use crate::ops::mlp::mlp;
use crate::rounded::scope::{unit, with_bf16_products, with_products_by};
use crate::tests::{LONG_SUM_TOLERANCE, assert_close, numbers, values};

/// An operation of some matrices and vectors.
type Operation = fn(&[Tensor<2>], &[Tensor<1>]) -> Tensor<2>;

/// Numbers that bf16 has, where the inputs are `exact`.
fn inputs(shapes: &[Vec<usize>], exact: bool) -> Vec<Vec<f32>> {
    let number = |x: f32| if exact { f32::from_bits(u32::from(round(x)) << 16) } else { x };
    let input = |(seed, shape): (u64, &Vec<usize>)| numbers(seed, shape.iter().product()).into_iter().map(number);
    (1..).zip(shapes).map(|found| input(found).collect()).collect()
}

/// The output of an operation, and the gradients of the inputs that are `tracked`, of the sum of the output times the
/// last of the inputs.
fn run(operation: Operation, shapes: &[Vec<usize>], inputs: &[Vec<f32>], tracked: &[bool]) -> Vec<Vec<f32>> {
    fn tensor<const D: usize>(shape: &[usize], values: &[f32], is_tracked: bool) -> Tensor<D> {
        let data = TensorData::new(values.to_vec(), shape.to_vec());
        let tensor = Tensor::<D>::from_data(data, &Device::flex());
        if is_tracked { tensor.autodiff().require_grad() } else { tensor }
    }
    let count = inputs.len() - 1;
    let of = |n: usize| (&shapes[n][..], &inputs[n][..], tracked[n]);
    let (mut matrices, mut vectors) = (Vec::new(), Vec::new());
    for (shape, values, is_tracked) in (0..count).map(of) {
        match shape.len() {
            2 => matrices.push(tensor::<2>(shape, values, is_tracked)),
            _ => vectors.push(tensor::<1>(shape, values, is_tracked)),
        }
    }
    let output = operation(&matrices, &vectors);
    let mut found = vec![values(output.clone())];
    if !tracked.contains(&true) {
        return found;
    }
    let mut gradients = (output * tensor::<2>(&shapes[count], &inputs[count], false)).sum().backward();
    found.extend(matrices.iter().filter_map(|x| x.grad_remove(&mut gradients)).map(values));
    found.extend(vectors.iter().filter_map(|x| x.grad_remove(&mut gradients)).map(values));
    found
}

fn one(m: &[Tensor<2>], v: &[Tensor<1>]) -> Tensor<2> {
    linear(m[0].clone(), m[1].clone(), v.first().cloned())
}

fn three(m: &[Tensor<2>], v: &[Tensor<1>]) -> Tensor<2> {
    let weights = [1, 2, 3].map(|n| m[n].clone());
    linear3(m[0].clone(), weights, [Some(v[0].clone()), None, Some(v[1].clone())])
}

fn two_layers(m: &[Tensor<2>], v: &[Tensor<1>]) -> Tensor<2> {
    mlp(m[0].clone(), (m[1].clone(), v.first().cloned()), Activation::Gelu, (m[2].clone(), v.get(1).cloned()))
}

/// The same as two operations with one between.
fn layer_by_layer(m: &[Tensor<2>], v: &[Tensor<1>]) -> Tensor<2> {
    let hidden = Activation::Gelu.forward(linear(m[0].clone(), m[1].clone(), v.first().cloned()));
    linear(hidden, m[2].clone(), v.get(1).cloned())
}

/// Matrices, vectors, and the gradient of the output.
fn shapes(matrices: &[[usize; 2]], vectors: &[usize], output: [usize; 2]) -> Vec<Vec<usize>> {
    let matrices = matrices.iter().map(|shape| shape.to_vec());
    matrices.chain(vectors.iter().map(|len| vec![*len])).chain([output.to_vec()]).collect()
}

fn linear_shapes(rows: usize, input: usize, output: usize) -> [(&'static str, Operation, Vec<Vec<usize>>); 3] {
    let (x, weight) = ([rows, input], [input, output]);
    [
        ("linear", one, shapes(&[x, weight], &[output], [rows, output])),
        ("linear without bias", one, shapes(&[x, weight], &[], [rows, output])),
        ("linear3", three, shapes(&[x, weight, weight, weight], &[output, output], [rows, 3 * output])),
    ]
}

fn mlp_shapes(rows: usize, input: usize, hidden: usize, output: usize) -> Vec<Vec<usize>> {
    shapes(&[[rows, input], [input, hidden], [hidden, output]], &[hidden, output], [rows, output])
}

/// Of inputs and gradients that bf16 has, nothing is rounded.
#[test]
fn linear_layers_of_rounded_inputs_are_those_in_f32() {
    for unit in Unit::all_tested() {
        for (rows, input, output) in [(1, 1, 1), (2, 40, 33), (129, 64, 32), (700, 50, 70)] {
            for (name, operation, shapes) in linear_shapes(rows, input, output) {
                let (inputs, tracked) = (inputs(&shapes, true), vec![true; shapes.len()]);
                let found = with_products_by(unit, || run(operation, &shapes, &inputs, &tracked));
                let expected = run(operation, &shapes, &inputs, &tracked);
                assert_eq!(found.len(), shapes.len(), "the output and a gradient of each input");
                for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let what = format!("{}, {name}, {rows} x {input} x {output}: {n}", unit.name());
                    assert_close(&what, LONG_SUM_TOLERANCE, found, expected);
                }
            }
        }
    }
}

/// Factors are rounded where two layers with an activation between round theirs, and nothing else is.
#[test]
fn mlp_is_two_layers_with_an_activation_between() {
    for unit in Unit::all_tested() {
        for [rows, input, hidden, output] in [[1, 1, 1, 1], [3, 40, 33, 5], [130, 33, 100, 64], [600, 64, 96, 31]] {
            let shapes = mlp_shapes(rows, input, hidden, output);
            let (inputs, tracked) = (inputs(&shapes, false), vec![true; shapes.len()]);
            let both = [two_layers as Operation, layer_by_layer];
            let [found, expected] =
                both.map(|operation| with_products_by(unit, || run(operation, &shapes, &inputs, &tracked)));
            assert_eq!(found.len(), shapes.len(), "the output and a gradient of each input");
            for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let what = format!("{}, {rows} x {input} x {hidden} x {output}: {n}", unit.name());
                // The sums over rows of the gradients of hidden values are cut elsewhere.
                assert_close(&what, if n == 4 { LONG_SUM_TOLERANCE } else { 0.0 }, found, expected);
            }
            let untracked = with_products_by(unit, || run(two_layers, &shapes, &inputs, &vec![false; shapes.len()]));
            assert!(untracked[0] == found[0], "{}", unit.name());
        }
    }
}

/// The root of the mean square of the difference, relative to that of the values.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let size = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
    size(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / size(&mut expected.iter().copied())
}

/// bf16 rounds by up to 2^-9 of a value.
#[test]
fn gradients_are_close_to_those_in_f32() {
    let mut operations = linear_shapes(300, 70, 40).to_vec();
    operations.push(("mlp", two_layers, mlp_shapes(300, 70, 200, 40)));
    for unit in Unit::all_tested() {
        for (name, operation, shapes) in &operations {
            let (inputs, tracked) = (inputs(shapes, false), vec![true; shapes.len()]);
            let found = with_products_by(unit, || run(*operation, shapes, &inputs, &tracked));
            let expected = run(*operation, shapes, &inputs, &tracked);
            let matrices = 1 + shapes.iter().filter(|shape| shape.len() == 2).count() - 1;
            for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let difference = difference(found, expected);
                let what = format!("{}, {name}, {n}: {difference}", unit.name());
                assert!(difference < 1e-2, "{what}");
                // Sums of unrounded gradients are those in f32, but for the hidden values of an MLP.
                assert!(n >= matrices || difference > 1e-4, "{what}");
            }
        }
    }
}

/// Computes with products by a unit, or in f32.
fn by<T>(unit: Option<Unit>, compute: impl FnOnce() -> T) -> T {
    match unit {
        Some(unit) => with_products_by(unit, compute),
        None => compute(),
    }
}

/// A gradient is the same whichever others are needed.
#[test]
fn only_needed_gradients_are_computed() {
    let rounded = Some(Unit::Portable);
    let mlps = [
        (rounded, "mlp", two_layers as Operation, mlp_shapes(150, 33, 40, 20)),
        (None, "mlp", two_layers, mlp_shapes(150, 33, 40, 20)),
        (None, "mlp by columns", two_layers, mlp_shapes(150, 64, 128, 64)),
    ];
    let layers = [(rounded, 33, 40), (None, 33, 40), (None, 64, 64)].map(|(unit, input, output)| {
        let (name, operation, shapes) = linear_shapes(150, input, output)[2].clone();
        (unit, name, operation, shapes)
    });
    for (unit, name, operation, shapes) in mlps.into_iter().chain(layers) {
        let (inputs, count) = (inputs(&shapes, false), shapes.len() - 1);
        let with = |tracked: &[bool]| by(unit, || run(operation, &shapes, &inputs, tracked));
        let all = with(&vec![true; count + 1]);
        for set in 1..1 << count {
            let tracked: Vec<bool> = (0..=count).map(|n| n < count && set >> n & 1 == 1).collect();
            let expected: Vec<&Vec<f32>> =
                all.iter().enumerate().filter(|(n, _)| *n == 0 || tracked[n - 1]).map(|(_, values)| values).collect();
            assert!(with(&tracked).iter().collect::<Vec<_>>() == expected, "{name}, {tracked:?}");
        }
    }
}

/// The rows beside a row change no bit of its output and gradient, and threads change no bit of anything.
#[test]
fn rows_and_threads_are_independent() {
    // In f32, the parts of the second width are computed by columns, the whole is not.
    for (unit, width) in Unit::all_tested().into_iter().map(|unit| (Some(unit), 50)).chain([(None, 50), (None, 64)]) {
        let (rows, name_of_unit) = (700, unit.map_or("f32", |unit| unit.name()));
        let (hidden, output) = if width == 64 { (192, 128) } else { (70, 40) };
        for (name, operation, shapes) in [
            ("mlp", two_layers as Operation, mlp_shapes(rows, width, hidden, output)),
            linear_shapes(rows, width, output)[2].clone(),
        ] {
            let (inputs, tracked) = (inputs(&shapes, false), vec![true; shapes.len()]);
            let whole = by(unit, || run(operation, &shapes, &inputs, &tracked));
            for threads in [1, 2, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let found = pool.install(|| by(unit, || run(operation, &shapes, &inputs, &tracked)));
                assert!(found == whole, "{name_of_unit}, {name}, {threads} threads");
            }
            for (first, count) in [(0, 1), (17, 1), (699, 1), (128, 40), (5, 300), (0, 512)] {
                let (mut shapes, mut inputs) = (shapes.clone(), inputs.clone());
                for n in [0, shapes.len() - 1] {
                    let cols = shapes[n][1];
                    shapes[n][0] = count;
                    inputs[n] = inputs[n][first * cols..][..count * cols].to_vec();
                }
                let part = by(unit, || run(operation, &shapes, &inputs, &tracked));
                for (n, shape) in [(0, shapes.last().unwrap()), (1, &shapes[0])] {
                    let expected = &whole[n][first * shape[1]..][..count * shape[1]];
                    assert!(part[n] == *expected, "{name_of_unit}, {name}, {n}, {count} from {first}");
                }
            }
        }
    }
}

#[test]
fn only_the_scope_rounds() {
    let shapes = &linear_shapes(3, 40, 5)[0].2;
    let (inputs, tracked) = (inputs(shapes, false), vec![true; shapes.len()]);
    let run = || run(one, shapes, &inputs, &tracked);
    let (before, inside) = (run(), with_products_by(Unit::Portable, run));
    assert!(before != inside);
    let panic = std::panic::catch_unwind(|| with_products_by(Unit::Portable, || panic!("expected")));
    assert!(panic.is_err() && unit().is_none() && run() == before);
    // Plain forms, which other devices take, have no products of ours.
    let plain = crate::with_plain_forms(run);
    assert!(with_products_by(Unit::Portable, || crate::with_plain_forms(run)) == plain);
    // The backward pass may run elsewhere: outside of the scope it rounds as inside.
    let weight = Tensor::<2>::from_data(TensorData::new(inputs[1].clone(), [40, 5]), &Device::flex());
    let weight = weight.autodiff().require_grad();
    let x = Tensor::<2>::from_data(TensorData::new(inputs[0].clone(), [3, 40]), &Device::flex());
    let output = with_products_by(Unit::Portable, || linear(x, weight.clone(), None));
    let gradient = Tensor::<2>::from_data(TensorData::new(inputs[3].clone(), [3, 5]), &Device::flex());
    let mut gradients = (output * gradient).sum().backward();
    assert!(values(weight.grad_remove(&mut gradients).unwrap()) == inside[2]);
}

#[test]
#[expect(clippy::print_stderr, reason = "says what is not tested")]
fn scope_takes_the_instructions_of_the_processor() {
    match Unit::fastest() {
        Some(fastest) => assert_eq!(with_bf16_products(unit).map(Unit::name), Some(fastest.name())),
        None => eprintln!("skipped: this processor has neither AMX nor AVX512_BF16"),
    }
}

/// Without rows there is nothing to round.
#[test]
fn empty_layers_are_those_in_f32() {
    for (rows, input, output) in [(0, 2, 3)] {
        for (name, operation, shapes) in linear_shapes(rows, input, output) {
            let (inputs, tracked) = (inputs(&shapes, false), vec![false; shapes.len()]);
            let found = with_products_by(Unit::Portable, || run(operation, &shapes, &inputs, &tracked));
            assert_eq!(found, run(operation, &shapes, &inputs, &tracked), "{name}, {rows} x {input} x {output}");
        }
    }
    let shapes = mlp_shapes(0, 2, 3, 4);
    let (inputs, tracked) = (inputs(&shapes, false), vec![false; shapes.len()]);
    assert!(with_products_by(Unit::Portable, || run(two_layers, &shapes, &inputs, &tracked))[0].is_empty());
}
