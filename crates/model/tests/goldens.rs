//! Towers and dual encoders match transformers on the tiny random models of `scripts/goldens.py`.

use std::fs;

use burn::tensor::Tensor;
use dualenc_model::{
    DUAL_ENCODER_TYPE, Dropout, DualEncoder, DualEncoderConfig, Pool, PositionCount, TokenSequences, TowerLock,
    TowerOptions, TowerOutput, build_from_dual_encoder, image_tower_from, parameters, read_safetensors,
    text_tower_from,
};
use serde_json::json;

use crate::support::{Expected, assert_close, assert_dual_encoder, cls, device, goldens, options, real_rows};

fn check_image_tower(name: &str, options: TowerOptions, sizes: &[&str]) {
    let dir = goldens("towers").join(name);
    let expected = Expected::read(&dir);
    let pool = options.pool;
    let (tower, audit) = image_tower_from(&dir, TowerLock::Locked, options, &device()).unwrap();
    assert_eq!((audit.missing.len(), audit.mismatched.len()), (0, 0), "{name}: {audit:?}");
    for size in sizes {
        let TowerOutput { hidden, pooled } =
            tower.forward(expected.tensor(&format!("pixel_values{size}")), &Dropout::off());
        assert_close(
            &format!("{name} hidden{size}"),
            hidden,
            &expected.floats[&format!("last_hidden_state{size}")].values,
        );
        if pool == Pool::Auto {
            assert_close(
                &format!("{name} pooled{size}"),
                pooled,
                &expected.floats[&format!("pooler_output{size}")].values,
            );
        }
    }
}

#[test]
fn image_towers_match_reference() {
    for name in ["vit", "deit", "dinov2"] {
        check_image_tower(name, TowerOptions::default(), &["", "_48"]);
    }
    for name in ["vit_no_pooler", "vit_classifier"] {
        check_image_tower(name, cls(), &[""]);
    }
}

#[test]
fn trainable_image_tower_matches_reference() {
    let dir = goldens("towers/dinov2");
    let expected = Expected::read(&dir);
    let (tower, _) = image_tower_from(&dir, TowerLock::Unlocked, TowerOptions::default(), &device()).unwrap();
    let output = tower.forward(expected.tensor("pixel_values"), &Dropout::training(1));
    assert!(output.pooled.is_autodiff());
    assert_close("dinov2 trainable", output.pooled.without_autodiff(), &expected.floats["pooler_output"].values);
}

fn check_text_tower(name: &str, options: TowerOptions, count: PositionCount) {
    let dir = goldens("towers").join(name);
    let expected = Expected::read(&dir);
    let pool = options.pool;
    let (tower, audit) = text_tower_from(&dir, TowerLock::Locked, options, &device()).unwrap();
    assert_eq!((audit.missing.len(), audit.mismatched.len()), (0, 0), "{name}: {audit:?}");
    let mut cases = 0;
    for case in ["", "_b", "_left"] {
        let get = |key: &str| expected.ints.get(&format!("{key}{case}")).or_else(|| expected.ints.get(key));
        let Some(hidden) = expected.floats.get(&format!("last_hidden_state{case}")) else { continue };
        let (ids, mask) = (get("input_ids").unwrap(), get("attention_mask").unwrap());
        let zeros = vec![vec![0; ids[0].len()]; ids.len()];
        let types = expected.ints.get(&format!("token_type_ids{case}")).unwrap_or(&zeros);
        let output = tower.forward(&TokenSequences::from_padded(ids, types, mask, count), &Dropout::off()).unwrap();
        assert_close(&format!("{name} hidden{case}"), output.hidden, &real_rows(hidden, mask));
        if let (Pool::Auto, Some(pooled)) = (pool, expected.floats.get(&format!("pooler_output{case}"))) {
            // The reference pools the first column, which may be padding.
            if mask.iter().all(|row| row[0] == 1) {
                assert_close(&format!("{name} pooled{case}"), output.pooled, &pooled.values);
            }
        }
        cases += 1;
    }
    assert!(cases >= 1, "{name}: no case was compared");
}

