//! Image towers of every family match transformers (`tests/goldens/image_families`).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use burn::tensor::FloatDType;
use dualenc_model::{
    Dropout, DualEncoder, HostTensor, ImageTower, Pool, ReferencePooling, StoredNames, TowerLock, TowerOptions,
    build_from_dual_encoder, build_from_towers, image_tower_from, parameters, read_safetensors,
};
use parameters::ParamFilter;

use crate::support::{Expected, assert_close, assert_dual_encoder, assert_near, device, goldens, options};

/// Fixtures with a `pooler_output`.
const TOWERS: [&str; 23] = [
    "beit",
    "beit_plain",
    "beit_shared",
    "clip",
    "clip_v4",
    "clip_whole",
    "convnext",
    "convnextv2",
    "data2vec",
    "data2vec_classifier",
    "dinov2_registers",
    "dinov2_registers_swiglu",
    "dinov2_swiglu",
    "dinov3",
    "dinov3_gated",
    "resnet",
    "resnet_basic",
    "resnet_early",
    "siglip",
    "siglip_v4",
    "siglip_whole",
    "swin",
    "swin_positions",
];

/// Suffixes of the cases: the trained image size, and two others.
const SIZES: [&str; 3] = ["", "_larger", "_smaller"];

fn family(name: &str) -> PathBuf {
    goldens("image_families").join(name)
}

fn tower(name: &str, lock: TowerLock, pool: Pool) -> ImageTower {
    let (tower, audit) =
        image_tower_from(&family(name), lock, TowerOptions { pool, ..TowerOptions::default() }, &device()).unwrap();
    assert_eq!((audit.missing.len(), audit.mismatched.len()), (0, 0), "{name}: {audit:?}");
    tower
}

#[test]
fn every_image_tower_matches_reference() {
    for name in TOWERS {
        let expected = Expected::read(&family(name));
        for lock in [TowerLock::Locked, TowerLock::Unlocked] {
            let tower = tower(name, lock, Pool::Auto);
            assert_eq!(tower.is_locked(), lock == TowerLock::Locked, "{name}");
            // The reference does not train: branches are left out where a config has a rate for that.
            let drops = tower.form().contains("drop-path");
            let dropout = if drops { Dropout::off() } else { Dropout::training(1) };
            for size in SIZES {
                let output = tower.forward(expected.tensor(&format!("pixel_values{size}")), &dropout);
                assert_eq!(output.pooled.is_autodiff(), lock.trains(), "{name}");
                assert_eq!(output.pooled.dims()[1], tower.width(), "{name}");
                let reference = |key: &str| &expected.floats[&format!("{key}{size}")].values;
                let hidden = output.hidden.without_autodiff();
                assert_close(&format!("{name} hidden{size}"), hidden, reference("last_hidden_state"));
                let pooled = output.pooled.without_autodiff();
                assert_close(&format!("{name} pooled{size}"), pooled, reference("pooler_output"));
            }
        }
    }
}

/// The mean of the last hidden state without its first `skip` tokens.
fn mean_of_tokens(hidden: &HostTensor, skip: usize) -> Vec<f32> {
    let [_, seq, width] = hidden.shape[..] else { panic!("{:?}", hidden.shape) };
    let means = hidden.values.chunks_exact(seq * width).flat_map(|sequence| {
        let tokens = seq - skip;
        let column =
            move |column: usize| (skip..seq).map(|token| sequence[token * width + column]).sum::<f32>() / tokens as f32;
        (0..width).map(column)
    });
    means.collect()
}

#[test]
fn mean_pooling_skips_special_tokens() {
    for (name, special) in [("siglip_no_head", 0), ("siglip", 0), ("beit", 1), ("dinov2_registers", 4), ("dinov3", 3)] {
        let expected = Expected::read(&family(name));
        let tower = tower(name, TowerLock::Locked, Pool::Mean);
        let pooled = tower.forward(expected.tensor("pixel_values"), &Dropout::off()).pooled;
        assert_close(name, pooled, &mean_of_tokens(&expected.floats["last_hidden_state"], special));
        assert_eq!(tower.reference_pooling(), ReferencePooling::None, "{name}");
    }
}

#[test]
fn cls_pooling_is_the_class_token() {
    for name in ["clip", "dinov2_registers", "dinov3", "beit_shared"] {
        let expected = Expected::read(&family(name));
        let tower = tower(name, TowerLock::Locked, Pool::Cls);
        let pooled = tower.forward(expected.tensor("pixel_values"), &Dropout::off()).pooled;
        assert_close(name, pooled, &expected.floats["pooler_output"].values);
        assert_eq!(tower.reference_pooling(), ReferencePooling::Own, "{name}");
    }
}

fn refusal(name: &str, pool: Pool) -> String {
    let options = TowerOptions { pool, ..TowerOptions::default() };
    image_tower_from(&family(name), TowerLock::Locked, options, &device()).map(drop).unwrap_err().to_string()
}

#[test]
fn rejects_unsupported_image_pool() {
    for name in ["siglip", "resnet", "convnext", "swin"] {
        let text = refusal(name, Pool::Cls);
        assert!(text.contains("it has no class token") && text.contains("choose among \"auto\", "), "{text}");
    }
    let text = refusal("siglip_no_head", Pool::Auto);
    assert!(text.contains("it has no pooler") && text.contains("\"mean\""), "{text}");
}

