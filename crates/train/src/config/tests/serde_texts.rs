//! The texts of serde and toml that the loader relies on.

use super::FULL;
use crate::config::RunConfig;

/// The loader recognises errors of serde and toml by these texts (`loading/serde_errors.rs`). If this test fails after
/// an update of `toml` or `serde`, change them there.
#[test]
fn relies_on_serde_texts() {
    let message = |from: &str, to: &str| {
        assert!(FULL.contains(from), "{from:?} is not in the config");
        let error = toml::from_str::<RunConfig>(&FULL.replacen(from, to, 1)).unwrap_err();
        error.message().lines().next().unwrap_or_default().to_owned()
    };
    let cases = [
        ("seed = 7", "sed = 7", "unknown field `sed`, expected one of `dir`, `seed`, "),
        ("locked = true", "lock = true", "unknown field `lock`, expected `locked` or `whitening`"),
        ("[data.train.jsonl]", "[data.train.jsn]", "unknown field `jsn`, expected one of `csv`, `tsv`, "),
        ("\"linear\"", "\"line\"", "unknown variant `line`, expected one of `cosine`, "),
        ("path = \"pairs.jsonl\"\n", "", "missing field `path`"),
        ("schedule = \"linear\"", "schedule = 3", "wanted string or table"),
        ("batch_size = 64", "batch_size = '6'", "invalid type: string \"6\", expected usize"),
        ("every_steps = 100", "every_steps = -1", "invalid value: integer `-1`, expected u64"),
        ("lock = \"uU\"", "lock = \"uU\"\nimage_layer = [1, 'x']", "invalid type: string \"x\", expected i64"),
        ("clip_grad_norm = 0", "clip_grad_norm = true", "invalid type: boolean `true`, expected f64"),
        ("shuffle = false", "shuffle = 3", "invalid type: integer `3`, expected a boolean"),
        ("device = \"cuda:1\"", "device = 1", "invalid type: integer `1`, expected a string"),
        ("dir = \"/elsewhere/run\"", "dir = 1", "invalid type: integer `1`, expected path string"),
        ("root = \"images\"", "delimiter = 1", "unknown field `delimiter`, expected one of `path`, "),
        ("betas = [0.8, 0.95]", "betas = 1", "invalid type: integer `1`, expected an array of length 2"),
        ("image_projection = { locked = true }", "image_projection = 1", "invalid type: integer `1`, expected struct "),
        ("[eval.a-1]", "[eval]\nb = 1\n[eval.a-1]", "invalid type: integer `1`, expected struct EvalSection"),
        (
            "lock = \"uU\"",
            "lock = \"uU\"\nimage_lora = { rank = 1, targets = 1 }",
            "invalid type: integer `1`, expected a sequence",
        ),
    ];
    for (from, to, expected) in cases {
        let found = message(from, to);
        assert!(found.starts_with(expected), "{to:?} gives {found:?}");
    }
    let map = toml::from_str::<RunConfig>("eval = 1").unwrap_err();
    assert_eq!(map.message(), "invalid type: integer `1`, expected a map");
    let csv = toml::from_str::<dualenc_data::CsvSource>("delimiter = 1").unwrap_err();
    assert_eq!(csv.message(), "invalid type: integer `1`, expected a character");
}
