//! The rules of `model.head_init` and `[fit]`.

use dualenc_model::TowerLock;

use super::rules::Rules;
use crate::config::schema::RunConfig;
use crate::config::schema::model::HeadInit;
use crate::config::schema::model_heads::HeadChoice;

pub(super) fn fit(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "model.head_init";
    let (model, fit) = (&config.model, &config.fit);
    if let Some(ridge) = fit.ridge {
        rules.check(ridge > 0.0 && ridge.is_finite(), "fit.ridge", ridge, "above 0", "a usual value is 0.01");
    }
    if let Some(power) = fit.power {
        rules.check((0.0..=16.0).contains(&power), "fit.power", power, "from 0 to 16", "a usual value is 1");
    }
    let init = match model.head_init {
        HeadInit::Random => return,
        HeadInit::Cca => "cca",
        HeadInit::Ridge => "ridge",
    };
    for Obstacle { key, why, help: [_, help] } in obstacles(config) {
        rules.refuse(KEY, &[key], format!("`{KEY}` is `{init}`, but {why}"), help);
    }
    if fit.power.is_some() && model.head_init == HeadInit::Ridge {
        let why = "`fit.power` weighs canonical correlations, which ridge regression has none of";
        rules.refuse(KEY, &["fit.power"], format!("`{KEY}` is `{init}`, but {why}"), "remove `fit.power`");
    }
}

/// What keeps `dualenc fit` from fitting heads, where the config asks for no fit itself.
pub(super) fn fit_command(config: &RunConfig, rules: &mut Rules) {
    if config.model.head_init == HeadInit::Random {
        for Obstacle { key, why, help: [help, _] } in obstacles(config) {
            rules.refuse(key, &[], format!("`dualenc fit` cannot fit these heads: {why}"), help);
        }
    }
}

/// A key of the config that does not allow a fit.
struct Obstacle {
    key: &'static str,
    why: String,
    /// What to do for `dualenc fit`, and beside `model.head_init`.
    help: [&'static str; 2],
}

fn obstacles(config: &RunConfig) -> Vec<Obstacle> {
    let model = &config.model;
    let mut found = Vec::new();
    let mut add = |key, why: String, help| found.push(Obstacle { key, why, help });
    if model.image_projection.whitening > 0.0 {
        let why = "`model.image_projection.whitening` gives the image projection other weights";
        add("model.image_projection.whitening", why.to_owned(), ["remove the key", "remove one of them"]);
    }
    if [model.lock.image, model.lock.text].contains(&TowerLock::Scratch) {
        let why = format!("`model.lock` is `{}`: features of a tower with random weights tell nothing", model.lock);
        let help = [
            "write `L` or `U` for a pretrained tower",
            "write `L` or `U` for a pretrained tower, or remove `head_init`",
        ];
        add("model.lock", why, help);
    }
    for (key, head) in [("model.image_head.kind", &model.image_head), ("model.text_head.kind", &model.text_head)] {
        if let Some(kind @ (HeadChoice::Glu | HeadChoice::Blocks | HeadChoice::Identity)) = head.kind {
            let why = format!("`{key}` is `{}`, a head without a linear map of its input", kind.name());
            add(key, why, ["choose `linear` or `residual`", "choose `linear` or `residual`, or remove `head_init`"]);
        }
    }
    if model.image_head.tokens.is_some() {
        let why = "`model.image_head.tokens` takes all tokens, which no closed form maps";
        add("model.image_head.tokens", why.to_owned(), ["remove the key", "remove one of them"]);
    }
    for (key, is_locked) in [
        ("model.image_projection.locked", model.image_projection.locked),
        ("model.text_projection.locked", model.text_projection.locked),
    ] {
        if is_locked {
            let why = format!("`{key}` is true, and a locked projection is not saved with the checkpoints");
            let help = "unlock it; a low `train.projection_learning_rate` keeps it near its start";
            add(key, why, [help, help]);
        }
    }
    found
}
