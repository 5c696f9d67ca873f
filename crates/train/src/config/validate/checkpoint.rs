//! The rules of `[checkpoint]`.

use dualenc_data::nearest;

use super::rules::Rules;
use crate::config::error::did_you_mean;
use crate::config::schema::RunConfig;

pub(super) fn checkpoint(config: &RunConfig, rules: &mut Rules) {
    let section = &config.checkpoint;
    let help = "a checkpoint is also written at the end and on a signal";
    rules.check(section.every_steps >= 1, "checkpoint.every_steps", 0, "at least 1", help);
    rules.check(section.keep >= 1, "checkpoint.keep", 0, "at least 1", "");
    rules.check(
        section.patience != Some(0),
        "checkpoint.patience",
        0,
        "at least 1",
        "remove the key to train to the end",
    );
    let delta = section.min_delta;
    let in_range = delta.is_finite() && delta >= 0.0;
    rules.check(in_range, "checkpoint.min_delta", delta, "a finite number of 0 or more", "");
    let Some(best) = &section.best else {
        for (key, given) in [("patience", section.patience.is_some()), ("min_delta", delta > 0.0)] {
            if given {
                let key = format!("checkpoint.{key}");
                let message = format!("`{key}` is set, but there is no `checkpoint.best`");
                rules.refuse(
                    &key,
                    &["checkpoint.best"],
                    message,
                    "set the metric to watch, such as `best = \"held-out.acc1\"`",
                );
            }
        }
        return;
    };
    let known = config.known_metrics();
    if known.contains(best) {
        return;
    }
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let help = match nearest(best, names.iter().copied()) {
        _ if names.is_empty() => "the config has no evaluation; add one, `[eval.NAME]`".to_owned(),
        Some(name) => did_you_mean(name),
        None => format!("expected one of {}", names.join(", ")),
    };
    let message = format!("`checkpoint.best` is `{best}`, expected a metric of an evaluation, `NAME.METRIC`");
    rules.refuse("checkpoint.best", &["eval"], message, &help);
}
