//! An output never replaces an input of its command: that is refused before any work, and the file stays as it is.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{Session, embedded, goldens};

/// Runs a command that would replace `file`. Asserts that it is refused and that the file stays as it is.
#[track_caller]
fn refused(session: &Session, file: &str, arguments: &[&str]) {
    let before = fs::read(session.path(file)).unwrap();
    let text = session.fail(2, arguments);
    assert!(text.contains("would replace") && text.contains("name another file"), "{arguments:?}: {text}");
    assert_eq!(fs::read(session.path(file)).unwrap(), before, "{file}");
}

#[test]
fn outputs_spare_the_inputs_of_commands_with_a_model() {
    let (session, model) = embedded();
    session.write_pairs("pairs.csv");
    symlink("pairs.csv", session.path("link.csv")).unwrap();
    let model = ["--model", &model];
    let with_model = |command: &str, more: &[&str]| -> Vec<String> {
        std::iter::once(command).chain(model).chain(more.iter().copied()).map(str::to_owned).collect()
    };
    for (file, command, more) in [
        ("pairs.csv", "eval", &["--task", "retrieval", "--data", "pairs.csv", "--json", "pairs.csv"][..]),
        ("pairs.csv", "eval", &["--task", "loss", "--data", "pairs.csv", "--json", "link.csv"]),
        ("pairs.csv", "eval", &["--task", "loss", "--data", "link.csv", "--json", "./pairs.csv"]),
        ("images/00.png", "eval", &["--task", "zero-shot", "--images", ".", "--json", "images/00.png"]),
        ("pairs.csv", "embed", &["--images", "pairs.csv", "--out", "pairs.csv"]),
        ("texts.txt", "embed", &["--texts", "texts.txt", "--out", "texts.txt"]),
        ("images/00.png", "embed", &["--images", "images", "--out", "images/00.png"]),
        ("texts.txt", "classify", &["--labels", "texts.txt", "images", "--json", "texts.txt"]),
        ("images/00.png", "classify", &["--labels", "a,b", "images/00.png", "--json", "images/00.png"]),
        ("embeds.safetensors", "search", &["--index", "embeds.safetensors", "a", "--json", "embeds.safetensors"]),
        (
            "images/00.png",
            "search",
            &["--index", "embeds.safetensors", "--image", "images/00.png", "--html", "images/00.png"],
        ),
    ] {
        let arguments = with_model(command, more);
        refused(&session, file, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }
    refused(&session, "embeds.safetensors", &["index", "embeds.safetensors", "--out", "embeds.safetensors"]);
    let arguments = with_model("search", &["--index", "embeds.safetensors", "a", "--json", "x", "--html", "x"]);
    let text = session.fail(2, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(text.contains("`--json` and `--html` name the same file"), "{text}");

    // An output of before is no input.
    for _ in 0..2 {
        let more = ["--images", "images", "--out", "images/embeds.safetensors"];
        session.succeed(&[&["embed"], &model[..], &more].concat());
    }
}

#[test]
fn outputs_spare_what_a_config_names() {
    let session = Session::new();
    session.write_pairs("pairs.csv");
    session.write("templates.txt", "a photo of {c}\n");
    session.write_config(
        "[eval.pairs]\ntask = \"loss\"\ndata = \"pairs.csv\"\npool_size = 4\n\
         [eval.classes]\ntask = \"zero-shot\"\nimages = \"classes\"\ntemplates = \"templates.txt\"\n",
    );
    for (class, image) in [("red", "00.png"), ("blue", "01.png")] {
        session.write(&format!("classes/{class}/0.png"), fs::read(goldens("train/images").join(image)).unwrap());
    }
    let config = ["--config", "lit.toml", "--json"];
    for command in ["check", "plan", "eval", "fit"] {
        for file in ["lit.toml", "pairs.csv", "templates.txt", "classes/red/0.png"] {
            refused(&session, file, &[&[command], &config[..], &[file]].concat());
        }
    }
    let select = ["select", "--config", "lit.toml", "--near", "0.9", "--out", "rows.txt", "--json", "pairs.csv"];
    refused(&session, "pairs.csv", &select);

    session.succeed(&["train", "--config", "lit.toml"]);
    let weights = "run/checkpoints/step-000012/model.safetensors";
    for (file, arguments) in [
        ("run/metrics.jsonl", &["metrics", "run", "--out", "run/metrics.jsonl"][..]),
        ("run/config.toml", &["report", "run", "--no-model", "--out", "run/config.toml"]),
        ("pairs.csv", &["report", "run", "--no-model", "--out", "pairs.csv"]),
        ("run/metrics.jsonl", &["compare", "run", "run", "--out", "run/metrics.jsonl"]),
        ("pairs.csv", &["eval", "--model", "run", "--json", "pairs.csv"]),
        ("pairs.csv", &["interpolate", "--model", "run", "--alpha", "0.5", "--json", "pairs.csv"]),
        (weights, &["inspect", "run", "--json", weights]),
    ] {
        refused(&session, file, arguments);
    }
    // What a command wrote before is replaced.
    for _ in 0..2 {
        session.succeed(&["metrics", "run", "--out", "run/metrics.csv"]);
        session.succeed(&["eval", "--model", "run", "--json", "run/eval.json"]);
    }
}
