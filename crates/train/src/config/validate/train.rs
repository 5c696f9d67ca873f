//! The rules of `[train]`, except for the learning-rate schedule and the stages.

use dualenc_data::counted;

use super::rules::Rules;
use crate::config::schema::RunConfig;
use crate::config::schema::loss::{LogitBiasInit, Loss};

pub(super) fn batches(config: &RunConfig, rules: &mut Rules) {
    let train = &config.train;
    let help = "a pair's negatives are the other pairs of its batch";
    rules.check(train.batch_size >= 2, "train.batch_size", train.batch_size, "at least 2", help);
    let help = "remove the key to process the whole batch at once";
    rules.check(train.micro_batch_size != Some(0), "train.micro_batch_size", 0, "at least 1", help);
    let (devices, size) = (config.run.device.len(), config.part_size(1).unwrap_or(train.batch_size).max(1));
    let parts = train.batch_size.div_ceil(size);
    if devices > 1 && parts < devices {
        let key = if train.micro_batch_size.is_some() { "train.micro_batch_size" } else { "train.batch_size" };
        rules.refuse(
            key,
            &["run.device", "train.batch_size", "train.micro_batch_size"],
            format!(
                "a batch of {} is too small for the {devices} devices of `run.device` with micro-batches of {size}",
                counted(train.batch_size, "pair")
            ),
            "every device computes one micro-batch at least: lower `train.micro_batch_size`, raise \
             `train.batch_size`, or name fewer devices",
        );
    }
}

pub(super) fn optimiser(config: &RunConfig, rules: &mut Rules) {
    let train = &config.train;
    let at_least_0 = |value: f64| value.is_finite() && value >= 0.0;
    let above_0 = |value: f64| value.is_finite() && value > 0.0;
    let rate = train.learning_rate;
    rules.check(above_0(rate), "train.learning_rate", rate, "a finite number above 0", "");
    for (key, rate) in [
        ("train.projection_learning_rate", train.projection_learning_rate),
        ("train.image_projection_learning_rate", train.image_projection_learning_rate),
        ("train.text_projection_learning_rate", train.text_projection_learning_rate),
    ] {
        let rate = rate.unwrap_or(1.0);
        rules.check(above_0(rate), key, rate, "a finite number above 0", "");
    }
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
            let message = format!("`{key}` is set, but `train.optimizer` is `{optimizer}`, which does not use it");
            rules.refuse(&key, &["train.optimizer"], message, "remove the key");
        }
    }
    let clip = train.clip_grad_norm;
    rules.check(at_least_0(clip), "train.clip_grad_norm", clip, "a finite number of 0 or more", "0 turns clipping off");
    let decay = train.ema_decay.unwrap_or(0.5);
    let help = "0.999 averages over about the last 1000 updates";
    rules.check(decay > 0.0 && decay < 1.0, "train.ema_decay", decay, "a number above 0 and less than 1", help);
}

pub(super) fn loss(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "train.label_smoothing";
    let train = &config.train;
    let smoothing = train.label_smoothing;
    rules.check((0.0..1.0).contains(&smoothing), KEY, smoothing, "0 or more and less than 1", "");
    if smoothing != 0.0 && train.loss == Loss::Sigmoid {
        let message = format!("`{KEY}` is {smoothing}, but `train.loss` is `sigmoid`, which has no label smoothing");
        rules.refuse(KEY, &["train.loss"], message, "remove it, or set `loss = \"softmax\"`");
    }
    let maximum = train.logit_scale_max;
    rules.check(
        maximum.is_finite() && maximum > 0.0,
        "train.logit_scale_max",
        maximum,
        "a finite number above 0",
        "it is a logarithm: 4.6052 is a scale of 100",
    );
    if let Some(bias) = train.logit_bias_init {
        if let LogitBiasInit::Number(bias) = bias {
            rules.check(bias.is_finite(), "train.logit_bias_init", bias, "a finite number or \"auto\"", "");
        }
        if train.loss != Loss::Sigmoid {
            let message = "`train.logit_bias_init` is set, but `train.loss` is `softmax`, which has no bias";
            rules.refuse(
                "train.logit_bias_init",
                &["train.loss"],
                message.to_owned(),
                "remove it, or set `loss = \"sigmoid\"`",
            );
        }
    }
}

/// Each group sets a rate or a decay; layer decays are factors.
pub(super) fn groups(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "train.group";
    let train = &config.train;
    for (name, decay) in [("image", train.image_layer_decay), ("text", train.text_layer_decay)] {
        let in_range = decay > 0.0 && decay <= 1.0;
        let help = "each layer's rate is the next layer's rate times this factor";
        rules.check(in_range, &format!("train.{name}_layer_decay"), decay, "a number above 0, at most 1", help);
    }
    for (n, group) in train.group.iter().enumerate() {
        let n = n + 1;
        let mut refuse = |message: String, help| rules.refuse(KEY, &[], message, help);
        if group.pattern.is_empty() {
            refuse(format!("`match` of group {n} is empty"), "set a pattern, such as `match = \"text_tower.*\"`");
        }
        if group.learning_rate.is_none() && group.weight_decay.is_none() {
            refuse(format!("group {n} has neither `learning_rate` nor `weight_decay`"), "set at least one of them");
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
            "set the length of the run, such as `epochs = 20`",
        ),
        (Some(_), Some(_)) => rules.refuse(
            "train.steps",
            &["train.epochs"],
            "`train.epochs` and `train.steps` are both set".to_owned(),
            "remove one of them; on the command line, `--set train.epochs=` removes a key",
        ),
        _ => {}
    }
    rules.check(train.epochs != Some(0), "train.epochs", 0, "at least 1", "");
    rules.check(train.steps != Some(0), "train.steps", 0, "at least 1", "");
}
