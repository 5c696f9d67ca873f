//! Which keys may change, and which forms of a config mean the same.

use std::path::Path;

use super::*;

const TEXT: &str = r#"
run = { dir = "runs/a" }
model = { image_tower = "./vit", text_tower = "org/bert" }
data = { train = { folder = { path = "pairs" } } }
train = { epochs = 10, batch_size = 8, learning_rate = 1e-3 }
cache = { dir = "/shared/cache" }
eval = { held = { task = "zero-shot", images = "held" } }
"#;

fn config(directory: &str, overrides: &[&str]) -> RunConfig {
    let overrides: Vec<String> = overrides.iter().map(|argument| (*argument).to_owned()).collect();
    RunConfig::from_bytes(TEXT.as_bytes(), Path::new("run.toml"), Path::new(directory), &overrides).unwrap()
}

fn changes(old: &[&str], new: &[&str]) -> Vec<(String, bool)> {
    let changes = changed_keys(&config("/project", old), &config("/project", new));
    changes.into_iter().map(|change| (change.key, change.safe)).collect()
}

#[test]
fn defaults_are_no_change() {
    assert_eq!(changes(&[], &[]), []);
    // Defaults, written out.
    assert_eq!(changes(&[], &["model.embed_dim=512", "eval.held.every_epochs=1", "model.lock=LU"]), []);
}

#[test]
fn first_bias_may_change() {
    let sigmoid = "train.loss=sigmoid";
    // An older version recorded -10 where the key was absent.
    let found = changes(&[sigmoid, "train.logit_bias_init=-10"], &[sigmoid]);
    assert_eq!(found, [("train.logit_bias_init".to_owned(), true)]);
    assert_eq!(changes(&[sigmoid], &[sigmoid, "train.logit_bias_init=auto"]), []);
}

#[test]
fn default_columns_are_no_change() {
    let table = |keys: &str| format!("data.train={{csv={{path=\"d.csv\"{keys}}}}}");
    let (written, default) = (table(", image=\"image\", caption=\"caption\""), table(""));
    assert_eq!(changes(&[&written], &[&default]), []);
    assert_eq!(changes(&[&default], &[&written]), []);
    let other = table(", image=\"filepath\"");
    assert_eq!(changes(&[&written], &[&other]).first(), Some(&("data.train.csv.image".to_owned(), false)));
    assert_eq!(changes(&[&default], &[&other]), [("data.train.csv.image".to_owned(), false)]);
    // The same in a list of sources.
    let list = |keys: &str, weight: u8| {
        format!("data.train=[{{csv={{path=\"d.csv\"{keys}}},weight={weight}}},{{folder={{path=\"f\"}}}}]")
    };
    let written = list(", image=\"image\", caption=\"caption\"", 2);
    assert_eq!(changes(&[&written], &[&list("", 2)]), []);
    assert_eq!(changes(&[&list("", 2)], &[&written]), []);
    let column = changes(&[&written], &[&list(", image=\"filepath\"", 2)]);
    assert_eq!(column, [("data.train[0].csv.image".to_owned(), false)]);
    assert_eq!(changes(&[&written], &[&list("", 3)]), [("data.train[0].weight".to_owned(), false)]);
}

