//! Loading, defaults and `--set`, and that no input panics.

mod cached_states;
mod heads;
mod layers;
mod loading_messages;
mod mutations;
mod rule_messages;
mod serde_texts;
mod set_messages;
mod teacher;
mod token_heads;

use std::path::Path;

use super::{ConfigError, EvalData, EvalInterval, InitialWeights, LogitBiasInit, RunConfig, RunLength, Schedule, Task};

pub(super) const BASE: &str = r#"[run]
dir = "runs/emoji"

[model]
image_tower = "./towers/vit"
text_tower = "org/minilm"
lock = "LU"

[data.train.csv]
path = "data/train.csv"

[train]
epochs = 20
batch_size = 256
learning_rate = 1e-3

[eval.vendor]
task = "zero-shot"
images = "data/heldout"
"#;

pub(super) fn load(text: &str, overrides: &[&str]) -> Result<RunConfig, String> {
    load_in(text, "/project", overrides)
}

fn load_in(text: &str, directory: &str, overrides: &[&str]) -> Result<RunConfig, String> {
    let overrides: Vec<String> = overrides.iter().map(|argument| (*argument).to_owned()).collect();
    let path = Path::new("run.toml");
    RunConfig::from_bytes(text.as_bytes(), path, Path::new(directory), &overrides)
        .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems }.to_string())
}

/// The complete message for `BASE` with each edit `(from, to)` applied.
fn errors(edits: &[(&str, &str)], overrides: &[&str]) -> String {
    let mut text = BASE.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from:?} is not in the base");
        text = text.replacen(from, to, 1);
    }
    load(&text, overrides).map(|_| ()).expect_err("the config is valid")
}

#[test]
fn fills_defaults() {
    let config = load(BASE, &[]).unwrap();
    assert_eq!(config.run.dir, Path::new("/project/runs/emoji"));
    assert_eq!(
        config.initial_weights(),
        InitialWeights::Pair { image: Some("/project/towers/vit"), text: Some("org/minilm") }
    );
    assert_eq!(config.model.lock.to_string(), "LU");
    assert_eq!(config.model.embed_dim, Some(512));
    assert_eq!(config.model.logit_scale_init, Some(2.6592));
    let sigmoid = load(BASE, &["train.loss=sigmoid"]).unwrap();
    // Batches of 256 pairs.
    let bias = Some(LogitBiasInit::Number(-255.0_f64.ln()));
    assert_eq!((sigmoid.model.logit_scale_init, sigmoid.train.logit_bias_init), (Some(10.0_f64.ln()), bias));
    let auto = load(BASE, &["train.loss=sigmoid", "train.logit_bias_init=auto"]).unwrap();
    assert_eq!((auto.train.logit_bias_init, auto.initial_logit_bias()), (bias, Some(-255.0_f64.ln())));
    assert_eq!(load(BASE, &[]).unwrap().initial_logit_bias(), None);
    assert_eq!(load(BASE, &["train.label_smoothing=0.1"]).unwrap().train.label_smoothing, 0.1);
    assert_eq!(config.length(), RunLength::Epochs(20));
    assert_eq!(config.train.logit_scale_max, 100.0_f64.ln());
    assert_eq!(config.cache_dir(), Path::new("/project/runs/emoji/cache"));
    let vendor = &config.eval["vendor"];
    assert_eq!(vendor.images.as_deref(), Some(Path::new("/project/data/heldout")));
    assert_eq!(vendor.interval(), EvalInterval::Epochs(1));
    assert_eq!(config.warnings(), Vec::<String>::new());
}

/// Many keys, none at its default.
pub(super) const FULL: &str = r#"
[run]
dir = "/elsewhere/run"
seed = 7
device = "cuda:1"
threads = 3
log_every_steps = 2
tensorboard = true

[model]
image_tower = "../towers/vit"
text_tower = "a/b/c"
lock = "uU"
embed_dim = 96
image_pool = "mean"
text_pool = "cls"
image_size = 112
logit_scale_init = 1
image_dropout = 0.1
text_dropout = 0.25
image_projection = { locked = true }
text_projection = { locked = true }

[data]
max_tokens = 32
shuffle = false
captions = "one"
word_dropout = 0.125
workers = 1
max_bad_fraction = 0

[data.augment]
crop_scale = [0.5, 0.75]
crop_ratio = [0.8, 1.25]
flip = 0.5
brightness = 0.1
contrast = 0.2
saturation = 0.3
hue = 0.05
rand_ops = 2
rand_magnitude = 5

[data.train.jsonl]
path = "pairs.jsonl"
image = "file"
caption = "text"
root = "images"

