//! What does not fit together is an error, never a parameter that stays as it is.

use std::path::Path;

use burn::tensor::FloatDType;

use super::*;

/// A small model that trains whole, on the CPU.
fn model() -> DualEncoder {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/dual/vit_bert");
    parameters::unlock(DualEncoder::from_pretrained(dir, &Device::flex()).unwrap())
}

fn optimizer(model: &DualEncoder, kind: &str) -> Optimizer {
    let text = format!("batch_size = 2\nlearning_rate = 1e-3\nweight_decay = 0.0\noptimizer = {kind:?}");
    Optimizer::new(&toml::from_str(&text).unwrap(), model, true).unwrap()
}

/// A gradient of ones for each trainable parameter.
fn gradients(model: &DualEncoder) -> BTreeMap<String, Gradient> {
    let training = parameters::list(model).into_iter().filter(|info| info.trains);
    training.map(|info| (info.path, Gradient::Host(vec![1.0; info.shape.iter().product()]))).collect()
}

fn step(
    optimizer: &mut Optimizer,
    model: DualEncoder,
    by_path: BTreeMap<String, Gradient>,
) -> Result<DualEncoder, TrainError> {
    let rate = LearningRate { base: 1e-3, schedule: 1.0 };
    let clip = Clip::of_norm(1.0, optimizer.max_norm());
    optimizer.step(model, ParamGradients { by_path }, clip, rate, &|_| 0)
}

/// The message of a step with gradients that `change` spoiled.
fn message(change: impl FnOnce(&mut BTreeMap<String, Gradient>)) -> String {
    let model = model();
    let mut gradients = gradients(&model);
    change(&mut gradients);
    let error = step(&mut optimizer(&model, "adamw"), model, gradients).unwrap_err();
    assert!(matches!(error, TrainError::Internal(_)), "{error}");
    error.to_string()
}

const MATRIX: &str = "text_projection.weight";

#[test]
fn every_parameter_is_updated() {
    let model = model();
    let before = parameters::collect(&model, parameters::ParamFilter::Trainable).unwrap();
    for kind in ["adamw", "adafactor", "lion", "sgd"] {
        let after = step(&mut optimizer(&model, kind), model.clone(), gradients(&model)).unwrap();
        let after = parameters::collect(&after, parameters::ParamFilter::Trainable).unwrap();
        assert!(before.len() > 50 && before.keys().eq(after.keys()), "{kind}");
        for (path, before) in &before {
            assert_eq!(before.shape, after[path].shape, "{kind} {path}");
            let moved = before.values.iter().zip(&after[path].values).all(|(before, after)| after < before);
            assert!(moved, "{kind} {path}");
        }
    }
}

#[test]
fn steps_on_host_and_device_agree() {
    let model = model();
    // Two kinds of constants, which alternate among the parameters.
    let updates = |path: &str| (path.len() % 2) as u64;
    let rate = LearningRate { base: 1e-3, schedule: 1.0 };
    for kind in ["adamw", "adafactor", "lion", "sgd"] {
        let [host, device] = [true, false].map(|on_host| {
            let mut optimizer = optimizer(&model, kind);
            optimizer.on_host = on_host;
            let mut after = model.clone();
            for _ in 0..2 {
                let mut by_path = gradients(&model);
                for gradient in by_path.values_mut().filter(|_| !on_host) {
                    *gradient = Gradient::Device(Box::new(Tensor::ones([gradient.len()], &Device::flex())));
                }
                let clip = Clip::of_norm(1.0, optimizer.max_norm());
                after = optimizer.step(after, ParamGradients { by_path }, clip, rate, &updates).unwrap();
            }
            (parameters::collect(&after, parameters::ParamFilter::Trainable).unwrap(), saved(&optimizer))
        });
        for (host, device) in [(host.0, device.0), (host.1, device.1)] {
            assert!(host.len() > 50 && host.keys().eq(device.keys()), "{kind}");
            for (path, host) in host {
                let device = &device[&path];
                assert_eq!(host.shape, device.shape, "{kind} {path}");
                let mut pairs = host.values.iter().zip(&device.values);
                assert!(pairs.all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs().max(1.0)), "{kind} {path}");
            }
        }
    }
}

#[test]
fn missing_and_surplus_gradients_are_refused() {
    let text = message(|gradients| drop(gradients.remove(MATRIX)));
    assert!(text.contains("`text_projection.weight` trains, but has no gradient"), "{text}");
    let text = message(|gradients| drop(gradients.insert("other".into(), Gradient::Host(vec![1.0]))));
    assert!(text.contains("`other` has a gradient, but does not train"), "{text}");
    let text = message(|gradients| gradients.clear());
    assert!(text.contains("and 65 more like it"), "{text}");
}

#[test]
fn gradient_of_wrong_length_is_refused() {
    let text = message(|gradients| drop(gradients.insert(MATRIX.into(), Gradient::Host(vec![1.0; 3]))));
    assert!(text.contains("gradient and optimiser state of `text_projection.weight` have [3, "), "{text}");
    let rows = Gradient::HostRows { values: Vec::new(), width: 1, rows: Vec::new() };
    let text = message(|gradients| drop(gradients.insert("text_tower.words".into(), rows)));
    assert!(text.contains("of `text_tower.words` have [0, "), "{text}");
}

#[test]
fn gradient_on_another_device_is_refused() {
    let text = message(|gradients| {
        let count = gradients[MATRIX].len();
        let tensor = Tensor::ones([count], &Device::flex());
        gradients.insert(MATRIX.into(), Gradient::Device(Box::new(tensor)));
    });
    assert!(text.contains("`text_projection.weight` are not both on the host or both on the device"), "{text}");
}

