//! The rules of the learning-rate schedule in `[train]`.

use super::rules::Rules;
use crate::config::schema::RunConfig;
use crate::config::schema::optimizer::Schedule;

/// The lengths of the warm-up and the cooldown.
pub(super) fn warmup_and_cooldown(config: &RunConfig, rules: &mut Rules) {
    let train = &config.train;
    let phases = [
        ("warmup", train.warmup_steps, train.warmup_fraction, "the learning rate would never reach its peak"),
        (
            "cooldown",
            train.cooldown_steps,
            train.cooldown_fraction,
            "the learning rate would fall from the first step on",
        ),
    ];
    for (name, steps, fraction, consequence) in phases {
        let (steps_key, fraction_key) = (format!("train.{name}_steps"), format!("train.{name}_fraction"));
        let value = fraction.unwrap_or(0.0);
        let help = "it is a fraction of the whole run";
        let in_range = (0.0..1.0).contains(&value);
        rules.check(in_range, &fraction_key, value, "a number of 0 or more and less than 1", help);
        if steps.is_some() && fraction.is_some() {
            let message = format!("`{fraction_key}` and `{steps_key}` are both set");
            let help = "remove one of them; on the command line, `--set KEY=` removes a key";
            rules.refuse(&fraction_key, &[&steps_key], message, help);
        }
        if let (Some(total), Some(steps)) = (train.steps.filter(|total| *total > 0), steps)
            && steps >= total
        {
            let message = format!("`{steps_key}` is {steps}, expected fewer than `train.steps`, which is {total}");
            rules.refuse(&steps_key, &["train.steps"], message, consequence);
        }
    }
}

/// The parameters of the curve, and that the schedule uses them.
pub(super) fn curve(config: &RunConfig, rules: &mut Rules) {
    let train = &config.train;
    let floor = train.learning_rate_floor;
    let help = "it is a fraction of `train.learning_rate`";
    rules.check((0.0..=1.0).contains(&floor), "train.learning_rate_floor", floor, "a number from 0 to 1", help);
    let timescale = train.rsqrt_timescale.unwrap_or(1.0);
    let is_positive = timescale.is_finite() && timescale > 0.0;
    let help = "it is a number of steps";
    rules.check(is_positive, "train.rsqrt_timescale", timescale, "a finite number above 0", help);

    let has_floor = matches!(train.schedule, Schedule::Cosine | Schedule::Linear);
    if floor > 0.0 && !has_floor {
        refuse_unused(config, "learning_rate_floor", "has no floor", "only `cosine` and `linear` have one", rules);
    }
    if train.rsqrt_timescale.is_some() && train.schedule != Schedule::Rsqrt {
        refuse_unused(config, "rsqrt_timescale", "has no time scale", "remove the key", rules);
    }
    let cooldown =
        [("cooldown_steps", train.cooldown_steps.is_some()), ("cooldown_fraction", train.cooldown_fraction.is_some())];
    for (name, _) in cooldown.into_iter().filter(|(_, given)| *given && has_floor) {
        refuse_unused(config, name, "falls anyway", "only `rsqrt` and `constant` cool down", rules);
    }
}

fn refuse_unused(config: &RunConfig, name: &str, why: &str, help: &str, rules: &mut Rules) {
    let key = format!("train.{name}");
    let schedule = config.train.schedule.name();
    let message = format!("`{key}` is set, but `train.schedule` is `{schedule}`, which {why}");
    rules.refuse(&key, &["train.schedule"], message, help);
}
