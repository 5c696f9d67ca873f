//! Three updates of heads of every kind match PyTorch's AdamW (`tests/goldens/heads`): gradients, and which parameters
//! decay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::parameters::{self, ParamFilter, ParamUpdate};
use dualenc_model::{
    BuildOptions, Dropout, DualEncoder, HeadConfig, HeadForm, HeadKind, HostTensor, build_from_towers, read_safetensors,
};

use crate::optim::clip::Clip;
use crate::optim::gradients::ParamGradients;
use crate::optim::optimizer::Optimizer;
use crate::optim::param_groups::LearningRate;

/// As in `scripts/goldens/heads.py`.
const STEPS: usize = 3;
const RATE: f64 = 0.01;
const DIM: usize = 10;

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(name)
}

/// Sets the image head to the golden values.
struct Set<'a>(&'a BTreeMap<String, HostTensor>);

impl ParamUpdate for Set<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        let Some(path) = path.strip_prefix("image_projection.") else { return value };
        let HostTensor { shape, values } = self.0[&format!("before.{path}")].clone();
        Tensor::from_data(TensorData::new(values, shape), &value.device())
    }
}

/// Towers that are locked, and an image head that trains alone.
fn model(form: HeadForm, golden: &BTreeMap<String, HostTensor>) -> DualEncoder {
    let dir = goldens("dual/vit_bert");
    let head = HeadConfig { image: Some(form), ..HeadConfig::linear(DIM, 0.0) };
    let options = BuildOptions { image_projection_locked: false, head, ..BuildOptions::evaluation() };
    let model = build_from_towers(&dir, &dir, &options, &Device::flex()).unwrap().model;
    let mut model = parameters::update(model, &mut Set(golden));
    model.logit_scale = parameters::lock(model.logit_scale);
    model
}

#[test]
fn updates_of_heads_match_pytorch() {
    let form = |kind, bias, norm| HeadForm { kind, bias, norm, dropout: 0.0 };
    let [glu, narrow] = [8, 3].map(|expansion| HeadKind::Gated { expansion });
    for (name, form) in [
        ("linear", HeadForm::LINEAR),
        ("linear_bias", form(HeadKind::Linear, true, false)),
        ("linear_norm", form(HeadKind::Linear, true, true)),
        ("glu", HeadForm::default_of(glu)),
        ("glu_plain", form(narrow, false, false)),
        ("residual", HeadForm::default_of(HeadKind::Residual)),
        ("residual_plain", form(HeadKind::Residual, false, false)),
        ("blocks", HeadForm::default_of(HeadKind::Blocks { count: 2 })),
        ("blocks_plain", form(HeadKind::Blocks { count: 1 }, false, false)),
    ] {
        let golden = read_safetensors(&goldens("heads").join(format!("{name}.safetensors"))).unwrap();
        let tensor = |name: &str| {
            let HostTensor { shape, values } = golden[name].clone();
            Tensor::<2>::from_data(TensorData::new(values, shape), &Device::flex())
        };
        let mut model = model(form, &golden);
        let config = format!("batch_size = 2\nlearning_rate = {RATE}\nweight_decay = 0.1\n");
        let mut optimizer = Optimizer::new(&toml::from_str(&config).unwrap(), &model, true).unwrap();
        for step in 0..STEPS {
            let y = model.project_image(tensor("x"), &Dropout::off());
            let mut all = (y * tensor("weights")).sum().backward();
            let gradients = ParamGradients::take(&model, &mut all, None, true).unwrap();
            let rate = LearningRate { base: RATE, schedule: 1.0 };
            model = optimizer.step(model, gradients, Clip::Known(1.0), rate, &|_| step as u64).unwrap();
        }
        let after = parameters::collect(&model, ParamFilter::Trainable).unwrap();
        assert_eq!(after.len(), golden.keys().filter(|name| name.starts_with("after.")).count(), "{name}");
        for (path, HostTensor { values, .. }) in after {
            let path = path.strip_prefix("image_projection.").unwrap();
            let expected = &golden[&format!("after.{path}")].values;
            assert_eq!(values.len(), expected.len(), "{name} {path}");
            for (at, (found, expected)) in values.iter().zip(expected).enumerate() {
                // 2e-5 is a five-hundredth of an update.
                let message = format!("{name} {path}[{at}]: {found}, expected {expected}");
                assert!((found - expected).abs() <= 2e-5, "{message}");
            }
        }
    }
}
