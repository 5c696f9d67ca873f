//! Heads of every kind match PyTorch modules (`tests/goldens/heads`), start as documented, and take over linear ones.

use std::collections::BTreeMap;

use burn::tensor::{FloatDType, Tensor, TensorData};
use dualenc_model::parameters::{self, ParamFilter, ParamUpdate};
use dualenc_model::{
    BuildOptions, Dropout, DualEncoder, Head, HeadConfig, HeadForm, HeadKind, HostTensor, build_from_dual_encoder,
    build_from_towers, read_safetensors,
};

use crate::support::{goldens, options};

/// Width of the golden image tower and of the golden heads, and of their outputs.
const WIDTH: usize = 16;
const DIM: usize = 10;

fn form(kind: HeadKind, bias: bool, norm: bool) -> HeadForm {
    HeadForm { kind, bias, norm, dropout: 0.0 }
}

fn cases() -> [(&'static str, HeadForm); 9] {
    let [glu, narrow] = [8, 3].map(|expansion| HeadKind::Gated { expansion });
    let [two, one] = [2, 1].map(|count| HeadKind::Blocks { count });
    [
        ("linear", HeadForm::LINEAR),
        ("linear_bias", form(HeadKind::Linear, true, false)),
        ("linear_norm", form(HeadKind::Linear, true, true)),
        ("glu", HeadForm::default_of(glu)),
        ("glu_plain", form(narrow, false, false)),
        ("residual", HeadForm::default_of(HeadKind::Residual)),
        ("residual_plain", form(HeadKind::Residual, false, false)),
        ("blocks", HeadForm::default_of(two)),
        ("blocks_plain", form(one, false, false)),
    ]
}

fn with_heads(dim: usize, image: Option<HeadForm>, text: Option<HeadForm>) -> BuildOptions {
    BuildOptions { head: HeadConfig { image, text, ..HeadConfig::linear(dim, 0.0) }, ..options("LL") }
}

/// A model of the golden towers with these heads.
fn new_model(dim: usize, image: Option<HeadForm>, text: Option<HeadForm>) -> DualEncoder {
    let dir = goldens("dual/vit_bert");
    build_from_towers(&dir, &dir, &with_heads(dim, image, text), &crate::support::device()).unwrap().model
}

/// Sets parameters by path.
struct Set<'a>(&'a BTreeMap<String, HostTensor>);

impl ParamUpdate for Set<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        match self.0.get(&format!("before.{path}")) {
            Some(new) => Tensor::from_data(TensorData::new(new.values.clone(), new.shape.clone()), &value.device()),
            None => panic!("the golden has no `{path}`"),
        }
    }
}

fn golden(name: &str) -> BTreeMap<String, HostTensor> {
    read_safetensors(&goldens("heads").join(format!("{name}.safetensors"))).unwrap()
}

fn golden_head(form: HeadForm, golden: &BTreeMap<String, HostTensor>) -> Head {
    let head = parameters::update(new_model(DIM, Some(form), None).image_projection, &mut Set(golden));
    assert_eq!(parameters::list(&head).len(), golden.keys().filter(|name| name.starts_with("before.")).count());
    assert_eq!((head.form(), head.width(), head.dim()), (form, WIDTH, DIM));
    head
}

fn tensor(golden: &BTreeMap<String, HostTensor>, name: &str) -> Tensor<2> {
    let HostTensor { shape, values } = golden[name].clone();
    Tensor::from_data(TensorData::new(values, shape), &crate::support::device())
}

/// Each value within 1e-5 of the largest one.
#[track_caller]
fn assert_close(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    assert!(largest > 1e-3, "{name}: nothing to compare");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 1e-5 * largest, "{name}[{at}]: {found}, expected {expected}");
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    parameters::host(tensor.without_autodiff()).unwrap().values
}