#[test]
fn rejects_locked_tower_without_pooler_norm() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(family("data2vec").join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let config = fs::read_to_string(family("data2vec").join("config.json")).unwrap();
    let config = config.replace("\"use_mean_pooling\": false", "\"use_mean_pooling\": true");
    fs::write(dir.path().join("config.json"), config).unwrap();
    let open = |pool| {
        let options = TowerOptions { pool, ..TowerOptions::default() };
        image_tower_from(dir.path(), TowerLock::Locked, options, &device()).map(drop)
    };
    let text = open(Pool::Auto).unwrap_err().to_string();
    assert!(text.contains("pooler.layernorm.weight") && text.contains("`image_pool = \"cls\"`"), "{text}");
    open(Pool::Mean).unwrap();
}

#[test]
fn rejects_unknown_family() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), "{\"model_type\": \"pvt\"}").unwrap();
    let options = TowerOptions::default();
    let error = image_tower_from(dir.path(), TowerLock::Scratch, options, &device()).map(drop).unwrap_err();
    let expected = "`model_type` is `pvt`, which is not a supported image tower; supported: vit, deit, beit, \
                    data2vec-vision, clip_vision_model, siglip_vision_model, dinov2, \
                    dinov2_with_registers, dinov3_vit, swin, resnet, convnext, convnextv2";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn buffers_never_train() {
    for name in TOWERS {
        let trainable = tower(name, TowerLock::Unlocked, Pool::Auto);
        let unlocked = parameters::unlock(tower(name, TowerLock::Locked, Pool::Auto));
        for info in parameters::list(&trainable).into_iter().chain(parameters::list(&unlocked)) {
            assert_eq!(info.trains, !parameters::is_buffer(&info.path), "{name} {}", info.path);
        }
    }
    let buffers =
        |name| parameters::list(&tower(name, TowerLock::Unlocked, Pool::Auto)).iter().filter(|i| !i.trains).count();
    assert_eq!((buffers("dinov3"), buffers("clip"), buffers("resnet_basic")), (1, 0, 9 * 3));
}

/// The tensors below `prefix`, with the prefix removed.
fn below(tensors: &BTreeMap<String, HostTensor>, prefix: &str) -> BTreeMap<String, HostTensor> {
    let named = |(name, tensor): (&String, &HostTensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()));
    tensors.iter().filter_map(named).collect()
}

#[test]
fn image_tensors_round_trip() {
    for name in TOWERS {
        let built = build_from_towers(&family(name), &goldens("towers/bert"), &options("UU"), &device()).unwrap();
        let names = StoredNames::new(&built.image_config, &built.text_config).unwrap();
        let written = names.stored(parameters::collect(&built.model, ParamFilter::All).unwrap()).unwrap();
        let written = below(&written, "vision_model.");
        let mut stored = read_safetensors(&family(name).join("model.safetensors")).unwrap();
        // The image tower of a whole model has this prefix.
        let is_whole = stored.contains_key("logit_scale");
        stored.retain(|name, _| {
            !built.image_audit.unused.contains(name) && (!is_whole || name.starts_with("vision_model."))
        });
        let prefixes =
            ["vision_model.", "beit.", "data2vec_vision.", "dinov2_with_registers.", "resnet.", "convnext.", "swin."];
        let stored: BTreeMap<String, HostTensor> = stored
            .into_iter()
            .map(|(name, tensor)| {
                let bare = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
                (bare.unwrap_or(&name).to_owned(), tensor)
            })
            .collect();
        assert_eq!(written.keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>(), "{name}");
        assert!(written == stored, "{name}: values differ");
    }
}

const DUALS: [&str; 12] = [
    "dual_beit",
    "dual_clip",
    "dual_clip_v4",
    "dual_convnext",
    "dual_convnextv2",
    "dual_data2vec",
    "dual_dinov2_registers",
    "dual_dinov2_swiglu",
    "dual_dinov3",
    "dual_resnet",
    "dual_siglip",
    "dual_swin",
];

#[test]
fn every_image_family_in_a_pair() {
    for name in DUALS {
        let model = DualEncoder::from_pretrained(family(name), &device()).unwrap();
        assert_dual_encoder(name, &model, &Expected::read(&family(name)));
    }
}

#[test]
fn pairs_export_current_names() {
    for name in DUALS {
        let built = build_from_dual_encoder(&family(name), &options("UU"), &device()).unwrap();
        let names = StoredNames::new(&built.image_config, &built.text_config).unwrap();
        let written = names.stored(parameters::collect(&built.model, ParamFilter::All).unwrap()).unwrap();
        let dir = if name == "dual_clip_v4" { "dual_clip" } else { name };
        let stored = read_safetensors(&family(dir).join("model.safetensors")).unwrap();
        assert_eq!(written.keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>(), "{name}");
        assert!(written == stored, "{name}: values differ");
    }
}

#[test]
fn image_towers_in_half_precision() {
    for name in TOWERS {
        let expected = Expected::read(&family(name));
        for (lock, precision) in [(TowerLock::Locked, FloatDType::F16), (TowerLock::Unlocked, FloatDType::BF16)] {
            let tower = parameters::cast(tower(name, lock, Pool::Auto), precision);
            for size in SIZES {
                let pixels = expected.tensor::<4>(&format!("pixel_values{size}")).cast(precision);
                let pooled = tower.forward(pixels, &Dropout::training(1)).pooled.without_autodiff();
                let reference = &expected.floats[&format!("pooler_output{size}")].values;
                assert_near(&format!("{name}{size}"), pooled, reference);
            }
        }
    }
}
