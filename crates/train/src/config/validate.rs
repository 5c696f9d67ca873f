//! The rules that types cannot hold: ranges, and keys that contradict each other. All are checked, none stops the others.

use dualenc_model::TowerLock;

use super::schema::{EvalSection, Loss, RunConfig, Task};

/// A broken rule.
pub(super) struct Violation {
    /// The key to point at.
    pub key: String,
    /// Other keys the rule reads: where one of them is already reported, this rule says nothing.
    pub others: Vec<String>,
    /// What was found and expected.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// Collects violations.
#[derive(Default)]
struct Rules {
    broken: Vec<Violation>,
}

impl Rules {
    /// `expected` completes "`key` is `found`, expected ..".
    fn check(&mut self, holds: bool, key: &str, found: impl std::fmt::Display, expected: &str, help: &str) {
        if !holds {
            self.refuse(key, &[], format!("`{key}` is {found}, expected {expected}"), help);
        }
    }

    fn refuse(&mut self, key: &str, others: &[&str], message: String, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        self.broken.push(Violation {
            key: key.to_owned(),
            others: others.iter().map(|key| (*key).to_owned()).collect(),
            message,
            help,
        });
    }
}

/// Every broken rule of `config`.
pub(super) fn violations(config: &RunConfig) -> Vec<Violation> {
    let mut rules = Rules::default();
    run(config, &mut rules);
    model(config, &mut rules);
    towers(config, &mut rules);
    whitening(config, &mut rules);
    data(config, &mut rules);
    augment(config, &mut rules);
    optimiser(config, &mut rules);
    duration(config, &mut rules);
    storage(config, &mut rules);
    for (name, eval) in &config.eval {
        evaluation(name, eval, &mut rules);
    }
    rules.broken
}

fn run(config: &RunConfig, rules: &mut Rules) {
    let run = &config.run;
    rules.check(!run.dir.as_os_str().is_empty(), "run.dir", "empty", "a directory", "");
    // TOML has no larger integers, and the config is written back as TOML.
    rules.check(i64::try_from(run.seed).is_ok(), "run.seed", run.seed, "at most 9223372036854775807", "");
    rules.check(!run.device.is_empty(), "run.device", "empty", "a device", "such as `cpu` or `cuda:0`");
    rules.check(run.threads != Some(0), "run.threads", 0, "at least 1", "leave the key out to use every core");
    rules.check(run.log_every_steps >= 1, "run.log_every_steps", 0, "at least 1", "");
}

fn model(config: &RunConfig, rules: &mut Rules) {
    let model = &config.model;
    rules.check(model.embed_dim != Some(0), "model.embed_dim", 0, "at least 1", "");
    rules.check(model.image_size != Some(0), "model.image_size", 0, "at least 1 pixel", "");
    for (key, dropout) in [("model.image_dropout", model.image_dropout), ("model.text_dropout", model.text_dropout)] {
        let dropout = dropout.unwrap_or(0.0);
        rules.check((0.0..1.0).contains(&dropout), key, dropout, "0 or more and less than 1", "");
    }
    let scale = model.logit_scale_init.unwrap_or(0.0);
    let maximum = config.train.logit_scale_max;
    rules.check(scale.is_finite(), "model.logit_scale_init", scale, "a finite number", "");
    if scale > maximum {
        rules.refuse(
            "model.logit_scale_init",
            &["train.logit_scale_max"],
            format!("`model.logit_scale_init` is {scale}, above `train.logit_scale_max`, which is {maximum}"),
            "it is a logarithm: 2.6592 is a temperature of 0.07",
        );
    }
}

fn whitening(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "model.image_projection.whitening";
    let (model, strength) = (&config.model, config.model.image_projection.whitening);
    rules.check((0.0..=1.0).contains(&strength), KEY, strength, "from 0 to 1", "");
    if strength == 0.0 {
        return;
    }
    let mut refuse = |other: &str, why: &str, help: &str| {
        rules.refuse(KEY, &[other], format!("`{KEY}` is {strength}, but {why}"), help);
    };
    if model.lock.image.trains() {
        refuse("model.lock", "the image tower trains: its features would not stay white", "lock it (`LU`)");
    }
    if model.init.is_some() {
        refuse("model.init", "`model.init` brings a trained projection", "leave one of them out");
    }
    if model.image_projection.locked {
        let help = "unlock it; a low `train.projection_learning_rate` keeps it near its start";
        refuse("model.image_projection.locked", "a locked projection is not saved with the checkpoints", help);
    }
    if !config.cache.enabled {
        refuse("cache.enabled", "it is computed from cached features", "leave `cache.enabled` at `true`");
    }
}

fn towers(config: &RunConfig, rules: &mut Rules) {
    let model = &config.model;
    for (key, reference) in [
        ("model.image_tower", &model.image_tower),
        ("model.text_tower", &model.text_tower),
        ("model.init", &model.init),
    ] {
        if let Some(reference) = reference
            && !crate::hub::is_reference(reference)
        {
            let message = format!("`{key}` is {reference:?}, neither a directory nor a hub id");
            rules.refuse(key, &[], message, "write a path such as `./towers/vit`, or a hub id such as `org/name`");
        }
    }
    for (key, tower) in [("model.image_tower", &model.image_tower), ("model.text_tower", &model.text_tower)] {
        match (tower, &model.init) {
            (None, None) => rules.refuse(
                key,
                &["model.init"],
                format!("missing key `{key}`"),
                "a Hugging Face directory or a hub id; or `init`, which stands for both towers",
            ),
            (Some(_), Some(_)) => rules.refuse(
                key,
                &["model.init"],
                format!("`{key}` and `model.init` are both given"),
                "`init` brings both towers: keep one or the other",
            ),
            _ => {}
        }
    }
    let lock = model.lock;
    if model.init.is_some() && [lock.image, lock.text].contains(&TowerLock::Scratch) {
        rules.refuse(
            "model.lock",
            &["model.init"],
            format!("`model.lock` is `{lock}`, and `model.init` brings trained towers"),
            "`u` starts a tower from random weights: write `U` to train on, or leave `init` out",
        );
    }
    let trains =
        [lock.image.trains(), lock.text.trains(), !model.image_projection.locked, !model.text_projection.locked];
    if !trains.contains(&true) {
        rules.refuse(
            "model.lock",
            &["model.image_projection.locked", "model.text_projection.locked"],
            format!("nothing trains: `model.lock` is `{lock}` and both projections are locked"),
            "unlock a tower (`LU`) or a projection",
        );
    }
}

fn data(config: &RunConfig, rules: &mut Rules) {
    let data = &config.data;
    // A first and a last special token leave no room for a caption below three.
    rules.check(data.max_tokens >= 3, "data.max_tokens", data.max_tokens, "at least 3", "two are special tokens");
    rules.check(data.workers != Some(0), "data.workers", 0, "at least 1", "leave the key out to use every core");
    let share = data.max_bad_fraction;
    rules.check((0.0..=1.0).contains(&share), "data.max_bad_fraction", share, "a share from 0 to 1", "");
}

fn augment(config: &RunConfig, rules: &mut Rules) {
    let Some(augment) = &config.data.augment else { return };
    if let Some((key, expected)) = augment.problem() {
        let key = format!("data.augment.{key}");
        rules.refuse(&key, &[], format!("`{key}` is out of range, expected {expected}"), "");
    }
    if !config.model.lock.image.trains() && config.cache.enabled && config.cache.views.is_none() {
        rules.refuse(
            "data.augment",
            &["model.lock", "cache.enabled", "cache.views"],
            "`data.augment` is given, but the image tower is locked and its features are computed once and kept: no epoch \
             would see another view"
                .to_owned(),
            "set `cache.views` to keep that many views of each image, or `cache.enabled = false` to run the tower anew in every \
             epoch",
        );
    }
}

fn optimiser(config: &RunConfig, rules: &mut Rules) {
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

fn duration(config: &RunConfig, rules: &mut Rules) {
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

fn storage(config: &RunConfig, rules: &mut Rules) {
    let help = "a checkpoint is also written at the end and on a signal";
    rules.check(config.checkpoint.every_steps >= 1, "checkpoint.every_steps", 0, "at least 1", help);
    rules.check(config.checkpoint.keep >= 1, "checkpoint.keep", 0, "at least 1", "");
    rules.check(config.cache.views != Some(0), "cache.views", 0, "at least 1", "leave the key out to keep no views");
}

fn evaluation(name: &str, eval: &EvalSection, rules: &mut Rules) {
    let section = format!("eval.{name}");
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(is_plain) {
        rules.refuse(
            &section,
            &[],
            format!("`{}` is no name for an evaluation", name.escape_debug()),
            "use `a-z`, `0-9`, `_` and `-`: it becomes part of the metrics",
        );
    }
    let (task, other) = match eval.task {
        Task::ZeroShot => ("zero-shot", "retrieval"),
        Task::Retrieval => ("retrieval", "zero-shot"),
    };
    let zero_shot = [
        ("images", eval.images.is_some()),
        ("classnames", eval.classnames.is_some()),
        ("templates", eval.templates.is_some()),
    ];
    let retrieval = [("data", eval.data.is_some())];
    let (own, foreign) = match eval.task {
        Task::ZeroShot => (&zero_shot[..], &retrieval[..]),
        Task::Retrieval => (&retrieval[..], &zero_shot[..]),
    };
    let of_task = format!("{section}.task");
    // The first key of a task is the one it cannot do without.
    if let Some((required, false)) = own.first() {
        let help = match eval.task {
            Task::ZeroShot => "a folder that holds one folder of images a class",
            Task::Retrieval => "a csv, tsv or jsonl of image and caption",
        };
        let key = format!("{section}.{required}");
        rules.refuse(&key, &[&of_task], format!("missing key `{key}`, which a {task} evaluation needs"), help);
    }
    for (key, _) in foreign.iter().filter(|(_, given)| *given) {
        let key = format!("{section}.{key}");
        let message = format!("`{key}` belongs to a {other} evaluation, and this one is {task}");
        rules.refuse(&key, &[&of_task], message, "");
    }
    if eval.every_epochs.is_some() && eval.every_steps.is_some() {
        let key = format!("{section}.every_steps");
        rules.refuse(&key, &[], format!("`{section}` has both `every_epochs` and `every_steps`"), "keep one");
    }
    let key = format!("{section}.every_steps");
    rules.check(eval.every_steps != Some(0), &key, 0, "at least 1", "`every_epochs = 0` evaluates only at the end");
    rules.check(eval.batch_size >= 1, &format!("{section}.batch_size"), 0, "at least 1", "");
}
