//! Which keys may change when a run is resumed.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use toml::Value;

use super::schema::RunConfig;
use super::schema::data::CacheDtype;
use super::schema::optimizer::{GroupSection, Schedule};
use super::schema::stage::StageSection;

/// A key that differs between a stopped run and its resumption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The dotted key.
    pub key: String,
    /// The value in the stopped run, as TOML; `None`: not set.
    pub old: Option<String>,
    /// The new value, as TOML; `None`: not set.
    pub new: Option<String>,
    /// Whether the run may be resumed with this change.
    pub safe: bool,
    /// The effect of the change, or why it is refused.
    pub why: &'static str,
}

/// The key of the training sources: a table, or a list of tables.
const SOURCES: &str = "data.train";

/// Keys and tables that do not change what is learned, with the effect of a change. The first match applies.
const SAFE: [(&str, &str); 11] = [
    ("run.dir", "the run was moved"),
    ("run.device", "another device rounds differently: results are no longer bit-identical"),
    ("run.threads", "another number of threads sums in another order: results are no longer bit-identical"),
    ("run.log_every_steps", "affects only what is printed"),
    ("data.workers", "the order of the samples does not depend on it"),
    ("data.max_bad_fraction", "affects only when the run gives up"),
    (
        "train.micro_batch_size",
        "micro-batches round differently and draw other dropout: results are no longer bit-identical",
    ),
    ("checkpoint.patience", "affects only when the run stops early"),
    ("checkpoint", "affects only which checkpoints are written"),
    ("cache", "cached and computed features are bit-identical"),
    ("eval", "affects what is measured; `checkpoint.best` starts over if its evaluation has changed"),
];

/// The keys that differ between `old`, the configuration of the stopped run, and `new`, sorted by name. The run may be
/// resumed if every change is safe. A change of the length or the cooldown also depends on the number of steps already
/// done, which the run checks when it opens.
///
/// Paths are compared relative to `run.dir`, so that only `run.dir` differs after a whole project was moved.
pub fn changed_keys(old: &RunConfig, new: &RunConfig) -> Vec<Change> {
    let (before, after) = (flat(old), flat(new));
    let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    let mut changes: Vec<Change> = keys
        .filter(|key| !same(key, before.get(*key), after.get(*key), old, new))
        .map(|key| {
            let (safe, why) = safety(key, old, new);
            let shown = |values: &BTreeMap<String, Value>| values.get(key).map(Value::to_string);
            Change { key: key.clone(), old: shown(&before), new: shown(&after), safe, why }
        })
        .collect();
    changes.sort_by(|left, right| left.key.cmp(&right.key));
    changes
}

/// Whether a change of `key` is safe, and why.
fn safety(key: &str, old: &RunConfig, new: &RunConfig) -> (bool, &'static str) {
    let is_or_is_in = |name: &str| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if let "cache.dtype" | "cache.views" = key {
        return (false, "the run would continue with other features");
    }
    let half = |config: &RunConfig| config.cache.enabled && config.cache.dtype == CacheDtype::F16;
    if key == "cache.enabled" && half(old) != half(new) {
        return (false, "features in half precision differ from computed ones");
    }
    if let Some((_, why)) = SAFE.iter().find(|(name, _)| is_or_is_in(name)) {
        return (true, why);
    }
    let section = key.split('.').next().unwrap_or_default();
    match (key, section) {
        ("train.epochs" | "train.steps" | "train.cooldown_steps" | "train.cooldown_fraction", _) => {
            let [before, now] = [old.train.schedule, new.train.schedule];
            if before == now && matches!(now, Schedule::Rsqrt | Schedule::Constant) {
                (true, "this schedule depends on the length of the run only in the cooldown")
            } else {
                (false, "this schedule depends on the length of the run")
            }
        }
        ("train.learning_rate", _) => {
            if_gentler(new.train.learning_rate <= old.train.learning_rate, "only a lower rate may be set in mid-run")
        }
        ("train.warmup_steps" | "train.warmup_fraction", _) => {
            if_gentler(is_longer_warmup(old, new), "only a longer warm-up may be set in mid-run")
        }
        ("train.stage", _) => {
            let why_not = "only lower rates and longer warm-ups of its stages may be set in mid-run";
            if_gentler(are_gentler_stages(old, new), why_not)
        }
        ("train.group", _) => {
            let why_not = "only lower rates of its groups may be set in mid-run";
            if_gentler(are_gentler_groups(old, new), why_not)
        }
        ("data.max_pixels", _) => {
            // What was found unreadable stays so, and a run that met too many such images has to go on.
            let why_not = "a lower limit would refuse images that the run has used; only a higher one may be set in \
                           mid-run";
            if_gentler(new.data.max_pixels >= old.data.max_pixels, why_not)
        }
        ("train.clip_grad_norm", _) => if_gentler(true, ""),
        ("run.seed", _) => (false, "it determines the order of the samples and dropout"),
        (_, "model") => (false, "it changes the model"),
        (_, "data") => (false, "it changes the data or their order"),
        _ => (false, "it changes what is learned"),
    }
}

