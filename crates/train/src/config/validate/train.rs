//! The rules of `[train]`.

use super::rules::Rules;
use crate::config::schema::RunConfig;
use crate::config::schema::loss::Loss;
use crate::config::schema::optimizer::Schedule;

pub(super) fn optimiser(config: &RunConfig, rules: &mut Rules) {
    let train = &config.train;
    let at_least_0 = |value: f64| value.is_finite() && value >= 0.0;
    let above_0 = |value: f64| value.is_finite() && value > 0.0;
    rules.check(
        train.batch_size >= 2,
        "train.batch_size",
        train.batch_size,
        "at least 2",
        "a pair's negatives are the other pairs of its batch",
    );
    let help = "leave the key out to take the batch whole";
    rules.check(train.micro_batch_size != Some(0), "train.micro_batch_size", 0, "at least 1", help);
    let rate = train.learning_rate;
    rules.check(above_0(rate), "train.learning_rate", rate, "a finite number above 0", "");
    let rate = train.projection_learning_rate.unwrap_or(1.0);
    rules.check(above_0(rate), "train.projection_learning_rate", rate, "a finite number above 0", "");
    let decay = train.weight_decay;
    rules.check(at_least_0(decay), "train.weight_decay", decay, "a finite number of 0 or more", "");
    let in_range = |beta: f64| (0.0..1.0).contains(&beta);
    let [first, second] = train.betas.unwrap_or_default();
    rules.check(
        in_range(first) && in_range(second),
        "train.betas",
        format!("[{first}, {second}]"),
        "two numbers of 0 or more and less than 1",
        "",
    );
    let epsilon = train.eps.unwrap_or(1.0);
    rules.check(above_0(epsilon), "train.eps", epsilon, "a finite number above 0", "");
    let momentum = train.momentum.unwrap_or_default();
    rules.check(in_range(momentum), "train.momentum", momentum, "a number of 0 or more and less than 1", "");
    let given =
        [("betas", train.betas.is_some()), ("eps", train.eps.is_some()), ("momentum", train.momentum.is_some())];
    for (name, _) in given.into_iter().filter(|(_, given)| *given) {
        if !train.optimizer.hyperparameters().contains(&name) {
            let (key, optimizer) = (format!("train.{name}"), train.optimizer.name());
            let message = format!("`{key}` is given, but `train.optimizer` is `{optimizer}`, which does not use it");
            rules.refuse(&key, &["train.optimizer"], message, "remove the key");
        }
    }
    let clip = train.clip_grad_norm;
    rules.check(at_least_0(clip), "train.clip_grad_norm", clip, "a finite number of 0 or more", "0 turns clipping off");
    let decay = train.ema_decay.unwrap_or(0.5);
    let help = "0.999 averages about the last thousand updates";
    rules.check(decay > 0.0 && decay < 1.0, "train.ema_decay", decay, "a number above 0 and less than 1", help);
    let maximum = train.logit_scale_max;
    rules.check(
        above_0(maximum),
        "train.logit_scale_max",
        maximum,
        "a finite number above 0",
        "it is a logarithm: 4.6052 stands for a scale of 100",
    );
    if let Some(bias) = train.logit_bias_init {
        rules.check(bias.is_finite(), "train.logit_bias_init", bias, "a finite number", "");
        if train.loss != Loss::Sigmoid {
            let message = "`train.logit_bias_init` is given, and `train.loss` is `softmax`, which has no bias";
            rules.refuse(
                "train.logit_bias_init",
                &["train.loss"],
                message.to_owned(),
                "leave it out, or write `loss = \"sigmoid\"`",
            );
        }
    }
}

pub(super) fn loss(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "train.label_smoothing";
    let smoothing = config.train.label_smoothing;
    rules.check((0.0..1.0).contains(&smoothing), KEY, smoothing, "0 or more and less than 1", "");
    if smoothing != 0.0 && config.train.loss == Loss::Sigmoid {
        let message = format!("`{KEY}` is {smoothing}, and `train.loss` is `sigmoid`, whose targets are not smoothed");
        rules.refuse(KEY, &["train.loss"], message, "leave it out, or write `loss = \"softmax\"`");
    }
}

