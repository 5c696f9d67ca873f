//! `dualenc eval --model RUN`: the evaluations of a run's own config.

use std::fs;

use serde_json::Value;

use crate::support::{Session, goldens, stderr};

/// A finished run with two evaluations, and no other config.
fn session() -> Session {
    let session = Session::new();
    session.write_config(
        "[eval.pairs]\ntask = \"retrieval\"\ndata = \"pairs.csv\"\n\
         [eval.held]\ntask = \"loss\"\ndata = \"pairs.csv\"\npool_size = 8\n",
    );
    let text = fs::read_to_string(goldens("train/train.csv")).unwrap();
    session.write("pairs.csv", text.replace("images/", &format!("{}/images/", goldens("train").display())));
    session.succeed(&["train", "--config", "lit.toml", "--set", "train.epochs=1"]);
    session
}

#[test]
fn run_is_evaluated_by_its_own_config() {
    let session = session();
    let eval = |arguments: &[&str]| -> Value {
        serde_json::from_str(&session.succeed(&[&["eval", "--json", "-"], arguments].concat())).unwrap()
    };
    let expected = eval(&["--config", "lit.toml"]);
    assert!(expected["evaluations"]["pairs"].is_object() && expected["evaluations"]["held"].is_object(), "{expected}");
    fs::remove_file(session.path("lit.toml")).unwrap();
    let expected = &expected["evaluations"];
    assert_eq!(&eval(&["--model", "run"])["evaluations"], expected);
    assert_eq!(&eval(&["--model", "run/checkpoints/step-000003"])["evaluations"], expected);
    // A run that was moved, and narrower embeddings.
    fs::rename(session.path("run"), session.path("moved")).unwrap();
    let moved = eval(&["--model", "moved"]);
    assert_eq!(&moved["evaluations"], expected);
    assert_eq!((&moved["model"], &moved["step"], moved.get("dim")), (&"moved".into(), &3.into(), None));
    let narrow = eval(&["--model", "moved", "--dim", "2"]);
    assert_ne!(narrow["evaluations"]["held"]["loss"], expected["held"]["loss"]);
    assert_eq!(narrow["dim"], 2);
}

#[test]
fn what_has_no_evaluations_needs_a_task() {
    let session = session();
    let fail = |arguments: &[&str]| {
        let text = session.fail(2, &[&["eval"], arguments].concat());
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let text = fail(&["--model", goldens("train/init").to_str().unwrap()]);
    assert!(text.contains("is no run or checkpoint") && text.contains("`--task`"), "{text}");
    let text = fail(&["--model", "run", "--data", "pairs.csv"]);
    assert!(text.contains("`--data` is an option of one task") && text.contains("`retrieval`"), "{text}");
    let text = fail(&["--model", "run", "--config", "lit.toml"]);
    assert!(text.contains("`--config FILE --checkpoint DIR`") && text.contains("`--model RUN`"), "{text}");
    session.succeed(&["train", "--config", "lit.toml", "--set", "eval=", "--set", "run.dir=bare"]);
    let text = fail(&["--model", "bare"]);
    assert!(text.contains("`bare/config.toml`, has no `[eval.NAME]` section"), "{text}");
}

/// A run in `run` that held out 0.3 of the pairs in `a/train.csv`, and its figures.
fn with_split() -> (Session, Value) {
    let session = Session::new();
    session.copy("train/images", "a/images");
    session.write("a/train.csv", fs::read_to_string(goldens("train/train.csv")).unwrap());
    session.write_pairs("pairs.csv");
    session.write_config("[eval.held]\ntask = \"loss\"\npool_size = 2\n");
    session.succeed(&[&["train", "--config", "lit.toml", "--set", "train.epochs=1"], &SPLIT[..]].concat());
    let (figures, _) = evaluated(&session, &[]);
    (session, figures)
}

const SPLIT: [&str; 4] = ["--set", "data.train.csv.path=a/train.csv", "--set", "data.validation_fraction=0.3"];

/// The figures of the run with more keys set, and what was said.
fn evaluated(session: &Session, sets: &[&str]) -> (Value, String) {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let command: Vec<&str> =
        ["eval", "--config", "lit.toml", "--json", "-"].into_iter().chain(SPLIT).chain(sets).collect();
    let output = session.run(&command);
    assert!(output.status.success(), "{}", stderr(&output));
    (serde_json::from_slice(&output.stdout).unwrap(), in_one_line(&stderr(&output)))
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn other_validation_split_is_refused() {
    let (session, figures) = with_split();
    let refused = |command: &[&str], sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        in_one_line(&session.fail(2, &command.iter().copied().chain(SPLIT).chain(sets).collect::<Vec<_>>()))
    };
    let eval = ["eval", "--config", "lit.toml"];
    for fraction in ["0.6", "0.1"] {
        let text = refused(&eval, &[&format!("data.validation_fraction={fraction}")]);
        for expected in [
            "the evaluation `held` uses",
            "which may have been trained on them",
            &format!("data.validation_fraction: 0.3 in the run, {fraction} here"),
            "with `data` in `[eval.held]`",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
    let text = refused(&[&eval[..], &["--checkpoint", "run"]].concat(), &["data.validation_fraction=0.6"]);
    assert!(text.contains("0.3 in the run, 0.6 here"), "{text}");
    let interpolate = ["interpolate", "--model", "run", "--alpha", "0,1", "--config", "lit.toml"];
    assert!(refused(&interpolate, &["data.validation_fraction=0.6"]).contains("0.3 in the run, 0.6 here"));
    // Paths that start at another folder are split otherwise.
    let text = refused(&eval, &["data.train.csv.path=pairs.csv"]);
    assert!(text.contains("data.train.csv.path: ") && text.contains("a/train.csv\" in the run"), "{text}");
    // The same data in another place are split alike.
    fs::rename(session.path("a"), session.path("b")).unwrap();
    let (moved, said) = evaluated(&session, &["data.train.csv.path=b/train.csv"]);
    assert_eq!(moved, figures);
    assert!(!said.contains("warning"), "{said}");
    let table = fs::read_to_string(session.path("b/train.csv")).unwrap();
    session.write("b/train.csv", table.lines().take(20).collect::<Vec<_>>().join("\n"));
    assert!(refused(&eval, &["data.train.csv.path=b/train.csv"]).contains("data.train.csv.path: "));
}

#[test]
fn evaluations_without_split_are_free() {
    let (session, figures) = with_split();
    let sets = ["eval.held.data=pairs.csv", "eval.validation={task='retrieval', data='pairs.csv'}"];
    let (found, said) = evaluated(&session, &[&sets[..], &["data.validation_fraction=0.6"]].concat());
    assert!(found["evaluations"]["validation"].is_object() && !said.contains("warning"), "{found} {said}");
    let sets = ["eval.held.batch_size=3", "train.learning_rate=1e-5", "run.seed=9", "data.max_pixels=4000000"];
    let (found, said) = evaluated(&session, &sets);
    assert!(found == figures && !said.contains("warning"), "{found} {said}");
}

#[test]
fn keys_of_model_and_loss_are_those_of_run() {
    let (session, figures) = with_split();
    let (found, said) = evaluated(&session, &["data.max_tokens=8", "train.loss=sigmoid"]);
    assert_eq!(found, figures);
    for expected in [
        "keys of the config that do not apply, because the model and its loss are those of",
        "`data.max_tokens`: 8 (the run has 64)",
        "`train.loss`: \"sigmoid\" (the run has \"softmax\")",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