/// The verdict on a change that a run needs to go on, such as smaller updates of a diverged one; `why_not`: why it is
/// refused otherwise.
fn if_gentler(is_gentler: bool, why_not: &'static str) -> (bool, &'static str) {
    (is_gentler, if is_gentler { "from this step on: results are no longer those of the old config" } else { why_not })
}

fn is_longer_warmup(old: &RunConfig, new: &RunConfig) -> bool {
    let warmup = |config: &RunConfig| (config.train.warmup_steps, config.train.warmup_fraction);
    match (warmup(old), warmup(new)) {
        ((steps, None), (Some(new), None)) => new >= steps.unwrap_or(0),
        ((None, Some(old)), (None, Some(new))) => new >= old,
        ((None | Some(0), None), (None, Some(_))) => true,
        _ => false,
    }
}

/// Whether the stages differ in nothing but lower rates and longer warm-ups.
fn are_gentler_stages(old: &RunConfig, new: &RunConfig) -> bool {
    let (old, new) = (&old.train.stage, &new.train.stage);
    let is_gentler = |old: &StageSection, new: &StageSection| {
        let same = StageSection { learning_rate: old.learning_rate, warmup_steps: old.warmup_steps, ..new.clone() };
        is_lower(old.learning_rate, new.learning_rate) && new.warmup_steps >= old.warmup_steps && same == *old
    };
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| is_gentler(old, new))
}

/// Whether the groups differ in nothing but lower rates.
fn are_gentler_groups(old: &RunConfig, new: &RunConfig) -> bool {
    let (old, new) = (&old.train.group, &new.train.group);
    let is_gentler = |old: &GroupSection, new: &GroupSection| {
        let same = GroupSection { learning_rate: old.learning_rate, ..new.clone() };
        is_lower(old.learning_rate, new.learning_rate) && same == *old
    };
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| is_gentler(old, new))
}

/// Whether a rate is lower or the same; `None`: set elsewhere.
fn is_lower(old: Option<f64>, new: Option<f64>) -> bool {
    old == new || matches!((old, new), (Some(old), Some(new)) if new <= old)
}

/// The values of all dotted keys. An array is one value.
fn flat(config: &RunConfig) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    // Only paths that are not UTF-8 cannot be written as TOML, and loading refuses them.
    if let Ok(value) = Value::try_from(config) {
        flatten(String::new(), value, &mut leaves);
    }
    leaves
}

fn flatten(key: String, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name } else { format!("{key}.{name}") };
                flatten(key, value, leaves);
            }
        }
        leaf => {
            leaves.insert(key, leaf);
        }
    }
}

fn same(key: &str, old_value: Option<&Value>, new_value: Option<&Value>, old: &RunConfig, new: &RunConfig) -> bool {
    if is_default_column(key, old_value, new_value) {
        return true;
    }
    match (old_value, new_value) {
        (Some(Value::Array(before)), Some(Value::Array(after))) if key == SOURCES => {
            before.len() == after.len()
                && before.iter().zip(after).all(|(before, after)| same_source(before, after, old, new))
        }
        (Some(before), Some(after)) => before == after || key != "run.dir" && same_value(before, after, old, new),
        // The default was once written to the config of every run. It means the same as no key.
        (Some(before), None) => key.ends_with("webdataset.caption") && before.as_str() == Some("caption"),
        (before, after) => before == after,
    }
}

