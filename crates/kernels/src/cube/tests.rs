//! The kernels of a Vulkan device against those of the host; without the feature `wgpu`, those of CubeCL's CPU runtime.
//! `CUBECL_WGPU_DEFAULT_DEVICE=Cpu` takes a software device. The CPU runtime has planes of one unit, so that kernels
//! which add up by planes are tested on Vulkan alone.

#[cfg(feature = "wgpu")]
use burn::tensor::DeviceKind;
use burn::tensor::{DType, Device, Tensor, TensorData};

#[cfg(not(feature = "wgpu"))]
use crate::cube::support::plane_size;
use crate::tests::{LONG_SUM_TOLERANCE, assert_close, numbers, values};
use crate::{
    AdamWStep, DeviceParameter, DropoutMask, PendingRead, Sequences, StepLimits, adamw_steps, attends_packed,
    attention, embedding, joined, layer_norm, linear, linear3, residual, step_control, with_plain_forms,
};

#[cfg(feature = "wgpu")]
mod planes;

fn devices() -> [Device; 2] {
    #[cfg(feature = "wgpu")]
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    #[cfg(not(feature = "wgpu"))]
    let device = Device::cpu();
    [device, Device::flex()]
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
    // Long sequences of one length, outside of the graph alone, by a softmax that adds up by planes.
    assert_eq!(takes(false, &[197, 197], 2, 128), cfg!(feature = "wgpu"));
    assert!(!takes(true, &[197, 197], 2, 128));
}

#[cfg(not(feature = "wgpu"))]
#[test]
fn one_unit_is_no_plane() {
    let [device, _] = devices();
    assert_eq!(plane_size(&constant(1, [2, 6], &device), 6), None);
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
fn steps_of_many_parameters_match_formula() {
    let [device, _] = devices();
    // More than one launch takes, some of them whole cubes; two share the moments' buffer with others afterwards.
    let counts: Vec<usize> = (0..40).map(|n| [5003, 1, 384, 256, 777][n % 5]).collect();
    let on_device = |values: &[f32]| Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), &device);
    let step = AdamWStep { betas: [0.9, 0.99], epsilon: 1e-3, decay_factor: 0.9, rate: 0.1, second_root: 0.7 };
    let mut expected: Vec<[Vec<f32>; 4]> = counts
        .iter()
        .zip(1..)
        .map(|(&count, seed)| {
            let [value, gradient, first, second] = [1, 2, 3, 4].map(|part| numbers(10 * seed + part, count));
            [value, gradient, first, second.iter().map(|moment| moment * moment).collect()]
        })
        .collect();
    let parameter = |[value, gradient, first, second]: &[Vec<f32>; 4]| DeviceParameter {
        value: on_device(value),
        gradient: on_device(gradient),
        moments: [on_device(first), on_device(second)],
    };
    let mut found: Vec<DeviceParameter> = expected.iter().map(parameter).collect();
    for _ in 0..2 {
        found = adamw_steps(&found, &on_device(&[0.5, 1.0]), step).unwrap();
        for [values, gradients, firsts, seconds] in &mut expected {
            let moments = firsts.iter_mut().zip(seconds);
            for ((value, gradient), (first, second)) in values.iter_mut().zip(gradients).zip(moments) {
                let slope = 0.5 * f64::from(*gradient);
                let mean = 0.9 * f64::from(*first) + 0.1 * slope;
                let square = 0.99 * f64::from(*second) + 0.01 * slope.powi(2);
                let new = f64::from(*value) * 0.9 - 0.1 * mean / (square.sqrt() / 0.7 + 1e-3);
                (*value, *first, *second) = (new as f32, mean as f32, square as f32);
            }
        }
    }
    assert_eq!(found.len(), counts.len());
    for (found, [value, gradient, first, second]) in found.into_iter().zip(&expected) {
        let [mean, square] = found.moments;
        for (found, expected) in [(found.value, value), (found.gradient, gradient), (mean, first), (square, second)] {
            assert_close("adamw", LONG_SUM_TOLERANCE, &values(found), expected);
        }
    }
}