[train]
steps = 1000
batch_size = 64
learning_rate = 5e-4
weight_decay = 0.01
warmup_steps = 50
schedule = "linear"
betas = [0.8, 0.95]
eps = 1e-6
loss = "sigmoid"
clip_grad_norm = 0
duplicates = "mask"
logit_scale_max = 4
logit_bias_init = -2.71
ema_decay = 0.99

[checkpoint]
every_steps = 100
keep = 1
best = "c.loss"
patience = 3
min_delta = 0.001

[cache]
enabled = false
dir = "features"

[eval.a-1]
task = "zero-shot"
images = "x"
classnames = "y"
templates = "z"
every_steps = 10
batch_size = 8

[eval.b_2]
task = "retrieval"
data = "pairs.csv"
every_epochs = 0

[eval.c]
task = "loss"
data = "held.csv"
pool_size = 64
every_epochs = 2
"#;

#[test]
fn written_config_loads_equal() {
    let scratch = "[run]\ndir='r'\n[model]\ninit='old/run/x'\n[data.train.folder]\npath='p'\n\
                   [train]\nepochs=1\nbatch_size=2\nlearning_rate=1\n";
    for text in [BASE, FULL, scratch] {
        let config = load(text, &[]).unwrap();
        let written = config.to_toml().unwrap();
        let again = load_in(&written, "/another/place", &[]).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.to_toml().unwrap(), written);
    }
}

#[test]
fn every_value_is_read() {
    fn leaves(key: &str, value: &toml::Value, found: &mut Vec<(String, toml::Value)>) {
        match value {
            toml::Value::Table(table) => {
                table.iter().for_each(|(name, value)| leaves(&format!("{key}.{name}"), value, found))
            }
            leaf => found.push((key.to_owned(), leaf.clone())),
        }
    }
    let (mut given, mut arrived) = (Vec::new(), Vec::new());
    leaves("", &toml::from_str(FULL).unwrap(), &mut given);
    leaves("", &toml::Value::try_from(load(FULL, &[]).unwrap()).unwrap(), &mut arrived);
    assert_eq!(given.len(), FULL.lines().filter(|line| line.contains('=')).count());
    for (key, value) in given {
        let (_, found) =
            arrived.iter().find(|(arrived, _)| *arrived == key).unwrap_or_else(|| panic!("{key} is missing"));
        match (&value, found) {
            (toml::Value::String(value), toml::Value::String(found)) => {
                assert!(found.ends_with(value.trim_start_matches("../")), "{key}: {found}")
            }
            (toml::Value::Integer(value), toml::Value::Float(found)) => assert_eq!(*value as f64, *found, "{key}"),
            _ => assert_eq!(value, *found, "{key}"),
        }
    }
}

#[test]
fn load_resolves_paths() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("emoji.toml");
    std::fs::create_dir_all(dir.path().join("towers/text")).unwrap();
    let text = BASE.replace("org/minilm", "towers/text").replace("./towers/vit", "towers/vit");
    std::fs::write(&file, text).unwrap();
    let config = RunConfig::load(&file, &[]).unwrap();
    assert_eq!(config.run.dir, dir.path().join("runs/emoji"));
    // `towers/text` exists, so it is a directory; `towers/vit` does not, so it is a hub id.
    let here = dir.path().join("towers/text");
    assert_eq!(config.initial_weights(), InitialWeights::Pair { image: Some("towers/vit"), text: here.to_str() });

    let missing = RunConfig::load(&dir.path().join("none.toml"), &[]).unwrap_err();
    assert_eq!(missing.to_string(), format!("cannot read the config `{}`", dir.path().join("none.toml").display()));
    assert!(matches!(RunConfig::load(dir.path(), &[]), Err(ConfigError::Read { .. })));
}

#[test]
fn file_not_utf8() {
    let mut bytes = b"[run]\ndir = \"".to_vec();
    bytes.extend([0xff, 0xfe]);
    let problems = RunConfig::from_bytes(&bytes, Path::new("run.toml"), Path::new("/project"), &[]).unwrap_err();
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["run.toml:2:8: the file is not UTF-8\n  help: save it as UTF-8, the only encoding of TOML"]
    );
}

