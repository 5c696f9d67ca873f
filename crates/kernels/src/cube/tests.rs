//! The kernels of a Vulkan device against those of the host. `CUBECL_WGPU_DEFAULT_DEVICE=Cpu` takes a software device.

use burn::tensor::{Device, DeviceKind, Tensor, TensorData};

use crate::tests::{LONG_SUM_TOLERANCE, assert_close, numbers, values};
use crate::{DropoutMask, Sequences, attends_packed, attention, layer_norm, residual, untracked_attention};

fn devices() -> [Device; 2] {
    [Device::wgpu(DeviceKind::DefaultDevice), Device::flex()]
}

fn constant<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers(seed, shape.iter().product()), shape), device)
}

/// The output of `run` and the gradients of its inputs, matrices of these shapes, on both devices.
#[track_caller]
fn compare<const N: usize>(what: &str, shapes: [[usize; 2]; N], run: impl Fn(&[Tensor<2>; N], &Device) -> Tensor<2>) {
    let [found, expected] = devices().map(|device| {
        let mut seed = 0;
        let inputs = shapes.map(|shape| {
            seed += 1;
            constant(seed, shape, &device).autodiff().require_grad()
        });
        let output = run(&inputs, &device);
        let weights = constant(77, output.dims(), &device);
        let mut gradients = (output.clone() * weights).sum().backward();
        let gradients = inputs.map(|input| values(input.grad_remove(&mut gradients).unwrap()));
        let untracked = run(&shapes.map(|shape| constant(1, shape, &device)), &device);
        (values(output), gradients, values(untracked))
    });
    assert_close(what, LONG_SUM_TOLERANCE, &found.0, &expected.0);
    assert_close(what, LONG_SUM_TOLERANCE, &found.2, &expected.2);
    for (n, (found, expected)) in found.1.iter().zip(&expected.1).enumerate() {
        assert_close(&format!("{what}, gradient {n}"), LONG_SUM_TOLERANCE, found, expected);
    }
}

#[test]
fn attention_matches_host() {
    for (lengths, heads, dim) in [(vec![5, 2, 7, 7, 1], 3, 8), (vec![40, 3, 33], 2, 32)] {
        let (rows, width) = (lengths.iter().sum::<usize>(), heads * dim);
        for causal in [false, true] {
            for dropout in [None, Some(DropoutMask::new(11 << 40, 0.25))] {
                let sequences = Sequences { lengths: lengths.as_slice().into(), heads, causal, dropout };
                compare("attention", [[rows, 3 * width]], |[qkv], _| attention(qkv, &sequences).unwrap());
            }
        }
    }
}

#[test]
fn attention_clears_rows_of_no_sequence() {
    let [device, _] = devices();
    let sequences = Sequences { lengths: [3, 4].as_slice().into(), heads: 2, causal: false, dropout: None };
    let qkv = constant(1, [12, 3 * 16], &device).autodiff().require_grad();
    let output = attention(&qkv, &sequences).unwrap();
    let mut gradients = output.clone().sum().backward();
    let gradient = values(qkv.grad_remove(&mut gradients).unwrap());
    assert_eq!(values(output)[7 * 16..], [0.0; 5 * 16]);
    assert_eq!(gradient[7 * 48..], [0.0; 5 * 48]);
    assert!(gradient[..7 * 48].iter().any(|&slope| slope != 0.0));
}

#[test]
fn attention_refuses_what_has_no_room() {
    let [device, _] = devices();
    let x = constant(1, [2, 6], &device);
    assert!(attends_packed(&x, 4, 100, 2, 32));
    assert!(!attends_packed(&x, 4, 129, 2, 32));
    assert!(!attends_packed(&x, 4, 100, 2, 128));
    assert!(!attends_packed(&x, 1 << 16, 100, 12, 32));
    let sequences = Sequences { lengths: [129, 1].as_slice().into(), heads: 1, causal: false, dropout: None };
    assert!(attention(&constant(1, [130, 24], &device), &sequences).is_none());
}

#[test]
fn layer_norm_matches_host() {
    for (rows, width) in [(1, 5), (301, 48), (130, 384)] {
        compare("layer norm", [[rows, width], [1, width], [1, width]], |[x, weight, bias], _| {
            let [weight, bias] = [weight, bias].map(|row| row.clone().reshape([width]));
            layer_norm(x.clone(), weight, Some(bias), 1e-5)
        });
        compare("layer norm without bias", [[rows, width], [1, width]], |[x, weight], _| {
            layer_norm(x.clone(), weight.clone().reshape([width]), None, 1e-5)
        });
    }
}

#[test]
fn dropout_matches_host() {
    let mask = DropoutMask::new(0x9abc_def0_1234_5678, 0.1);
    compare("dropout", [[70, 41]], |[x], _| mask.apply(x.clone()));
    compare("residual", [[70, 41], [70, 41]], |[x, branch], _| residual(x.clone(), branch.clone(), None, Some(mask)));
}

#[test]
fn untracked_attention_matches_formula() {
    let [device, _] = devices();
    let [query, key, value] = [1, 2, 3].map(|seed| constant(seed, [2, 3, 50, 8], &device));
    let scores = query.clone().matmul(key.clone().swap_dims(2, 3)) * 8f64.powf(-0.5);
    let expected = burn::tensor::activation::softmax(scores, 3).matmul(value.clone());
    let found = untracked_attention(&query, &key, &value).unwrap();
    assert_close("attention", LONG_SUM_TOLERANCE, &values(found), &values(expected));
}
