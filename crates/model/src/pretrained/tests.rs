//! Hostile configs: an error or a model, never a panic, and no memory beyond what the weights need.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::Device;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::dual_encoder::lock::TowerLock;
use crate::error::ModelError;
use crate::params::inventory::ParamFilter;
use crate::params::values::collect;
use crate::pretrained::build::{
    BuildOptions, TowerOptions, build_from_dual_encoder, image_tower_from, text_tower_from,
};
use crate::pretrained::dry_load::dry_load;
use crate::pretrained::whole_models::WholeModel;
use crate::vision::image_tower::ImageTowerConfig;
use crate::weights::host_tensor::HostTensor;
use crate::weights::tests::{draw, mutate, setting};
use crate::weights::weight_files::WeightFiles;

/// What replaces a value of a config.
fn replacement(number: usize) -> Value {
    let values = [
        json!(0),
        json!(1),
        json!(3),
        json!(-1),
        json!(1000),
        json!(1 << 24),
        json!(1u64 << 31),
        json!(u64::MAX),
        json!(0.5),
        json!(1e300),
        json!(null),
        json!(true),
        json!("none"),
        json!([]),
        json!([0, 0]),
        json!([8, 8, 8]),
        json!({}),
    ];
    values[number % values.len()].clone()
}

/// Replaces the value at position `at` among all values of `json`, counted down to 0.
fn replace(json: &mut Value, at: &mut usize, new: &Value) {
    if *at == 0 {
        *json = new.clone();
    }
    *at = at.wrapping_sub(1);
    match json {
        Value::Array(values) => values.iter_mut().for_each(|value| replace(value, at, new)),
        Value::Object(values) => values.values_mut().for_each(|value| replace(value, at, new)),
        _ => {}
    }
}

/// A config with some of its values replaced, or with some of its bytes changed.
fn mutated(original: &[u8], seed: u64) -> Vec<u8> {
    if seed.is_multiple_of(4) {
        return mutate(original, seed);
    }
    let mut config: Value = serde_json::from_slice(original).unwrap();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for _ in 0..=draw(&mut state, 2) {
        let mut at = 1 + draw(&mut state, 40);
        replace(&mut config, &mut at, &replacement(draw(&mut state, 1000)));
    }
    config.to_string().into_bytes()
}