#[test]
fn set_reads_toml_or_string() {
    let arguments = [
        "train.batch_size=64",
        "train.learning_rate=5e-4",
        "run.device=cuda:0",
        "run.dir=2024-01-01",
        "model.lock=Lu",
        "train.betas=[0.5, 0.75]",
        "train.schedule = constant",
        "model.image_projection.locked=true",
        "eval.vendor.images= 'a=b' ",
        "eval.pairs.task=retrieval",
        "eval.pairs.data=pairs.csv",
        "train.epochs=",
        "train.steps=10",
        "data.train={folder={path=\"shots\"}}",
    ];
    let config = load(BASE, &arguments).unwrap();
    assert_eq!(config.train.batch_size, 64);
    assert_eq!(config.train.learning_rate, 5e-4);
    assert_eq!(config.run.device.all(), ["cuda:0"]);
    assert_eq!(config.run.dir, Path::new("/project/2024-01-01"));
    assert_eq!(config.model.lock.to_string(), "Lu");
    assert_eq!(config.train.betas, Some([0.5, 0.75]));
    assert_eq!(config.train.schedule, Schedule::Constant);
    assert!(config.model.image_projection.locked);
    assert_eq!(config.eval["vendor"].images.as_deref(), Some(Path::new("/project/a=b")));
    assert_eq!(config.eval["pairs"].task, Task::Retrieval);
    assert_eq!(config.length(), RunLength::Steps(10));
    let tables = config.data.train.tables();
    assert_eq!(tables[0].1.folder.as_ref().unwrap().path, Path::new("/project/shots"));
    // The last of two wins.
    assert_eq!(load(BASE, &["run.seed=1", "run.seed=2"]).unwrap().run.seed, 2);
}

#[test]
fn warns_of_unused_settings() {
    let text = BASE.replace(
        "lock = \"LU\"",
        "lock = \"LU\"\nimage_dropout = 0.1\ntext_dropout = 0.1\n[cache]\nenabled = false\ndir = \"c\"",
    );
    assert_eq!(
        load(&text, &[]).unwrap().warnings(),
        [
            "`model.image_dropout` has no effect: the image tower is locked",
            "`cache.dir` has no effect: `cache.enabled` is false",
        ]
    );
}

#[test]
fn deep_nesting_is_an_error() {
    let nested = format!("x = {}{}\n{BASE}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(load(&nested, &[]).is_err());
    let argument = format!("run.dir={}", "{a=".repeat(100_000));
    assert!(load(BASE, &[&argument]).is_ok(), "not TOML, so a bare string");
    let argument = format!("run.dir={}1{}", "[".repeat(70), "]".repeat(70));
    assert!(load(BASE, &[&argument]).is_err());
}

#[test]
fn several_sources() {
    let text = BASE.replace(
        "[data.train.csv]\npath = \"data/train.csv\"",
        "[data]\nvalidation_fraction = 0.1\n\n[[data.train]]\ncsv = { path = 'a.csv' }\n\n[[data.train]]\n\
         folder = { path = '/b' }\nweight = 0.5\nonly = 'rows.txt'\ntemplates = 't.txt'",
    );
    let config = load(&text, &[]).unwrap();
    let tables = config.data.train.tables();
    assert_eq!(tables.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["data.train[0]", "data.train[1]"]);
    assert_eq!(tables[0].1.csv.as_ref().unwrap().path, Path::new("/project/a.csv"));
    assert_eq!(tables[1].1.folder.as_ref().unwrap().path, Path::new("/b"));
    assert_eq!(tables[1].1.weight, Some(0.5));
    assert_eq!(tables[1].1.only.as_deref(), Some(Path::new("/project/rows.txt")));
    assert_eq!(tables[1].1.templates.as_deref(), Some(Path::new("/project/t.txt")));
    let added = &config.eval["validation"];
    assert_eq!((added.task, &added.data), (Task::Retrieval, &None));
    assert_eq!(load(&config.to_toml().unwrap(), &[]).unwrap(), config);
}

#[test]
fn evaluation_data_is_a_path_or_a_source() {
    let text = BASE.replace(
        "[train]",
        "[eval.a]\ntask = 'retrieval'\ndata = 'a.csv'\n\n[eval.b]\ntask = 'loss'\n\n[eval.b.data.jsonl]\n\
         path = 'b.jsonl'\nimage = 'file_name'\n\n[train]",
    );
    let config = load(&text, &[]).unwrap();
    assert_eq!(config.eval["a"].data, Some(EvalData::Path("/project/a.csv".into())));
    let Some(EvalData::Source(table)) = &config.eval["b"].data else { panic!("{:?}", config.eval["b"].data) };
    let jsonl = table.jsonl.as_ref().unwrap();
    assert_eq!(jsonl.path, Path::new("/project/b.jsonl"));
    assert_eq!(load(&config.to_toml().unwrap(), &[]).unwrap(), config);
}
