//! Decoders, T5 encoders and GTE as text towers match transformers (`scripts/goldens/text_decoders.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use dualenc_model::{
    Dropout, HostTensor, Pool, Pooling, StoredNames, TextTower, TokenSequences, TowerLock, TowerOptions, parameters,
    text_tower_from,
};
use serde_json::{Value, json};

use crate::support::{Expected, assert_close, assert_near, device, goldens, real_rows};

/// Fixtures, and the pooling that `auto` resolves to.
const TOWERS: [(&str, Pooling); 12] = [
    ("qwen3", Pooling::Last),
    ("qwen3_lm", Pooling::Last),
    ("qwen2", Pooling::Last),
    ("llama", Pooling::Last),
    ("llama_lm", Pooling::Last),
    ("mistral", Pooling::Last),
    ("gemma3", Pooling::Last),
    ("embedding_gemma", Pooling::Mean),
    ("t5", Pooling::Mean),
    ("t5_gated", Pooling::Mean),
    ("gte", Pooling::Cls),
    ("gte_new", Pooling::Cls),
];

const CASES: [&str; 4] = ["", "_one", "_full", "_left"];

fn dir(name: &str) -> PathBuf {
    goldens("text_decoders").join(name)
}

fn tower(dir: &Path, lock: TowerLock, pool: Pool) -> TextTower {
    let options = TowerOptions { pool, dropout: Some(0.0), ..TowerOptions::default() };
    let (tower, audit) = text_tower_from(dir, lock, options, &device()).unwrap();
    assert_eq!((audit.missing.len(), audit.mismatched.len()), (0, 0), "{}: {audit:?}", dir.display());
    tower
}

/// Compares the hidden states and the pooled output of every case.
fn compare(name: &str, tower: &TextTower) {
    let expected = Expected::read(&dir(name));
    for case in CASES {
        let (tokens, mask) = expected.tokens(case, tower.config().position_count()).unwrap();
        let output = tower.forward(&tokens, &Dropout::off()).unwrap();
        let hidden = real_rows(&expected.floats[&format!("last_hidden_state{case}")], mask);
        assert_close(&format!("{name} hidden{case}"), output.hidden.without_autodiff(), &hidden);
        let pooled = &expected.floats[&format!("pooled{case}")].values;
        assert_close(&format!("{name} pooled{case}"), output.pooled.without_autodiff(), pooled);
    }
}

#[test]
fn decoders_match_reference() {
    for (name, pooling) in TOWERS {
        let locked = tower(&dir(name), TowerLock::Locked, Pool::Auto);
        assert_eq!(locked.pooling(), pooling, "{name}");
        compare(name, &locked);
    }
}

#[test]
fn trainable_decoders_match_reference() {
    for (name, _) in TOWERS {
        compare(name, &tower(&dir(name), TowerLock::Unlocked, Pool::Auto));
    }
}

#[test]
fn decoders_in_half_precision() {
    for (name, _) in TOWERS {
        let expected = Expected::read(&dir(name));
        let half = tower(&dir(name), TowerLock::Locked, Pool::Auto);
        let half = parameters::cast(half, burn::tensor::FloatDType::BF16);
        let (tokens, mask) = expected.tokens("_full", half.config().position_count()).unwrap();
        let hidden = half.forward(&tokens, &Dropout::off()).unwrap().hidden;
        assert_near(name, hidden, &real_rows(&expected.floats["last_hidden_state_full"], mask));
    }
}

#[test]
fn decoder_gradients_match_reference() {
    for (name, _) in TOWERS {
        let expected = Expected::read(&dir(name));
        let tower = tower(&dir(name), TowerLock::Unlocked, Pool::Auto);
        let (tokens, _) = expected.tokens("", tower.config().position_count()).unwrap();
        let pooled = tower.forward(&tokens, &Dropout::training(1)).unwrap().pooled;
        let gradients = (pooled * expected.tensor::<2>("gradient_weights")).sum().backward();
        let found = stored_gradients(name, &tower, &gradients);
        let mut compared = 0;
        for (stored, values) in expected.floats.iter().filter(|(stored, _)| stored.starts_with("gradient.")) {
            let stored = &stored["gradient.".len()..];
            let found = found.get(stored).unwrap_or_else(|| panic!("{name}: no gradient of {stored}"));
            assert_eq!(found.shape, values.shape, "{name} {stored}");
            let pairs = || found.values.iter().zip(&values.values);
            let worst = pairs().map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
            let scale = values.values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            assert!(worst <= 1e-4 * scale.max(1e-2), "{name} {stored}: differs by {worst} of {scale}");
            compared += 1;
        }
        assert_eq!(compared, found.len(), "{name}");
    }
}

