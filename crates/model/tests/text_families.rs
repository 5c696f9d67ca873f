//! Text towers of every family match transformers (`scripts/goldens/text_families.py`).

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Gradients, Tensor};
use dualenc_model::{
    Dropout, DualEncoder, Pool, Pooling, RelativeBuckets, StoredNames, TextTower, TokenSequences, TowerLock,
    TowerOptions, build_from_dual_encoder, parameters, read_safetensors, text_tower_from,
};

use crate::support::{
    Expected, assert_close, assert_dual_encoder, assert_near, cls, device, goldens, options, real_rows,
};

/// Fixtures, and the pooling that `auto` resolves to.
const TOWERS: [(&str, Pooling); 15] = [
    ("mpnet", Pooling::Pooler),
    ("distilbert", Pooling::Cls),
    ("distilbert_mlm", Pooling::Cls),
    ("electra", Pooling::Cls),
    ("electra_discriminator", Pooling::Cls),
    ("albert", Pooling::Pooler),
    ("modernbert", Pooling::Cls),
    ("modernbert_mlm", Pooling::Mean),
    ("clip_text", Pooling::Pooler),
    ("clip_text_legacy", Pooling::Pooler),
    ("clip", Pooling::Pooler),
    ("siglip_text", Pooling::Pooler),
    ("siglip2_text", Pooling::Pooler),
    ("siglip", Pooling::Pooler),
    ("deberta_v2", Pooling::Cls),
];

fn dir(name: &str) -> PathBuf {
    goldens("text_families").join(name)
}

fn pool(pool: Pool) -> TowerOptions {
    TowerOptions { pool, ..TowerOptions::default() }
}

fn tower(dir: &Path, lock: TowerLock, options: TowerOptions) -> TextTower {
    let (tower, audit) = text_tower_from(dir, lock, options, &device()).unwrap();
    assert_eq!((audit.missing.len(), audit.mismatched.len()), (0, 0), "{}: {audit:?}", dir.display());
    tower
}

/// Compares all cases of a fixture and returns their names.
fn compare(name: &str, tower: &TextTower, dropout: &Dropout) -> Vec<&'static str> {
    let expected = Expected::read(&dir(name));
    let mut compared = Vec::new();
    for case in ["", "_one", "_full", "_left", "_types", "_twice"] {
        let Some((tokens, mask)) = expected.tokens(case, tower.config().position_count()) else { continue };
        let output = tower.forward(&tokens, dropout).unwrap();
        let hidden = real_rows(&expected.floats[&format!("last_hidden_state{case}")], mask);
        assert_close(&format!("{name} hidden{case}"), output.hidden.without_autodiff(), &hidden);
        let pooled = expected.floats.get(&format!("pooler_output{case}"));
        // The reference pools the first column, which may be padding.
        if let (Some(pooled), Pooling::Pooler, true) = (pooled, tower.pooling(), case != "_left") {
            assert_close(&format!("{name} pooled{case}"), output.pooled.without_autodiff(), &pooled.values);
        }
        compared.push(case);
    }
    compared
}

#[test]
fn every_text_tower_matches_reference() {
    let others = [("mpnet_mlm", cls()), ("albert_mlm", cls()), ("deberta_v3", cls()), ("deberta_c2p", cls())];
    let towers = TOWERS.iter().map(|(name, _)| (*name, TowerOptions::default())).chain(others);
    for (name, options) in towers {
        let compared = compare(name, &tower(&dir(name), TowerLock::Locked, options), &Dropout::off());
        assert!(compared.starts_with(&["", "_one", "_full"]), "{name}: only {compared:?}");
        let is_clip = name.contains("clip");
        assert_eq!(compared.contains(&"_left"), !is_clip && !name.contains("siglip"), "{name}: {compared:?}");
    }
}

#[test]
fn trainable_text_towers_match_reference() {
    let without_dropout = |pool| TowerOptions { pool, dropout: Some(0.0), ..TowerOptions::default() };
    for name in ["mpnet", "distilbert", "electra", "albert", "modernbert", "clip_text", "siglip_text", "deberta_v3"] {
        let tower = tower(&dir(name), TowerLock::Unlocked, without_dropout(Pool::Auto));
        let compared = compare(name, &tower, &Dropout::training(1));
        assert!(compared.len() >= 3, "{name}: only {compared:?}");
    }
}