/// Whether two tables of a list of sources say the same.
fn same_source(before: &Value, after: &Value, old: &RunConfig, new: &RunConfig) -> bool {
    let flat = |value: &Value| {
        let mut leaves = BTreeMap::new();
        flatten(SOURCES.to_owned(), value.clone(), &mut leaves);
        leaves
    };
    let (before, after) = (flat(before), flat(after));
    before.keys().chain(after.keys()).all(|key| same(key, before.get(key), after.get(key), old, new))
}

/// Whether two values differ in nothing but where the project is.
fn same_value(before: &Value, after: &Value, old: &RunConfig, new: &RunConfig) -> bool {
    match (before, after) {
        (Value::Array(before), Value::Array(after)) => {
            before.len() == after.len()
                && before.iter().zip(after).all(|(before, after)| same_value(before, after, old, new))
        }
        (Value::Table(before), Value::Table(after)) => {
            let same = |((key, before), (other, after)): ((&String, &Value), (&String, &Value))| {
                key == other && same_value(before, after, old, new)
            };
            before.len() == after.len() && before.iter().zip(after).all(same)
        }
        (Value::String(before), Value::String(after)) if before != after => {
            let (before, after) = (Path::new(before), Path::new(after));
            before.is_absolute()
                && after.is_absolute()
                && relative(&old.run.dir, before) == relative(&new.run.dir, after)
        }
        _ => before == after,
    }
}

/// Whether the names of a column differ in nothing but that the default one is written in one config: earlier versions
/// wrote it to every run.
fn is_default_column(key: &str, old: Option<&Value>, new: Option<&Value>) -> bool {
    let mut parts = key.rsplit('.');
    let name = parts.next().filter(|name| matches!(*name, "image" | "caption"));
    let in_table = key.starts_with("data.train.") && matches!(parts.next(), Some("csv" | "tsv" | "jsonl"));
    let given = [old, new].into_iter().flatten().all(|value| value.as_str() == name);
    in_table && name.is_some() && given
}

/// The relative path from `directory` to `path`; both are absolute.
fn relative(directory: &Path, path: &Path) -> PathBuf {
    let (mut rest_directory, mut rest_path) = (directory.components().peekable(), path.components().peekable());
    while rest_directory.peek().is_some() && rest_directory.peek() == rest_path.peek() {
        rest_directory.next();
        rest_path.next();
    }
    rest_directory.map(|_| Component::ParentDir).chain(rest_path).collect()
}

#[cfg(test)]
mod tests {
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
        let refused = [("data.train".to_owned(), false)];
        assert_eq!(changes(&[&written], &[&list(", image=\"filepath\"", 2)]), refused);
        assert_eq!(changes(&[&written], &[&list("", 3)]), refused);
    }

    #[test]
    fn classifies_each_key() {
        let cases = [
            ("run.device=ndarray", "run.device", true),
            ("run.threads=1", "run.threads", true),
            ("run.log_every_steps=1", "run.log_every_steps", true),
            ("run.dir=elsewhere", "run.dir", true),
            ("run.seed=1", "run.seed", false),
            ("model.image_tower=./other", "model.image_tower", false),
            ("model.text_tower=org/other", "model.text_tower", false),
            ("model.lock=UU", "model.lock", false),
            ("model.embed_dim=64", "model.embed_dim", false),
            ("model.image_pool=cls", "model.image_pool", false),
            ("model.image_size=112", "model.image_size", false),
            ("model.text_dropout=0.5", "model.text_dropout", false),
            ("model.text_projection.locked=true", "model.text_projection.locked", false),
            ("data.max_tokens=16", "data.max_tokens", false),
            ("data.shuffle=false", "data.shuffle", false),
            ("data.captions=one", "data.captions", false),
            ("data.word_dropout=0.1", "data.word_dropout", false),
            ("data.train.folder.path=other", "data.train.folder.path", false),
            ("data.workers=1", "data.workers", true),
            ("data.max_bad_fraction=0.5", "data.max_bad_fraction", true),
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
            ("eval.held.images=other", "eval.held.images", true),
        ];
        for (argument, key, safe) in cases {
            let found = changes(&[], &[argument]);
            let change = found.iter().find(|(changed, _)| changed == key);
            assert_eq!(change, Some(&(key.to_owned(), safe)), "{argument}: {found:?}");
        }
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
        assert_eq!(
            changes(&[rsqrt], &[rsqrt, "train.rsqrt_timescale=3"]),
            [("train.rsqrt_timescale".to_owned(), false)]
        );
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
}
