//! Every set of instructions that this processor has, and their arithmetic in plain Rust, against sums in f64.

use crate::cpu::bf16::attention::{Softmax, attend};
use crate::cpu::bf16::layer::{Layer, affine, mlp};
use crate::cpu::bf16::packing::round;
use crate::cpu::bf16::unit::Unit;
use crate::cpu::gemm::Matrix;
use crate::cpu::uninit::par_rows;

/// Numbers between -1 and 1, of which most are not numbers of bf16.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let fraction = |n: usize| (((n as u64 + 1) * (seed * 2 + 7919)) as f64 * 0.618_033_988_749).fract();
    (0..count).map(|n| (2.0 * fraction(n) - 1.0) as f32).collect()
}

pub(crate) fn rounded(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(f32::from_bits(u32::from(round(value)) << 16))).collect()
}

/// `x W + b` with factors in bf16, and the sum of the sizes of its terms, which rounding errors are relative to.
fn expected(x: &[f32], weight: &[f32], bias: Option<&[f32]>, [input, output]: [usize; 2]) -> Vec<[f64; 2]> {
    let (x, weight) = (rounded(x), rounded(weight));
    let value = |row: &[f64], column: usize| {
        let bias = bias.map_or(0.0, |bias| f64::from(bias[column]));
        let terms = (0..input).map(|at| row[at] * weight[at * output + column]).chain([bias]);
        terms.fold([0.0, 0.0], |[sum, size], term| [sum + term, size + term.abs()])
    };
    x.chunks_exact(input).flat_map(|row| (0..output).map(move |column| value(row, column))).collect()
}

/// Few units in the last place of `f32`, of sums of up to a thousand terms that partly cancel.
const TOLERANCE: f64 = 1e-6;

pub(crate) fn assert_close(what: &str, found: &[f32], expected: &[[f64; 2]]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, [expected, size])) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= TOLERANCE * size, "{what}[{at}]: {found}, expected {expected}");
    }
}

fn run(rows: usize, layers: &[&Layer], x: &[f32]) -> Vec<f32> {
    let (input, stride) = (layers[0].input, layers.iter().map(|layer| layer.output).sum::<usize>());
    par_rows(rows, stride, |first, out| affine(layers, Matrix::new(x, input).rows(first, out.len() / stride), out))
}

/// Shapes with and without rest in each dimension: tiles are 16 rows and 32 inner values, blocks 32 rows and columns.
#[test]
fn layers_match_sums_in_f64() {
    let sizes = [1, 15, 16, 17, 31, 32, 33, 64, 100];
    for unit in Unit::all_tested() {
        for rows in [1, 2, 16, 17, 31, 32, 33, 128, 129, 300] {
            for (n, input) in sizes.into_iter().enumerate() {
                let output = sizes[(n * 4 + rows) % sizes.len()];
                let (x, weight) = (numbers(1, rows * input), numbers(2, input * output));
                let bias = (input % 2 == 0).then(|| numbers(3, output));
                let layer = Layer::new(unit, &weight, bias.as_deref(), [input, output]);
                let what = format!("{}, {rows} x {input} x {output}", unit.name());
                let expected = expected(&x, &weight, bias.as_deref(), [input, output]);
                assert_close(&what, &run(rows, &[&layer], &x), &expected);
            }
        }
        let (rows, input, output) = (40, 1000, 70);
        let (x, weight) = (numbers(1, rows * input), numbers(2, input * output));
        let layer = Layer::new(unit, &weight, None, [input, output]);
        let expected = expected(&x, &weight, None, [input, output]);
        assert_close(unit.name(), &run(rows, &[&layer], &x), &expected);
    }
}

#[test]
fn layers_stand_side_by_side() {
    let (rows, input) = (37, 40);
    let x = numbers(1, rows * input);
    for unit in Unit::all_tested() {
        for outputs in [[32, 32, 32], [33, 5, 48], [1, 2, 3]] {
            let weights: Vec<_> = (5..).zip(outputs).map(|(seed, output)| numbers(seed, input * output)).collect();
            let layers: Vec<Layer> = weights
                .iter()
                .zip(outputs)
                .map(|(weight, output)| Layer::new(unit, weight, None, [input, output]))
                .collect();
            let found = run(rows, &layers.iter().collect::<Vec<_>>(), &x);
            let alone: Vec<Vec<f32>> = layers.iter().map(|layer| run(rows, &[layer], &x)).collect();
            let row = |row: usize| alone.iter().zip(outputs).flat_map(move |(all, n)| &all[row * n..][..n]);
            let expected: Vec<f32> = (0..rows).flat_map(row).copied().collect();
            assert_eq!(found, expected, "{}, {outputs:?}", unit.name());
        }
    }
}