/// A short caption next to a long one has padding slots that attend to nothing within a local window.
#[test]
fn text_gradients_are_finite() {
    for name in ["modernbert", "deberta_v3", "deberta_v2", "clip_text", "albert", "mpnet", "electra"] {
        let tower = tower(&dir(name), TowerLock::Unlocked, pool(Pool::Mean));
        let ids = vec![vec![9; 16], vec![8; 2], vec![7]];
        let types = ids.iter().map(|ids| vec![0; ids.len()]).collect();
        let output = tower.forward(&TokenSequences::new(ids, types), &Dropout::training(1)).unwrap();
        let gradients = output.pooled.square().sum().backward();
        let mut check = GradientCheck { gradients: &gradients, missing: Vec::new(), finite: 0 };
        tower.visit(&mut check);
        assert!(check.missing.is_empty(), "{name}: no gradient for {:?}", check.missing);
        assert!(check.finite > 10);
    }
}

struct GradientCheck<'a> {
    gradients: &'a Gradients,
    /// The shapes of parameters without a gradient.
    missing: Vec<Vec<usize>>,
    finite: usize,
}

impl ModuleVisitor for GradientCheck<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        match value.grad(self.gradients) {
            None => self.missing.push(value.dims().to_vec()),
            Some(gradient) => {
                let values = parameters::host(gradient).unwrap().values;
                assert!(values.iter().all(|value| value.is_finite()), "a gradient of {:?} is not finite", value.dims());
                self.finite += 1;
            }
        }
    }
}

#[test]
fn auto_pooling_of_each_family() {
    for (name, expected) in TOWERS {
        assert_eq!(tower(&dir(name), TowerLock::Locked, TowerOptions::default()).pooling(), expected, "{name}");
        for (asked, expected) in [(Pool::Mean, Pooling::Mean), (Pool::Cls, Pooling::Cls)] {
            assert_eq!(tower(&dir(name), TowerLock::Locked, pool(asked)).pooling(), expected, "{name}");
        }
    }
}

#[test]
fn rejects_pooler_of_family_without_one() {
    let error = text_tower_from(&dir("distilbert"), TowerLock::Locked, pool(Pool::Pooler), &device()).map(drop);
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("a `distilbert` tower has no pooler; choose \"cls\", \"mean\", \"last\" or \"auto\""),
        "{text}"
    );
}

/// A copy of a fixture, with the files of sentence-transformers added.
fn sentence_transformers(name: &str, modules: Option<&str>, place: &str, pooling: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(dir(name).join(file), copy.path().join(file)).unwrap();
    }
    if let Some(modules) = modules {
        fs::write(copy.path().join("modules.json"), modules).unwrap();
    }
    fs::create_dir(copy.path().join(place)).unwrap();
    fs::write(copy.path().join(place).join("config.json"), pooling).unwrap();
    copy
}

/// Early CLIP configs hold the text config twice.
#[test]
fn clip_text_config_dict_takes_precedence() {
    let copy = tempfile::tempdir().unwrap();
    fs::copy(dir("clip").join("model.safetensors"), copy.path().join("model.safetensors")).unwrap();
    let text = fs::read_to_string(dir("clip").join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["text_config_dict"] = config["text_config"].take();
    config["text_config"] = serde_json::json!({ "hidden_size": 999 });
    fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    let expected = tower(&dir("clip"), TowerLock::Locked, TowerOptions::default());
    let found = tower(copy.path(), TowerLock::Locked, TowerOptions::default());
    assert_eq!(found.config(), expected.config());
}

const MEAN: &str =
    r#"{"word_embedding_dimension": 12, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}"#;
const FIRST: &str = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
const MODULES: &str = r#"[
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "pool", "type": "sentence_transformers.models.Pooling"}
]"#;

