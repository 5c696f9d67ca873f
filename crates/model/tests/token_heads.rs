//! All tokens of an image as the output of a tower, and the heads that take them.

use std::collections::BTreeMap;

use burn::tensor::{FloatDType, Tensor, TensorData};
use dualenc_model::parameters::{self, ParamFilter, ParamUpdate};
use dualenc_model::{
    BuildOptions, Dropout, DualEncoder, HeadConfig, HostTensor, ImageTower, ImageTowerConfig, Pool, Pooling,
    TakenLayers, TokenForm, TokenHead, TokenKind, Tower, TowerOptions, build_from_dual_encoder, build_from_towers,
    read_safetensors,
};

use crate::support::{Expected, assert_close, assert_near, device, goldens, options};
use crate::taken_layers::{IMAGE_TOWERS, image};

fn tower(dir: &str, pool: Pool, norm: bool) -> ImageTower {
    let layers = TakenLayers { norm, ..TakenLayers::default() };
    image(&goldens(dir), TowerOptions { pool, layers, ..TowerOptions::default() }).unwrap().0
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn tokens_hold_what_other_poolings_take() {
    for (name, dir) in IMAGE_TOWERS {
        let pixels = Expected::of_file(&goldens("layers").join(format!("{name}.safetensors"))).tensor("pixel_values");
        for norm in [true, false] {
            let pooled = |pool| tower(dir, pool, norm).forward(pixels.clone(), &Dropout::off()).pooled;
            let tokens = tower(dir, Pool::Tokens, norm);
            let (all, first) = (pooled(Pool::Tokens), pooled(Pool::Cls));
            let [batch, width] = first.dims();
            assert_eq!(all.dims(), [batch, tokens.width()], "{name}");
            assert_close(&format!("{name}: class token"), all.clone().narrow(1, 0, width), &values(first));
            let ImageTowerConfig::Transformer(config) = tokens.config() else { panic!("{name} is no transformer") };
            let special = 1 + config.registers;
            let count = tokens.width() / width;
            let patches = all.reshape([batch, count, width]).narrow(1, special, count - special);
            let mean = patches.mean_dim(1).reshape([batch, width]);
            assert_close(&format!("{name}: patches"), mean, &values(pooled(Pool::Mean)));
        }
    }
}

#[test]
fn token_width_follows_the_image_size() {
    let tower = tower("towers/vit", Pool::Tokens, true);
    let (width, patch) = (tower.width(), tower.side_multiple());
    assert_eq!(tower.pooling(), Pooling::Tokens);
    assert!(tower.form().ends_with(" pooling=tokens"), "{}", tower.form());
    let dim = self::tower("towers/vit", Pool::Cls, true).width();
    let larger = tower.for_images(8 * patch, 6 * patch);
    assert_ne!(larger.width(), width);
    assert_eq!(larger.width(), (1 + 8 * 6) * dim);
    let pixels = Tensor::zeros([2, 3, 8 * patch, 6 * patch], &device());
    assert_eq!(larger.forward(pixels, &Dropout::off()).pooled.dims(), [2, larger.width()]);
}

#[test]
fn a_grid_of_means_stands_for_patches() {
    let [all, coarse] = [None, Some(2)].map(|token_grid| {
        let options = TowerOptions { pool: Pool::Tokens, token_grid, ..TowerOptions::default() };
        image(&goldens(REGISTERS), options).unwrap().0
    });
    let pixels: Tensor<4> =
        Expected::of_file(&goldens("layers").join("dinov2_registers.safetensors")).tensor("pixel_values");
    let [fine, means] = [&all, &coarse].map(|tower| tower.forward(pixels.clone(), &Dropout::off()).pooled);
    let [batch, _] = fine.dims();
    assert_eq!((means.dims(), coarse.width()), ([batch, (4 + 4) * 12], (4 + 4) * 12));
    assert!(coarse.form().contains(" token-grid=2)") && !all.form().contains("token-grid"), "{}", coarse.form());
    // Of a grid of 4 x 4 patches, the first cell has the patches 0, 1, 4 and 5.
    let [fine, means] = [fine, means].map(|tokens| {
        let count = tokens.dims()[1] / 12;
        tokens.reshape([batch, count, 12])
    });
    let patch = |at: usize| fine.clone().narrow(1, 4 + at, 1);
    let first = (patch(0) + patch(1) + patch(4) + patch(5)) / 4.0;
    let expected = |tensor: Tensor<3>| tensor.into_data().try_to_vec::<f32>().unwrap();
    assert_close("first cell", means.clone().narrow(1, 4, 1), &expected(first));
    assert_close("special tokens", means.narrow(1, 0, 4), &expected(fine.narrow(1, 0, 4)));
}

#[test]
fn towers_without_patches_have_no_tokens() {
    for dir in ["image_families/resnet", "image_families/swin"] {
        let options = TowerOptions { pool: Pool::Tokens, ..TowerOptions::default() };
        let error = image(&goldens(dir), options).unwrap_err();
        assert!(error.contains("it has no patch tokens"), "{dir}: {error}");
    }
}

const REGISTERS: &str = "image_families/dinov2_registers";
const PATCHES: &str = "image_families/siglip";

fn query(width: usize, heads: usize) -> TokenForm {
    TokenForm { kind: TokenKind::Query, width, heads, grid: None }
}

fn blocks(width: usize, heads: usize, count: usize, drop_path: f64) -> TokenForm {
    TokenForm { kind: TokenKind::Blocks { count, drop_path }, width, heads, grid: None }
}

/// The goldens, with the tower that has such tokens and the width of the output.
fn cases() -> [(&'static str, &'static str, TokenForm, usize); 4] {
    [
        ("query", REGISTERS, query(8, 2), 12 + 8),
        ("query_patches", PATCHES, query(8, 1), 12 + 8),
        ("blocks", REGISTERS, blocks(8, 2, 2, 0.0), 2 * 8),
        ("blocks_patches", PATCHES, blocks(12, 4, 1, 0.0), 12),
    ]
}

fn with_tokens(lock: &str, form: TokenForm) -> BuildOptions {
    let options = options(lock);
    BuildOptions { head: HeadConfig { image_tokens: Some(form), ..options.head }, ..options }
}

fn model(image: &str, lock: &str, form: TokenForm) -> DualEncoder {
    build_from_towers(&goldens(image), &goldens("towers/bert"), &with_tokens(lock, form), &device()).unwrap().model
}

/// Sets parameters by path.
struct Set<'a>(&'a BTreeMap<String, HostTensor>);