#[test]
fn classifies_each_key() {
    let cases = [
        ("run.device=ndarray", "run.device", true),
        ("run.threads=1", "run.threads", true),
        ("run.log_every_steps=1", "run.log_every_steps", true),
        ("run.tensorboard=true", "run.tensorboard", true),
        ("run.dir=elsewhere", "run.dir", true),
        ("run.seed=1", "run.seed", false),
        ("model.image_tower=./other", "model.image_tower", false),
        ("model.text_tower=org/other", "model.text_tower", false),
        ("model.lock=UU", "model.lock", false),
        ("model.embed_dim=64", "model.embed_dim", false),
        ("model.image_pool=cls", "model.image_pool", false),
        ("model.image_layer=3", "model.image_layer", false),
        ("model.image_layer=[3,-1]", "model.image_layer", false),
        ("model.text_layer=[-1,3]", "model.text_layer", false),
        ("model.text_layer_norm=false", "model.text_layer_norm", false),
        ("model.image_size=112", "model.image_size", false),
        ("model.text_dropout=0.5", "model.text_dropout", false),
        ("model.text_projection.locked=true", "model.text_projection.locked", false),
        ("data.max_tokens=16", "data.max_tokens", false),
        ("data.shuffle=false", "data.shuffle", false),
        ("data.captions=one", "data.captions", false),
        ("data.captions=slots", "data.captions", false),
        ("data.word_dropout=0.1", "data.word_dropout", false),
        ("data.train.folder.path=other", "data.train.folder.path", true),
        ("data.workers=1", "data.workers", true),
        ("data.max_bad_fraction=0.5", "data.max_bad_fraction", true),
        ("data.fast_decode=true", "data.fast_decode", false),
        ("data.max_pixels=178956971", "data.max_pixels", true),
        ("data.max_pixels=178956969", "data.max_pixels", false),
        ("train.epochs=20", "train.epochs", false),
        ("train.batch_size=4", "train.batch_size", false),
        ("train.micro_batch_size=2", "train.micro_batch_size", true),
        ("train.learning_rate=1", "train.learning_rate", false),
        ("train.weight_decay=0", "train.weight_decay", false),
        ("train.learning_rate=1e-4", "train.learning_rate", true),
        ("train.warmup_steps=3", "train.warmup_steps", true),
        ("train.warmup_fraction=0.1", "train.warmup_fraction", true),
        ("train.schedule=constant", "train.schedule", false),
        ("train.learning_rate_floor=0.1", "train.learning_rate_floor", false),
        ("train.betas=[0.9,0.98]", "train.betas", false),
        ("train.optimizer=lion", "train.optimizer", false),
        ("train.eps=1e-6", "train.eps", false),
        ("train.loss=sigmoid", "train.loss", false),
        ("train.label_smoothing=0.1", "train.label_smoothing", false),
        ("train.matryoshka=[64]", "train.matryoshka", false),
        ("train.structure=10", "train.structure", false),
        ("train.clip_grad_norm=0", "train.clip_grad_norm", true),
        ("train.duplicates=mask", "train.duplicates", false),
        ("train.logit_scale_max=5", "train.logit_scale_max", false),
        ("checkpoint.every_steps=7", "checkpoint.every_steps", true),
        ("checkpoint.keep=7", "checkpoint.keep", true),
        ("checkpoint.best=held.acc1", "checkpoint.best", true),
        ("train.ema_decay=0.9", "train.ema_decay", false),
        ("cache.enabled=false", "cache.enabled", true),
        ("cache.dir=/other", "cache.dir", true),
        ("cache.dtype=f16", "cache.dtype", false),
        ("cache.views=2", "cache.views", false),
        ("cache.prefix=false", "cache.prefix", true),
        ("eval.held.images=other", "eval.held.images", true),
    ];
    for (argument, key, safe) in cases {
        let found = changes(&[], &[argument]);
        let change = found.iter().find(|(changed, _)| changed == key);
        assert_eq!(change, Some(&(key.to_owned(), safe)), "{argument}: {found:?}");
    }
}