#[test]
fn heads_match_pytorch() {
    for (name, form) in cases() {
        let golden = golden(name);
        let head = golden_head(form, &golden);
        let x = tensor(&golden, "x").autodiff().require_grad();
        let y = head.forward(x.clone(), &Dropout::training(3));
        assert_close(&format!("{name} y"), &values(y.clone()), &golden["y"].values);
        let untracked = parameters::lock(head.clone()).forward(tensor(&golden, "x"), &Dropout::off());
        assert_close(&format!("{name} y, untracked"), &values(untracked), &golden["y"].values);
        let mut all = (y * tensor(&golden, "weights")).sum().backward();
        let of_x = values(x.grad_remove(&mut all).unwrap());
        assert_close(&format!("{name} x"), &of_x, &golden["gradient.x"].values);
        let found = Gradients::of(&head, &mut all);
        assert_eq!(found.len(), parameters::list(&head).len(), "{name}");
        for (path, found) in found {
            assert_close(&format!("{name} {path}"), &found, &golden[&format!("gradient.{path}")].values);
        }
    }
}

/// Gradients by path.
struct Gradients<'a> {
    path: parameters::PathStack,
    all: &'a mut burn::tensor::Gradients,
    found: BTreeMap<String, Vec<f32>>,
}

impl<'a> Gradients<'a> {
    fn of(head: &Head, all: &'a mut burn::tensor::Gradients) -> BTreeMap<String, Vec<f32>> {
        let mut visitor = Self { path: parameters::PathStack::default(), all, found: BTreeMap::new() };
        burn::module::Module::visit(head, &mut visitor);
        visitor.found
    }
}

impl burn::module::ModuleVisitor for Gradients<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }
    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }
    fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
        let gradient = param.val().grad_remove(self.all).map(values);
        self.found.insert(self.path.path(), gradient.unwrap());
    }
}

#[test]
fn cleared_residual_head_is_its_linear_map() {
    for (name, form) in cases() {
        let golden = golden(name);
        let mut head = golden_head(form, &golden);
        let learned = matches!(form.kind, HeadKind::Residual);
        assert_eq!(head.clear_residual().unwrap(), learned, "{name}");
        assert!(!head.clear_residual().unwrap(), "{name}");
        let found = values(head.forward(tensor(&golden, "x"), &Dropout::off()));
        if learned {
            let dims = head.dim();
            let part = head.linear_part().unwrap();
            let mut linear = part.input(tensor(&golden, "x")).matmul(part.weight.val());
            if let Some(bias) = part.bias {
                linear = linear + bias.val().reshape([1, dims]);
            }
            assert_close(name, &found, &values(linear));
            assert!(parameters::list(&head).iter().all(|parameter| parameter.trains), "{name}");
        } else {
            assert_close(name, &found, &golden["y"].values);
        }
    }
}

#[test]
fn half_precision_stays_near() {
    for (name, form) in cases() {
        let golden = golden(name);
        let head = golden_head(form, &golden);
        for precision in [FloatDType::F16, FloatDType::BF16] {
            let half = parameters::cast(head.clone(), precision);
            let x = tensor(&golden, "x").cast(precision).autodiff().require_grad();
            let y = half.forward(x.clone(), &Dropout::off());
            crate::support::assert_near(name, y.clone().cast(FloatDType::F32), &golden["y"].values);
            let mut all = (y.cast(FloatDType::F32) * tensor(&golden, "weights")).sum().backward();
            let of_x = x.grad_remove(&mut all).unwrap().cast(FloatDType::F32);
            crate::support::assert_near(&format!("{name} x"), of_x, &golden["gradient.x"].values);
        }
    }
}

#[test]
fn initial_values_are_those_documented() {
    let forms = [HeadKind::Gated { expansion: 8 }, HeadKind::Residual, HeadKind::Blocks { count: 2 }];
    for kind in forms {
        let head = new_model(DIM, Some(HeadForm::default_of(kind)), None).image_projection;
        for (path, HostTensor { shape, values }) in parameters::collect(&head, ParamFilter::All).unwrap() {
            let all = |value: f32| values.iter().all(|found| *found == value);
            let is_norm = path.contains("norm.");
            match (path.rsplit('.').next().unwrap(), &shape[..]) {
                ("bias", _) => assert!(all(0.0), "{path}"),
                ("weight", [_]) => assert!(is_norm && all(1.0), "{path}"),
                ("weight", _) if kind == HeadKind::Residual && path == "down.weight" => assert!(all(0.0), "{path}"),
                ("weight", _) if kind == HeadKind::Residual && path == "weight" => {
                    assert_deviation(&path, &values, 0.02)
                }
                ("weight", [input, output]) => {
                    let bound = (6.0 / (input + output) as f64).sqrt();
                    let largest = values.iter().fold(0f32, |most, value| most.max(value.abs()));
                    assert!(f64::from(largest) <= bound && f64::from(largest) > 0.9 * bound, "{path}: {largest}");
                    assert_deviation(&path, &values, bound / 3f64.sqrt());
                }
                other => panic!("{path}: {other:?}"),
            }
        }
    }
}