fn square(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x *= *x);
}

#[test]
fn mlp_is_two_layers_with_an_activation_between() {
    for unit in Unit::all_tested() {
        for (rows, input, hidden, output) in [(1, 3, 5, 7), (33, 40, 70, 20), (129, 64, 256, 64), (40, 32, 1000, 33)] {
            let x = numbers(1, rows * input);
            let (bias, down_bias) = (numbers(4, hidden), numbers(5, output));
            let up = Layer::new(unit, &numbers(2, input * hidden), Some(&bias), [input, hidden]);
            let down = Layer::new(unit, &numbers(3, hidden * output), Some(&down_bias), [hidden, output]);
            let found = par_rows(rows, output, |first, out| {
                mlp(&up, square, &down, Matrix::new(&x, input).rows(first, out.len() / output), out)
            });
            let inner: Vec<f32> = run(rows, &[&up], &x).into_iter().map(|x| x * x).collect();
            assert_eq!(found, run(rows, &[&down], &inner), "{}, {rows} x {input} x {hidden}", unit.name());
        }
    }
}

/// No bit of a row depends on the rows beside it or on its place among them.
#[test]
fn rows_are_independent() {
    let (rows, input, output) = (300, 100, 70);
    let x = numbers(1, rows * input);
    for unit in Unit::all_tested() {
        let layer = Layer::new(unit, &numbers(2, input * output), Some(&numbers(3, output)), [input, output]);
        let whole = run(rows, &[&layer], &x);
        for (first, count) in [(0, 1), (17, 1), (299, 1), (128, 40), (5, 129)] {
            let part = run(count, &[&layer], &x[first * input..][..count * input]);
            assert_eq!(part, whole[first * output..][..count * output], "{}, {count} from {first}", unit.name());
        }
        // What is not finite stays in its row: memory of earlier tasks is used again.
        let mut bad = x[..64 * input].to_vec();
        bad[3 * input..4 * input].fill(f32::NAN);
        bad[40 * input] = f32::INFINITY;
        let found = run(64, &[&layer], &bad);
        for (row, (found, expected)) in found.chunks(output).zip(whole.chunks(output)).enumerate() {
            match row {
                3 => assert!(found.iter().all(|value| value.is_nan()), "{}", unit.name()),
                40 => assert!(found.iter().all(|value| !value.is_finite()), "{}", unit.name()),
                _ => assert_eq!(found, expected, "{}, row {row}", unit.name()),
            }
        }
        assert_eq!(run(1, &[&layer], &x[..input]), whole[..output]);
    }
}

/// A head over `x`, `[rows, 3 * dim]`.
fn head(unit: Unit, x: &[f32], dim: usize) -> Vec<f32> {
    let rows = x.len() / (3 * dim);
    let factors = [0, 1, 2].map(|n| Matrix::new(x, 3 * dim).cols(n * dim, dim));
    let mut out = vec![0.0; rows * dim];
    let softmax = Softmax { scale: 0.1, causal: false };
    attend(&unit.on_this_thread(), factors, softmax, (&mut out, dim));
    out
}

/// Memory of earlier tasks is used again: what is not finite there must not reach a later sequence.
#[test]
fn attention_ignores_earlier_sequences() {
    let dim = 40;
    let x = numbers(1, 33 * 3 * dim);
    for unit in Unit::all_tested() {
        let expected = std::thread::scope(|scope| scope.spawn(|| head(unit, &x, dim)).join().unwrap());
        assert!(expected.iter().all(|value| value.is_finite()));
        assert!(head(unit, &[f32::NAN; 129 * 3 * 40], dim).iter().all(|value| value.is_nan()), "{}", unit.name());
        assert_eq!(head(unit, &x, dim), expected, "{}", unit.name());
    }
}

#[test]
fn no_rows_are_no_work() {
    for unit in Unit::all_tested() {
        let layer = Layer::new(unit, &[1.0; 6], None, [2, 3]);
        assert!(run(0, &[&layer], &[]).is_empty());
    }
}

#[test]
#[should_panic = "columns of the input of linear layers"]
fn layers_of_other_inputs_panic() {
    let layer = |input: usize| Layer::new(Unit::Portable, &vec![1.0; input * 3], None, [input, 3]);
    run(1, &[&layer(2), &layer(4)], &[1.0; 2]);
}