#[test]
fn text_towers_match_reference() {
    check_text_tower("bert", TowerOptions::default(), PositionCount::Columns);
    check_text_tower("bert_sharded", TowerOptions::default(), PositionCount::Columns);
    check_text_tower("bert_mlm", cls(), PositionCount::Columns);
    check_text_tower("bert_gamma_beta", cls(), PositionCount::Columns);
    check_text_tower("roberta", TowerOptions::default(), PositionCount::Tokens);
    check_text_tower("roberta_mlm", cls(), PositionCount::Tokens);
}

#[test]
fn mean_pooling_ignores_padding() {
    let dir = goldens("towers/bert");
    let expected = Expected::read(&dir);
    let options = TowerOptions { pool: Pool::Mean, ..TowerOptions::default() };
    let (tower, _) = text_tower_from(&dir, TowerLock::Locked, options, &device()).unwrap();
    let (ids, mask) = (&expected.ints["input_ids"], &expected.ints["attention_mask"]);
    let zeros = vec![vec![0; ids[0].len()]; ids.len()];
    let tokens = TokenSequences::from_padded(ids, &zeros, mask, PositionCount::Columns);
    let hidden = &expected.floats["last_hidden_state"];
    let (seq, width) = (hidden.shape[1], hidden.shape[2]);
    let mut means = Vec::new();
    for (sequence, mask) in hidden.values.chunks_exact(seq * width).zip(mask) {
        let length = mask.iter().sum::<u32>() as f32;
        for column in 0..width {
            let real = (0..seq).filter(|&token| mask[token] == 1);
            means.push(real.map(|token| sequence[token * width + column]).sum::<f32>() / length);
        }
    }
    assert_close("mean", tower.forward(&tokens, &Dropout::off()).unwrap().pooled, &means);
}

#[test]
fn dual_encoders_match_reference() {
    for name in ["vit_bert", "vit_bert_v4", "deit_roberta", "dinov2_bert"] {
        let dir = goldens("dual").join(name);
        let expected = Expected::read(&if name == "vit_bert_v4" { goldens("dual/vit_bert") } else { dir.clone() });
        assert!(expected.floats.contains_key("loss"), "{name}");
        assert_dual_encoder(name, &DualEncoder::from_pretrained(&dir, &device()).unwrap(), &expected);
    }
}

#[test]
fn only_the_loss_needs_pairs() {
    let dir = goldens("dual/vit_bert");
    let model = DualEncoder::from_pretrained(&dir, &device()).unwrap();
    let pixels = || Tensor::zeros([2, 3, 24, 24], &device());
    let tokens: TokenSequences = [(vec![2, 3], vec![0, 0])].into_iter().collect();
    let output = model.forward(pixels(), &tokens, false).unwrap();
    assert_eq!((output.logits_per_image.dims(), output.loss.is_none()), ([2, 1], true));
    let error = model.forward(pixels(), &tokens, true).map(drop).unwrap_err().to_string();
    assert!(error.contains("2 images and 1 texts"), "{error}");
}

#[test]
fn config_round_trips() {
    let dir = goldens("dual/vit_bert");
    let config = DualEncoderConfig::from_dir(&dir).unwrap();
    assert_eq!((config.projection_dim, config.logit_scale_init_value), (24, 2.6592));
    let written = tempfile::tempdir().unwrap();
    fs::write(written.path().join("config.json"), config.to_json().to_string()).unwrap();
    assert_eq!(DualEncoderConfig::from_dir(written.path()).unwrap(), config);

    let fresh = DualEncoder::from_config(&config, 7, &device()).unwrap();
    let again = DualEncoder::from_config(&config, 7, &device()).unwrap();
    let fingerprint = |model| parameters::fingerprint(model, parameters::ParamFilter::All).unwrap();
    assert_eq!(fingerprint(&fresh), fingerprint(&again));
    let shapes = |model: &DualEncoder| -> Vec<_> {
        parameters::list(model).into_iter().map(|info| (info.path, info.shape)).collect()
    };
    assert_eq!(shapes(&fresh), shapes(&DualEncoder::from_pretrained(&dir, &device()).unwrap()));

    fs::write(written.path().join("config.json"), format!("{{\"model_type\": {DUAL_ENCODER_TYPE:?}}}")).unwrap();
    let bare = DualEncoderConfig::from_dir(written.path()).unwrap();
    assert_eq!(bare, DualEncoderConfig::new(json!({"model_type": "vit"}), json!({"model_type": "bert"})));
    let error = DualEncoderConfig::from_dir(goldens("towers/bert")).unwrap_err().to_string();
    assert!(error.contains("`model_type` is \"bert\"; expected \"vision-text-dual-encoder\""), "{error}");
}

