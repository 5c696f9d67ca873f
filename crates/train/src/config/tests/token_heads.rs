//! `model.image_head.tokens`: defaults, and the message for each broken rule.

use dualenc_model::{TokenForm, TokenKind};

use super::{BASE, errors, load};
use crate::config::changed_keys;

#[test]
fn defaults_of_tokens() {
    let form = |sets: &[&str]| load(BASE, sets).unwrap().model.image_head.token_form();
    assert_eq!(form(&[]), None);
    let query = TokenForm { kind: TokenKind::Query, width: 256, heads: 4, grid: None };
    assert_eq!(form(&["model.image_head.tokens=query"]), Some(query));
    let blocks = TokenForm { kind: TokenKind::Blocks { count: 2, drop_path: 0.1 }, ..query };
    assert_eq!(form(&["model.image_head.tokens=blocks"]), Some(blocks));
    let set = "model.image_head={tokens='blocks', token_width=384, token_blocks=1, token_drop_path=0, token_grid=8}";
    let wide = TokenForm { kind: TokenKind::Blocks { count: 1, drop_path: 0.0 }, width: 384, heads: 6, grid: Some(8) };
    assert_eq!(form(&[set]), Some(wide));
    assert_eq!(form(&["model.image_head={tokens='query', token_width=32}"]).unwrap().heads, 1);
    for set in ["model.image_head.tokens=query", set] {
        // What is written to a run reads back as the same, and written defaults are no change.
        let config = load(BASE, &[set]).unwrap();
        let written = load(&config.to_toml().unwrap(), &[]).unwrap();
        assert_eq!(written, config);
        assert!(changed_keys(&config, &written).is_empty());
    }
    // Without the key, nothing about tokens is written.
    assert!(!load(BASE, &[]).unwrap().to_toml().unwrap().contains("token_"));
}

#[test]
fn conflicts_of_tokens() {
    let heads = "[model.image_head]\ntokens = \"query\"\ntoken_width = 250\ntoken_heads = 4\ntoken_blocks = 1\n\
                 [model.text_head]\ntokens = \"blocks\"\n\n[data.train.csv]";
    assert_eq!(
        errors(&[("[data.train.csv]", heads)], &[]),
        [
            "3 problems in the config `run.toml`",
            "run.toml:11:15: `token_width` is 250, which 4 attention heads do not divide",
            "  help: choose a multiple of 64, or set `token_heads`",
            "run.toml:13:16: `model.image_head.token_blocks` is set, but `model.image_head.tokens = \"query\"` has \
             none",
            "  help: remove the key",
            "run.toml:15:10: `model.text_head.tokens` is set, but only an image head takes tokens",
            "  help: remove the key",
        ]
        .join("\n")
    );
    for (sets, reason) in [
        (&["model.image_head.token_width=8"][..], "`model.image_head.tokens` is not"),
        (
            &["model.image_head={tokens='query', token_width=0}"],
            "`model.image_head.token_width` is 0, expected at least",
        ),
        (
            &["model.image_head={tokens='blocks', token_drop_path=1}"],
            "`model.image_head.token_drop_path` is 1, expected 0 or more",
        ),
        (
            &["model.image_head.tokens=query", "model.image_pool=mean"],
            "`model.image_head.tokens` is `query`, but `model.image_pool` asks for a pooled output",
        ),
        (
            &["model.image_head.tokens=blocks", "model.image_layer=[1, 2]"],
            "`model.image_head.tokens` is `blocks`, but `model.image_layer` lists several layers",
        ),
        (
            &["model.image_head.tokens=query", "model.image_projection.whitening=0.5"],
            "`model.image_projection.whitening` is 0.5, but the image head takes all tokens",
        ),
        (
            &["model.image_head.tokens=query", "model.head_init=cca"],
            "`model.head_init` is `cca`, but `model.image_head.tokens` takes all tokens",
        ),
        (&["model.image_head.tokens=all"], "all"),
        (
            &["model.image_head.tokens=query", "model.init=org/m", "model.image_tower=", "model.text_tower="],
            "`model.init` has an image head already",
        ),
    ] {
        let found = errors(&[], sets);
        assert!(found.contains(reason), "{sets:?}: {found}");
    }
}