#[test]
fn step_without_change_keeps_what_it_reads() {
    let [device, _] = devices();
    let on_device = |values: &[f32]| Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), &device);
    let old = [1, 2, 3].map(|seed| numbers(seed, 300));
    let [value, first, second] = old.each_ref().map(|values| on_device(values));
    let gradient = on_device(&[f32::NAN; 300]);
    let step = AdamWStep { betas: [0.9, 0.99], epsilon: 1e-3, decay_factor: 0.9, rate: 0.1, second_root: 0.7 };
    let parameter = DeviceParameter { value, gradient, moments: [first, second] };
    let found = adamw_steps(&[parameter], &on_device(&[0.0, 0.0]), step).unwrap().remove(0);
    let [first, second] = found.moments;
    assert_eq!([found.value, first, second].map(|x| values(x)), old);
}

#[test]
fn control_of_a_step_clips_and_stops() {
    let [device, _] = devices();
    let on_device = |values: &[f32]| Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), &device);
    let control = |losses: [f32; 2], sum: f32, before: [f32; 2], max_norm: f64| {
        let limits = StepLimits { num_checked: 2, first_sum: 3, max_norm, epsilon: 1e-6 };
        // A number that is not looked at comes between losses and sums.
        let numbers = joined(&[on_device(&losses), on_device(&[f32::NAN]), on_device(&[sum; 1000])]);
        let found = [
            values(step_control(&numbers, &on_device(&before), limits)),
            with_plain_forms(|| values(step_control(&numbers, &on_device(&before), limits))),
        ];
        assert_close("control", 1e-6, &found[0], &found[1]);
        found[0].clone()
    };
    let alive = [1.0, 1.0];
    // The norm is 5, then 1.
    assert_close("clipped", 1e-6, &control([1.0, 2.0], 0.025, alive, 2.0), &[0.4, 1.0]);
    assert_eq!(control([1.0, 2.0], 0.001, alive, 2.0), [1.0, 1.0]);
    assert_eq!(control([1.0, 2.0], 0.025, [0.3, 1.0], 0.0), [1.0, 1.0]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(control([1.0, bad], 0.025, alive, 2.0), [0.0, 0.0], "{bad}");
    }
    for bad in [f32::NAN, f32::INFINITY, 1e38] {
        assert_eq!(control([1.0, 2.0], bad, alive, 0.0), [0.0, 0.0], "{bad}");
    }
    assert_eq!(control([1.0, 2.0], 0.025, [0.0, 0.0], 2.0), [0.0, 0.0]);
}

#[test]
fn queued_reads_return_what_was_computed_before() {
    let [device, _] = devices();
    let x = Tensor::<1>::from_data(TensorData::new(numbers(1, 5000), [5000]), &device);
    let read = PendingRead::start(vec![x.clone() * 2.0, x.clone().narrow(0, 7, 3)]);
    // Queued afterwards, into memory that may be that of the first.
    let later = (0..20).fold(x, |x, _| x * 3.0 + 1.0);
    let expected: Vec<f32> = numbers(1, 5000).iter().map(|value| value * 2.0).collect();
    assert_eq!(read.wait().unwrap(), [expected, numbers(1, 5000)[7..10].to_vec()]);
    assert_eq!(values(later).len(), 5000);
}

/// Rows, inputs and outputs of linear layers: the second has enough rows to be cut into slices.
const LAYERS: [[usize; 3]; 2] = [[37, 24, 5], [1024, 48, 64]];

#[test]
fn linear_layer_matches_host() {
    for [rows, input, output] in LAYERS {
        compare("linear", [[rows, input], [input, output], [1, output]], |[x, weight, bias], _| {
            linear(x.clone(), weight.clone(), Some(bias.clone().reshape([output])))
        });
    }
}

#[test]
fn three_linear_layers_match_host() {
    for [rows, input, output] in LAYERS {
        let vector = [1, output];
        let matrix = [input, output];
        let shapes = [[rows, input], matrix, matrix, matrix, vector, vector, vector];
        compare("biased", shapes, |inputs, _| {
            let [x, first, second, third, biases @ ..] = inputs.each_ref().map(|input| (*input).clone());
            linear3(x, [first, second, third], biases.map(|bias| Some(bias.reshape([output]))))
        });
        compare("unbiased", [[rows, input], matrix, matrix, matrix], |inputs, _| {
            let [x, first, second, third] = inputs.each_ref().map(|input| (*input).clone());
            linear3(x, [first, second, third], [None, None, None])
        });
    }
}

#[test]
fn embedding_gradient_matches_host() {
    // The word 7 is read so often that its rows are more than a chunk; the last two are never read.
    let indices: Vec<u32> = (0..500).map(|n| if n % 2 == 0 { 7 } else { n * n % 300 }).collect();
    compare("embedding", [[302, 40]], |[table], _| embedding(table.clone(), indices.clone()));
}