impl ParamUpdate for Set<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        let new = &self.0[&format!("before.{path}")];
        assert_eq!(value.dims().as_slice(), new.shape, "{path}");
        Tensor::from_data(TensorData::new(new.values.clone(), new.shape.clone()), &value.device())
    }
}

fn golden(name: &str) -> BTreeMap<String, HostTensor> {
    read_safetensors(&goldens("token_heads").join(format!("{name}.safetensors"))).unwrap()
}

fn golden_head(image: &str, form: TokenForm, golden: &BTreeMap<String, HostTensor>) -> TokenHead {
    let head = parameters::update(model(image, "LL", form).image_tokens.unwrap(), &mut Set(golden));
    assert_eq!(parameters::list(&head).len(), golden.keys().filter(|name| name.starts_with("before.")).count());
    assert_eq!(head.form(), form);
    head
}

fn tensor(golden: &BTreeMap<String, HostTensor>, name: &str) -> Tensor<2> {
    let HostTensor { shape, values } = golden[name].clone();
    Tensor::from_data(TensorData::new(values, shape), &device())
}

/// Compares gradients with those of the golden.
struct Gradients<'a> {
    name: &'a str,
    path: parameters::PathStack,
    all: &'a mut burn::tensor::Gradients,
    expected: &'a BTreeMap<String, HostTensor>,
    precise: bool,
}

