//! Rows and images that cannot be used: found before the first step where that is cheap, counted by cause, and listed.

use std::fs;

use serde_json::Value;

use crate::data_forms::rows;
use crate::support::{Session, copy_run_at, stderr};

/// The golden pairs, with a missing, an empty and a damaged image and one row without a caption.
fn session() -> Session {
    let session = Session::new();
    session.write_config("[checkpoint]\nevery_steps = 1\nkeep = 100\n");
    session.copy("train/images", "images");
    fs::remove_file(session.path("images/05.png")).unwrap();
    session.write("images/09.png", "");
    session.write("images/12.png", "<!DOCTYPE html>not found");
    let line = |(image, caption): &(String, String)| format!("{image},\"{caption}\"\n");
    let table = rows().iter().map(line).collect::<String>();
    session.write("data.csv", format!("image,caption\nimages/00.png,\n{table}"));
    session
}

fn arguments<'a>(dir: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let always = ["data.train.csv.path=data.csv", "data.shuffle=true", "train.epochs=2", dir];
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume"];
    arguments.extend(always.iter().chain(sets).flat_map(|set| ["--set", *set]));
    arguments
}

fn list(session: &Session, run: &str) -> String {
    fs::read_to_string(session.path(run).join("bad_samples.jsonl")).unwrap()
}

#[test]
fn bad_samples_are_listed_by_cause() {
    let session = session();
    let output = session.run(&arguments("run.dir=whole", &["data.max_bad_fraction=0.2"]));
    let log = stderr(&output);
    assert!(output.status.success(), "{log}");
    let whole = list(&session, "whole");
    let lines: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let field = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("kind"), ["row", "image", "image", "image"]);
    assert_eq!(field("cause"), ["empty caption", "not found", "empty file", "not an image"]);
    assert_eq!(lines[0]["row"], 2);
    assert!(lines[0]["source"].as_str().unwrap().ends_with("data.csv"));
    assert!(lines[1]["key"].as_str().unwrap().ends_with("05.png"));
    let summary = "3 images could not be used: empty file (1), not an image (1), not found (1); 1 rows could not be \
                   used: empty caption (1); see `";
    assert!(log.contains(summary), "{log}");

    // A resumed run has the same list, even if a killed process had found more.
    copy_run_at(&session.path("whole"), &session.path("resumed"), 1);
    fs::write(session.path("resumed").join("bad_samples.jsonl"), whole.clone() + "{\"kind\":\"image\"}\n{\"ki")
        .unwrap();
    session.succeed(&arguments("run.dir=resumed", &["data.max_bad_fraction=0.2"]));
    assert_eq!(list(&session, "resumed"), whole);
    let losses = |run: &str| session.metrics(run, "train").iter().map(|line| line["loss"].clone()).collect::<Vec<_>>();
    assert_eq!(losses("resumed"), losses("whole"));
}

#[test]
fn healthy_runs_have_no_list() {
    let session = Session::new();
    session.write_config("");
    let log = stderr(&session.run(&["train", "--config", "lit.toml", "--set", "train.epochs=1"]));
    assert!(!session.path("run/bad_samples.jsonl").exists());
    assert!(!log.contains("could not be used"), "{log}");
}

#[test]
fn missing_files_stop_a_run_at_once() {
    let session = session();
    fs::remove_dir_all(session.path("images")).unwrap();
    let error = session.fail(2, &arguments("run.dir=run", &["data.max_bad_fraction=0.5"]));
    let expected = "24 of 24 images cannot be used, more than `data.max_bad_fraction` = 0.5 allows: not found (24)\n";
    assert!(error.contains(expected), "{error}");
    assert!(error.contains("05.png: cannot be read: No such file") && !error.contains("step"), "{error}");
    assert!(!session.path("run/bad_samples.jsonl").exists(), "a refused run changes nothing");
}

#[test]
fn absent_and_empty_files_are_counted_together() {
    let session = session();
    let error = session.fail(2, &arguments("run.dir=run", &["data.max_bad_fraction=0.05"]));
    assert!(error.contains("2 of 24 images cannot be used"), "{error}");
    assert!(error.contains("allows: empty file (1), not found (1)\n"), "{error}");
}
