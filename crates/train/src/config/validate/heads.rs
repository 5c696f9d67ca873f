//! The rules of `[model.image_head]` and `[model.text_head]`.

use super::rules::Rules;
use crate::config::schema::RunConfig;
use crate::config::schema::model_heads::{HeadChoice, HeadSection};

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
