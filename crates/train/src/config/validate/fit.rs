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
    let mut refuse = |other: &str, why: &str, help: &str| {
        rules.refuse(KEY, &[other], format!("`{KEY}` is `{init}`, but {why}"), help);
    };
    if model.image_projection.whitening > 0.0 {
        let why = "`model.image_projection.whitening` gives the image projection other weights";
        refuse("model.image_projection.whitening", why, "remove one of them");
    }
    if [model.lock.image, model.lock.text].contains(&TowerLock::Scratch) {
        let why = &format!("`model.lock` is `{}`: features of a tower with random weights tell nothing", model.lock);
        refuse("model.lock", why, "write `L` or `U` for a pretrained tower, or remove `head_init`");
    }
    for (key, head) in [("model.image_head.kind", &model.image_head), ("model.text_head.kind", &model.text_head)] {
        if let Some(kind @ (HeadChoice::Glu | HeadChoice::Blocks | HeadChoice::Identity)) = head.kind {
            let why = &format!("`{key}` is `{}`, a head without a linear map of its input", kind.name());
            refuse(key, why, "choose `linear` or `residual`, or remove `head_init`");
        }
    }
    if model.image_head.tokens.is_some() {
        let why = "`model.image_head.tokens` takes all tokens, which no closed form maps";
        refuse("model.image_head.tokens", why, "remove one of them");
    }
    for (key, is_locked) in [
        ("model.image_projection.locked", model.image_projection.locked),
        ("model.text_projection.locked", model.text_projection.locked),
    ] {
        if is_locked {
            let why = &format!("`{key}` is true, and a locked projection is not saved with the checkpoints");
            refuse(key, why, "unlock it; a low `train.projection_learning_rate` keeps it near its start");
        }
    }
    if fit.power.is_some() && model.head_init == HeadInit::Ridge {
        refuse(
            "fit.power",
            "`fit.power` weighs canonical correlations, which ridge regression has none of",
            "remove `fit.power`",
        );
    }
}
