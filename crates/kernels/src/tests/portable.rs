//! The plain forms that differ from Burn's own operations: against these, and against the kernels.

use burn::tensor::{Bool, Int};

use super::*;
use crate::ops::{embedding, layer_norm};
use crate::portable::row_products::{column_sums, transposed_product};
use crate::portable::row_sums::sum_rows_by_index;

/// The value and the gradient of `run`, weighted so that each element of the output counts differently.
fn with_slopes(x: &Tensor<2>, run: impl Fn(Tensor<2>) -> Tensor<2>) -> [Vec<f32>; 2] {
    let leaf = x.clone().autodiff().require_grad();
    let output = run(leaf.clone());
    let weights = constant(77, output.dims());
    let mut gradients = (output.clone() * weights).sum().backward();
    [values(output), values(leaf.grad_remove(&mut gradients).unwrap())]
}

#[test]
fn gather_matches_select() {
    let x = constant(1, [9, 5]);
    let sources = [Some(4), None, Some(0), Some(8), None, Some(3)];
    let gather = RowGather::new(&sources, 9, &Device::flex());
    let rows = Tensor::<1, Int>::from_data([4, 9, 0, 8, 9, 3], &Device::flex());
    let zeros = Tensor::<2>::zeros([1, 5], &Device::flex());
    let expected = with_slopes(&x, |x| Tensor::cat(vec![x, zeros.clone()], 0).select(0, rows.clone()));
    assert_eq!(with_slopes(&x, |x| gather.apply(x)), expected);
    assert_eq!(values(gather.apply(x.clone())), expected[0]);
    // There and back, rows that were read are as before, the others 0.
    let back = with_slopes(&x, |x| gather.inverse().apply(gather.apply(x)));
    for (row, values) in back[0].chunks(5).enumerate() {
        let expected = if sources.contains(&Some(row)) { &numbers(1, 45)[row * 5..][..5] } else { &[0.0; 5] };
        assert_eq!(values, expected, "{row}");
    }
}

#[test]
fn unfilled_rows_have_no_gradient() {
    let x = constant(1, [3, 4]);
    let gather = RowGather::new(&[Some(1), None, Some(0), None, Some(2)], 3, &Device::flex());
    let [found, slopes] = with_slopes(&x, |x| gather.apply_unfilled(x));
    let [filled, expected] = with_slopes(&x, |x| gather.apply(x));
    for row in [0, 2, 4] {
        assert_eq!(found[row * 4..][..4], filled[row * 4..][..4], "{row}");
    }
    assert_eq!(slopes, expected);
}

#[test]
#[should_panic = "row 2 is read twice"]
fn gather_that_repeats_a_row_panics() {
    let _ = RowGather::new(&[Some(2), Some(0), Some(2)], 3, &Device::flex());
}

