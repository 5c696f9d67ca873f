//! The rules that types cannot hold: ranges, and keys that contradict each other. All are checked, none stops the others.
//! A file holds the rules of one part of the TOML.

mod checkpoint;
mod data;
mod eval;
mod model;
mod stages;
mod train;

use super::schema::{Precision, RunConfig};

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
    model::model(config, &mut rules);
    model::towers(config, &mut rules);
    model::whitening(config, &mut rules);
    stages::locks(config, &mut rules);
    stages::stages(config, &mut rules);
    stages::adapters(config, &mut rules);
    data::data(config, &mut rules);
    data::augment(config, &mut rules);
    train::optimiser(config, &mut rules);
    train::loss(config, &mut rules);
    train::duration(config, &mut rules);
    train::schedule(config, &mut rules);
    train::groups(config, &mut rules);
    checkpoint::checkpoint(config, &mut rules);
    rules.check(config.cache.views != Some(0), "cache.views", 0, "at least 1", "leave the key out to keep no views");
    for (name, eval) in &config.eval {
        eval::evaluation(name, eval, &mut rules);
    }
    rules.broken
}

fn run(config: &RunConfig, rules: &mut Rules) {
    let run = &config.run;
    rules.check(!run.dir.as_os_str().is_empty(), "run.dir", "empty", "a directory", "");
    // TOML has no larger integers, and the config is written back as TOML.
    rules.check(i64::try_from(run.seed).is_ok(), "run.seed", run.seed, "at most 9223372036854775807", "");
    rules.check(!run.device.is_empty(), "run.device", "empty", "a device", "such as `cpu` or `cuda:0`");
    if run.precision == Precision::F16 {
        rules.check(
            false,
            "run.precision",
            "`f16`",
            "`f32` or `bf16`",
            "gradients fall below what f16 can hold; locked towers may compute in it: `locked_precision`",
        );
    }
    rules.check(run.threads != Some(0), "run.threads", 0, "at least 1", "leave the key out to use every core");
    rules.check(run.log_every_steps >= 1, "run.log_every_steps", 0, "at least 1", "");
}
