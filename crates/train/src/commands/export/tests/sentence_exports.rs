//! What the stock modules of sentence-transformers compute of a class token beside a mean, and `Dense` layers that are
//! handed on.

use std::fs;
use std::path::Path;

use dualenc_model::{
    BuildOptions, Dropout, Lock, Pool, TowerLock, build_from_towers, image_tower_from, parameters, read_safetensors,
};
use serde_json::{Value, json};

use crate::commands::export::export;
use crate::commands::export::json_files::read_object;
use crate::commands::export::request::{ExportFormat, ExportRequest};
use crate::commands::export::tests::{Messages, goldens, inputs, opened, staged};
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

fn exported(loaded: &LoadedModel, dir: &Path) -> Result<(), String> {
    let request = ExportRequest { format: ExportFormat::SentenceTransformers, ..ExportRequest::new(dir) };
    export(loaded, &request, &StopFlag::default(), &mut Messages::default()).map_err(|error| error.to_string())
}

fn json_of(path: &Path) -> Value {
    Value::Object(read_object(path).unwrap())
}

/// `source` and the text tower in `text`, pooled as asked for, with new projections.
fn pooled_by(source: &Path, text: &Path, pools: [Pool; 2]) -> LoadedModel {
    let mut loaded = opened(source, &mut Messages::default());
    let mut options = BuildOptions::evaluation();
    options.lock = Lock { image: TowerLock::Locked, text: TowerLock::Locked };
    options.head.embed_dim = 5;
    [options.image.pool, options.text.pool] = pools;
    let built = build_from_towers(source, text, &options, &loaded.model.device()).unwrap();
    loaded.model = built.model.valid();
    loaded.text_config = built.text_config;
    loaded
}

#[test]
fn class_token_and_mean_are_folded() {
    let root = tempfile::tempdir().unwrap();
    let name = "dual/dinov2_bert";
    let source = staged(name, root.path());
    let loaded = pooled_by(&source, &source, [Pool::ClsMean, Pool::Mean]);
    let dir = root.path().join("out");
    exported(&loaded, &dir).unwrap();
    let pooling = json_of(&dir.join("image_1_Pooling/config.json"));
    let width = loaded.model.image_tower.width() / 2;
    assert_eq!((&pooling["pooling_mode"], &pooling["embedding_dimension"]), (&json!(["cls", "mean"]), &json!(width)));
    // The mean of all tokens, from that of the patches.
    let (pixels, _) = inputs(&loaded, name);
    let pooled = |pool| {
        let mut options = BuildOptions::evaluation().image;
        options.pool = pool;
        let (tower, _) = image_tower_from(&source, TowerLock::Locked, options, &loaded.model.device()).unwrap();
        parameters::host(tower.forward(pixels.clone(), &Dropout::off()).pooled).unwrap().values
    };
    let ([_, _, high, wide], side) = (pixels.dims(), loaded.model.image_tower.side_multiple());
    let patches = (high / side * (wide / side)) as f32;
    let weight = &read_safetensors(&dir.join("image_2_Dense/model.safetensors")).unwrap()["linear.weight"];
    let (first, mean) = (pooled(Pool::Cls), pooled(Pool::Mean));
    let rows = first.chunks(width).zip(mean.chunks(width)).flat_map(|(first, mean)| {
        let all = first.iter().zip(mean).map(|(first, mean)| (first + patches * mean) / (patches + 1.0));
        let row: Vec<f32> = first.iter().copied().chain(all).collect();
        weight.values.chunks(2 * width).map(|of| of.iter().zip(&row).map(|(a, b)| a * b).sum()).collect::<Vec<f32>>()
    });
    let found: Vec<f32> = rows.collect();
    let expected = parameters::host(loaded.model.get_image_features(pixels.clone())).unwrap().values;
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(
        found.len() == expected.len() && largest > 0.0 && worst <= 1e-5 * largest,
        "differs by {worst} of {largest}"
    );
}

#[test]
fn class_token_and_mean_beside_registers_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let source = staged("image_families/dual_dinov2_registers", root.path());
    let loaded = pooled_by(&source, &source, [Pool::ClsMean, Pool::Mean]);
    let text = exported(&loaded, &root.path().join("out")).unwrap_err();
    assert!(
        text.contains("cannot pool this image tower by the class token and the mean of the patch tokens"),
        "{text}"
    );
}

#[test]
fn dense_layers_are_handed_on() {
    let root = tempfile::tempdir().unwrap();
    let text = root.path().join("text");
    let copy = |from: &Path, name: &str| {
        let target = text.join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(name), target).unwrap();
    };
    ["config.json", "model.safetensors"].iter().for_each(|name| copy(&goldens().join("towers/bert"), name));
    let sentence = goldens().join("layers/sentence");
    ["modules.json", "1_Pooling/config.json"].iter().for_each(|name| copy(&sentence, name));
    for dense in ["2_Dense", "3_Dense"] {
        ["config.json", "model.safetensors"].iter().for_each(|name| copy(&sentence, &format!("{dense}/{name}")));
    }
    let source = staged("dual/vit_bert", root.path());
    let loaded = pooled_by(&source, &text, [Pool::Auto, Pool::Sentence]);
    let map = loaded.model.text_projection.clone().linear_part().map(|map| map.weight.dims());
    assert_eq!((loaded.model.text_tower.pooled_width(), map), (9, Some([9, 5])));
    let dir = root.path().join("out");
    exported(&loaded, &dir).unwrap();
    let modules = ["text_0_Transformer", "text_1_Pooling", "text_2_Dense", "text_3_Dense", "text_4_Dense"];
    assert_eq!(json_of(&dir.join("router_config.json"))["structure"]["text"], json!(modules));
    assert_eq!(json_of(&dir.join("text_1_Pooling/config.json"))["embedding_dimension"], 20);
    for (dense, module) in ["2_Dense", "3_Dense"].iter().zip(&modules[2..]) {
        let (before, after) =
            (json_of(&sentence.join(dense).join("config.json")), json_of(&dir.join(module).join("config.json")));
        for key in ["in_features", "out_features", "bias", "activation_function"] {
            assert_eq!(before[key], after[key], "{dense} {key}");
        }
        let weights = |dir: &Path| read_safetensors(&dir.join("model.safetensors")).unwrap();
        assert_eq!(weights(&sentence.join(dense)), weights(&dir.join(module)), "{dense}");
    }
    let tower = read_safetensors(&dir.join("text_0_Transformer/model.safetensors")).unwrap();
    assert!(tower.keys().all(|name| !name.starts_with("dense.")), "{:?}", tower.keys());
    let refused =
        export(&loaded, &ExportRequest::new(&root.path().join("hf")), &StopFlag::default(), &mut Messages::default());
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("text_pool = \"pooler\"") && refused.contains("--format sentence-transformers"),
        "{refused}"
    );
}