/// Mean 0 and this standard deviation, as far as the number of values tells.
#[track_caller]
fn assert_deviation(path: &str, values: &[f32], expected: f64) {
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let deviation = (values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count).sqrt();
    assert!(mean.abs() < 4.0 * expected / count.sqrt(), "{path}: {mean}");
    assert!((deviation / expected - 1.0).abs() < 4.0 / (2.0 * count).sqrt(), "{path}: {deviation}");
}

#[test]
fn residual_head_begins_as_the_linear_one() {
    let residual = form(HeadKind::Residual, true, false);
    let [linear, residual] = [HeadForm::LINEAR, residual].map(|form| new_model(DIM, Some(form), None));
    let x = tensor(&golden("linear"), "x");
    let [linear, residual] =
        [linear, residual].map(|model| values(model.valid().project_image(x.clone(), &Dropout::off())));
    assert_eq!(linear, residual);
    assert!(linear.iter().any(|value| value.abs() > 1e-3));
}

#[test]
fn dropout_needs_a_seed_and_a_head_that_trains() {
    let dropped = |kind| HeadForm { dropout: 0.5, ..HeadForm::default_of(kind) };
    for kind in [HeadKind::Gated { expansion: 2 }, HeadKind::Residual, HeadKind::Blocks { count: 1 }] {
        let golden = match kind {
            HeadKind::Residual => Some(golden("residual")),
            _ => None,
        };
        let head = new_model(DIM, Some(dropped(kind)), None).image_projection;
        // The small network of a new residual head adds nothing yet.
        let head = golden.map_or(head.clone(), |golden| parameters::update(head, &mut Set(&golden)));
        let x = tensor(&self::golden("linear"), "x");
        let run = |head: &Head, dropout: &Dropout| values(head.forward(x.clone(), dropout));
        let off = run(&head, &Dropout::off());
        let [one, again, other] = [7, 7, 8].map(|seed| run(&head, &Dropout::training(seed)));
        assert_eq!(one, again, "{kind:?}");
        assert!(one != off && one != other, "{kind:?}");
        let locked = parameters::lock(head.clone());
        assert_eq!(run(&locked, &Dropout::training(7)), run(&locked, &Dropout::off()), "{kind:?}");
        // A tower that trains below a locked head changes nothing in that.
        let tracked = values(locked.forward(x.clone().autodiff().require_grad(), &Dropout::training(7)));
        assert_eq!(tracked, run(&locked, &Dropout::off()), "{kind:?}");
    }
}

#[test]
fn identity_has_the_width_of_the_text_tower() {
    let model = new_model(0, None, Some(HeadForm::IDENTITY));
    let width = model.text_tower.pooled_width();
    assert_eq!((model.embed_dim(), model.text_projection.dim()), (width, width));
    assert!(parameters::list(&model).iter().all(|info| !info.path.starts_with("text_projection")));
    let x: Tensor<2> = Tensor::ones([3, width], &crate::support::device());
    assert_eq!(values(model.project_text(x.clone(), &Dropout::training(1))), values(x));
    let dir = goldens("dual/vit_bert");
    let options = with_heads(width + 1, None, Some(HeadForm::IDENTITY));
    let error = build_from_towers(&dir, &dir, &options, &crate::support::device()).err().unwrap().to_string();
    assert!(error.contains("`model.text_head` is `identity`") && error.contains("remove `embed_dim`"), "{error}");
}

