//! Models with both towers in one directory match transformers (`tests/goldens/whole`), also with weights in shards or
//! under the names of transformers 4. Pickles and unknown models are refused.

use std::fs;
use std::path::{Path, PathBuf};

use dualenc_model::{
    Audit, BuildOptions, BuiltModel, DualEncoder, Head, Pool, Pooling, TowerLock, TowerOptions,
    build_from_dual_encoder, image_tower_from, is_dual_encoder_dir, parameters, text_tower_from,
};

use crate::support::{Expected, assert_dual_encoder, device, goldens, options};

const WHOLE: [&str; 6] = ["clip", "clip_early", "chinese_clip", "siglip", "doubled", "open_clip"];

fn dir(name: &str) -> PathBuf {
    goldens("whole").join(name)
}

fn built(name: &str, lock: &str) -> BuiltModel {
    build_from_dual_encoder(&dir(name), &options(lock), &device()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn scalar(parameter: &burn::module::Param<burn::tensor::Tensor<1>>) -> f32 {
    parameters::host(parameter.val()).unwrap().values[0]
}

#[test]
fn whole_models_match_reference() {
    for name in WHOLE {
        let expected = Expected::read(&dir(name));
        assert!(is_dual_encoder_dir(&dir(name)));
        let BuiltModel { model, image_audit, text_audit, .. } = built(name, "LL");
        for Audit { missing, unused, mismatched, .. } in [&image_audit, &text_audit] {
            assert_eq!((missing.len(), unused.len(), mismatched.len()), (0, 0, 0), "{name}");
        }
        let model = model.valid();
        assert_eq!(model.logit_bias.as_ref().map(scalar), (name == "siglip").then_some(-3.5), "{name}");
        assert_dual_encoder(name, &model, &expected);
    }
}

fn projections(model: &DualEncoder) -> [Vec<f32>; 2] {
    [&model.image_projection, &model.text_projection].map(|projection| {
        let Head::Linear(head) = projection else { panic!("{:?}", projection.form()) };
        let weight = parameters::host(head.weight.val()).unwrap();
        assert_eq!(weight.shape[1], model.embed_dim());
        weight.values
    })
}

#[test]
fn siglip_projections_are_trainable_identities() {
    let model = built("siglip", "LU").model;
    let identity: Vec<f32> = (0..144).map(|place| if place % 13 == 0 { 1.0 } else { 0.0 }).collect();
    assert_eq!(projections(&model), [identity.clone(), identity]);
    let trains: Vec<String> =
        parameters::list(&model).into_iter().filter(|info| info.trains).map(|info| info.path).collect();
    for path in ["image_projection.weight", "text_projection.weight", "logit_scale", "logit_bias"] {
        assert!(trains.iter().any(|trained| trained == path), "{path}");
    }
}

#[test]
fn chinese_clip_pools_the_first_token() {
    assert_eq!(built("chinese_clip", "LL").model.text_tower.pooling(), Pooling::Cls);
    let mean = TowerOptions { pool: Pool::Mean, ..TowerOptions::default() };
    let options = BuildOptions { text: mean, ..options("LL") };
    let model = build_from_dual_encoder(&dir("chinese_clip"), &options, &device()).unwrap().model;
    assert_eq!(model.text_tower.pooling(), Pooling::Mean);
}

#[test]
fn single_towers_of_whole_models() {
    let dual = goldens("dual/vit_bert");
    for dir in [dir("clip"), dir("clip_early"), dir("siglip"), dir("doubled"), dir("open_clip"), dual] {
        let (_, image) = image_tower_from(&dir, TowerLock::Locked, TowerOptions::default(), &device()).unwrap();
        let (_, text) = text_tower_from(&dir, TowerLock::Locked, TowerOptions::default(), &device()).unwrap();
        assert_eq!((image.missing.len(), image.unused.len()), (0, 0), "{}: {image:?}", dir.display());
        assert_eq!((text.missing.len(), text.unused.len()), (0, 0), "{}: {text:?}", dir.display());
    }
}

/// A copy of a fixture.
fn copy(source: &Path) -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), target.path().join(entry.file_name())).unwrap();
    }
    target
}

fn refusal(dir: &Path) -> String {
    build_from_dual_encoder(dir, &options("LL"), &device()).map(drop).unwrap_err().to_string()
}

#[test]
fn names_missing_shards() {
    let copy = copy(&dir("doubled"));
    fs::remove_file(copy.path().join("model-00002-of-00002.safetensors")).unwrap();
    let text = refusal(copy.path());
    assert!(text.contains("cannot read") && text.contains("model-00002-of-00002.safetensors"), "{text}");
}

#[test]
fn rejects_pickles() {
    for file in ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "open_clip_pytorch_model.bin"] {
        let copy = copy(&dir("clip"));
        fs::rename(copy.path().join("model.safetensors"), copy.path().join(file)).unwrap();
        let text = refusal(copy.path());
        assert!(text.contains(file) && text.contains("is a pickle") && text.contains("save_pretrained"), "{text}");
    }
}

#[test]
fn rejects_unknown_whole_model() {
    let copy = copy(&dir("clip"));
    fs::write(copy.path().join("config.json"), r#"{"model_type": "blip"}"#).unwrap();
    assert!(!is_dual_encoder_dir(copy.path()));
    let text = refusal(copy.path());
    let expected = "`model_type` is `blip`, which is not a model with two towers; supported: \
                    vision-text-dual-encoder, clip, chinese_clip, siglip, siglip2";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn rejects_unsupported_open_clip() {
    for (key, value) in [("timm_model_name", "\"vit_base\""), ("attentional_pool", "true")] {
        let copy = copy(&dir("open_clip"));
        let path = copy.path().join("open_clip_config.json");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(&path, config.replace("\"head_width\"", &format!("\"{key}\": {value}, \"head_width\""))).unwrap();
        let text = refusal(copy.path());
        assert!(text.contains(&format!("`vision_cfg` sets `{key}`")) && text.contains("only plain CLIP"), "{text}");
    }
}

/// Repositories of timm's CLIPs also hold timm's own config and image tower.
#[test]
fn ignores_timm_files_beside_open_clip() {
    let copy = copy(&dir("open_clip"));
    fs::write(copy.path().join("config.json"), r#"{"architecture": "vit_base_patch32_clip_224"}"#).unwrap();
    fs::copy(dir("siglip").join("model.safetensors"), copy.path().join("model.safetensors")).unwrap();
    assert!(is_dual_encoder_dir(copy.path()));
    build_from_dual_encoder(copy.path(), &options("LL"), &device()).unwrap();
}

#[test]
fn rejects_siglip2_image_tower() {
    let copy = copy(&dir("siglip"));
    let config = fs::read_to_string(copy.path().join("config.json")).unwrap();
    let config = config.replace("\"siglip", "\"siglip2");
    fs::write(copy.path().join("config.json"), config).unwrap();
    let text = refusal(copy.path());
    assert!(text.contains("siglip2_vision_model") && text.contains("not a supported image tower"), "{text}");
}

#[test]
fn rejects_siglip_towers_of_different_widths() {
    let copy = copy(&dir("siglip"));
    let text = BuildOptions { text: TowerOptions { pool: Pool::Mean, ..TowerOptions::default() }, ..options("LL") };
    let error = build_from_dual_encoder(copy.path(), &text, &device()).map(drop).unwrap_err().to_string();
    assert!(error.contains("12") && error.contains("8") && error.contains("text_pool"), "{error}");
}
