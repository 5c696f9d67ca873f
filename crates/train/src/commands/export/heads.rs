//! A directory with the heads alone: what maps features of images and of texts to embeddings. It is all there is of a
//! model without towers.

use std::path::Path;

use dualenc_model::{
    HEADS_TYPE, HeadForm, HeadKind, TokenForm, TokenHead, TokenKind, TokenLayout, Tower, TowerLock, parameters,
};
use parameters::ParamFilter;
use serde_json::{Value, json};

use crate::commands::export::head_part::HeadPart;
use crate::commands::export::json_files::write_json;
use crate::commands::export::parts::write_tensors;
use crate::error::TrainError;
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

/// The file that makes a directory a pair of heads: written and moved last.
pub(crate) const CONFIG: &str = "config.json";

/// The key of the widths that embeddings can be cut to, the whole first: that of `MatryoshkaLoss` in
/// sentence-transformers, which names them in no file of its own.
pub(crate) const MATRYOSHKA_DIMS: &str = "matryoshka_dims";

/// Refuses a format that needs towers which the model does not have.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_towers(loaded: &LoadedModel, format: &str) -> Result<(), TrainError> {
    let model = &loaded.model;
    let absent = match (model.image_tower.is_absent(), model.text_tower.is_absent()) {
        (false, false) => return Ok(()),
        (true, false) => "no image tower",
        (false, true) => "no text tower",
        (true, true) => "no towers",
    };
    Err(TrainError::Usage(format!(
        "{format} needs a whole model, but this one has {absent}: it was trained on features from files; export \
         what it has with `--format heads`"
    )))
}

/// Says of each tower that trained that its weights are needed beside the heads.
pub(crate) fn missing_towers(loaded: &LoadedModel) -> Vec<String> {
    let (Some(config), model) = (&loaded.config, &loaded.model) else { return Vec::new() };
    let (all, lock, is_trained) = (config.ever_trains(), config.model.lock, loaded.step != Some(0));
    let sides = [
        ("image", model.image_tower.is_absent(), all.image, lock.image),
        ("text", model.text_tower.is_absent(), all.text, lock.text),
    ];
    let changed = sides.into_iter().filter(|(_, is_absent, training, lock)| {
        !is_absent && (is_trained && training.any() || *lock == TowerLock::Scratch)
    });
    changed
        .map(|(side, ..)| {
            format!(
                "the {side} tower was trained and is not part of `--format heads`: its head fits the outputs of the \
                 trained tower only; `dualenc embed` with the run computes embeddings from both"
            )
        })
        .collect()
}

/// Fills `dir`: `model.safetensors` with every parameter outside of the towers, matrices as `[output, input]`, and
/// `config.json` with the form of each head. The model card has Python that applies them.
///
/// # Errors
/// [`TrainError::Write`]; [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when
/// `stop` is set.
pub(crate) fn write(loaded: &LoadedModel, dir: &Path, stop: &StopFlag) -> Result<(), TrainError> {
    let model = &loaded.model;
    let mut tensors = parameters::collect(model, ParamFilter::All)?;
    tensors.retain(|path, _| Tower::of(path).is_none());
    let mut head = |tower: Tower, head, is_absent| {
        let part = HeadPart::take_from(&mut tensors, tower, head);
        let config = config_of(&part, if is_absent { "features" } else { "tower" });
        let names = part.tensors.into_iter().map(|(name, tensor)| (format!("{}.{name}", tower.head_module()), tensor));
        tensors.extend(names);
        config
    };
    let mut image = head(Tower::Image, &model.image_projection, model.image_tower.is_absent());
    let text = head(Tower::Text, &model.text_projection, model.text_tower.is_absent());
    if let Some(tokens) = &model.image_tokens {
        let own = HeadPart::take_tokens_from(&mut tensors);
        tensors.extend(own);
        image["tokens"] = config_of_tokens(tokens);
    }
    let mut config = json!({"model_type": HEADS_TYPE, "embed_dim": model.embed_dim(), "image": image, "text": text});
    let widths = loaded.nested_widths();
    if !widths.is_empty() {
        config[MATRYOSHKA_DIMS] = json!(widths);
    }
    write_tensors(&dir.join("model.safetensors"), tensors, stop)?;
    write_json(&dir.join(CONFIG), &config)
}

/// The form of what takes all tokens of an image, before the head that has the width of its output.
fn config_of_tokens(tokens: &TokenHead) -> Value {
    let TokenForm { kind, width, heads, grid } = tokens.form();
    let TokenLayout { width: token_width, special, class_token, .. } = tokens.layout();
    let mut config = json!({
        "kind": match kind { TokenKind::Query => "query", TokenKind::Blocks { .. } => "blocks" },
        "width": width,
        "heads": heads,
        "token_width": token_width,
        "special_tokens": special,
        "class_token": class_token,
    });
    if let TokenKind::Blocks { count, .. } = kind {
        config["blocks"] = json!(count);
    }
    if let Some(side) = grid {
        config["grid"] = json!(side);
    }
    config
}

/// The form of a head. `input`: what gives the features it maps.
fn config_of(head: &HeadPart, input: &str) -> Value {
    let HeadForm { kind, bias, norm, .. } = head.form;
    let mut config = json!({"kind": kind.name(), "width": head.width, "input": input, "bias": bias, "norm": norm});
    match kind {
        HeadKind::Gated { expansion } => config["expansion"] = json!(expansion),
        HeadKind::Blocks { count } => config["blocks"] = json!(count),
        HeadKind::Identity | HeadKind::Linear | HeadKind::Residual => {}
    }
    config
}
