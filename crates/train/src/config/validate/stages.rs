//! The rules of locks with their exceptions, `[[train.stage]]` and adapters.

use dualenc_model::{ADAPTABLE, TowerLock};

use super::rules::Rules;
use crate::config::derived::stage_plan::StageStart;
use crate::config::schema::RunConfig;
use crate::config::schema::model_heads::HeadChoice;

/// In every stage something trains, and only locked towers have `unlock_last`.
pub(super) fn locks(config: &RunConfig, rules: &mut Rules) {
    let model = &config.model;
    let sections = config.train.stage.iter().map(|stage| (stage.lock, stage.image_unlock_last, stage.text_unlock_last));
    let all = std::iter::once((model.lock, model.image_unlock_last, model.text_unlock_last)).chain(sections);
    for (n, (lock, image_last, text_last)) in all.enumerate() {
        let table = if n == 0 { "model" } else { "train.stage" };
        let of = if n == 0 { String::new() } else { format!(" of stage {n}") };
        for (name, tower, last) in [("image", lock.image, image_last), ("text", lock.text, text_last)] {
            if last > 0 && tower.trains() {
                rules.refuse(
                    &format!("{table}.{name}_unlock_last"),
                    &[&format!("{table}.lock")],
                    format!(
                        "`{name}_unlock_last`{of} is {last}, but `lock` is `{lock}`: all of the {name} tower trains"
                    ),
                    "write `L` for that tower, or remove the key",
                );
            }
        }
    }
    for (n, stage) in config.stages().iter().enumerate().filter(|(_, stage)| !stage.training.any()) {
        let (lock, of, table) = match n {
            0 => (stage.lock, String::new(), "model"),
            _ => (stage.lock, format!(" in stage {}", n + 1), "stage"),
        };
        rules.refuse(
            if n == 0 { "model.lock" } else { "train.stage" },
            &["model.image_projection.locked", "model.text_projection.locked"],
            format!("nothing trains{of}: `{table}.lock` is `{lock}` and {}", heads_are_locked(config)),
            "unlock a tower (`LU`) or a projection",
        );
    }
}

/// Why no head trains.
fn heads_are_locked(config: &RunConfig) -> &'static str {
    if config.model.text_head.kind == Some(HeadChoice::Identity) {
        "the image projection is locked, beside a text head without parameters (`identity`)"
    } else {
        "both projections are locked"
    }
}

/// Stages begin one after the other.
pub(super) fn stages(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "train.stage";
    let mut before: Option<StageStart> = None;
    for (n, stage) in config.train.stage.iter().enumerate() {
        let n = n + 1;
        let from = match (stage.from_step, stage.from_epoch) {
            (Some(step), None) => StageStart::Step(step),
            (None, Some(epoch)) => StageStart::Epoch(epoch),
            (step, _) => {
                let found = if step.is_some() { "both" } else { "none" };
                let message = format!("stage {n} has {found} of `from_step` and `from_epoch`, expected one");
                rules.refuse(KEY, &[], message, "set where it begins, such as `from_epoch = 2`");
                continue;
            }
        };
        let in_order = match (before, from) {
            (Some(StageStart::Step(before)), StageStart::Step(from))
            | (Some(StageStart::Epoch(before)), StageStart::Epoch(from)) => before < from,
            // The order of a step and an epoch depends on the size of the data.
            _ => true,
        };
        if !in_order {
            let message = format!("stage {n} begins where or before stage {} does", n - 1);
            rules.refuse(KEY, &[], message, "order the stages by where they begin");
        }
        before = Some(from);
        let scratch = config.is_from_scratch();
        if [stage.lock.image, stage.lock.text]
            .into_iter()
            .zip(scratch)
            .any(|(lock, fresh)| lock == TowerLock::Scratch && !fresh)
        {
            rules.refuse(
                KEY,
                &["model.lock"],
                format!("`lock` of stage {n} is `{}`, but `model.lock` is `{}`", stage.lock, config.model.lock),
                "only `model.lock` can start a tower from random weights (`u`); write `U` to let it train",
            );
        }
        let rate = stage.learning_rate.unwrap_or(1.0);
        if !(rate.is_finite() && rate > 0.0) {
            let message = format!("`learning_rate` of stage {n} is {rate}, expected a finite number above 0");
            rules.refuse(KEY, &[], message, "");
        }
    }
}

/// Adapters have a valid rank and belong to locked towers.
pub(super) fn adapters(config: &RunConfig, rules: &mut Rules) {
    let model = &config.model;
    let towers = [("image", &model.image_lora, model.lock.image), ("text", &model.text_lora, model.lock.text)];
    for (name, lora, lock) in towers {
        let (Some(lora), key) = (lora, format!("model.{name}_lora")) else { continue };
        rules.check(lora.rank >= 1, &format!("{key}.rank"), 0, "at least 1", "");
        let alpha = lora.alpha.unwrap_or(1.0);
        rules.check(alpha.is_finite() && alpha > 0.0, &format!("{key}.alpha"), alpha, "a finite number above 0", "");
        rules.check(
            lora.last_blocks != Some(0),
            &format!("{key}.last_blocks"),
            0,
            "at least 1",
            "remove the key for adapters in all blocks",
        );
        let unknown = lora.targets.iter().find(|target| !ADAPTABLE.contains(&target.as_str()));
        if unknown.is_some() || lora.targets.is_empty() {
            let found = unknown.map_or("empty".to_owned(), |target| format!("`{target}`"));
            let known = ADAPTABLE.map(|name| format!("`{name}`")).join(", ");
            rules.check(false, &format!("{key}.targets"), found, &format!("some of {known}"), "");
        }
        if lock.trains() {
            rules.refuse(
                &key,
                &["model.lock"],
                format!("`{key}` is set, but `model.lock` is `{}`: all of the {name} tower trains", model.lock),
                "adapters belong to a locked tower: write `L` for it, or remove them",
            );
        }
    }
}
