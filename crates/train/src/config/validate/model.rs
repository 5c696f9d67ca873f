//! The rules of `[model]`.

use dualenc_model::{LayerNumbers, Pool, TowerLock};

use super::rules::Rules;
use crate::config::schema::RunConfig;
use crate::config::schema::model_heads::HeadChoice;

pub(super) fn model(config: &RunConfig, rules: &mut Rules) {
    let model = &config.model;
    rules.check(model.embed_dim != Some(0), "model.embed_dim", 0, "at least 1", "");
    rules.check(model.image_size != Some(0), "model.image_size", 0, "at least 1 pixel", "");
    for (key, dropout) in [("model.image_dropout", model.image_dropout), ("model.text_dropout", model.text_dropout)] {
        let dropout = dropout.unwrap_or(0.0);
        rules.check((0.0..1.0).contains(&dropout), key, dropout, "0 or more and less than 1", "");
    }
    layers("model.image_layer", &model.image_layer, rules);
    layers("model.text_layer", &model.text_layer, rules);
    if matches!(model.image_pool, Pool::Sentence | Pool::Last) {
        let help = "choose \"auto\", \"cls\", \"mean\", \"cls+mean\", \"patch_mean\" or \"pooler\"";
        rules.refuse("model.image_pool", &[], "`model.image_pool` is a pooling of text towers".to_owned(), help);
    }
    if matches!(model.text_pool, Pool::ClsMean | Pool::PatchMean) {
        let help = "choose \"auto\", \"cls\", \"mean\", \"last\", \"pooler\" or \"sentence\"";
        rules.refuse("model.text_pool", &[], "`model.text_pool` is a pooling of image towers".to_owned(), help);
    }
    if model.text_prompt.is_some() && model.text_prompt_name.is_some() {
        rules.refuse(
            "model.text_prompt",
            &["model.text_prompt_name"],
            "`model.text_prompt` and `model.text_prompt_name` are both set".to_owned(),
            "remove one of them",
        );
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

/// Which layers a tower has is known when it is loaded.
fn layers(key: &str, layers: &LayerNumbers, rules: &mut Rules) {
    let numbers = layers.numbers();
    let is_repeated = |(at, number): (usize, &i64)| numbers[..at].contains(number);
    if numbers.is_empty() {
        rules.refuse(key, &[], format!("`{key}` lists no layer"), "remove the key to pool the last layer");
    } else if numbers.contains(&0) {
        rules.check(false, key, layers, "1 or more, or -1 (the last layer) or less", "");
    } else if let Some((_, number)) = numbers.iter().enumerate().find(|&it| is_repeated(it)) {
        rules.refuse(key, &[], format!("`{key}` lists layer {number} twice"), "list each layer once");
    }
}

pub(super) fn whitening(config: &RunConfig, rules: &mut Rules) {
    const KEY: &str = "model.image_projection.whitening";
    let (model, strength) = (&config.model, config.model.image_projection.whitening);
    rules.check((0.0..=1.0).contains(&strength), KEY, strength, "from 0 to 1", "");
    if strength == 0.0 {
        return;
    }
    let mut refuse = |other: &str, why: &str, help: &str| {
        rules.refuse(KEY, &[other], format!("`{KEY}` is {strength}, but {why}"), help);
    };
    if config.stages()[0].training.image.any() {
        refuse(
            "model.lock",
            "the image tower trains: its features would not stay white",
            "lock the tower (`lock = \"LU\"`)",
        );
    }
    if model.init.is_some() {
        refuse("model.init", "`model.init` has a trained projection", "remove one of them");
    }
    if model.image_projection.locked {
        let help = "unlock it; a low `train.projection_learning_rate` keeps it near its start";
        refuse("model.image_projection.locked", "a locked projection is not saved with the checkpoints", help);
    }
    if let Some(kind) = model.image_head.kind.filter(|kind| !matches!(kind, HeadChoice::Linear | HeadChoice::Residual))
    {
        refuse(
            "model.image_head.kind",
            &format!("a head of kind `{}` has no linear map of the features to whiten", kind.name()),
            "choose `linear` or `residual`, or set `whitening = 0`",
        );
    }
    if model.image_head.tokens.is_some() {
        let why = "the image head takes all tokens, not the features that would be whitened";
        refuse("model.image_head.tokens", why, "set `whitening = 0`, or remove `tokens`");
    }
    if !config.cache.enabled {
        refuse("cache.enabled", "it is computed from cached features", "set `cache.enabled = true`");
    }
}

pub(super) fn towers(config: &RunConfig, rules: &mut Rules) {
    let model = &config.model;
    for (key, reference) in [
        ("model.image_tower", &model.image_tower),
        ("model.text_tower", &model.text_tower),
        ("model.init", &model.init),
    ] {
        if let Some(reference) = reference
            && !crate::config::tower_reference::is_reference(reference)
        {
            let message = format!("`{key}` is {reference:?}, neither a directory nor a hub id");
            rules.refuse(key, &[], message, "write a path such as `./towers/vit`, or a hub id such as `org/name`");
        }
    }
    let [image_features, text_features] = config.feature_sides();
    for (key, tower, has_features) in [
        ("model.image_tower", &model.image_tower, image_features),
        ("model.text_tower", &model.text_tower, text_features),
    ] {
        match (tower, &model.init) {
            (None, None) if has_features => {}
            (Some(_), None) if has_features => rules.refuse(
                key,
                &["data.train.features"],
                format!("`{key}` is set, but `data.train.features` has what this tower would compute"),
                "remove the key to train on the features, or the features to train on what the tower computes",
            ),
            (None, None) => rules.refuse(
                key,
                &["model.init"],
                format!("missing key `{key}`"),
                "set it to a Hugging Face directory or a hub id, or set `init` to a whole model",
            ),
            (Some(_), Some(_)) => rules.refuse(
                key,
                &["model.init"],
                format!("`{key}` and `model.init` are both set"),
                "`init` includes both towers: remove one or the other",
            ),
            _ => {}
        }
    }
    absent_towers(config, rules);
    let lock = model.lock;
    if model.init.is_some() && [lock.image, lock.text].contains(&TowerLock::Scratch) {
        rules.refuse(
            "model.lock",
            &["model.init"],
            format!("`model.lock` is `{lock}`, but the towers of `model.init` are trained"),
            "`u` starts a tower from random weights: write `U` to train the tower of `init`, or remove `init`",
        );
    }
}

/// Keys of a tower that is not there, since the data have features in its place.
fn absent_towers(config: &RunConfig, rules: &mut Rules) {
    let model = &config.model;
    let [image, text] = config.feature_sides();
    let stages = config.stages();
    let trains = |of: fn(&dualenc_model::Training) -> bool| stages.iter().any(|stage| of(&stage.training));
    let is_pooled = |pool: Pool| pool != Pool::Auto;
    let trains = [trains(|it| it.image.any()), trains(|it| it.text.any())];
    for (side, has_features, trains) in [("image", image, trains[0]), ("text", text, trains[1])] {
        if has_features && trains {
            rules.refuse(
                "model.lock",
                &["train.stage"],
                format!("the {side} tower trains, but `data.train.features` has features of {side}s in its place"),
                "write `L` for that tower in `model.lock` and in each stage, and remove its `unlock_last` and `lora`",
            );
        }
    }
    for (key, given, has_features) in [
        ("model.image_pool", is_pooled(model.image_pool), image),
        ("model.image_layer", model.image_layer != LayerNumbers::default(), image),
        ("model.image_layer_norm", !model.image_layer_norm, image),
        ("model.image_dropout", model.image_dropout.is_some(), image),
        ("model.image_size", model.image_size.is_some(), image),
        ("data.augment", config.data.augment.is_some(), image),
        ("model.text_pool", is_pooled(model.text_pool), text),
        ("model.text_layer", model.text_layer != LayerNumbers::default(), text),
        ("model.text_layer_norm", !model.text_layer_norm, text),
        ("model.text_dropout", model.text_dropout.is_some(), text),
        ("data.word_dropout", config.data.word_dropout > 0.0, text),
    ] {
        if given && has_features {
            let message = format!("`{key}` is set, but `data.train.features` has features in place of that tower");
            rules.refuse(key, &["data.train.features"], message, "remove the key");
        }
    }
    for (key, width, has_features) in
        [("model.image_width", model.image_width, image), ("model.text_width", model.text_width, text)]
    {
        rules.check(width != Some(0), key, 0, "at least 1", "");
        if width.is_some() && !has_features {
            let message = format!("`{key}` is the width of features, but `data.train` has none of them");
            rules.refuse(key, &["data.train.*"], message, "remove the key: a tower knows its width");
        }
    }
}
