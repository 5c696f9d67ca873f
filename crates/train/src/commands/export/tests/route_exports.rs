//! Exports dual encoders for sentence-transformers, loads the towers that the modules hold, and computes what the
//! modules compute: the features are the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dualenc_model::{
    BuildOptions, Dropout, DualEncoder, HostTensor, Pool, Pooling, build_from_dual_encoder, build_from_towers,
    parameters, read_safetensors,
};
use serde_json::{Value, json};

use crate::commands::export::export;
use crate::commands::export::json_files::read_object;
use crate::commands::export::request::{ExportFormat, ExportRequest};
use crate::commands::export::tests::{Messages, features, goldens, inputs, opened, staged};
use crate::error::TrainError;
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

const IMAGE: &str = "image_0_Transformer";
const TEXT: &str = "text_0_Transformer";

fn exported(loaded: &LoadedModel, dir: &Path) -> Result<(), TrainError> {
    let request = ExportRequest { format: ExportFormat::SentenceTransformers, ..ExportRequest::new(dir) };
    export(loaded, &request, &StopFlag::default(), &mut Messages::default())
}

fn json_of(path: &Path) -> Value {
    Value::Object(read_object(path).unwrap_or_else(|error| panic!("{error}")))
}

/// Every file below `dir`.
fn files(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).iter().map(|file| format!("{name}/{file}")));
        } else {
            found.insert(name);
        }
    }
    found
}

/// The towers of the exported modules, pooled by `pools`.
fn towers(dir: &Path, pools: [Pool; 2], loaded: &LoadedModel) -> DualEncoder {
    let mut options = BuildOptions::evaluation();
    options.head.embed_dim = loaded.model.embed_dim();
    (options.image.pool, options.text.pool) = (pools[0], pools[1]);
    build_from_towers(&dir.join(IMAGE), &dir.join(TEXT), &options, &loaded.model.device()).unwrap().model.valid()
}

/// Row by row, the product of `[rows, width]` and the transpose of the weight `[dim, width]`.
fn dense(rows: &[f32], weight: &HostTensor) -> Vec<f32> {
    let width = weight.shape[1];
    let dot = |row: &[f32], of: &[f32]| row.iter().zip(of).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    rows.chunks(width).flat_map(|row| weight.values.chunks(width).map(move |of| dot(row, of) as f32)).collect()
}

/// What the modules of the exported `dir` compute for the fixture.
fn module_features(dir: &Path, loaded: &LoadedModel, fixture: &str) -> [Vec<f32>; 2] {
    let (pixels, tokens) = inputs(loaded, fixture);
    let router = json_of(&dir.join("router_config.json"));
    let last = |route: &str| router["structure"][route].as_array().unwrap().last().unwrap().as_str().unwrap();
    let weight = |route: &str| {
        read_safetensors(&dir.join(last(route)).join("model.safetensors")).unwrap().remove("linear.weight").unwrap()
    };
    let pooled = |pools: [Pool; 2]| {
        let model = towers(dir, pools, loaded);
        let image = model.image_tower.forward(pixels.clone(), &Dropout::off()).pooled;
        let text = model.text_tower.forward(&tokens, &Dropout::off()).unwrap().pooled;
        [image, text].map(|pooled| parameters::host(pooled).unwrap().values)
    };
    // The pooling that each route names.
    let pool = |route: &str, tower: &str| {
        let output = &json_of(&dir.join(tower).join("sentence_bert_config.json"))["modality_config"][route];
        let modes = dir.join(format!("{route}_1_Pooling/config.json"));
        match output["method_output_name"].as_str().unwrap() {
            "pooler_output" => Pool::Auto,
            _ if json_of(&modes)["pooling_mode"] == json!(["cls", "mean"]) => Pool::Mean,
            _ => serde_json::from_value(json_of(&modes)["pooling_mode"].clone()).unwrap(),
        }
    };
    let [image, text] = pooled([pool("image", IMAGE), pool("text", TEXT)]);
    let width = loaded.model.image_tower.width();
    if weight("image").shape[1] == width {
        return [dense(&image, &weight("image")), dense(&text, &weight("text"))];
    }
    // `Pooling` gives the first token and the mean of all tokens.
    let [first, _] = pooled([Pool::Cls, pool("text", TEXT)]);
    let ([_, _, high, wide], side) = (pixels.dims(), loaded.model.image_tower.side_multiple());
    let patches = (high / side * (wide / side)) as f32;
    let all = |(first, mean): (&f32, &f32)| (first + patches * mean) / (patches + 1.0);
    let rows = first.chunks(width).zip(image.chunks(width));
    let image: Vec<f32> =
        rows.flat_map(|(first, mean)| [first.to_vec(), first.iter().zip(mean).map(all).collect()].concat()).collect();
    [dense(&image, &weight("image")), dense(&text, &weight("text"))]
}

