//! Python that makes one vector of all tokens of an image, for the heads of `--format heads`.

use dualenc_model::{TokenForm, TokenHead, TokenKind, TokenLayout};

/// The functions of `torch.nn.functional` that [`body`] calls beside those of every head.
pub(super) fn functions(tokens: &TokenHead) -> Vec<&'static str> {
    let mut functions = vec!["scaled_dot_product_attention"];
    functions.extend(matches!(tokens.form().kind, TokenKind::Blocks { .. }).then_some("silu"));
    functions.extend(tokens.form().grid.map(|_| "adaptive_avg_pool2d"));
    functions
}

/// The signature of the function: `tokens` come as `last_hidden_state` of the tower.
pub(super) fn signature(tokens: &TokenHead) -> String {
    format!(
        "pool_tokens(tokens):  # [rows, tokens, {}] to [rows, {}]: {}",
        tokens.layout().width,
        tokens.width(),
        tokens.form()
    )
}

/// The lines of the function. `grid`: height and width of the grid of patches.
pub(super) fn body(tokens: &TokenHead, [height, width]: [usize; 2]) -> Vec<String> {
    let TokenForm { kind, heads, .. } = tokens.form();
    let TokenLayout { special, class_token, grid, .. } = tokens.layout();
    let split = format!("split = lambda x: x.unflatten(-1, ({heads}, -1)).transpose(1, 2)");
    let mean = |x: &str| match special {
        0 => format!("{x}.mean(1)"),
        _ => format!("{x}[:, {special}:].mean(1)"),
    };
    let mut lines = Vec::new();
    if let Some(side) = grid {
        lines.push(format!("patches = tokens[:, {special}:].transpose(1, 2).unflatten(2, ({height}, {width}))"));
        lines.push(format!("patches = adaptive_avg_pool2d(patches, {side}).flatten(2).transpose(1, 2)"));
        lines.push(format!("tokens = cat([tokens[:, :{special}], patches], 1)"));
    }
    lines.push(split);
    match kind {
        TokenKind::Query => {
            let first = if class_token { "tokens[:, 0]".to_owned() } else { mean("tokens") };
            lines.extend(
                [
                    "normed = norm(tokens, \"image_tokens.norm\")",
                    "query = affine(heads[\"image_tokens.probe\"], \"image_tokens.query\").expand(len(tokens), 1, -1)",
                    "key, value = (affine(normed, f\"image_tokens.{part}\") for part in (\"key\", \"value\"))",
                    "found = scaled_dot_product_attention(split(query), split(key), split(value))",
                    "found = affine(found.flatten(1), \"image_tokens.output\")",
                ]
                .map(str::to_owned),
            );
            lines.push(format!("return cat([{first}, found], 1)"));
        }
        TokenKind::Blocks { count, .. } => {
            let is_mapped = matches!(tokens, TokenHead::Blocks(blocks) if blocks.input.is_some());
            lines.push(if is_mapped { "x = affine(tokens, \"image_tokens.input\")" } else { "x = tokens" }.to_owned());
            lines.push(format!("for block in (f\"image_tokens.encoder.blocks.{{n}}\" for n in range({count})):"));
            lines.extend(
                [
                    "    normed, parts = norm(x, f\"{block}.attention_norm\"), (\"query\", \"key\", \"value\")",
                    "    parts = (split(affine(normed, f\"{block}.attention.{part}\")) for part in parts)",
                    "    found = scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)",
                    "    x = x + heads[f\"{block}.attention_scale\"] * affine(found, f\"{block}.attention.output\")",
                    "    normed = norm(x, f\"{block}.mlp_norm\")",
                    "    hidden = silu(affine(normed, f\"{block}.mlp.gate\")) * affine(normed, f\"{block}.mlp.up\")",
                    "    x = x + heads[f\"{block}.mlp_scale\"] * affine(hidden, f\"{block}.mlp.down\")",
                    "x = norm(x, \"image_tokens.norm\")",
                ]
                .map(str::to_owned),
            );
            lines.push(if class_token {
                format!("return cat([x[:, 0], {}], 1)", mean("x"))
            } else {
                format!("return {}", mean("x"))
            });
        }
    }
    lines
}
