//! The rules of `[data]`.

use super::rules::Rules;
use crate::config::schema::RunConfig;

pub(super) fn data(config: &RunConfig, rules: &mut Rules) {
    let data = &config.data;
    // A first and a last special token leave no room for a caption below three.
    rules.check(data.max_tokens >= 3, "data.max_tokens", data.max_tokens, "at least 3", "two are special tokens");
    rules.check(data.workers != Some(0), "data.workers", 0, "at least 1", "leave the key out to use every core");
    let dropped = data.word_dropout;
    rules.check((0.0..1.0).contains(&dropped), "data.word_dropout", dropped, "0 or more and less than 1", "");
    if dropped > 0.0 && !config.model.lock.text.trains() && config.cache.enabled {
        rules.refuse(
            "data.word_dropout",
            &["model.lock", "cache.enabled"],
            format!(
                "`data.word_dropout` is {dropped}, but the text tower is locked and its features are computed once and kept: \
                 hardly a caption comes twice with the same words"
            ),
            "set `cache.enabled = false` to run the tower anew in every epoch, or leave it out",
        );
    }
    let share = data.max_bad_fraction;
    rules.check((0.0..=1.0).contains(&share), "data.max_bad_fraction", share, "a share from 0 to 1", "");
}

pub(super) fn augment(config: &RunConfig, rules: &mut Rules) {
    let Some(augment) = &config.data.augment else { return };
    if let Some((key, expected)) = augment.problem() {
        let key = format!("data.augment.{key}");
        rules.refuse(&key, &[], format!("`{key}` is out of range, expected {expected}"), "");
    }
    let locked = config.stages().iter().any(|stage| !stage.training.image.any());
    if locked && config.cache.enabled && config.cache.views.is_none() {
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
