//! The rules of `[train]`.

use super::Rules;
use crate::config::schema::{Loss, RunConfig};

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
    let [first, second] = train.betas;
    let in_range = |beta: f64| (0.0..1.0).contains(&beta);
    rules.check(
        in_range(first) && in_range(second),
        "train.betas",
        format!("[{first}, {second}]"),
        "two numbers of 0 or more and less than 1",
        "",
    );
    rules.check(above_0(train.eps), "train.eps", train.eps, "a finite number above 0", "");
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
    if let Some(steps) = train.steps.filter(|steps| *steps > 0 && train.warmup_steps >= *steps) {
        rules.refuse(
            "train.warmup_steps",
            &["train.steps"],
            format!(
                "`train.warmup_steps` is {}, expected fewer than `train.steps`, which is {steps}",
                train.warmup_steps
            ),
            "the learning rate would never reach its full height",
        );
    }
}
