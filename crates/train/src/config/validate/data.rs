//! The rules of `[data]`.

use super::rules::Rules;
use crate::config::derived::stage_plan::StageStart;
use crate::config::schema::RunConfig;

pub(super) fn data(config: &RunConfig, rules: &mut Rules) {
    let data = &config.data;
    // The first and the last token are special.
    rules.check(
        data.max_tokens >= 3,
        "data.max_tokens",
        data.max_tokens,
        "at least 3",
        "two of them are special tokens",
    );
    rules.check(data.workers != Some(0), "data.workers", 0, "at least 1", "remove the key to use every core");
    let dropped = data.word_dropout;
    rules.check((0.0..1.0).contains(&dropped), "data.word_dropout", dropped, "0 or more and less than 1", "");
    // A text tower is cached in a stage that trains nothing of it: neither whole, nor its last blocks, nor adapters.
    let stages = config.stages();
    let cached = stages.iter().find(|stage| !stage.training.text.any());
    if let Some(stage) = cached.filter(|_| dropped > 0.0 && config.cache.enabled) {
        let from = match stage.from {
            StageStart::Step(0) | StageStart::Epoch(0) => String::new(),
            StageStart::Step(step) => format!(" from step {step} on"),
            StageStart::Epoch(epoch) => format!(" from epoch {epoch} on"),
        };
        rules.refuse(
            "data.word_dropout",
            &["model.lock", "train.stage", "cache.enabled"],
            format!(
                "`data.word_dropout` is {dropped}, but the features of the locked text tower are cached{from}, \
                 and captions with words left out rarely repeat"
            ),
            "set `cache.enabled = false` to run the tower in every epoch, or remove the key",
        );
    }
    let share = data.max_bad_fraction;
    rules.check((0.0..=1.0).contains(&share), "data.max_bad_fraction", share, "a fraction from 0 to 1", "");
    let pixels = data.max_pixels;
    rules.check(pixels >= 1, "data.max_pixels", pixels, "a number of pixels, at least 1", "");
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
            "`data.augment` is set, but the features of the locked image tower are cached: every epoch would see the \
             same view"
                .to_owned(),
            "set `cache.views` to the number of views to cache for each image, or `cache.enabled = false` to run the \
             tower in every epoch",
        );
    }
}