#[test]
fn other_devices_say_whether_the_bits_change() {
    let why = |old: &[&str], new: &[&str]| {
        let changes = changed_keys(&config("/project", old), &config("/project", new));
        let why: Vec<&str> =
            changes.iter().filter(|change| change.key == "run.device").map(|change| change.why).collect();
        why.join("; ")
    };
    let parts = "train.micro_batch_size=1";
    let same = "devices of this kind and number compute the same bits";
    assert_eq!(why(&["run.device=cuda:0"], &["run.device=cuda:1"]), same);
    assert_eq!(why(&["run.device=cpu", parts], &["run.device=cpu,cpu", parts]), same);
    assert!(why(&["run.device=cpu"], &["run.device=cuda"]).starts_with("another kind of device rounds differently"));
    let other = why(&["run.device=cpu,cpu", parts], &["run.device=cpu,cpu,cpu", parts]);
    assert!(other.contains("in another order: results are no longer bit-identical"), "{other}");
    let other = why(&["run.device=cpu"], &["run.device=cpu,cpu", parts]);
    assert!(other.contains("other micro-batches: results are no longer bit-identical"), "{other}");
}

#[test]
fn caption_slots_change_the_data() {
    let slots = "data.captions=slots";
    assert_eq!(changes(&[slots], &[slots, "data.caption_slots=2", "data.pin_first_caption=false"]), []);
    let verdict = |key: &str, value: &str| changes(&[slots], &[slots, &format!("{key}={value}")]);
    assert_eq!(verdict("data.caption_slots", "3"), [("data.caption_slots".to_owned(), false)]);
    assert_eq!(verdict("data.pin_first_caption", "true"), [("data.pin_first_caption".to_owned(), false)]);
    let weighted = changes(&[slots], &[slots, "data.train={folder={path='pairs'}, caption_weights=[2, 1]}"]);
    assert_eq!(weighted, [("data.train.caption_weights".to_owned(), false)]);
}

#[test]
fn teacher_may_move() {
    let teacher = "train.teacher.model=./clip";
    let key = |name: &str, safe| (format!("train.teacher.{name}"), safe);
    assert_eq!(changes(&[teacher], &["train.teacher.model=./moved"]), [key("model", true)]);
    assert_eq!(changes(&[teacher], &[teacher, "train.teacher.weight=0.3"]), [key("weight", false)]);
    assert_eq!(changes(&[teacher], &[teacher, "train.teacher.scale=70"]), [key("scale", false)]);
    assert_eq!(changes(&[teacher], &[teacher, "train.teacher.scale=60", "train.teacher.weight=0.5"]), []);
    let gone = changes(&[teacher], &[]);
    assert_eq!(gone, [key("model", true), key("scale", false), key("weight", false)]);
}

#[test]
fn constant_schedule_may_get_longer() {
    let constant = "train.schedule=constant";
    assert_eq!(changes(&[constant], &[constant, "train.epochs=20"]), [("train.epochs".to_owned(), true)]);
    let in_steps = changes(&[constant], &[constant, "train.epochs=", "train.steps=9"]);
    assert_eq!(in_steps, [("train.epochs".to_owned(), true), ("train.steps".to_owned(), true)]);
    let rsqrt = "train.schedule=rsqrt";
    let cooled = changes(&[rsqrt], &[rsqrt, "train.epochs=20", "train.cooldown_fraction=0.2"]);
    assert_eq!(cooled, [("train.cooldown_fraction".to_owned(), true), ("train.epochs".to_owned(), true)]);
    assert_eq!(changes(&[rsqrt], &[rsqrt, "train.rsqrt_timescale=3"]), [("train.rsqrt_timescale".to_owned(), false)]);
    assert!(changes(&[rsqrt], &[constant, "train.epochs=20"]).iter().all(|(_, safe)| !safe));
}

