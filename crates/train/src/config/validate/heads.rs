//! The rules of `[model.image_head]` and `[model.text_head]`.

use dualenc_model::Pool;

use super::rules::Rules;
use crate::config::schema::RunConfig;
use crate::config::schema::model_heads::{HeadChoice, HeadSection};

/// The key of heads over tokens.
const TOKENS: &str = "model.image_head.tokens";

pub(super) fn heads(config: &RunConfig, rules: &mut Rules) {
    let model = &config.model;
    let is_new = model.init.is_none();
    head("model.image_head", &model.image_head, is_new, rules);
    head("model.text_head", &model.text_head, is_new, rules);
    if model.image_head.kind == Some(HeadChoice::Identity) {
        rules.refuse(
            "model.image_head.kind",
            &[],
            "`model.image_head.kind` is `identity`, which only the text head can be".to_owned(),
            "choose another kind, or leave the image head as it is and set `model.text_head.kind`",
        );
    }
    tokens(config, rules);
}

/// What takes all tokens of an image.
fn tokens(config: &RunConfig, rules: &mut Rules) {
    let model = &config.model;
    let of_text = model.text_head.tokens.map(|_| "tokens").into_iter().chain(model.text_head.given_of_tokens());
    for name in of_text {
        let message = format!("`model.text_head.{name}` is set, but only an image head takes tokens");
        rules.refuse(&format!("model.text_head.{name}"), &[], message, "remove the key");
    }
    let head = &model.image_head;
    for name in head.given_of_tokens() {
        let key = format!("model.image_head.{name}");
        match head.tokens {
            None => {
                let message = format!("`{key}` is set, but `{TOKENS}` is not");
                rules.refuse(&key, &[TOKENS], message, "set `tokens` too, or remove the key");
            }
            Some(choice) if !choice.keys().contains(&name) => {
                let message = format!("`{key}` is set, but `{TOKENS} = \"{}\"` has none", choice.name());
                rules.refuse(&key, &[TOKENS], message, "remove the key");
            }
            Some(_) => {}
        }
    }
    let (Some(choice), Some(form)) = (head.tokens, head.token_form()) else { return };
    let drop_path = head.token_drop_path.unwrap_or(0.0);
    let key = "model.image_head.token_drop_path";
    rules.check((0.0..1.0).contains(&drop_path), key, drop_path, "0 or more and less than 1", "");
    for (name, value) in [
        ("token_width", head.token_width),
        ("token_heads", head.token_heads),
        ("token_grid", head.token_grid),
        ("token_blocks", head.token_blocks),
    ] {
        rules.check(value != Some(0), &format!("model.image_head.{name}"), 0, "at least 1", "");
    }
    if form.width > 0 && form.heads > 0 && form.width % form.heads != 0 {
        rules.refuse(
            "model.image_head.token_width",
            &["model.image_head.token_heads"],
            format!("`token_width` is {}, which {} attention heads do not divide", form.width, form.heads),
            "choose a multiple of 64, or set `token_heads`",
        );
    }
    let mut refuse = |other: &str, why: &str, help: &str| {
        rules.refuse(TOKENS, &[other], format!("`{TOKENS}` is `{}`, but {why}", choice.name()), help);
    };
    if model.init.is_some() {
        let help = "remove the key: a head over tokens of `init` is taken over; or start from the two towers \
                    (`image_tower` and `text_tower`)";
        refuse("model.init", "`model.init` has an image head already", help);
    }
    if config.feature_sides()[0] {
        let why = "`data.train.features` has one vector for each image in place of tokens";
        refuse("data.train.features", why, "remove the key, or train on images");
    }
    if model.image_pool != Pool::Auto {
        refuse("model.image_pool", "`model.image_pool` asks for a pooled output", "remove one of them");
    }
    if model.image_layer.numbers().len() > 1 {
        let why = "`model.image_layer` lists several layers: it takes the tokens of one";
        refuse("model.image_layer", why, "name one layer");
    }
}

fn head(table: &str, head: &HeadSection, is_new: bool, rules: &mut Rules) {
    let key = |name: &str| format!("{table}.{name}");
    let kind_key = key("kind");
    let kind = head.kind.or(is_new.then_some(HeadChoice::Linear));
    for name in head.given() {
        match kind {
            Some(kind) if !kind.keys().contains(&name) => {
                let help = match (kind, name) {
                    (HeadChoice::Linear, "dropout") => {
                        "a linear head has no hidden values to drop: remove the key, or \
                                                        choose another `kind`"
                    }
                    (HeadChoice::Linear, _) => "remove the key, or choose another `kind`",
                    _ => "remove the key",
                };
                let message = format!("`{}` is set, but a head of kind `{}` has none", key(name), kind.name());
                rules.refuse(&key(name), &[&kind_key], message, help);
            }
            None => {
                let message = format!("`{}` is set, but `{kind_key}` is not", key(name));
                let help = "with `init`, the head is that of the model: set `kind` too, or remove the key";
                rules.refuse(&key(name), &[&kind_key, "model.init"], message, help);
            }
            Some(_) => {}
        }
    }
    let dropout = head.dropout.unwrap_or(0.0);
    rules.check((0.0..1.0).contains(&dropout), &key("dropout"), dropout, "0 or more and less than 1", "");
    rules.check(head.expansion != Some(0), &key("expansion"), 0, "at least 1", "");
    let help = "a head without blocks is a linear one: set `kind = \"linear\"`";
    rules.check(head.blocks != Some(0), &key("blocks"), 0, "at least 1", help);
}
