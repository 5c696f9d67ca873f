//! Heads of every kind, written alone and as stock modules, compute what PyTorch does (`tests/goldens/heads`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use dualenc_model::{
    BuildOptions, Dropout, HeadConfig, HeadForm, HeadKind, HostTensor, Pool, build_from_towers, image_tower_from,
    parameters, read_safetensors,
};
use parameters::ParamUpdate;
use serde_json::{Value, json};

use crate::commands::export::export;
use crate::commands::export::json_files::read_object;
use crate::commands::export::request::{ExportFormat, ExportRequest};
use crate::commands::export::tests::as_pytorch::{Rows, assert_same, head, route, rows};
use crate::commands::export::tests::{Messages, goldens, inputs, opened, staged};
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

/// Widths of the golden heads.
const WIDTH: usize = 16;
const DIM: usize = 10;

/// Values of cut embeddings.
const CUT: usize = 3;

fn cases() -> [(&'static str, HeadForm); 9] {
    let form = |kind, bias, norm| HeadForm { kind, bias, norm, dropout: 0.0 };
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

/// Sets the image head to golden values or, without them, to values that look random.
struct SetImageHead<'a>(Option<&'a BTreeMap<String, HostTensor>>);

impl ParamUpdate for SetImageHead<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        let Some(path) = path.strip_prefix("image_projection.") else { return value };
        let (shape, count) = (value.dims().to_vec(), value.dims().iter().product::<usize>());
        let drawn = || HostTensor { shape, values: (0..count).map(|at| ((at * 7919 + 1) as f32).sin()).collect() };
        let HostTensor { shape, values } =
            self.0.map_or_else(drawn, |golden| golden[&format!("before.{path}")].clone());
        Tensor::from_data(TensorData::new(values, shape), &value.device())
    }
}

/// The model in `source` with this image head, set to `golden`, and the image tower pooled by `pool`.
fn with_head(source: &Path, form: HeadForm, golden: Option<&BTreeMap<String, HostTensor>>, pool: Pool) -> LoadedModel {
    let mut loaded = opened(source, &mut Messages::default());
    let mut options = BuildOptions::evaluation();
    options.head = HeadConfig { image: Some(form), ..HeadConfig::linear(DIM, 0.0) };
    options.image.pool = pool;
    let built = build_from_towers(source, source, &options, &loaded.model.device()).unwrap();
    loaded.model = parameters::update(built.model, &mut SetImageHead(golden)).valid();
    loaded
}

fn exported(loaded: &LoadedModel, format: ExportFormat, dir: &Path) -> Result<(), String> {
    let request = ExportRequest { format, ..ExportRequest::new(dir) };
    export(loaded, &request, &StopFlag::default(), &mut Messages::default()).map_err(|error| error.to_string())
}

fn json_of(path: &Path) -> Value {
    Value::Object(read_object(path).unwrap())
}

/// Calls `check` with each golden head, whole and cut: its name, the model, the input and the expected output.
fn for_each_head(source: &Path, check: impl Fn(&str, &LoadedModel, &Rows, &[f32])) {
    for (name, form) in cases() {
        let golden = read_safetensors(&goldens().join(format!("heads/{name}.safetensors"))).unwrap();
        let x = rows(&golden["x"].values, WIDTH);
        let loaded = with_head(source, form, Some(&golden), Pool::Auto);
        let whole = &golden["y"].values;
        check(name, &loaded, &x, whole);
        let cut: Vec<f32> = whole.chunks(DIM).flat_map(|row| &row[..CUT]).copied().collect();
        check(&format!("{name}, cut"), &loaded.truncated(CUT, &mut Messages::default()).unwrap(), &x, &cut);
    }
}

#[test]
fn written_heads_compute_as_pytorch_does() {
    let root = tempfile::tempdir().unwrap();
    for_each_head(&staged("dual/vit_bert", root.path()), |name, loaded, x, expected| {
        let dir = root.path().join(name);
        exported(loaded, ExportFormat::Heads, &dir).unwrap();
        let config = json_of(&dir.join("config.json"));
        let dim = expected.len() / x.len();
        assert_eq!((&config["embed_dim"], &config["image"]["width"]), (&json!(dim), &json!(WIDTH)), "{name}");
        assert_eq!((&config["image"]["input"], &config["text"]["kind"]), (&json!("tower"), &json!("linear")));
        let tensors = read_safetensors(&dir.join("model.safetensors")).unwrap();
        assert_eq!(tensors["text_projection.weight"].shape, [dim, loaded.model.text_tower.pooled_width()], "{name}");
        assert_same(name, &head(&config["image"], &tensors, "image_projection", x), expected);
        let card = fs::read_to_string(dir.join("README.md")).unwrap();
        let form = loaded.model.image_projection.form();
        assert!(card.contains(&format!("def embed_image(x):  # [rows, {WIDTH}] to [rows, {dim}]: {form}\n")), "{card}");
    });
}

