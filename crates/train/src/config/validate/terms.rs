//! The rules of what is added to the contrastive loss: widths, the structure term, latent mixup.

use dualenc_model::Training;

use super::rules::Rules;
use crate::config::schema::RunConfig;

/// The keys that say which towers train.
const LOCKS: [&str; 6] = [
    "model.lock",
    "model.image_unlock_last",
    "model.text_unlock_last",
    "model.image_lora.*",
    "model.text_lora.*",
    "train.stage",
];

/// Widths descend from at most `embed_dim`. That of a model which the run starts from is checked when it is read.
pub(super) fn matryoshka(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "train.matryoshka";
    let widths = &config.train.matryoshka;
    if !widths.is_sorted_by(|width, next| width > next) || widths.last() == Some(&0) {
        let help = "each width is below the one before it, such as `[512, 256, 128, 64]`";
        rules.check(false, KEY, format!("{widths:?}"), "widths of 1 or more in descending order", help);
    }
    let embed_dim = config.model.embed_dim_of_towers();
    if let Some((&first, embed_dim)) = widths.first().zip(embed_dim).filter(|(first, embed_dim)| *first > embed_dim) {
        let message = format!("`{KEY}` begins with {first}, above `model.embed_dim`, which is {embed_dim}");
        rules.refuse(KEY, &["model.embed_dim"], message, "remove the larger widths, or raise `embed_dim`");
    }
}

/// The structure term has a reference: the features of a locked tower.
pub(super) fn structure(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "train.structure";
    let train = &config.train;
    let weight = train.structure;
    rules.check(weight.is_finite() && weight >= 0.0, KEY, weight, "a finite number of 0 or more", "0 turns it off");
    let temperature = train.structure_temperature.unwrap_or(1.0);
    rules.check(
        temperature.is_finite() && temperature > 0.0,
        "train.structure_temperature",
        temperature,
        "a finite number above 0",
        "",
    );
    let given = [
        ("train.structure_warmup_steps", train.structure_warmup_steps.is_some()),
        ("train.structure_temperature", train.structure_temperature.is_some()),
    ];
    for (key, _) in given.into_iter().filter(|(_, given)| *given && weight == 0.0) {
        let message = format!("`{key}` is set, but `{KEY}` is 0: there is no structure term");
        rules.refuse(key, &[KEY], message, "remove the key, or set `structure`, such as `structure = 10.0`");
    }
    let both_train = |training: &Training| training.image.any() && training.text.any();
    if let (true, Some(of)) = (weight > 0.0, first_stage(config, both_train)) {
        let message = format!("`{KEY}` is {weight}, but both towers train{of}: it needs the features of a locked one");
        rules.refuse(KEY, &LOCKS, message, "lock a tower (`LU`), or remove the key");
    }
}

/// Pairs are blended where both sides are features of locked towers.
pub(super) fn mixup(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "train.mixup_alpha";
    let alpha = config.train.mixup_alpha;
    rules.check(alpha.is_finite() && alpha >= 0.0, KEY, alpha, "a finite number of 0 or more", "0 turns mixup off");
    let one_trains = |training: &Training| training.image.any() || training.text.any();
    if let (true, Some(of)) = (alpha > 0.0, first_stage(config, one_trains)) {
        let message =
            format!("`{KEY}` is {alpha}, but a tower trains{of}: only features of locked towers can be blended");
        rules.refuse(KEY, &LOCKS, message, "set `lock = \"LL\"`, or remove the key");
    }
}

/// The first stage that trains what it must not, as `" in stage 2"`; empty in a run of one stage.
fn first_stage(config: &RunConfig, wrong: impl Fn(&Training) -> bool) -> Option<String> {
    let stages = config.stages();
    let at = stages.iter().position(|stage| wrong(&stage.training))?;
    Some(if stages.len() > 1 { format!(" in stage {}", at + 1) } else { String::new() })
}