/// Each group says something of some parameters.
pub(super) fn groups(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "train.group";
    let train = &config.train;
    for (name, decay) in [("image", train.image_layer_decay), ("text", train.text_layer_decay)] {
        let in_range = decay > 0.0 && decay <= 1.0;
        let help = "each layer's rate is this share of the next one's";
        rules.check(in_range, &format!("train.{name}_layer_decay"), decay, "a number above 0, at most 1", help);
    }
    for (n, group) in train.group.iter().enumerate() {
        let n = n + 1;
        let mut refuse = |message: String, help| rules.refuse(KEY, &[], message, help);
        if group.pattern.is_empty() {
            refuse(format!("`match` of group {n} is empty"), "such as `match = \"text_tower.*\"`");
        }
        if group.learning_rate.is_none() && group.weight_decay.is_none() {
            refuse(format!("group {n} has neither `learning_rate` nor `weight_decay`"), "say what is its own");
        }
        let rate = group.learning_rate.unwrap_or(1.0);
        if !(rate.is_finite() && rate > 0.0) {
            refuse(format!("`learning_rate` of group {n} is {rate}, expected a finite number above 0"), "");
        }
        let decay = group.weight_decay.unwrap_or(0.0);
        if !(decay.is_finite() && decay >= 0.0) {
            refuse(format!("`weight_decay` of group {n} is {decay}, expected a finite number of 0 or more"), "");
        }
    }
}

pub(super) fn duration(config: &RunConfig, rules: &mut Rules) {
    let train = &config.train;
    match (train.epochs, train.steps) {
        (None, None) => rules.refuse(
            "train.epochs",
            &["train.steps"],
            "missing key `train.epochs` or `train.steps`".to_owned(),
            "how long to train, such as `epochs = 20`",
        ),
        (Some(_), Some(_)) => rules.refuse(
            "train.steps",
            &["train.epochs"],
            "`train.epochs` and `train.steps` are both given".to_owned(),
            "keep one; on the command line `--set train.epochs=` takes a key out",
        ),
        _ => {}
    }
    rules.check(train.epochs != Some(0), "train.epochs", 0, "at least 1", "");
    rules.check(train.steps != Some(0), "train.steps", 0, "at least 1", "");
}

/// The learning rate over the steps: it is reached, and what is said of its curve fits the curve.
pub(super) fn schedule(config: &RunConfig, rules: &mut Rules) {
    let train = &config.train;
    let share = |value: f64| (0.0..1.0).contains(&value);
    for (name, steps, fraction) in [
        ("warmup", train.warmup_steps, train.warmup_fraction),
        ("cooldown", train.cooldown_steps, train.cooldown_fraction),
    ] {
        let (in_steps, in_shares) = (format!("train.{name}_steps"), format!("train.{name}_fraction"));
        let value = fraction.unwrap_or(0.0);
        rules.check(
            share(value),
            &in_shares,
            value,
            "a number of 0 or more and less than 1",
            "a share of the whole run",
        );
        if steps.is_some() && fraction.is_some() {
            let message = format!("`{in_shares}` and `{in_steps}` are both given");
            rules.refuse(
                &in_shares,
                &[&in_steps],
                message,
                "keep one; on the command line `--set KEY=` takes a key out",
            );
        }
    }
    let falls = |name: &str, of_run: Option<u64>, help: &str, rules: &mut Rules| {
        let (Some(steps), Some(found)) = (train.steps.filter(|steps| *steps > 0), of_run) else { return };
        if found >= steps {
            let message = format!("`train.{name}` is {found}, expected fewer than `train.steps`, which is {steps}");
            rules.refuse(&format!("train.{name}"), &["train.steps"], message, help);
        }
    };
    falls("warmup_steps", train.warmup_steps, "the learning rate would never reach its full height", rules);
    falls("cooldown_steps", train.cooldown_steps, "the learning rate would fall from the first step on", rules);
    let floor = train.learning_rate_floor;
    let help = "a share of `train.learning_rate`";
    rules.check((0.0..=1.0).contains(&floor), "train.learning_rate_floor", floor, "a number from 0 to 1", help);
    let timescale = train.rsqrt_timescale.unwrap_or(1.0);
    let is_time = timescale.is_finite() && timescale > 0.0;
    rules.check(is_time, "train.rsqrt_timescale", timescale, "a finite number above 0", "steps");

    let ends_at_0 = matches!(train.schedule, Schedule::Cosine | Schedule::Linear);
    let unread = [
        ("learning_rate_floor", floor > 0.0 && !ends_at_0, "which has no floor", "`cosine` and `linear` end there"),
        (
            "rsqrt_timescale",
            train.rsqrt_timescale.is_some() && train.schedule != Schedule::Rsqrt,
            "which has none",
            "leave it out",
        ),
        (
            "cooldown_steps",
            train.cooldown_steps.is_some() && ends_at_0,
            "which falls anyway",
            "`rsqrt` and `constant` cool down",
        ),
        (
            "cooldown_fraction",
            train.cooldown_fraction.is_some() && ends_at_0,
            "which falls anyway",
            "`rsqrt` and `constant` cool down",
        ),
    ];
    for (name, given, why, help) in unread {
        if given {
            let key = format!("train.{name}");
            let message = format!("`{key}` is given, and `train.schedule` is `{}`, {why}", train.schedule.name());
            rules.refuse(&key, &["train.schedule"], message, help);
        }
    }
}