#[test]
fn stock_modules_compute_as_pytorch_does() {
    let root = tempfile::tempdir().unwrap();
    for_each_head(&staged("dual/vit_bert", root.path()), |name, loaded, x, expected| {
        let dir = root.path().join(name);
        let done = exported(loaded, ExportFormat::SentenceTransformers, &dir);
        let kind = loaded.model.image_projection.form().kind.name();
        let reason = match kind {
            "glu" => "no stock module for the product in a `glu`",
            "blocks" => "no stock module that adds to its input",
            _ => return assert_same(name, &route(&dir, "image", x), done.map(|()| expected).unwrap()),
        };
        let text = done.unwrap_err();
        assert!(text.contains(reason) && text.contains(&format!("the image head of this model is `{kind}")), "{text}");
        assert!(text.contains("`--format heads` writes") && !dir.exists(), "{text}");
    });
}

#[test]
fn class_token_and_mean_come_before_other_heads() {
    let root = tempfile::tempdir().unwrap();
    let name = "dual/dinov2_bert";
    let source = staged(name, root.path());
    for (pool, form) in [
        (Pool::Mean, HeadForm::default_of(HeadKind::Residual)),
        (Pool::ClsMean, HeadForm { norm: true, ..HeadForm::LINEAR }),
        (Pool::ClsMean, HeadForm { norm: false, ..HeadForm::default_of(HeadKind::Residual) }),
    ] {
        let loaded = with_head(&source, form, None, pool);
        let dir = root.path().join(format!("{pool:?} {form}"));
        exported(&loaded, ExportFormat::SentenceTransformers, &dir).unwrap();
        let (pixels, _) = inputs(&loaded, name);
        let pooled = |pool| {
            let mut options = BuildOptions::evaluation().image;
            options.pool = pool;
            let lock = dualenc_model::TowerLock::Locked;
            let (tower, _) = image_tower_from(&source, lock, options, &loaded.model.device()).unwrap();
            let pooled = tower.forward(pixels.clone(), &Dropout::off()).pooled;
            rows(&parameters::host(pooled).unwrap().values, WIDTH)
        };
        // The mean of all tokens, from that of the patches.
        let ([_, _, high, wide], side) = (pixels.dims(), loaded.model.image_tower.side_multiple());
        let patches = (high / side * (wide / side)) as f64;
        let all = |first: &[f64], mean: &[f64]| {
            first.iter().zip(mean).map(|(first, mean)| (first + patches * mean) / (patches + 1.0)).collect::<Vec<f64>>()
        };
        let tokens = pooled(Pool::Cls).into_iter().zip(pooled(Pool::Mean));
        let given: Rows = tokens.map(|(first, mean)| [first.clone(), all(&first, &mean)].concat()).collect();
        let expected = parameters::host(loaded.model.get_image_features(pixels.clone())).unwrap().values;
        assert_same(&format!("{pool:?} {form}"), &route(&dir, "image", &given), &expected);
    }
}

#[test]
fn cut_identity_is_the_first_rows_of_a_matrix() {
    let root = tempfile::tempdir().unwrap();
    let source = staged("dual/vit_bert", root.path());
    let mut loaded = opened(&source, &mut Messages::default());
    let mut options = BuildOptions::evaluation();
    options.head = HeadConfig { text: Some(HeadForm::IDENTITY), ..HeadConfig::linear(0, 0.0) };
    loaded.model = build_from_towers(&source, &source, &options, &loaded.model.device()).unwrap().model.valid();
    let width = loaded.model.text_tower.pooled_width();
    let loaded = loaded.truncated(CUT, &mut Messages::default()).unwrap();
    for (format, file, name) in [
        (ExportFormat::Transformers, "model.safetensors", "text_projection.weight"),
        (ExportFormat::SentenceTransformers, "text_1_Dense/model.safetensors", "linear.weight"),
    ] {
        let dir = root.path().join(format!("{format:?}"));
        exported(&loaded, format, &dir).unwrap();
        let matrix = &read_safetensors(&dir.join(file)).unwrap()[name];
        assert_eq!(matrix.shape, [CUT, width]);
        let expected = (0..CUT * width).map(|at| f32::from(u8::from(at % (width + 1) == 0)));
        assert_eq!(matrix.values, expected.collect::<Vec<_>>());
    }
    let dir = root.path().join("heads");
    exported(&loaded, ExportFormat::Heads, &dir).unwrap();
    let config = json_of(&dir.join("config.json"));
    assert_eq!((&config["text"]["kind"], &config["text"]["width"]), (&json!("identity"), &json!(width)));
    assert!(fs::read_to_string(dir.join("README.md")).unwrap().contains("return normalize(x[:, :3], dim=-1)"));
}
