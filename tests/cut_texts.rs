//! Texts that are longer than the text tower reads are cut, and wherever that happens it is said how many.

use crate::support::{Session, stderr};

/// Most tokens of the runs below.
const LIMIT: &str = "data.max_tokens=8";

/// What is said of texts that are cut.
const CUT: &str = "longer than 8 tokens and";

const LONG: [&str; 2] = ["a small red circle and a large green square", "a small red circle and a large green star"];

/// The golden pairs as `pairs.csv`, and a config.
fn session(more: &str) -> Session {
    let session = Session::new();
    session.write_pairs("pairs.csv");
    session.write("texts.txt", format!("a cat\n{}\n{}\n", LONG[0], LONG[1]));
    session.write_config(more);
    session
}

/// Runs a command, asserts success, and returns stderr.
#[track_caller]
fn log(session: &Session, arguments: &[&str]) -> String {
    let output = session.run(arguments);
    let text = stderr(&output);
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

fn with_sets<'a>(command: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let sets = sets.iter().flat_map(|set| ["--set", *set]);
    [command, "--config", "lit.toml"].into_iter().chain(sets).collect()
}

#[test]
fn runs_count_texts_that_they_cut() {
    let session = session("[eval.pairs]\ntask = \"retrieval\"\ndata = \"pairs.csv\"\nevery_epochs = 1\n");
    let text = log(&session, &with_sets("train", &[LIMIT, "train.epochs=2"]));
    assert!(text.contains(&format!("of 24 captions are {CUT} are cut; shorten them, or raise")), "{text}");
    // Once, though the evaluation runs three times.
    let of_evaluation = text.lines().filter(|line| line.contains("evaluation `pairs`: ") && line.contains(CUT));
    assert_eq!(of_evaluation.count(), 1, "{text}");
    let text = log(&session, &with_sets("eval", &[LIMIT]));
    assert!(text.contains("evaluation `pairs`: ") && text.contains(CUT), "{text}");
    // Captions that are drawn anew in each epoch are counted as they are drawn.
    let sets = [LIMIT, "train.epochs=2", "data.word_dropout=0.01", "run.dir=dropped", "eval={}"];
    let text = log(&session, &with_sets("train", &sets));
    assert!(text.contains("seen so far are") && text.contains(CUT), "{text}");
    // All texts fit.
    let text = log(&session, &with_sets("train", &["train.epochs=1", "run.dir=whole"]));
    assert!(!text.contains("are cut"), "{text}");

    let text = log(&session, &with_sets("cache", &[LIMIT, "model.lock=UL", "run.dir=cached"]));
    assert!(text.contains("features of the locked text tower: ") && text.contains(CUT), "{text}");
}

#[test]
fn commands_count_texts_that_they_cut() {
    let session = session("");
    session.succeed(&with_sets("train", &[LIMIT, "train.epochs=1"]));
    session.copy("train/images", "images");
    let model = ["--model", "run"];
    let run = |command: &str, more: &[&str]| log(&session, &[&[command], &model[..], more].concat());
    for task in [&["retrieval"][..], &["loss", "--pool-size", "8"]] {
        let text = run("eval", &[&["--data", "pairs.csv", "--task"], task].concat());
        assert!(text.contains("captions are longer than 8 tokens and are cut; shorten them"), "{task:?}: {text}");
    }
    session.write("classes/a/0.png", std::fs::read(session.path("images/00.png")).unwrap());
    session.write("classes/b/0.png", std::fs::read(session.path("images/01.png")).unwrap());
    session.write("names.txt", format!("a cat\n{}\n", LONG[0]));
    let text = run("eval", &["--task", "zero-shot", "--images", "classes", "--classnames", "names.txt"]);
    assert!(text.contains("1 of 2 prompts is longer than 8 tokens and is cut"), "{text}");

    let text = run("embed", &["--images", "images", "--texts", "texts.txt", "--out", "e.safetensors"]);
    assert!(text.contains("2 of 3 texts are longer than 8 tokens and are cut"), "{text}");
    assert!(text.contains("warning: ") && text.contains("1 text is then the same to the model"), "{text}");
    let text = run("search", &["--index", "e.safetensors", LONG[0]]);
    assert!(text.contains("1 of 1 text is longer than 8 tokens and is cut"), "{text}");
    let text = run("classify", &["--labels", &LONG.join(","), "images/00.png"]);
    assert!(text.contains("2 of 2 labels are longer than 8 tokens and are cut"), "{text}");
    assert!(text.contains(&format!("such as `{}` as `{}`", LONG[1], LONG[0])), "{text}");

    session.write("long.csv", {
        let rows = (0..24).map(|n| format!("images/{n:02}.png,{}\n", "red circle ".repeat(300)));
        format!("image,caption\n{}", rows.collect::<String>())
    });
    for (folder, golden) in [("vit", "train/vit"), ("bert", "train/bert")] {
        session.copy(golden, folder);
    }
    let probe = ["probe", "--image-towers", "vit", "--text-towers", "bert", "--data", "long.csv"];
    let text = log(&session, &probe);
    assert!(text.contains("text tower `bert`: 24 of 24 captions are longer than"), "{text}");
}

#[cfg(feature = "serve")]
#[test]
fn server_says_once_that_it_cuts_texts() {
    use serde_json::json;

    use crate::serve::Server;

    let session = session("");
    session.succeed(&with_sets("train", &[LIMIT, "train.epochs=1"]));
    let server = Server::start(&session, &["--model", "run"]);
    for _ in 0..2 {
        server.post_json("/embed", &json!({ "texts": LONG }));
    }
    let text = server.end();
    assert_eq!(text.matches("2 of 2 texts are longer than 8 tokens and are cut").count(), 1, "{text}");
}