#[test]
fn sentence_transformers_selects_pooling() {
    let pooling = |name: &str, modules, place, config: &str| {
        let copy = sentence_transformers(name, modules, place, config);
        tower(copy.path(), TowerLock::Locked, TowerOptions::default()).pooling()
    };
    // The family has no pooler.
    assert_eq!(pooling("distilbert", None, "1_Pooling", MEAN), Pooling::Mean);
    assert_eq!(pooling("modernbert_mlm", None, "1_Pooling", FIRST), Pooling::Cls);
    assert_eq!(pooling("distilbert", Some(MODULES), "pool", MEAN), Pooling::Mean);
    assert_eq!(pooling("distilbert", None, "1_Pooling", r#"{"pooling_mode": "mean"}"#), Pooling::Mean);
    // Without pooler weights, a locked tower is refused unless there is a pooling config.
    assert_eq!(pooling("mpnet_mlm", None, "1_Pooling", MEAN), Pooling::Mean);
    let refused = text_tower_from(&dir("mpnet_mlm"), TowerLock::Locked, TowerOptions::default(), &device()).map(drop);
    assert!(refused.unwrap_err().to_string().contains("`text_pool = \"cls\"`"));
    // The pooler of the tower takes precedence.
    assert_eq!(pooling("mpnet", None, "1_Pooling", MEAN), Pooling::Pooler);
}

#[test]
fn rejects_unsupported_sentence_pooling() {
    let copy = sentence_transformers("distilbert", None, "1_Pooling", r#"{"pooling_mode_max_tokens": true}"#);
    let refused = text_tower_from(copy.path(), TowerLock::Locked, TowerOptions::default(), &device()).map(drop);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("the pooling is `max`; supported: cls, mean, lasttoken"), "{text}");
    tower(copy.path(), TowerLock::Locked, cls());
}

#[test]
fn siglip_pads_to_full_length() {
    let config = |name: &str| tower(&dir(name), TowerLock::Locked, TowerOptions::default()).config().clone();
    assert_eq!((config("siglip_text").pad_to, config("siglip_text").pad_id), (Some(18), 1));
    assert_eq!((config("clip_text").pad_to, config("mpnet").pad_to), (None, None));
    let siglip2 = tower(&dir("siglip2_text"), TowerLock::Locked, TowerOptions::default());
    assert_eq!((siglip2.pooled_width(), siglip2.config().encoder.width), (8, 12));
}

#[test]
fn relative_buckets_match_reference() {
    let expected = Expected::read(&dir("buckets"));
    let mpnet = RelativeBuckets::Sides { rows: 32, max_distance: 128 };
    let deberta = |span, max_distance| RelativeBuckets::Centred { span, max_distance: Some(max_distance) };
    for (name, buckets) in [
        ("mpnet", mpnet),
        ("deberta_256_512", deberta(256, 512)),
        ("deberta_32_128", deberta(32, 128)),
        ("deberta_4_18", deberta(4, 18)),
    ] {
        let rows: Vec<u32> = (1..=1199).map(|key| buckets.row(600, key) as u32).collect();
        assert_eq!(rows, expected.ints[name][0], "{name}");
    }
}

#[test]
fn every_text_family_in_a_pair() {
    let pairs = ["mpnet", "distilbert", "electra", "albert", "modernbert", "clip_text", "siglip_text", "deberta"];
    for name in pairs.iter().map(|name| format!("pair_{name}")).chain(["pair_clip_text_v4".to_owned()]) {
        let model = DualEncoder::from_pretrained(dir(&name), &device()).unwrap();
        assert_dual_encoder(&name, &model, &Expected::read(&dir(&name)));
    }
}

#[test]
fn text_tensors_round_trip() {
    for name in ["mpnet", "distilbert", "electra", "albert", "modernbert", "clip_text", "siglip_text", "deberta"] {
        let dir = dir(&format!("pair_{name}"));
        let built = build_from_dual_encoder(&dir, &options("UU"), &device()).unwrap();
        assert!(built.text_audit.unused.is_empty(), "{name}: {:?}", built.text_audit.unused);
        let names = StoredNames::new(&built.image_config, &built.text_config).unwrap();
        let written = names.stored(parameters::collect(&built.model, parameters::ParamFilter::All).unwrap()).unwrap();
        let stored = read_safetensors(&dir.join("model.safetensors")).unwrap();
        assert!(written == stored, "{name}: parameters written and parameters of the reference differ");
    }
}

#[test]
fn text_towers_in_half_precision() {
    for (name, _) in TOWERS {
        let expected = Expected::read(&dir(name));
        for (lock, precision) in [(TowerLock::Locked, FloatDType::F16), (TowerLock::Unlocked, FloatDType::BF16)] {
            let tower = parameters::cast(tower(&dir(name), lock, TowerOptions::default()), precision);
            let (tokens, mask) = expected.tokens("", tower.config().position_count()).unwrap();
            let hidden = tower.forward(&tokens, &Dropout::off()).unwrap().hidden.without_autodiff();
            let reference = real_rows(&expected.floats["last_hidden_state"], mask);
            assert_near(name, hidden, &reference);
        }
    }
}