/// A copy of a golden with renamed tensors.
fn renamed_copy(golden: &str, rename: impl Fn(&str) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(golden);
    for entry in fs::read_dir(source).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        let (bytes, name) = (fs::read(entry.path()).unwrap(), entry.file_name());
        let bytes = if name.to_string_lossy().ends_with(".safetensors") {
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let views = file.iter().map(|(name, view)| (rename(name), view));
            safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()
        } else {
            bytes
        };
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// The parameters of the first kind of model that loads, and the notes on it.
fn loaded(dir: &Path) -> Result<(BTreeMap<String, HostTensor>, Vec<String>), ModelError> {
    let (device, tower) = (Device::flex(), TowerOptions::default());
    if let Ok(built) = build_from_dual_encoder(dir, &BuildOptions::evaluation(), &device) {
        return Ok((collect(&built.model, ParamFilter::All)?, built.image_audit.notes));
    }
    let (text, audit) = match image_tower_from(dir, TowerLock::Locked, tower.clone(), &device) {
        Ok((image, audit)) => return Ok((collect(&image, ParamFilter::All)?, audit.notes)),
        Err(ModelError::UnsupportedFamily { .. }) => text_tower_from(dir, TowerLock::Unlocked, tower, &device)?,
        Err(error) => return Err(error),
    };
    Ok((collect(&text, ParamFilter::All)?, audit.notes))
}

#[test]
fn prefixes_of_wrappers_are_taken_off() {
    let wrappers = ["module.", "_orig_mod.", "model.", "_orig_mod.module.", "module._orig_mod.", "module.model."];
    let goldens =
        ["towers/vit", "towers/bert", "towers/bert_gamma_beta", "whole/clip", "whole/open_clip", "dual/vit_bert"];
    for golden in goldens {
        let (expected, notes) = loaded(renamed_copy(golden, str::to_owned).path()).unwrap();
        assert!(notes.is_empty(), "{golden}: {notes:?}");
        for wrapper in wrappers {
            let dir = renamed_copy(golden, |name| format!("{wrapper}{name}"));
            let (found, notes) = loaded(dir.path()).unwrap_or_else(|error| panic!("{golden}, {wrapper}: {error}"));
            assert!(found == expected, "{golden}, {wrapper}");
            assert_eq!(notes.len(), 1, "{golden}, {wrapper}");
            assert!(notes[0].starts_with(&format!("`{wrapper}` taken off ")), "{notes:?}");
        }
    }
    let dir = renamed_copy("towers/vit", |name| format!("module.{name}"));
    let (_, notes) = loaded(dir.path()).unwrap();
    assert_eq!(notes, ["`module.` taken off 56 tensor names, as DistributedDataParallel writes them"]);
}

#[test]
fn wrappers_within_names_are_taken_out() {
    let (expected, _) = loaded(renamed_copy("towers/vit", str::to_owned).path()).unwrap();
    for (wrapper, prefix) in [
        ("_orig_mod.", ""),
        ("_orig_mod.", "module."),
        ("_orig_mod.", "_orig_mod.module."),
        ("_checkpoint_wrapped_module.", ""),
        ("_fsdp_wrapped_module.", "_fsdp_wrapped_module."),
    ] {
        // Every layer is wrapped, as when the layers of an encoder are compiled one by one.
        let rename = |name: &str| {
            let name = name.replace("encoder.layer.0.", &format!("encoder.{wrapper}layer.0.{wrapper}"));
            format!("{prefix}{name}")
        };
        let (found, notes) = loaded(renamed_copy("towers/vit", rename).path())
            .unwrap_or_else(|error| panic!("{wrapper}, {prefix}: {error}"));
        assert!(found == expected, "{wrapper}, {prefix}");
        assert!(notes.len() == 1 && notes[0].starts_with(&format!("`{wrapper}` taken out of ")), "{notes:?}");
        assert_eq!(notes[0].contains("; `module.` taken off "), prefix.contains("module.") && wrapper == "_orig_mod.");
    }
    // Two names would become one.
    let rename = |name: &str| match name {
        "layernorm.weight" => "_orig_mod.layernorm.bias".to_owned(),
        other => other.to_owned(),
    };
    assert!(loaded(renamed_copy("towers/vit", rename).path()).is_err());
}

#[test]
fn fitting_names_are_left_alone() {
    // `model.` is a name that this family has itself.
    let (_, notes) = loaded(renamed_copy("text_families/modernbert_mlm", str::to_owned).path()).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    // A tensor beside the tower has the prefix of a wrapper.
    let rename = |name: &str| if name.starts_with("pooler.") { format!("module.{name}") } else { name.to_owned() };
    let error = loaded(renamed_copy("towers/vit", rename).path()).unwrap_err();
    assert!(matches!(error, ModelError::LockedRandom { .. }), "{error}");
    // Taking the prefix off would make two names one.
    let rename = |name: &str| match name {
        "layernorm.weight" => "module.layernorm.bias".to_owned(),
        "layernorm.bias" => name.to_owned(),
        other => format!("module.{other}"),
    };
    assert!(loaded(renamed_copy("towers/vit", rename).path()).is_err());
}

#[test]
fn larger_models_are_named() {
    for (golden, prefix, part) in [
        ("towers/vit", "image_encoder.", "image_encoder"),
        ("towers/vit_classifier", "net.backbone.vit.", "net.backbone.vit"),
        ("towers/bert", "text_encoder.bert.", "text_encoder.bert"),
    ] {
        let rename = |name: &str| format!("{prefix}{}", name.strip_prefix("vit.").unwrap_or(name));
        let error = loaded(renamed_copy(golden, rename).path()).unwrap_err().to_string();
        let expected = format!("behind `{prefix}`, as a larger model that holds this one as `{part}`. Save that part");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn foreign_configs_are_named() {
    let dir = renamed_copy("towers/vit", str::to_owned);
    let config = dir.path().join("config.json");
    let whole = fs::read(&config).unwrap();
    fs::write(&config, [b"\xef\xbb\xbf", &whole[..]].concat()).unwrap();
    assert!(loaded(dir.path()).is_ok(), "with a byte order mark");
    for (bytes, expected) in [
        (&b"version https://git-lfs.github.com/spec/v1\n"[..], "config.json`: it is a Git LFS pointer of 43 bytes"),
        (b"", "config.json`: it is empty"),
        (b"<html>", "config.json`: it is an HTML page"),
        (&whole[..40], "config.json`: not JSON"),
        (&whole[..40], "end in the middle of a value: fetch it again"),
    ] {
        fs::write(&config, bytes).unwrap();
        let error = image_tower_from(dir.path(), TowerLock::Locked, TowerOptions::default(), &Device::flex());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    fs::remove_file(&config).unwrap();
    let error = image_tower_from(dir.path(), TowerLock::Locked, TowerOptions::default(), &Device::flex());
    let error = error.unwrap_err();
    assert!(matches!(error, ModelError::NoConfig { .. }), "{error}");
}

#[test]
fn sentence_transformers_parts_are_noted() {
    let dir = renamed_copy("towers/bert", str::to_owned);
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let module = |path: &str, kind: &str| json!({"path": path, "type": format!("sentence_transformers.models.{kind}")});
    let modules = [module("", "Transformer"), module("1_Pooling", "Pooling"), module("3_Normalize", "Normalize")];
    write("modules.json", &json!(modules).to_string());
    assert!(loaded(dir.path()).unwrap().1.is_empty());
    write("1_Pooling/config.json", "{\"pooling_mode_mean_tokens\": true}");
    let notes = loaded(dir.path()).unwrap().1;
    assert!(notes.len() == 1 && notes[0].contains("set `text_pool = \"mean\"` to pool as there"), "{notes:?}");
    write("modules.json", &json!([modules[0], module("2_Dense", "Dense")]).to_string());
    write("2_Dense/config.json", "{\"in_features\": 12, \"out_features\": 8}");
    let notes = loaded(dir.path()).unwrap().1;
    let expected = "`2_Dense` of sentence-transformers, a `Dense` layer from 12 to 8 values, is left out";
    assert!(notes[0].starts_with(expected), "{notes:?}");
}

fn load(dir: &Path) -> [Result<(), ModelError>; 3] {
    let (device, tower) = (Device::flex(), TowerOptions::default());
    [
        image_tower_from(dir, TowerLock::Locked, tower.clone(), &device).map(drop),
        text_tower_from(dir, TowerLock::Unlocked, tower, &device).map(drop),
        build_from_dual_encoder(dir, &BuildOptions::evaluation(), &device).map(drop),
    ]
}

#[test]
fn mutated_configs_never_panic() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens");
    let (first, count) = (setting("DUALENC_SEED", 0), 60 * setting("DUALENC_SOAK", 1));
    for name in ["train/init", "train/vit", "train/bert", "whole/clip", "whole/siglip", "image_families/swin"] {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(goldens.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")) {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
        }
        let path = dir.path().join("config.json");
        let original = fs::read(&path).unwrap();
        assert!(load(dir.path()).iter().any(Result::is_ok), "{name}");
        let mut refused = 0;
        for seed in first..first + count {
            let _ = fs::remove_file(&path);
            fs::write(&path, mutated(&original, seed)).unwrap();
            for result in load(dir.path()) {
                assert!(!matches!(result, Err(ModelError::Internal(_))), "{name} {seed}: {result:?}");
                refused += u64::from(result.is_err());
            }
        }
        assert!(refused > count, "{name}: only {refused} refusals");
    }
}

#[test]
fn missing_logit_scale_is_the_initial_one() {
    let rename = |name: &str| if name == "logit_scale" { "other".to_owned() } else { name.to_owned() };
    for (golden, value, expected) in [
        ("whole/clip", Some(json!(1.5)), 1.5),
        ("whole/clip", None, 2.6592),
        ("dual/vit_bert", Some(json!(3)), 3.0),
        ("whole/siglip", None, 0.0),
    ] {
        let dir = renamed_copy(golden, rename);
        let path = dir.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config.as_object_mut().unwrap().remove("logit_scale_init_value");
        if let Some(value) = &value {
            config["logit_scale_init_value"] = value.clone();
        }
        fs::write(&path, config.to_string()).unwrap();
        let device = Device::flex();
        let built = build_from_dual_encoder(dir.path(), &BuildOptions::evaluation(), &device).unwrap();
        let scale = built.model.logit_scale.val().into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(scale, [expected as f32], "{golden}");
        let named = |warnings: &[String]| {
            warnings.len() == 1 && warnings[0].starts_with("`logit_scale` is not in the weights; it is ")
        };
        assert!(named(&built.warnings), "{golden}: {:?}", built.warnings);
        let options = TowerOptions::default();
        let head = dry_load(dir.path(), &options, &options, &device).unwrap().head.unwrap();
        assert!(named(&head.warnings), "{golden}: {:?}", head.warnings);
        config["logit_scale_init_value"] = json!("high");
        fs::write(&path, config.to_string()).unwrap();
        let refused = build_from_dual_encoder(dir.path(), &BuildOptions::evaluation(), &device).err();
        assert_eq!(refused.is_some(), golden != "whole/siglip", "{golden}");
    }
    let whole = renamed_copy("whole/clip", str::to_owned);
    let built = build_from_dual_encoder(whole.path(), &BuildOptions::evaluation(), &Device::flex()).unwrap();
    assert!(built.warnings.is_empty(), "{:?}", built.warnings);
}

#[test]
fn misshaped_logit_scale_is_refused() {
    let kind = WholeModel::of(&json!({"model_type": "clip"})).unwrap();
    let mut weights = WeightFiles::default();
    weights.insert("logit_scale", HostTensor::identity(2).into());
    let error = kind.head(&weights, 2, 2).unwrap_err();
    assert!(
        error.starts_with("`logit_scale` of its weights has the shape [2, 2], expected a single number"),
        "{error}"
    );
}

#[test]
fn drop_path_rate_is_read() {
    let rates = |golden: &str, rate: Value| {
        let dir = renamed_copy(golden, str::to_owned);
        let path = dir.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["drop_path_rate"] = rate;
        fs::write(&path, config.to_string()).unwrap();
        let (tower, audit) =
            image_tower_from(dir.path(), TowerLock::Unlocked, TowerOptions::default(), &Device::flex())?;
        let rates = match tower.config() {
            ImageTowerConfig::Transformer(config) => {
                (0..config.encoder.depth).map(|n| config.encoder.drop_path_of(n)).collect()
            }
            _ => Vec::new(),
        };
        Ok::<_, ModelError>((rates, audit.notes))
    };
    let (grown, _) = rates("image_families/beit", json!(0.3)).unwrap();
    assert_eq!((grown[0], *grown.last().unwrap()), (0.0, 0.3));
    let (same, notes) = rates("towers/dinov2", json!(0.3)).unwrap();
    assert!(same.iter().all(|rate| *rate == 0.3) && notes.is_empty(), "{same:?}");
    let (_, notes) = rates("image_families/swin", json!(0.3)).unwrap();
    assert!(notes[0].starts_with("`drop_path_rate` is 0.3; transformers leaves out branches"), "{notes:?}");
    let error = rates("towers/dinov2", json!(1.0)).unwrap_err().to_string();
    assert!(error.contains("`drop_path_rate` is 1, expected 0 or more and less than 1"), "{error}");
}
