//! The rules that types cannot express: ranges, and keys that contradict each other. All are checked, so that one call
//! reports every broken rule.
//!
//! - `rules`: collects the broken rules.
//! - `run`, `model`, `data`, `checkpoint`, `eval`: the rules of the tables of these names.
//! - `fit`: `model.head_init` and `[fit]`.
//! - `heads`: the heads of `[model]`.
//! - `train`: batches, optimiser, loss and length of the run.
//! - `terms`: what is added to the contrastive loss.
//! - `teacher`: `[train.teacher]`.
//! - `schedule`: the learning rate over the steps.
//! - `stages`: locks with their exceptions, `[[train.stage]]` and adapters.

mod checkpoint;
mod data;
mod eval;
mod fit;
mod heads;
mod model;
pub(crate) mod rules;
mod run;
mod schedule;
mod stages;
mod teacher;
mod terms;
mod train;

use super::schema::RunConfig;
use rules::{Rules, Violation};

/// Every broken rule of `config`.
pub(super) fn violations(config: &RunConfig) -> Vec<Violation> {
    let mut rules = Rules::default();
    run::run(config, &mut rules);
    model::model(config, &mut rules);
    model::towers(config, &mut rules);
    heads::heads(config, &mut rules);
    model::whitening(config, &mut rules);
    fit::fit(config, &mut rules);
    stages::locks(config, &mut rules);
    stages::stages(config, &mut rules);
    stages::adapters(config, &mut rules);
    data::data(config, &mut rules);
    data::sources(config, &mut rules);
    data::augment(config, &mut rules);
    train::batches(config, &mut rules);
    train::optimiser(config, &mut rules);
    train::loss(config, &mut rules);
    terms::matryoshka(config, &mut rules);
    terms::structure(config, &mut rules);
    terms::mixup(config, &mut rules);
    teacher::teacher(config, &mut rules);
    train::duration(config, &mut rules);
    schedule::warmup_and_cooldown(config, &mut rules);
    schedule::curve(config, &mut rules);
    train::groups(config, &mut rules);
    checkpoint::checkpoint(config, &mut rules);
    rules.check(config.cache.views != Some(0), "cache.views", 0, "at least 1", "remove the key to cache no views");
    for (name, eval) in &config.eval {
        eval::evaluation(name, eval, config.data.validation_fraction > 0.0, &mut rules);
    }
    rules.broken
}

/// What keeps `dualenc fit` from running with `config`, beside [`violations`].
pub(super) fn violations_of_fit(config: &RunConfig) -> Vec<Violation> {
    let mut rules = Rules::default();
    fit::fit_command(config, &mut rules);
    rules.broken
}