#[test]
fn row_sums_add_up_each_index() {
    let (rows, width) = (1500, 7);
    // One index is most frequent, as the start of a caption is; some occur once, some never.
    let frequent = |n: usize| if n.is_multiple_of(3) { 5 } else { n * n % 61 };
    for (name, indices) in [
        ("frequent", (0..rows).map(|n| frequent(n) as u32).collect::<Vec<_>>()),
        ("equal", vec![60; rows]),
        ("distinct", (0..rows).rev().map(|n| n as u32).collect()),
    ] {
        let count = 1 + *indices.iter().max().unwrap() as usize;
        let mut expected = vec![0.0f64; count * width];
        for (row, index) in numbers(3, rows * width).chunks(width).zip(&indices) {
            let sums = &mut expected[*index as usize * width..][..width];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let expected: Vec<f32> = expected.into_iter().map(|sum| sum as f32).collect();
        let found = values(sum_rows_by_index(constant(3, [rows, width]), &indices, count));
        for (found, expected) in found.iter().zip(&expected) {
            // The terms of the longest sums add up to 1500 and nearly cancel.
            assert!((found - expected).abs() < 1e-5, "{name}: {found}, expected {expected}");
        }
    }
}

#[test]
fn plain_embedding_matches_kernel() {
    let indices: Vec<u32> = (0..2000).map(|n| if n % 2 == 0 { 7 } else { n * n % 300 }).collect();
    let table = constant(2, [301, 12]);
    let [found, slopes] = with_slopes(&table, |table| embedding::plain(table, indices.clone()));
    let [expected, expected_slopes] = with_slopes(&table, |table| embedding(table, indices.clone()));
    assert_eq!(found, expected);
    assert_close("gradient", LONG_SUM_TOLERANCE, &slopes, &expected_slopes);
}

#[test]
fn masks_on_device_equal_those_of_host() {
    for (seed, probability) in [(0, 0.1), (0x9abc_def0_1234_5678, 0.5), (u64::MAX, 0.9), (7 << 33, 0.0), (3, 1e-9)] {
        let mask = DropoutMask::new(seed, probability);
        let expected = mask.factors(2 * 3 * 37 * 101);
        let device = Device::flex();
        assert!(values(mask.factors_on_device([2, 3, 37, 101], &device)) == expected, "{seed}");
        assert!(values(mask.factors_on_device([6 * 37, 101], &device)) == expected, "{seed}");
        assert!(values(mask.factors_on_device([6 * 37 * 101], &device)) == expected, "{seed}");
        let x = constant(4, [6 * 37, 101]);
        let on_device = with_plain_forms(|| with_slopes(&x, |x| mask.apply(x)));
        assert!(on_device == with_slopes(&x, |x| mask.apply(x)), "{seed}");
    }
}

#[test]
fn plain_forms_end_with_their_scope() {
    let x = constant(1, [2, 2]);
    assert!(has_kernel(&x) && !is_remote(&x.device()));
    with_plain_forms(|| {
        with_plain_forms(|| assert!(!has_kernel(&x) && is_remote(&x.device())));
        assert!(!has_kernel(&x));
    });
    assert!(has_kernel(&x));
}

#[test]
fn plain_layer_norm_matches_kernel() {
    for bias in [Some(48), None] {
        compare(
            "layer norm",
            LONG_SUM_TOLERANCE,
            &[[130, 48]],
            &[Some(48), bias],
            |Inputs { m, v }| layer_norm::plain(m[0].clone(), v[0].clone().unwrap(), v[1].clone(), 1e-5),
            |Inputs { m, v }| layer_norm(m[0].clone(), v[0].clone().unwrap(), v[1].clone(), 1e-5),
        );
    }
    // A weight that trains alone, and an input that does.
    let (x, weight) = (constant(1, [5, 6]), constant(2, [6]).autodiff().require_grad());
    let y = with_plain_forms(|| layer_norm(x, weight.clone(), None, 1e-5));
    assert!(weight.grad(&y.sum().backward()).is_some());
    let x = leaf(1, [5, 6]);
    let y = with_plain_forms(|| layer_norm(x.clone(), constant(2, [6]), None, 1e-5));
    assert!(x.grad(&y.square().sum().backward()).is_some());
}

#[test]
fn masked_softmax_matches_derived_gradient() {
    let shape = [2, 3, 5, 5];
    // The last query of each head has no key.
    let hidden: Vec<bool> = (0..150).map(|n| n % 25 >= 20 || n % 5 > n / 5 % 5).collect();
    let hidden = Tensor::<4, Bool>::from_data(TensorData::new(hidden, shape), &Device::flex());
    for mask in [None, Some(hidden)] {
        let run = |x: Tensor<2>| masked_softmax(x.reshape(shape), mask.clone()).reshape([30, 5]);
        let x = constant(1, [30, 5]) * 3.0;
        let [expected, expected_slopes] = with_slopes(&x, run);
        let [found, slopes] = with_plain_forms(|| with_slopes(&x, run));
        assert_close("weights", TOLERANCE, &found, &expected);
        let rows =
            if mask.is_some() { (0..30).filter(|row| row % 5 != 4).collect() } else { (0..30).collect::<Vec<_>>() };
        for row in rows {
            assert_close("slope", LONG_SUM_TOLERANCE, &slopes[row * 5..][..5], &expected_slopes[row * 5..][..5]);
        }
    }
}

#[test]
fn padded_attention_matches_kernel() {
    let (lengths, heads, dim) = ([5, 2, 7, 7, 1], 3, 8);
    let (rows, width, longest) = (22, heads * dim, 7);
    let mut next = 0..rows;
    let of_sequence = |&length: &usize| {
        let rows: Vec<_> = next.by_ref().take(length).map(Some).collect();
        rows.into_iter().chain(std::iter::repeat(None)).take(longest)
    };
    let slots: Vec<Option<usize>> = lengths.iter().flat_map(of_sequence).collect();
    let to_slots = RowGather::new(&slots, rows, &Device::flex());
    for causal in [false, true] {
        let hidden = lengths.iter().flat_map(|&length| {
            let pairs = (0..heads).flat_map(move |_| (0..longest).flat_map(move |q| (0..longest).map(move |k| (q, k))));
            pairs.map(move |(query, key)| key >= length || (causal && key > query))
        });
        let shape = [lengths.len(), heads, longest, longest];
        let mask = Tensor::<4, Bool>::from_data(TensorData::new(hidden.collect::<Vec<_>>(), shape), &Device::flex());
        for dropout in [None, Some(DropoutMask::new(11, 0.25))] {
            let sequences = Sequences { lengths: lengths.as_slice().into(), heads, causal, dropout };
            let padded = |qkv: Tensor<2>| {
                let parts = [0, 1, 2].map(|part| {
                    let part = to_slots.apply_unfilled(qkv.clone().narrow(1, part * width, width));
                    part.reshape([lengths.len(), longest, heads, dim]).swap_dims(1, 2)
                });
                let output = padded_attention(parts.each_ref(), Some(&mask), dropout).unwrap();
                let output = output.swap_dims(1, 2).reshape([lengths.len() * longest, width]);
                to_slots.inverse().apply(output)
            };
            let qkv = constant(1, [rows, 3 * width]);
            let [found, slopes] = with_plain_forms(|| with_slopes(&qkv, padded));
            let [expected, expected_slopes] = with_slopes(&qkv, |qkv| attention(&qkv, &sequences).unwrap());
            assert_close("output", TOLERANCE, &found, &expected);
            assert_close("gradient", LONG_SUM_TOLERANCE, &slopes, &expected_slopes);
        }
    }
    let qkv = [1, 2, 3].map(|seed| constant(seed, [14, 8]).reshape([1, 2, 7, 8]));
    assert!(padded_attention(qkv.each_ref(), None, None).is_none(), "the device has kernels");
}

/// Rows that are cut into slices, and one row too many for it.
const SLICED_ROWS: [usize; 2] = [1024, 1025];

#[test]
fn sliced_linear_matches_kernel() {
    for rows in SLICED_ROWS {
        for bias in [Some(10), None] {
            compare(
                "linear",
                LONG_SUM_TOLERANCE,
                &[[rows, 24], [24, 10]],
                &[bias],
                |Inputs { m, v }| with_plain_forms(|| linear(m[0].clone(), m[1].clone(), v[0].clone())),
                |Inputs { m, v }| linear(m[0].clone(), m[1].clone(), v[0].clone()),
            );
        }
    }
}

#[test]
fn joined_linear3_matches_kernel() {
    for biases in [[Some(12); 3], [None; 3], [Some(12), None, Some(12)]] {
        let three = |Inputs { m, v }: &Inputs| {
            linear3(m[0].clone(), [1, 2, 3].map(|n| m[n].clone()), [0, 1, 2].map(|n| v[n].clone()))
        };
        let shapes = [[1024, 20], [20, 12], [20, 12], [20, 12]];
        compare("linear3", LONG_SUM_TOLERANCE, &shapes, &biases, |inputs| with_plain_forms(|| three(inputs)), three);
    }
}

#[test]
fn linear3_of_locked_weights_is_outside_of_the_graph() {
    // What follows asks whether its input is tracked: a node of the graph here would drop values of locked layers.
    let [x, weight] = [constant(1, [7, 4]), constant(2, [4, 3])];
    let three = |first: Tensor<2>| linear3(x.clone(), [first, weight.clone(), weight.clone()], [None, None, None]);
    with_plain_forms(|| {
        assert!(!three(weight.clone()).is_autodiff());
        assert!(three(weight.clone().autodiff().require_grad()).is_autodiff());
    });
}

#[test]
fn sums_over_rows_are_cut_on_devices() {
    let (x, y) = (constant(1, [1024, 6]), constant(2, [1024, 3]));
    // Another order of the sums, which the host's runs must not take.
    let host = [values(column_sums(x.clone())), values(transposed_product(x.clone(), y.clone()))];
    let expected = [values(x.clone().sum_dim(0)), values(x.clone().transpose().matmul(y.clone()))];
    assert_eq!(host, expected);
    let device = with_plain_forms(|| [values(column_sums(x.clone())), values(transposed_product(x, y))]);
    assert_ne!(device, host);
    for (device, host) in device.iter().zip(&host) {
        assert_close("sums", LONG_SUM_TOLERANCE, device, host);
    }
}