impl burn::module::ModuleVisitor for Gradients<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }
    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }
    fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
        let path = self.path.path();
        let found = param.val().grad_remove(self.all).unwrap_or_else(|| panic!("{} {path}: no gradient", self.name));
        let expected = &self.expected[&format!("gradient.{path}")].values;
        assert!(expected.iter().any(|value| value.abs() > 1e-4), "{path}: nothing to compare");
        let name = format!("{} {path}", self.name);
        if self.precise { assert_close(&name, found, expected) } else { assert_near(&name, found, expected) }
    }
}

#[test]
fn token_heads_match_pytorch() {
    for (name, image, form, width) in cases() {
        let golden = golden(name);
        let head = golden_head(image, form, &golden);
        assert_eq!((head.width(), golden["y"].shape[1]), (width, width), "{name}");
        // Tokens of a locked tower have no gradient, those of one that trains have.
        let locked = head.forward(tensor(&golden, "x"), &Dropout::training(3));
        let x = tensor(&golden, "x").autodiff().require_grad();
        let tracked = head.forward(x.clone(), &Dropout::training(3));
        let untracked = parameters::lock(head.clone()).forward(tensor(&golden, "x"), &Dropout::off());
        for y in [&locked, &tracked, &untracked] {
            assert_close(&format!("{name} y"), y.clone().without_autodiff(), &golden["y"].values);
        }
        for (y, is_tracked) in [(locked, false), (tracked, true)] {
            let mut all = (y * tensor(&golden, "weights")).sum().backward();
            if is_tracked {
                let found = x.grad_remove(&mut all).unwrap();
                assert_close(&format!("{name} x"), found, &golden["gradient.x"].values);
            }
            let path = parameters::PathStack::default();
            let mut compared = Gradients { name, path, all: &mut all, expected: &golden, precise: true };
            burn::module::Module::visit(&head, &mut compared);
        }
    }
}

#[test]
fn half_precision_of_token_heads_stays_near() {
    for (name, image, form, _) in cases() {
        let golden = golden(name);
        let head = golden_head(image, form, &golden);
        for precision in [FloatDType::F16, FloatDType::BF16] {
            let half = parameters::cast(head.clone(), precision);
            let y = half.forward(tensor(&golden, "x").cast(precision), &Dropout::off()).cast(FloatDType::F32);
            assert_near(name, y.clone().without_autodiff(), &golden["y"].values);
        }
    }
}

#[test]
fn initial_values_of_token_heads() {
    for (name, image, form, _) in cases() {
        let head = model(image, "LL", form).image_tokens.unwrap();
        for (path, HostTensor { values, .. }) in parameters::collect(&head, ParamFilter::All).unwrap() {
            let all = |value: f32| values.iter().all(|found| *found == value);
            match path.rsplit('.').next().unwrap() {
                "bias" => assert!(all(0.0), "{name} {path}"),
                "attention_scale" | "mlp_scale" => assert!(all(1e-5), "{name} {path}"),
                "weight" if path.contains("norm") => assert!(all(1.0), "{name} {path}"),
                "weight" => assert!(values.iter().any(|value| value.abs() > 1e-2), "{name} {path}"),
                "probe" => assert!(values.iter().all(|value| value.abs() < 0.1), "{name} {path}"),
                other => panic!("{name} {path}: {other}"),
            }
        }
    }
}