#[test]
fn rejects_locked_tower_without_pooler() {
    let message = |dir: &str| {
        image_tower_from(&goldens("towers").join(dir), TowerLock::Locked, TowerOptions::default(), &device())
            .map(drop)
            .unwrap_err()
            .to_string()
    };
    let text = message("vit_classifier");
    assert!(text.contains("the image tower is locked, but the weights lack 2 tensors"), "{text}");
    assert!(text.contains("pooler.dense.weight") && text.contains("`image_pool = \"cls\"`"), "{text}");
    let unlocked =
        image_tower_from(&goldens("towers/vit_classifier"), TowerLock::Unlocked, TowerOptions::default(), &device());
    let (_, audit) = unlocked.unwrap();
    assert_eq!(audit.missing.len(), 2);
    assert!(audit.unused.iter().any(|name| name == "classifier.weight"), "{audit:?}");
}

#[test]
fn lists_mismatched_shapes() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(goldens("towers/bert").join(file), dir.path().join(file)).unwrap();
    }
    let config = dir.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vocab = parsed["vocab_size"].as_u64().unwrap();
    fs::write(&config, text.replace(&format!("\"vocab_size\": {vocab}"), "\"vocab_size\": 7")).unwrap();
    let error =
        text_tower_from(dir.path(), TowerLock::Unlocked, TowerOptions::default(), &device()).map(drop).unwrap_err();
    let expected = "embeddings.word_embeddings.weight: expected [7, ".to_string();
    assert!(error.to_string().contains(&expected), "{error}");
}

#[test]
fn builder_paths_match_field_paths() {
    let built = build_from_dual_encoder(&goldens("dual/deit_roberta"), &options("UU"), &device()).unwrap();
    let names = dualenc_model::StoredNames::new(&built.image_config, &built.text_config).unwrap();
    let stored = read_safetensors(&goldens("dual/deit_roberta/model.safetensors")).unwrap();
    let written = names.stored(parameters::collect(&built.model, parameters::ParamFilter::All).unwrap()).unwrap();
    assert!(written == stored, "parameters written and parameters of the reference differ");
}

/// Caches are keyed by these strings: a change invalidates them.
#[test]
fn written_forms_are_pinned() {
    let (image, _) =
        image_tower_from(&goldens("towers/vit"), TowerLock::Locked, TowerOptions::default(), &device()).unwrap();
    assert_eq!(
        image.form(),
        "image-tower 1 vit(encoder(width=20 depth=3 heads=4 mlp=32 activation=\"gelu\" norm=pre \
         epsilon=0.000000000001 layer-scale=none biases=true,true,true,true,true,true gated=false relative=none \
         disentangled=none first-norm=true order=none dropout=0,true,true,0 std=0.02) image=32 patch=8 \
         patch-bias=true class=true distillation=false registers=0 mask=false positions=learned bicubic \
         first-norm=false final-norm=tokens pooler=dense tanh) pooling=pooler"
    );
    let (text, _) =
        text_tower_from(&goldens("towers/bert"), TowerLock::Locked, TowerOptions::default(), &device()).unwrap();
    assert_eq!(
        text.form(),
        "text-tower 1 text(encoder(width=20 depth=2 heads=4 mlp=32 activation=\"gelu\" norm=post \
         epsilon=0.000000000001 layer-scale=none biases=true,true,true,true,true,true gated=false relative=none \
         disentangled=none first-norm=true order=none dropout=0.1,true,true,0.1 std=0.02) words=120 \
         positions=24,true,0 types=2 embedding=none,true relations=[] pooler=first pad=0,none) pooling=pooler"
    );
}