#[test]
fn linear_heads_of_a_model_are_taken_over() {
    let dir = goldens("dual/vit_bert");
    let open = |image, text| build_from_dual_encoder(&dir, &with_heads(0, image, text), &crate::support::device());
    let before = open(None, None).unwrap().model;
    let x: Tensor<2> = Tensor::from_data(TensorData::new(vec![0.3f32; WIDTH], [1, WIDTH]), &crate::support::device());
    let expected = values(before.project_image(x.clone(), &Dropout::off()));
    for wanted in [
        HeadForm { bias: true, ..HeadForm::LINEAR },
        form(HeadKind::Residual, true, false),
        HeadForm { dropout: 0.2, ..form(HeadKind::Residual, false, false) },
    ] {
        let model = open(Some(wanted), None).unwrap().model;
        assert_eq!(model.image_projection.form(), wanted);
        assert_eq!(model.text_projection.form(), HeadForm::LINEAR);
        assert_eq!(values(model.project_image(x.clone(), &Dropout::off())), expected);
        assert!(parameters::list(&model.image_projection).iter().all(|info| info.trains));
        // And from a model in memory.
        let again = before.clone().with_heads([Some(wanted), None], 1).unwrap();
        let parameters = |model: &DualEncoder| parameters::collect(model, ParamFilter::All).unwrap();
        assert_eq!(parameters(&again), parameters(&model));
    }
    for (wanted, reason) in [
        (HeadForm::default_of(HeadKind::Gated { expansion: 8 }), "its weights have no place in the other"),
        (HeadForm::default_of(HeadKind::Blocks { count: 1 }), "remove `kind`"),
        (HeadForm::default_of(HeadKind::Residual), "set `norm = false`"),
    ] {
        let error = open(None, Some(wanted)).err().unwrap().to_string();
        assert!(error.contains("the text head of `model.init` is `linear`") && error.contains(reason), "{error}");
    }
    let biased = before.with_heads([Some(HeadForm { bias: true, ..HeadForm::LINEAR }), None], 1).unwrap();
    let error = biased.with_heads([Some(HeadForm::LINEAR), None], 1).unwrap_err().to_string();
    assert!(error.contains("set `bias = true`"), "{error}");
}

#[test]
fn truncated_heads_give_first_values() {
    for (name, form) in cases() {
        let golden = golden(name);
        let mut model = new_model(DIM, None, None);
        model.image_projection = golden_head(form, &golden);
        let narrow = model.clone().truncated(3).unwrap();
        assert_eq!((narrow.embed_dim(), narrow.text_projection.dim()), (3, 3), "{name}");
        assert_eq!(narrow.image_projection.form(), form, "{name}");
        let run = |model: &DualEncoder| values(model.project_image(tensor(&golden, "x"), &Dropout::off()));
        let expected: Vec<f32> = golden["y"].values.chunks(DIM).flat_map(|row| &row[..3]).copied().collect();
        assert_close(name, &run(&narrow), &expected);
        assert_close(name, &run(&model.valid().truncated(3).unwrap()), &expected);
        let all = |model: &DualEncoder| parameters::collect(model, ParamFilter::All).unwrap();
        assert_eq!(all(&model.clone().truncated(DIM).unwrap()), all(&model), "{name}");
        for dim in [0, DIM + 1] {
            let error = model.clone().truncated(dim).unwrap_err().to_string();
            assert!(error.contains(&format!("have {DIM} values, which cannot be cut to {dim}")), "{error}");
        }
    }
}

#[test]
fn truncated_identity_gives_first_values() {
    let narrow = new_model(0, None, Some(HeadForm::IDENTITY)).truncated(2).unwrap();
    let width = narrow.text_tower.pooled_width();
    assert_eq!((narrow.text_projection.width(), narrow.text_projection.dim(), narrow.embed_dim()), (width, 2, 2));
    let rows: Vec<f32> = (0..3 * width).map(|at| at as f32).collect();
    let x: Tensor<2> = Tensor::from_data(TensorData::new(rows.clone(), [3, width]), &crate::support::device());
    let expected: Vec<f32> = rows.chunks(width).flat_map(|row| &row[..2]).copied().collect();
    assert_eq!(values(narrow.project_text(x, &Dropout::off())), expected);
}