#[test]
fn diverged_run_may_get_gentler() {
    let verdict = |old: &[&str], new: &[&str]| changes(old, new).iter().all(|(_, safe)| *safe);
    assert!(verdict(&["train.warmup_steps=5"], &["train.warmup_steps=9"]));
    assert!(!verdict(&["train.warmup_steps=5"], &["train.warmup_steps=4"]));
    assert!(!verdict(&["train.warmup_steps=5"], &[]));
    assert!(verdict(&["train.warmup_fraction=0.1"], &["train.warmup_fraction=0.2"]));
    assert!(!verdict(&["train.warmup_fraction=0.1"], &["train.warmup_fraction=0.05"]));
    assert!(!verdict(&["train.warmup_steps=5"], &["train.warmup_fraction=0.9"]));
    let stage = |rate: &str, from: u64, warmup: u64| {
        format!("train.stage=[{{from_epoch={from}, lock='UU', learning_rate={rate}, warmup_steps={warmup}}}]")
    };
    let (old, lower, higher) = (stage("1e-3", 2, 1), stage("1e-4", 2, 3), stage("1e-2", 2, 1));
    assert!(verdict(&[&old], &[&lower]));
    assert!(!verdict(&[&old], &[&higher]));
    assert!(!verdict(&[&old], &[&stage("1e-3", 3, 1)]));
    assert!(!verdict(&[&old], &[]));
    let group = |rate: &str, decay: &str| {
        format!("train.group=[{{match='*_projection.*', learning_rate={rate}, weight_decay={decay}}}]")
    };
    assert!(verdict(&[&group("1e-3", "0.1")], &[&group("1e-4", "0.1")]));
    assert!(!verdict(&[&group("1e-3", "0.1")], &[&group("1e-2", "0.1")]));
    assert!(!verdict(&[&group("1e-3", "0.1")], &[&group("1e-4", "0.2")]));
}

#[test]
fn evaluations_may_change() {
    let found = changes(&[], &["eval.held=", "eval.pairs={task='retrieval', data='p.csv'}"]);
    assert!(!found.is_empty() && found.iter().all(|(key, safe)| key.starts_with("eval.") && *safe), "{found:?}");
}

#[test]
fn old_defaults_of_shards_are_no_change() {
    let shards = |directory: &str, keys: &str| {
        let text = TEXT.replace("folder = { path = \"pairs\" }", &format!("webdataset = {{ {keys} }}"));
        RunConfig::from_bytes(text.as_bytes(), Path::new("run.toml"), Path::new(directory), &[]).unwrap()
    };
    let changes = |old: &str, new: &str| changed_keys(&shards("/a", old), &shards("/a", new)).len();
    assert_eq!(changes("path = \"s\", caption = \"caption\"", "path = \"s\""), 0);
    assert_eq!(changes("path = \"s\", caption = \"other\"", "path = \"s\""), 1);
    assert_eq!(changes("path = \"s\"", "path = \"s\", caption = \"caption\""), 1);
    assert_eq!(changes("path = \"s\"", "path = [\"s\", \"t\"]"), 1);
    let list = "path = [\"s\", \"t\"]";
    let moved = changed_keys(&shards("/a", list), &shards("/b", list));
    assert_eq!(moved.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), ["run.dir"]);
}

#[test]
fn old_defaults_in_lists_are_no_change() {
    let sources = |directory: &str, keys: &str| {
        let list = format!("[{{ webdataset = {{ {keys} }} }}, {{ csv = {{ path = \"d.csv\" }} }}]");
        let text = TEXT.replace("{ folder = { path = \"pairs\" } }", &list);
        RunConfig::from_bytes(text.as_bytes(), Path::new("run.toml"), Path::new(directory), &[]).unwrap()
    };
    let changes = |old: &str, new: &str| changed_keys(&sources("/a", old), &sources("/a", new)).len();
    assert_eq!(changes("path = \"s\", caption = \"caption\"", "path = \"s\""), 0);
    assert_eq!(changes("path = \"s\", caption = \"other\"", "path = \"s\""), 1);
    assert_eq!(changes("path = \"s\"", "path = \"s\", caption = \"caption\""), 1);
    let moved = changed_keys(&sources("/a", "path = \"s\""), &sources("/b", "path = \"s\""));
    assert_eq!(moved.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), ["run.dir"]);
}

