//! The kernels of a Vulkan device against those of the host. `CUBECL_WGPU_DEFAULT_DEVICE=Cpu` takes a software device.

use burn::tensor::{DType, Device, DeviceKind, Tensor, TensorData};
use cubecl::features::Plane;

use crate::cube::support::{plane_of, properties};
use crate::tests::{LONG_SUM_TOLERANCE, assert_close, numbers, values};
use crate::{
    AdamWStep, DropoutMask, Sequences, adamw_step, attends_packed, attention, embedding, layer_norm, residual,
    sums_of_squares, untracked_attention,
};

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
    let takes = |tracked, lengths: &[usize], heads, dim| {
        let sequences = Sequences { lengths: lengths.into(), heads, causal: false, dropout: None };
        attends_packed(&x, tracked, &sequences, dim)
    };
    assert!(takes(false, &[90, 7], 2, 32));
    assert!(!takes(false, &[129, 7], 2, 32));
    assert!(!takes(false, &[90, 7], 2, 128));
    // Long sequences of one length, outside of the graph alone.
    assert!(takes(false, &[197, 197], 2, 128));
    assert!(!takes(true, &[197, 197], 2, 128));
}

/// A device that does not say that its planes add up gets no kernel that adds up by planes.
#[test]
fn planes_have_to_add_up() {
    let [device, _] = devices();
    let mut properties = properties(&constant(1, [2, 6], &device)).unwrap();
    let size = plane_of(&properties, 6).unwrap();
    assert_eq!(plane_of(&properties, 64 * size as usize + 1), None);
    properties.features.plane.remove(Plane::Ops);
    assert_eq!(plane_of(&properties, 6), None);
}

/// Kernels compute in `f32` and round at the end.
#[test]
fn half_precision_matches_host() {
    let [device, host] = devices();
    assert!(device.supports_dtype(DType::F16), "the device has no f16: take another");
    let sequences = Sequences { lengths: [5, 2, 7].as_slice().into(), heads: 3, causal: true, dropout: None };
    // The same rounded values on both devices.
    let rounded = |seed, shape: [usize; 2], device: &Device| constant(seed, shape, device).cast(DType::F16);
    let row = |seed, device: &Device| rounded(seed, [1, 24], device).reshape([24]);
    let run = |device: &Device, dtype: DType| {
        let attended = attention(&rounded(1, [14, 3 * 24], device).cast(dtype), &sequences).unwrap();
        let normal = layer_norm(
            rounded(2, [14, 24], device).cast(dtype),
            row(3, device).cast(dtype),
            Some(row(4, device).cast(dtype)),
            1e-5,
        );
        [attended, normal].map(|output| {
            assert_eq!(output.dtype(), dtype);
            values(output.cast(DType::F32))
        })
    };
    // Half of the last of eleven bits.
    let tolerance = 2f32.powi(-11) + LONG_SUM_TOLERANCE;
    for (found, expected) in run(&device, DType::F16).iter().zip(&run(&host, DType::F32)) {
        assert_close("f16", tolerance, found, expected);
    }
}

#[test]
fn long_attention_matches_host() {
    let [found, expected] = devices().map(|device| {
        let sequences = Sequences { lengths: [150; 3].as_slice().into(), heads: 2, causal: false, dropout: None };
        values(attention(&constant(1, [450, 3 * 16], &device), &sequences).unwrap())
    });
    assert_close("attention", LONG_SUM_TOLERANCE, &found, &expected);
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

#[test]
fn adamw_step_matches_formula() {
    let [device, _] = devices();
    let count = 5003;
    let [value, gradient, first, second] = [1, 2, 3, 4].map(|seed| numbers(seed, count));
    let second: Vec<f32> = second.iter().map(|moment| moment * moment).collect();
    let on_device = |values: &[f32]| Tensor::from_data(TensorData::new(values.to_vec(), [count]), &device);
    let step =
        AdamWStep { betas: [0.9, 0.99], epsilon: 1e-3, clip: 0.5, decay_factor: 0.9, rate: 0.1, second_root: 0.7 };
    let moments = [&on_device(&first), &on_device(&second)];
    let found = adamw_step(&on_device(&value), &on_device(&gradient), moments, step).unwrap().map(values);
    let mut expected = [const { Vec::new() }; 3];
    for n in 0..count {
        let [value, gradient, first, second] = [value[n], gradient[n], first[n], second[n]].map(f64::from);
        let first = 0.9 * first + 0.1 * 0.5 * gradient;
        let second = 0.99 * second + 0.01 * (0.5 * gradient).powi(2);
        let value = value * 0.9 - 0.1 * first / (second.sqrt() / 0.7 + 1e-3);
        [value, first, second].into_iter().zip(&mut expected).for_each(|(new, all)| all.push(new as f32));
    }
    for (found, expected) in found.iter().zip(&expected) {
        assert_close("adamw", LONG_SUM_TOLERANCE, found, expected);
    }
    let squares = values(sums_of_squares(&on_device(&value)).unwrap());
    let expected: f64 = value.iter().map(|&value| f64::from(value).powi(2)).sum();
    assert_eq!(squares.len(), 2);
    assert!((squares.iter().map(|&sum| f64::from(sum)).sum::<f64>() / expected - 1.0).abs() < 1e-6);
}

#[test]
fn embedding_gradient_matches_host() {
    // The word 7 is read so often that its rows are more than a chunk; the last two are never read.
    let indices: Vec<u32> = (0..500).map(|n| if n % 2 == 0 { 7 } else { n * n % 300 }).collect();
    compare("embedding", [[302, 40]], |[table], _| embedding(table.clone(), indices.clone()));
}
