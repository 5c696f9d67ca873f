//! Python that applies the heads of `--format heads`, whatever their kinds.

use dualenc_model::{Head, HeadForm, HeadKind, ImageTower, ImageTowerConfig, TextTower, Tower};

use crate::commands::export::model_card::token_usage;
use crate::commands::export::obstacles::listed;
use crate::models::load::LoadedModel;

/// The section: functions for what the heads of `loaded` are made of, one for each head, and how they are used.
pub(crate) fn section(loaded: &LoadedModel) -> String {
    let model = &loaded.model;
    let heads = [(Tower::Image, &model.image_projection), (Tower::Text, &model.text_projection)];
    let forms = heads.map(|(_, head)| head.form());
    let is_any = |of: fn(HeadForm) -> bool| forms.into_iter().any(of);
    let has_tokens = model.image_tokens.is_some();
    let mut functions = vec!["normalize"];
    for (name, is_used) in [
        ("gelu", is_any(|form| matches!(form.kind, HeadKind::Residual | HeadKind::Blocks { .. }))),
        ("layer_norm", has_tokens || is_any(has_norm)),
        ("linear", has_tokens || is_any(|form| !form.is_identity())),
        ("relu6", is_any(|form| matches!(form.kind, HeadKind::Gated { .. }))),
    ] {
        functions.extend(is_used.then_some(name));
    }
    functions.extend(model.image_tokens.iter().flat_map(token_usage::functions));
    functions.sort_unstable();
    let mut lines = vec!["from safetensors.torch import load_file".to_owned()];
    lines.extend(has_tokens.then(|| "from torch import cat".to_owned()));
    lines.extend([
        format!("from torch.nn.functional import {}", functions.join(", ")),
        String::new(),
        "heads = load_file(\"model.safetensors\")".to_owned(),
    ]);
    if has_tokens || is_any(|form| !form.is_identity()) {
        lines.extend(function(
            "affine(x, name):",
            &["return linear(x, heads[f\"{name}.weight\"], heads.get(f\"{name}.bias\"))"],
        ));
    }
    if has_tokens || is_any(has_norm) {
        let body = "return layer_norm(x, x.shape[-1:], heads[f\"{name}.weight\"], heads[f\"{name}.bias\"])";
        lines.extend(function("norm(x, name):", &[body]));
    }
    if let Some(tokens) = &model.image_tokens {
        let (height, width) = loaded.processor.output_size();
        let grid = [height, width].map(|side| side as usize / model.image_tower.side_multiple());
        let body = token_usage::body(tokens, grid);
        lines.extend(function(&token_usage::signature(tokens), &body.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    for (tower, head) in heads {
        let tokens = model.image_tokens.as_ref().filter(|_| tower == Tower::Image);
        let width = match tokens {
            Some(tokens) => format!("tokens, {}", tokens.layout().width),
            None => head.width().to_string(),
        };
        let signature =
            format!("embed_{}(x):  # [rows, {width}] to [rows, {}]: {}", tower.kind(), head.dim(), head.form());
        let mut body = body(head, tower.head_module());
        if tokens.is_some() {
            body.insert(0, "x = pool_tokens(x)".to_owned());
        }
        lines.extend(function(&signature, &body.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    lines.push(String::new());
    lines.push("# `images` and `texts`: features of the encoders that the heads were trained on".to_owned());
    lines.extend(Tower::ALL.into_iter().filter_map(|tower| layer_order(&model.image_tower, &model.text_tower, tower)));
    if has_tokens {
        let is_normed = match model.image_tower.config() {
            ImageTowerConfig::Transformer(config) => !config.skip_final_norm,
            _ => true,
        };
        let when = if is_normed { "after" } else { "before" };
        lines.push(format!("# (of images all tokens, {when} the final norm of the encoder)"));
    }
    lines.push("logits = heads[\"logit_scale\"].exp() * embed_image(images) @ embed_text(texts).T".to_owned());
    if model.logit_bias.is_some() {
        lines.push("logits = logits + heads[\"logit_bias\"]".to_owned());
    }
    format!("```python\n{}\n```", lines.join("\n"))
}

/// The order of the values of a feature, where several layers of `tower` are pooled side by side.
fn layer_order(image: &ImageTower, text: &TextTower, tower: Tower) -> Option<String> {
    let (layers, pooled, skips_norm) = match tower {
        Tower::Image => {
            let config = image.config();
            let skips = matches!(config, ImageTowerConfig::Transformer(ref config) if config.skip_final_norm);
            (image.pooled_layers(), config.describe_pooling(image.pooling()), skips)
        }
        Tower::Text => {
            let config = text.config();
            (&config.pooled_layers[..], config.describe_pooling(text.pooling()), config.skip_final_norm)
        }
    };
    if layers.is_empty() {
        return None;
    }
    let norm = if skips_norm { "before" } else { "after" };
    Some(format!(
        "# (of {}s, layer after layer in the order {}: of each {pooled}, {norm} the final norm of the encoder if it \
         has one)",
        tower.kind(),
        listed(layers)
    ))
}

/// Whether some layer of the head is a layer norm.
fn has_norm(form: HeadForm) -> bool {
    form.norm || matches!(form.kind, HeadKind::Blocks { .. })
}

fn function(signature: &str, body: &[&str]) -> Vec<String> {
    let body = body.iter().map(|line| format!("    {line}"));
    [String::new(), format!("def {signature}")].into_iter().chain(body).collect()
}

/// The lines of the function of a head, the tensors of which are called `name`.
fn body(head: &Head, name: &str) -> Vec<String> {
    let form = head.form();
    let mut lines: Vec<String> = form.norm.then(|| format!("x = norm(x, \"{name}.norm\")")).into_iter().collect();
    let affine = |x: &str, part: &str| format!("affine({x}, \"{name}{part}\")");
    let projected = match form.kind {
        HeadKind::Identity if head.dim() < head.width() => format!("x[:, :{}]", head.dim()),
        HeadKind::Identity => "x".to_owned(),
        HeadKind::Linear => affine("x", ""),
        HeadKind::Gated { .. } => {
            lines.push(format!("x = relu6({}) * {}", affine("x", ".gate"), affine("x", ".up")));
            affine("x", ".down")
        }
        HeadKind::Residual => {
            lines.push(format!("hidden = gelu({})", affine("x", ".up")));
            format!("{} + {}", affine("x", ""), affine("hidden", ".down"))
        }
        HeadKind::Blocks { count } => {
            lines.extend([
                format!("for block in (f\"{name}.blocks.{{n}}\" for n in range({count})):"),
                "    hidden = gelu(affine(norm(x, f\"{block}.norm\"), f\"{block}.up\"))".to_owned(),
                "    x = x + affine(hidden, f\"{block}.down\")".to_owned(),
            ]);
            affine(&format!("norm(x, \"{name}.output_norm\")"), ".output")
        }
    };
    lines.push(format!("return normalize({projected}, dim=-1)"));
    lines
}