#[test]
fn moved_project_may_resume() {
    let moved = changed_keys(&config("/home/one/project", &[]), &config("/data/project", &[]));
    let keys: Vec<&str> = moved.iter().map(|change| change.key.as_str()).collect();
    // `/shared/cache` is outside the project.
    assert_eq!(keys, ["run.dir"]);
    assert_eq!(moved[0].old.as_deref(), Some("\"/home/one/project/runs/a\""));
    assert!(moved[0].safe);
}

#[test]
fn changed_sources_name_keys_and_values() {
    let named = |old: &str, new: &str| {
        let changes = changed_keys(&config("/project", &[old]), &config("/project", &[new]));
        assert!(changes.iter().all(|change| !change.safe), "{changes:?}");
        let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let line = |change: Change| format!("{} {} {}", change.key, shown(change.old), shown(change.new));
        changes.into_iter().map(line).collect::<Vec<_>>()
    };
    let one = |keys: &str| format!("data.train={{parquet={{path='d'{keys}}}}}");
    assert_eq!(named(&one(""), &one(",split='a'")), ["data.train.parquet.split - \"a\""]);
    let use_of = |keys: &str| format!("data.train={{csv={{path='/d.csv'}}{keys}}}");
    assert_eq!(
        named(&use_of(",weight=2,only='/a.txt'"), &use_of(",weight=3,templates='/t.txt'")),
        ["data.train.only \"/a.txt\" -", "data.train.templates - \"/t.txt\"", "data.train.weight 2.0 3.0"]
    );
    let list = |keys: &str| format!("data.train=[{{csv={{path='/d.csv'}}}},{{csv={{path='/e.csv'}}{keys}}}]");
    assert_eq!(
        named(&list(",only='/a.txt'"), &list(",only='/b.txt',weight=2")),
        ["data.train[1].only \"/a.txt\" \"/b.txt\"", "data.train[1].weight - 2.0"]
    );
    let shorter = "data.train=[{csv={path='/d.csv'}}]";
    assert_eq!(
        named(&list(""), shorter),
        ["data.train[1].csv.bad_rows \"error\" -", "data.train[1].csv.path \"/e.csv\" -"]
    );
    let stage = "train.stage=[{from_epoch=2, lock='UU'}]";
    let keys: Vec<String> = changes(&[], &[stage]).into_iter().map(|(key, _)| key).collect();
    assert!(keys.iter().all(|key| key.starts_with("train.stage[0].")) && keys.len() >= 2, "{keys:?}");
}

#[test]
fn cached_states_of_locked_layers() {
    let verdict = |before: &[&str], more: &[&str]| {
        let partial = ["model.lock=LL", "model.image_unlock_last=1"];
        changes(&[&partial[..], before].concat(), &[&partial[..], before, more].concat())
    };
    let prefix = |safe| vec![("cache.prefix".to_owned(), safe)];
    assert_eq!(verdict(&[], &["cache.prefix=true"]), prefix(true));
    // Unasked, nothing is cached that is rounded.
    assert_eq!(verdict(&["cache.dtype=f16"], &["cache.prefix=false"]), prefix(true));
    assert_eq!(verdict(&["cache.dtype=f16"], &["cache.prefix=true"]), prefix(false));
    assert_eq!(verdict(&["run.precision=bf16"], &["cache.prefix=true"]), prefix(false));
    // It limits the views.
    let augmented = ["data.augment.flip=0.5", "cache.views=2"];
    assert_eq!(verdict(&augmented, &["cache.prefix=false"]), prefix(true));
    assert_eq!(verdict(&augmented, &["cache.prefix=true"]), prefix(false));
    let before = [&augmented[..], &["cache.prefix=true"]].concat();
    assert_eq!(verdict(&before, &["cache.enabled=false"]), [("cache.enabled".to_owned(), false)]);
    let last_blocks = |n| format!("model.image_lora={{rank=1,last_blocks={n}}}");
    assert_eq!(verdict(&[&last_blocks(1)], &[&last_blocks(2)]), [("model.image_lora.last_blocks".to_owned(), false)]);
}
