//! The rules that types cannot hold: ranges, and keys that contradict each other. All are checked, none stops the others.
//! A file holds the rules of one part of the TOML.

mod checkpoint;
mod data;
mod eval;
mod model;
pub(crate) mod rules;
mod run;
mod stages;
mod train;

use super::schema::RunConfig;
use rules::{Rules, Violation};

/// Every broken rule of `config`.
pub(super) fn violations(config: &RunConfig) -> Vec<Violation> {
    let mut rules = Rules::default();
    run::run(config, &mut rules);
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
