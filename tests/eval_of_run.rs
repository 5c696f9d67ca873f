//! `dualenc eval --model RUN`: the evaluations of a run's own config.

use std::fs;

use serde_json::Value;

use crate::support::{Session, goldens};

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