#[test]
fn drop_path_leaves_out_whole_images() {
    let x: Tensor<2> = Tensor::ones([64, 20 * 12], &device());
    // Blocks start close to the identity: their branches are scaled up, so that what is left out shows.
    struct Scale;
    impl ParamUpdate for Scale {
        fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
            if path.ends_with("_scale") { value * 1e5 } else { value }
        }
    }
    let head = model(REGISTERS, "LL", blocks(8, 2, 1, 0.5)).image_tokens.unwrap();
    let head = parameters::update(head, &mut Scale);
    let rows = |dropout: &Dropout| {
        let values = values(head.forward(x.clone(), dropout).without_autodiff());
        values.chunks(16).map(|row| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let distinct = |rows: &[Vec<u32>]| rows.iter().collect::<std::collections::BTreeSet<_>>().len();
    let (one, again, other) = (rows(&Dropout::training(1)), rows(&Dropout::training(1)), rows(&Dropout::training(2)));
    // Of two branches, both, one or none.
    assert_eq!((distinct(&one), distinct(&other), distinct(&rows(&Dropout::off()))), (4, 4, 1));
    assert!(one == again && one != other);
}

#[test]
fn a_tower_that_trains_gets_gradients_through_tokens() {
    let pixels = Expected::of_file(&goldens("layers").join("vit.safetensors")).tensor("pixel_values");
    for form in [query(8, 2), blocks(8, 2, 1, 0.0)] {
        let [locked, trained] = ["LL", "UL"].map(|lock| model("towers/vit", lock, form));
        let cached = locked.image_tower.forward(pixels.clone(), &Dropout::off()).pooled;
        let expected = values(locked.project_image(cached, &Dropout::off()).without_autodiff());
        let found = trained.image_features(pixels.clone(), &Dropout::off());
        assert_close("features", found.clone().without_autodiff(), &expected);
        let all = found.square().sum().backward();
        let infos = parameters::list(&trained).into_iter().filter(|info| info.trains && info.path.contains("patch"));
        assert!(infos.count() > 0);
        let ImageTower::Transformer(_) = &trained.image_tower else { panic!("no transformer") };
        assert!(PatchGradient::of(&trained.image_tower, all) > 0.0);
    }
}

/// The largest gradient of the patch embedding.
struct PatchGradient {
    path: parameters::PathStack,
    all: burn::tensor::Gradients,
    largest: f32,
}

impl PatchGradient {
    fn of(tower: &ImageTower, all: burn::tensor::Gradients) -> f32 {
        let mut visitor = Self { path: parameters::PathStack::default(), all, largest: 0.0 };
        burn::module::Module::visit(tower, &mut visitor);
        visitor.largest
    }
}

impl burn::module::ModuleVisitor for PatchGradient {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }
    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }
    fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
        if self.path.path().starts_with("patch.")
            && let Some(gradient) = param.val().grad(&self.all)
        {
            self.largest = self.largest.max(gradient.abs().max().into_scalar::<f32>());
        }
    }
}

#[test]
fn summary_of_tokens_is_that_of_the_tower() {
    for (name, dir) in IMAGE_TOWERS {
        let pixels: Tensor<4> =
            Expected::of_file(&goldens("layers").join(format!("{name}.safetensors"))).tensor("pixel_values");
        let model = model(dir, "LL", query(8, 2));
        let tokens = model.image_tower.forward(pixels.clone(), &Dropout::off()).pooled;
        let summary = model.image_summary(tokens);
        assert_eq!(summary.dims()[1], model.image_summary_width());
        let first = tower(dir, Pool::Cls, true).forward(pixels, &Dropout::off()).pooled;
        assert_close(name, summary, &values(first));
    }
    assert_eq!(Tower::of_head("image_tokens.probe"), Some(Tower::Image));
}

#[test]
fn what_has_no_tokens_is_refused() {
    let bert = goldens("towers/bert");
    let form = query(8, 2);
    let refused = |image: &str, options: BuildOptions| {
        build_from_towers(&goldens(image), &bert, &options, &device()).err().unwrap().to_string()
    };
    let error = refused("image_families/resnet", with_tokens("LL", form));
    assert!(error.contains("`image_head.tokens`") && error.contains("`resnet` is none"), "{error}");
    let mut several = with_tokens("LL", form);
    several.image.layers.numbers = vec![1, 2].into();
    let error = refused("towers/vit", several);
    assert!(error.contains("`image_layer` is [1, 2]") && error.contains("tokens of one layer"), "{error}");
    let whole = build_from_dual_encoder(&goldens("dual/vit_bert"), &with_tokens("LL", form), &device());
    let error = whole.err().unwrap().to_string();
    assert!(error.contains("(query over tokens, width 8, 2 heads)") && error.contains("whole model"), "{error}");
}
