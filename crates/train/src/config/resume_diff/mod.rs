//! Which keys may change when a run is resumed. This file decides; `values` finds the keys that differ.

mod values;

use std::collections::BTreeMap;

use toml::Value;

pub(super) use self::values::without_numbers;
use self::values::{flat, same};
use super::schema::RunConfig;
use super::schema::data::CacheDtype;
use super::schema::optimizer::{GroupSection, Schedule};
use super::schema::stage::StageSection;

/// A key that differs between a stopped run and its resumption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The dotted key, with the number of the item in a list of tables: `data.train[0].weight`.
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

/// Keys and tables that do not change what is learned, with the effect of a change. The first match applies.
const SAFE: [(&str, &str); 17] = [
    ("run.dir", "the run was moved"),
    ("run.threads", "another number of threads may sum in another order: results need not be bit-identical"),
    ("run.log_every_steps", "affects only what is printed"),
    ("run.tensorboard", "affects only the event file, which is written anew"),
    ("data.workers", "the order of the samples does not depend on it"),
    ("data.index_dir", "the pairs are the same, in memory or in files"),
    ("data.max_bad_fraction", "affects only when the run gives up"),
    (
        "train.micro_batch_size",
        "micro-batches round differently and draw other dropout: results are no longer bit-identical",
    ),
    ("model.head_init", "the checkpoint has the heads already"),
    ("fit", "the checkpoint has the heads already"),
    ("train.teacher.model", "the checkpoint knows the teacher by its weights, which must be the same"),
    ("train.logit_bias_init", "it is read only when a run begins; the checkpoint holds the bias"),
    ("checkpoint.patience", "affects only when the run stops early"),
    ("checkpoint", "affects only which checkpoints are written"),
    ("cache.prefix", "cached and computed states differ by rounding at most"),
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
        .filter(|key| !is_list(key, &before, &after) && !is_list(key, &after, &before))
        .map(|key| {
            let is_in_both = before.contains_key(key) && after.contains_key(key);
            let (safe, why) = match without_numbers(key) {
                key if is_in_both && is_place_of_pairs(&key) => (true, "the pairs must be the same, which is checked"),
                key => safety(&key, old, new),
            };
            let shown = |values: &BTreeMap<String, Value>| values.get(key).map(Value::to_string);
            Change { key: key.clone(), old: shown(&before), new: shown(&after), safe, why }
        })
        .collect();
    changes.sort_by(|left, right| left.key.cmp(&right.key));
    changes
}

/// Whether `key` is an empty list in `one`, and its items are keys of `other`, which tell more.
fn is_list(key: &str, one: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>) -> bool {
    let is_empty = one.get(key).and_then(Value::as_array).is_some_and(Vec::is_empty);
    let items = format!("{key}[");
    is_empty && other.keys().any(|key| key.starts_with(&items))
}

/// Whether `key` says where the training data are. The pairs are known by paths that are relative to this place.
fn is_place_of_pairs(key: &str) -> bool {
    let mut parts = key.strip_prefix("data.train.").into_iter().flat_map(|key| key.split('.'));
    matches!((parts.next(), parts.next(), parts.next()), (Some(_), Some("path" | "root"), None))
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
    if let "cache.enabled" | "cache.prefix" = key
        && old.limits_views() != new.limits_views()
    {
        return (false, "the run would continue with other views of its images");
    }
    let rounded =
        |config: &RunConfig| config.cache.enabled && config.cache.prefix == Some(true) && config.rounds_states();
    if let "cache.enabled" | "cache.prefix" = key
        && rounded(old) != rounded(new)
    {
        return (false, "states in half precision differ from computed ones");
    }
    if key == "run.device" {
        return (true, effect_of_devices(old, new));
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
        _ if is_or_is_in("train.stage") => {
            let why_not = "only lower rates and longer warm-ups of its stages may be set in mid-run";
            if_gentler(are_gentler_stages(old, new), why_not)
        }
        _ if is_or_is_in("train.group") => {
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

/// The effect of other devices.
fn effect_of_devices(old: &RunConfig, new: &RunConfig) -> &'static str {
    let micro_batch = |config: &RunConfig| config.train.micro_batch_size.filter(|size| *size < config.train.batch_size);
    let [before, after] = [old.run.device.len(), new.run.device.len()];
    // Those between which a step can be halved as it is added up.
    let are_halves = [before, after].iter().all(|count| [1, 2, 4, 8].contains(count));
    if old.run.device.kind() != new.run.device.kind() {
        "another kind of device rounds differently: results are no longer bit-identical"
    } else if before != after && micro_batch(old) != micro_batch(new) {
        "this number of devices computes other micro-batches: results are no longer bit-identical"
    } else if before != after && !are_halves {
        "numbers of devices other than 1, 2, 4 and 8 add up gradients in another order: results are no longer \
         bit-identical"
    } else {
        "devices of this kind and number compute the same bits"
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

#[cfg(test)]
mod tests;
