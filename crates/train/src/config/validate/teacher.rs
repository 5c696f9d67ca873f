//! The rules of `[train.teacher]`.

use super::rules::Rules;
use crate::config::schema::RunConfig;
use crate::config::schema::loss::Loss;

/// The teacher looks at images and texts themselves, one pair at a time.
pub(super) fn teacher(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "train.teacher.model";
    let Some(teacher) = &config.train.teacher else { return };
    if teacher.model.is_empty() {
        let help = "a run, a checkpoint, a whole model such as `openai/clip-vit-base-patch32`, or no `[train.teacher]`";
        rules.refuse(KEY, &[], format!("`{KEY}` is empty"), help);
    }
    let weight = teacher.weight;
    let help = "remove `[train.teacher]` to train without one";
    rules.check(weight > 0.0 && weight <= 1.0, "train.teacher.weight", weight, "above 0 and at most 1", help);
    let scale = teacher.scale.unwrap_or(1.0);
    rules.check(scale.is_finite() && scale > 0.0, "train.teacher.scale", scale, "a finite number above 0", "");
    if let Some(bias) = teacher.bias {
        rules.check(bias.is_finite(), "train.teacher.bias", bias, "a finite number", "");
        if config.train.loss == Loss::Softmax {
            let message = "`train.teacher.bias` is set, but `train.loss` is `softmax`, which has no bias";
            let help = "remove it, or set `loss = \"sigmoid\"`";
            rules.refuse("train.teacher.bias", &["train.loss"], message.to_owned(), help);
        }
    }
    if config.train.mixup_alpha > 0.0 {
        let message = format!(
            "`train.mixup_alpha` is {}, but there is a `[train.teacher]`, which knows no blends",
            config.train.mixup_alpha
        );
        rules.refuse("train.mixup_alpha", &[KEY], message, "remove one of them");
    }
    for (side, _) in ["images", "texts"].into_iter().zip(config.feature_sides()).filter(|(_, is_feature)| *is_feature) {
        let message = format!("`{KEY}` is set, but the data have features of {side}: a teacher needs the {side}");
        let help = "train on the images and texts themselves, or remove `[train.teacher]`";
        rules.refuse(KEY, &["data.train"], message, help);
    }
}