/// The gradient of every parameter, by its name in the file.
fn stored_gradients(name: &str, tower: &TextTower, gradients: &Gradients) -> BTreeMap<String, HostTensor> {
    struct Collect<'a> {
        gradients: &'a Gradients,
        paths: std::vec::IntoIter<String>,
        found: BTreeMap<String, HostTensor>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.paths.next().unwrap();
            let gradient = param.val().grad(self.gradients).unwrap_or_else(|| panic!("no gradient of {path}"));
            self.found.insert(format!("text_tower.{path}"), parameters::host(gradient).unwrap());
        }
    }
    let paths: Vec<String> = parameters::list(tower).into_iter().map(|info| info.path).collect();
    let mut collect = Collect { gradients, paths: paths.into_iter(), found: BTreeMap::new() };
    tower.visit(&mut collect);
    let config: Value = serde_json::from_str(&fs::read_to_string(dir(name).join("config.json")).unwrap()).unwrap();
    let stored = StoredNames::new(&json!({ "model_type": "vit" }), &config).unwrap().stored(collect.found).unwrap();
    stored.into_iter().map(|(name, tensor)| (name["text_model.".len()..].to_owned(), tensor)).collect()
}

#[test]
fn other_heads_are_unused() {
    let unused = |name: &str| {
        let options = TowerOptions::default();
        text_tower_from(&dir(name), TowerLock::Locked, options, &device()).unwrap().1.unused
    };
    assert_eq!(unused("qwen3_lm"), ["lm_head.weight"]);
    assert!(unused("t5_gated").iter().all(|name| name.starts_with("decoder.") || name == "lm_head.weight"));
    assert!(unused("gte_new").iter().all(|name| name.starts_with("lm_head.")));
    assert!(unused("embedding_gemma").is_empty());
}

/// A decoder's token does not see those after it.
#[test]
fn decoders_are_causal() {
    let run = |name: &str, ids: Vec<Vec<u32>>| {
        let types = ids.iter().map(|ids| vec![0; ids.len()]).collect();
        let tower = tower(&dir(name), TowerLock::Locked, Pool::Auto);
        parameters::host(tower.forward(&TokenSequences::new(ids, types), &Dropout::off()).unwrap().hidden).unwrap()
    };
    for name in ["qwen3", "llama", "mistral", "gemma3"] {
        let whole = run(name, vec![vec![9, 8, 7, 6, 5, 9, 8, 7]]);
        let start = run(name, vec![vec![9, 8, 7, 6, 5]]);
        let shared = start.values.len();
        let worst = whole.values[..shared].iter().zip(&start.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{name}: {worst}");
    }
}

#[test]
fn last_token_pools_other_families() {
    let dir = goldens("text_families").join("distilbert");
    let tower = tower(&dir, TowerLock::Locked, Pool::Last);
    let tokens = TokenSequences::new(vec![vec![9, 8, 7], vec![6]], vec![vec![0; 3], vec![0]]);
    let output = tower.forward(&tokens, &Dropout::off()).unwrap();
    let rows = parameters::host(output.hidden).unwrap().values;
    let width = tower.pooled_width();
    assert_eq!(parameters::host(output.pooled).unwrap().values, rows[2 * width..]);
    assert!(tower.form().ends_with("pooling=last"), "{}", tower.form());
}

#[test]
fn lasttoken_of_sentence_transformers() {
    let copy = tempfile::tempdir().unwrap();
    let source = goldens("text_families").join("distilbert");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(source.join(name), copy.path().join(name)).unwrap();
    }
    fs::create_dir(copy.path().join("1_Pooling")).unwrap();
    let config = json!({ "pooling_mode_lasttoken": true, "pooling_mode_cls_token": false });
    fs::write(copy.path().join("1_Pooling/config.json"), config.to_string()).unwrap();
    assert_eq!(tower(copy.path(), TowerLock::Locked, Pool::Auto).pooling(), Pooling::Last);
}
