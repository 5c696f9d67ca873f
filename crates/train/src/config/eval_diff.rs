//! Which keys of a config do not fit the run that it evaluates.

use super::resume_diff::{Change, changed_keys, without_numbers};
use super::schema::RunConfig;
use super::schema::eval::{EvalSection, Task};

/// Keys in which a config differs from that of the run that it evaluates.
#[derive(Debug, Default)]
pub(crate) struct EvalChanges {
    /// Keys that decide which images are held out for validation, if an evaluation uses these.
    pub split: Vec<Change>,
    /// Keys that would make another model, its inputs or its loss, and so do not apply.
    pub ignored: Vec<Change>,
}

impl EvalChanges {
    /// Whether the same fraction of the images is held out as in the run: then the held-out images are those of the run
    /// if the pairs are.
    pub fn keeps_fraction(&self) -> bool {
        self.split.iter().all(|change| change.key != FRACTION)
    }
}

const FRACTION: &str = "data.validation_fraction";

/// Keys and tables of the model and of what it is given.
const OF_MODEL: [&str; 19] = [
    "data.fast_decode",
    "data.max_tokens",
    "model.embed_dim",
    "model.image_head",
    "model.image_layer",
    "model.image_layer_norm",
    "model.image_pool",
    "model.image_size",
    "model.image_tower",
    "model.image_width",
    "model.init",
    "model.text_head",
    "model.text_layer",
    "model.text_layer_norm",
    "model.text_pool",
    "model.text_prompt",
    "model.text_prompt_name",
    "model.text_tower",
    "model.text_width",
];

/// Keys of a head that only training reads.
const OF_TRAINING: [&str; 2] = ["dropout", "token_drop_path"];

const OF_LOSS: [&str; 3] = ["train.duplicates", "train.label_smoothing", "train.loss"];

/// Keys of a source that say which of its pairs are read, how often, and with which captions. An image is held out by
/// its path alone, so they put no image of the run's training data on the other side.
const NOT_OF_PATHS: [&str; 7] = ["caption", "caption_weights", "captions", "classnames", "only", "templates", "weight"];

/// The keys of `given` that do not fit `run`, the run that it evaluates, sorted by name.
pub(crate) fn eval_changes(run: &RunConfig, given: &RunConfig) -> EvalChanges {
    let uses_split = given.eval.values().any(EvalSection::uses_split);
    let measures_loss = given.eval.values().any(|section| section.task == Task::Loss);
    let mut found = EvalChanges::default();
    for change in changed_keys(run, given) {
        let key = without_numbers(&change.key);
        let last = key.rsplit('.').next().unwrap_or_default();
        if key == FRACTION || key.starts_with("data.train.") && !NOT_OF_PATHS.contains(&last) {
            if uses_split {
                found.split.push(change);
            }
        } else if is_of_model(&key) && !OF_TRAINING.contains(&last) || measures_loss && OF_LOSS.contains(&&*key) {
            found.ignored.push(change);
        }
    }
    found
}

fn is_of_model(key: &str) -> bool {
    OF_MODEL.iter().any(|name| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = r#"
run = { dir = "runs/a" }
model = { image_tower = "./vit", text_tower = "org/bert" }
data = { validation_fraction = 0.1, train = { csv = { path = "pairs.csv" } } }
train = { epochs = 10, batch_size = 8, learning_rate = 1e-3 }
eval = { held = { task = "loss" }, found = { task = "retrieval", data = "found.csv" } }
"#;

    fn config(directory: &str, overrides: &[&str]) -> RunConfig {
        let overrides: Vec<String> = overrides.iter().map(|argument| (*argument).to_owned()).collect();
        RunConfig::from_bytes(TEXT.as_bytes(), Path::new("run.toml"), Path::new(directory), &overrides).unwrap()
    }

    fn found(given: &[&str]) -> [Vec<String>; 2] {
        let EvalChanges { split, ignored } = eval_changes(&config("/project", &[]), &config("/project", given));
        [split, ignored].map(|changes| changes.into_iter().map(|change| change.key).collect())
    }

    #[test]
    fn keys_are_classified() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("data.validation_fraction=0.2", &["data.validation_fraction"], &[]),
            ("data.train.csv.path=other.csv", &["data.train.csv.path"], &[]),
            ("data.train.csv.root=images", &["data.train.csv.root"], &[]),
            ("data.train.only=some.txt", &[], &[]),
            ("data.train.csv.caption=title", &[], &[]),
            ("data.train.weight=2.0", &[], &[]),
            ("data.max_tokens=8", &[], &["data.max_tokens"]),
            ("data.fast_decode=true", &[], &["data.fast_decode"]),
            ("model.embed_dim=64", &[], &["model.embed_dim"]),
            ("model.text_pool=cls", &[], &["model.text_pool"]),
            ("model.image_size=112", &[], &["model.image_size"]),
            ("model.text_tower=org/other", &[], &["model.text_tower"]),
            ("model.image_head={kind='linear', bias=true}", &[], &["model.image_head.bias"]),
            ("train.loss=sigmoid", &[], &["train.loss"]),
            ("train.duplicates=ignore", &[], &["train.duplicates"]),
            // What an evaluation reads, or nothing but training does.
            ("eval.held.pool_size=9", &[], &[]),
            ("eval.found.batch_size=9", &[], &[]),
            ("run.device=ndarray", &[], &[]),
            ("run.seed=7", &[], &[]),
            ("run.dir=elsewhere", &[], &[]),
            ("data.max_pixels=9000", &[], &[]),
            ("model.lock=UU", &[], &[]),
            ("model.text_dropout=0.5", &[], &[]),
            ("train.learning_rate=1e-5", &[], &[]),
            ("train.epochs=3", &[], &[]),
            ("cache.enabled=false", &[], &[]),
        ];
        for (given, split, ignored) in cases {
            let [of_split, of_model] = found(&[*given]);
            assert_eq!((of_split.as_slice(), of_model.as_slice()), (&owned(split)[..], &owned(ignored)[..]), "{given}");
        }
    }

    fn owned(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn only_what_is_measured_counts() {
        // One that uses the split is added where there is none.
        let own_data = ["eval.held.data=found.csv", "eval.validation={task='retrieval', data='found.csv'}"];
        let other_data = ["data.validation_fraction=0.2", "data.train.csv.path=other.csv"];
        assert_eq!(found(&[own_data, other_data].concat()), [owned(&[]), owned(&[])]);
        let no_loss = ["eval.held.task=retrieval", "train.loss=sigmoid"];
        assert_eq!(found(&no_loss), [owned(&[]), owned(&[])]);
    }

    #[test]
    fn moved_project_fits() {
        let found = eval_changes(&config("/home/one/project", &[]), &config("/data/project", &[]));
        assert!(found.split.is_empty() && found.ignored.is_empty(), "{found:?}");
    }
}