#[test]
fn parameter_of_another_type_is_refused() {
    let model = model();
    let (mut optimizer, gradients) = (optimizer(&model, "sgd"), gradients(&model));
    let half = parameters::unlock(parameters::cast(model, FloatDType::F16));
    let text = step(&mut optimizer, half, gradients).unwrap_err().to_string();
    assert!(text.contains("trains in F16, but is updated in f32"), "{text}");
}

#[test]
fn missing_state_is_refused() {
    let model = model();
    for (kind, arrays) in [("adamw", 2), ("adafactor", 2), ("lion", 1), ("sgd", 1)] {
        let mut optimizer = optimizer(&model, kind);
        step(&mut optimizer, model.clone(), gradients(&model)).unwrap();
        let state = optimizer.states.get_mut("logit_scale").unwrap();
        let Arrays::Host { arrays: found, .. } = &mut state.arrays else { panic!("state on a device") };
        assert_eq!(found.len(), arrays, "{kind}");
        found.pop();
        let text = step(&mut optimizer, model.clone(), gradients(&model)).unwrap_err().to_string();
        assert!(text.contains("internal error: gradient and optimiser state of `logit_scale`"), "{text}");
    }
}

#[test]
fn rules_refuse_other_numbers_of_arrays() {
    for kind in ["adamw", "adafactor", "lion", "sgd"] {
        let rule = optimizer(&model(), kind).rule;
        let shape = [40, 40];
        let update = Update { shape: &shape, count: 1, clip: 1.0, decay_factor: 0.5, rate: 0.1 };
        let (mut values, mut gradient) = (vec![1.0; 1600], vec![1.0; 1600]);
        let error = rule.on_host(update, &mut values, &mut gradient, &mut []).unwrap_err();
        assert!(
            error.to_string().contains("internal error: the optimiser state of a parameter has 0 arrays"),
            "{error}"
        );
        let error = rule.on_host_rows(
            update,
            &mut values,
            &mut gradient,
            RowsWithGradient { width: 40, rows: &[1] },
            &mut [],
            &mut None,
        );
        assert!(matches!(error, Err(TrainError::Internal(_))), "{kind}");
        assert!(values.iter().all(|&value| value == 1.0), "{kind}");
        let tensor = || Tensor::ones([1600], &Device::flex());
        assert!(matches!(rule.on_device(update, tensor(), tensor(), &mut []), Err(TrainError::Internal(_))), "{kind}");
    }
}

#[test]
fn parameter_without_learning_rate_is_refused() {
    let model = model();
    let mut optimizer = optimizer(&model, "adamw");
    optimizer.param_groups = self::optimizer(&with_locked_text(model.clone()), "adamw").param_groups;
    let text = step(&mut optimizer, model.clone(), gradients(&model)).unwrap_err().to_string();
    assert!(text.contains("trains, but has no learning rate"), "{text}");
}

/// The model with a text tower that does not train.
fn with_locked_text(mut model: DualEncoder) -> DualEncoder {
    model.text_tower = parameters::lock(model.text_tower);
    model
}

/// State of every parameter, as a checkpoint holds it.
fn saved(optimizer: &Optimizer) -> BTreeMap<String, HostTensor> {
    let host = |state: StateTensor<'_>| {
        let values = state.values().unwrap().into_owned();
        HostTensor { shape: state.shape, values }
    };
    optimizer.state().into_iter().map(|(name, state)| (name, host(state))).collect()
}

#[test]
fn restore_refuses_other_names_than_trainable() {
    let model = model();
    let mut whole = optimizer(&model, "adamw");
    step(&mut whole, model.clone(), gradients(&model)).unwrap();
    let refused = |state: BTreeMap<String, HostTensor>| {
        let mut optimizer = optimizer(&model, "adamw");
        let text = optimizer.restore(&model, state).unwrap_err().to_string();
        assert!(optimizer.states.is_empty(), "{text}");
        text
    };
    let mut state = saved(&whole);
    state.remove("text_projection.weight.second");
    assert!(refused(state).contains("text_projection.weight.second: not in the file"));
    let mut state = saved(&whole);
    state.insert("other.first".into(), HostTensor { shape: vec![1], values: vec![0.0] });
    assert!(refused(state).contains("other.first: in the file, but its parameter does not train"));
    let mut state = saved(&whole);
    state.get_mut("logit_scale.first").unwrap().values.push(0.0);
    assert!(refused(state).contains("logit_scale.first: expected 1 values, found 2"));
    // Such as one of a kernel that this version of Adafactor factors, and that of the checkpoint did not.
    let mut state = saved(&whole);
    state.insert("logit_scale.row".into(), HostTensor { shape: vec![1], values: vec![0.0] });
    assert!(refused(state).contains("logit_scale.row: in the file, but the optimiser keeps no such state of it"));
    // A whole tower that does not train any more, and one that did not.
    let locked = with_locked_text(model.clone());
    let text = optimizer(&model, "adamw").restore(&locked, saved(&whole)).unwrap_err().to_string();
    assert!(text.contains("text_tower.embedding_norm.bias.first: in the file, but its parameter does not"), "{text}");
    let mut few = optimizer(&model, "adamw");
    step(&mut few, locked.clone(), gradients(&locked)).unwrap();
    assert!(refused(saved(&few)).contains("text_tower.embedding_norm.weight.first: not in the file"));
    let mut again = optimizer(&model, "adamw");
    again.restore(&model, saved(&whole)).unwrap();
    assert_eq!(saved(&again), saved(&whole));
}