#[track_caller]
fn assert_same_features(dir: &Path, loaded: &LoadedModel, fixture: &str) {
    for (before, after) in features(loaded, fixture).iter().zip(&module_features(dir, loaded, fixture)) {
        let largest = before.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let worst = before.iter().zip(after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(before.len() == after.len() && worst <= 1e-5 * largest, "{fixture}: features differ by {worst}");
    }
}

#[test]
fn modules_compute_same_features() {
    let root = tempfile::tempdir().unwrap();
    for name in [
        "dual/deit_roberta",
        "dual/dinov2_bert",
        "image_families/dual_resnet",
        "image_families/dual_clip",
        "text_families/pair_albert",
        "text_families/pair_clip_text",
        "text_families/pair_deberta",
        "text_families/pair_distilbert",
        "text_families/pair_electra",
        "text_families/pair_modernbert",
        "whole/chinese_clip",
    ] {
        let loaded = opened(&staged(name, root.path()), &mut Messages::default());
        let dir = root.path().join("out").join(name);
        exported(&loaded, &dir).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_same_features(&dir, &loaded, name);
    }
}

#[test]
fn pools_by_token_and_mean() {
    let root = tempfile::tempdir().unwrap();
    let name = "dual/dinov2_bert";
    let source = staged(name, root.path());
    for (image, text, modes) in [(Pool::Mean, Pool::Mean, json!(["cls", "mean"])), (Pool::Cls, Pool::Cls, json!(null))]
    {
        let mut loaded = opened(&source, &mut Messages::default());
        let mut options = BuildOptions::evaluation();
        (options.image.pool, options.text.pool) = (image, text);
        loaded.model = build_from_dual_encoder(&source, &options, &loaded.model.device()).unwrap().model;
        assert_ne!(loaded.model.text_tower.pooling(), Pooling::Pooler);
        let dir = root.path().join(format!("{text:?}"));
        exported(&loaded, &dir).unwrap();
        assert_same_features(&dir, &loaded, name);
        let pooling = dir.join("image_1_Pooling/config.json");
        // The class token is DINOv2's own output.
        let found = if pooling.exists() { json_of(&pooling)["pooling_mode"].clone() } else { Value::Null };
        assert_eq!(found, modes);
        let settings = json_of(&dir.join(TEXT).join("sentence_bert_config.json"));
        assert_eq!(settings["model_kwargs"], json!({"add_pooling_layer": false}), "BERT's pooler has no weights");
    }
}

#[test]
fn directory_has_stock_modules() {
    let root = tempfile::tempdir().unwrap();
    let loaded = opened(&staged("dual/vit_bert", root.path()), &mut Messages::default());
    let dir = root.path().join("st");
    exported(&loaded, &dir).unwrap();
    let expected = "1_Normalize/config.json README.md config_sentence_transformers.json modules.json \
         router_config.json image_0_Transformer/config.json image_0_Transformer/model.safetensors \
         image_0_Transformer/preprocessor_config.json image_0_Transformer/sentence_bert_config.json \
         image_1_Dense/config.json image_1_Dense/model.safetensors text_0_Transformer/config.json \
         text_0_Transformer/model.safetensors text_0_Transformer/sentence_bert_config.json \
         text_0_Transformer/tokenizer_config.json text_1_Dense/config.json text_1_Dense/model.safetensors";
    let found = files(&dir);
    let vocabulary = |file: &&String| file.ends_with("vocab.txt") || file.contains("/tokenizer.json");
    let found: BTreeSet<&str> = found.iter().filter(|file| !vocabulary(file)).map(String::as_str).collect();
    let found: BTreeSet<&str> = found.into_iter().filter(|file| !file.contains("special_tokens")).collect();
    assert_eq!(found, expected.split_whitespace().collect());
    let modules: Value = serde_json::from_slice(&fs::read(dir.join("modules.json")).unwrap()).unwrap();
    assert_eq!(
        modules,
        json!([
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.router.Router"},
            {"idx": 1, "name": "1", "path": "1_Normalize",
             "type": "sentence_transformers.base.modules.normalize.Normalize"},
        ])
    );
    let router = json_of(&dir.join("router_config.json"));
    assert_eq!(
        router["structure"],
        json!({"text": ["text_0_Transformer", "text_1_Dense"], "image": ["image_0_Transformer", "image_1_Dense"]})
    );
    assert_eq!(router["types"]["text_1_Dense"], "sentence_transformers.base.modules.dense.Dense");
    let image = json_of(&dir.join(IMAGE).join("sentence_bert_config.json"));
    assert_eq!(
        image["modality_config"],
        json!({"image": {"method": "forward", "method_output_name": "pooler_output"}})
    );
    let text = json_of(&dir.join(TEXT).join("sentence_bert_config.json"));
    assert_eq!(text["max_seq_length"], loaded.tokenizer.max_tokens());
    let source = json_of(&goldens().join("dual/vit_bert/tokenizer_config.json"));
    let tokenizer = json_of(&dir.join(TEXT).join("tokenizer_config.json"));
    assert_eq!(
        (&source["processor_class"], &tokenizer["processor_class"]),
        (&json!("VisionTextDualEncoderProcessor"), &Value::Null),
        "transformers would look for an image processor in the text route"
    );
    let card = fs::read_to_string(dir.join("README.md")).unwrap();
    assert!(card.contains("library_name: sentence-transformers\n") && card.contains("SentenceTransformer(\".\")"));
}

#[test]
fn refuses_what_stock_modules_cannot_compute() {
    let root = tempfile::tempdir().unwrap();
    let siglip = opened(&staged("whole/siglip", root.path()), &mut Messages::default());
    let clip = staged("image_families/dual_clip", root.path());
    let mut mean = opened(&clip, &mut Messages::default());
    let mut options = BuildOptions::evaluation();
    options.image.pool = Pool::Mean;
    mean.model = build_from_dual_encoder(&clip, &options, &mean.model.device()).unwrap().model;
    let mut resized = opened(&staged("dual/vit_bert", root.path()), &mut Messages::default());
    let side = 2 * resized.processor.output_size().0;
    resized.processor = std::sync::Arc::new(resized.processor.with_image_size(side));
    for (loaded, expected) in [
        (siglip, "cannot load the text tower `siglip_text_model` by itself"),
        (mean, "cannot pool this image tower by the mean of the patch tokens; train with `image_pool = \"auto\"`"),
        (resized, "export with `--format transformers`, or train without `model.image_size`"),
    ] {
        let dir = root.path().join("out");
        let text = exported(&loaded, &dir).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
        assert!(!dir.exists());
    }
}
