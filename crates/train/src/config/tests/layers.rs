//! `image_layer` and `text_layer`: a number or a list.

use super::{BASE, errors, load};

fn with(line: &str) -> String {
    BASE.replacen("lock = \"LU\"", &format!("lock = \"LU\"\n{line}"), 1)
}

#[test]
fn layer_is_a_number_or_a_list() {
    for (line, written) in [
        ("image_layer = 9", "image_layer = 9\n"),
        ("image_layer = [-2]", "image_layer = -2\n"),
        ("image_layer = [9, 11, 10]", "image_layer = [9, 11, 10]\n"),
        ("text_layer = 4", "image_layer = -1\n"),
    ] {
        let config = load(&with(line), &[]).unwrap();
        let text = config.to_toml().unwrap();
        assert!(text.contains(written), "{line}: {text}");
        assert_eq!(load(&text, &[]).unwrap(), config, "{line}");
    }
    let listed = |argument: &str| load(BASE, &[argument]).unwrap().model.text_layer.numbers().to_vec();
    assert_eq!((listed("model.text_layer=[4, 5, -1]"), listed("model.text_layer=4")), (vec![4, 5, -1], vec![4]));
}

#[test]
fn wrong_layers() {
    let found = |line: &str| errors(&[("lock = \"LU\"", &format!("lock = \"LU\"\n{line}"))], &[]);
    for (line, expected) in [
        (
            "image_layer = 0",
            "run.toml:8:15: `model.image_layer` is 0, expected 1 or more, or -1 (the last layer) or less",
        ),
        (
            "image_layer = [1, 0]",
            "run.toml:8:15: `model.image_layer` is [1, 0], expected 1 or more, or -1 (the last layer) or less",
        ),
        (
            "text_layer = []",
            "run.toml:8:14: `model.text_layer` lists no layer\n  help: remove the key to pool the last layer",
        ),
        (
            "text_layer = [4, 5, 4]",
            "run.toml:8:14: `model.text_layer` lists layer 4 twice\n  help: list each layer once",
        ),
        (
            "image_layer = \"last\"",
            "run.toml:8:15: `model.image_layer` is the string \"last\", expected the number of a layer, or a list of \
             such numbers",
        ),
        ("image_layer = [1, \"2\"]", "run.toml:8:19: `model.image_layer[1]` is the string \"2\", expected an integer"),
        ("image_layer = 2.5", "run.toml:8:15: `model.image_layer` is the number 2.5, expected the number of a layer"),
    ] {
        let found = found(line);
        assert!(found.starts_with(&format!("1 problem in the config `run.toml`\n{expected}")), "{found}");
    }
}
