//! Data sets that do not fit into memory: an index in files and shuffling within windows change nothing but memory and
//! order, and survive kills, damage and changed shards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::data_forms::{rows, shards};
use crate::soak::{copy_run, outcome};
use crate::support::{Session, stderr};

/// Two sources of the golden pairs: one of which an epoch has half, and one with prompts.
const SOURCES: &str = "validation_fraction = 0.2\n\
                       [[data.train]]\nwebdataset.path = \"shards/{00..01}.tar\"\nweight = 0.5\nonly = \"keys.txt\"\n\
                       [[data.train]]\nwebdataset.path = \"shards\"\ntemplates = \"templates.txt\"\n";

const ONE: &str = "[data.train.webdataset]\npath = \"shards\"\n";

fn session(data: &str) -> Session {
    let session = Session::new();
    session.write_config("");
    session.copy("train/images", "images");
    shards(&session, &rows());
    let config = fs::read_to_string(session.path("lit.toml")).unwrap();
    let (before, after) = config.split_once("[data]").unwrap();
    let train = &after[after.find("[train]").unwrap()..];
    let checkpoint = "[checkpoint]\nevery_steps = 1\nkeep = 100\n";
    session.write("lit.toml", format!("{before}[data]\nshuffle = true\n{data}{train}{checkpoint}"));
    session.write("keys.txt", (0..18).map(|number| format!("{number:02}\n")).collect::<String>());
    session.write("templates.txt", "a photo of a {c}\nthe {c}\n");
    session
}

fn arguments<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume"];
    let always = ["train.batch_size=6", "train.epochs=3"];
    arguments.extend(always.iter().chain(sets).flat_map(|set| ["--set", *set]));
    arguments
}

/// Trains, and returns what it said.
#[track_caller]
fn train(session: &Session, sets: &[&str]) -> String {
    let output = session.run(&arguments(sets));
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    text
}

/// The last step that a run has logged.
fn steps(session: &Session, run: &str) -> u64 {
    session.metrics(run, "train").len() as u64
}

/// The folder of the only index.
fn index(session: &Session) -> PathBuf {
    let entries = fs::read_dir(session.path("index")).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].clone()
}

fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

const INDEX: &str = "data.index_dir=index";

#[test]
fn index_changes_no_result() {
    let session = session(SOURCES);
    train(&session, &["run.dir=memory"]);
    let steps = steps(&session, "memory");
    let expected = outcome(&session, "memory", steps);
    assert!(steps >= 9 && !session.metrics("memory", "eval").is_empty());
    let text = train(&session, &["run.dir=first", INDEX]);
    assert!(text.contains("data index written to") && !text.contains("anew"), "{text}");
    outcome(&session, "first", steps).assert_same(&expected, "with an index that is written");
    let text = train(&session, &["run.dir=second", INDEX]);
    assert!(text.contains("data index read from"), "{text}");
    outcome(&session, "second", steps).assert_same(&expected, "with an index that is there");
    // A run may go from one to the other.
    for (from, sets) in [("memory", &[INDEX][..]), ("first", &[])] {
        let run = format!("from-{from}");
        copy_run(&session.path(from), &session.path(&run), 4, 100);
        train(&session, &[&[&*format!("run.dir={run}")], sets].concat());
        outcome(&session, &run, steps).assert_same(&expected, &run);
    }
}

#[test]
fn damaged_index_is_written_anew() {
    let session = session(ONE);
    train(&session, &["run.dir=memory"]);
    let expected = outcome(&session, "memory", 12);
    train(&session, &["run.dir=first", INDEX]);
    let index = index(&session);
    for (number, file) in
        ["train.texts", "train.image-places", "train.captions-of-images", "manifest.json"].into_iter().enumerate()
    {
        flip_a_byte(&index.join(file));
        let run = format!("again-{number}");
        let text = train(&session, &[INDEX, &format!("run.dir={run}")]);
        assert!(text.contains("was written anew") && text.contains(&format!("{file}` is damaged")), "{text}");
        outcome(&session, &run, 12).assert_same(&expected, file);
    }
    fs::remove_file(index.join("train.text-ends")).unwrap();
    let text = train(&session, &[INDEX, "run.dir=gone"]);
    assert!(text.contains("cannot read") && text.contains("train.text-ends"), "{text}");
    let text = train(&session, &[INDEX, "run.dir=last"]);
    assert!(text.contains("data index read from"), "{text}");
}

#[test]
fn killed_write_leaves_no_index() {
    let session = session(ONE);
    let output = session.command(&arguments(&[INDEX])).env("DUALENC_FAIL_AT", "before_index").output().unwrap();
    assert!(!output.status.success());
    let names = || {
        let entries = fs::read_dir(session.path("index")).unwrap().map(|it| it.unwrap().file_name());
        entries.map(|name| name.into_string().unwrap()).filter(|name| !name.ends_with(".lock")).collect::<Vec<_>>()
    };
    let left = names();
    assert!(left.len() == 1 && left[0].contains(".tmp-"), "{left:?}");
    train(&session, &[INDEX]);
    let left = names();
    assert!(left.len() == 1 && !left[0].contains(".tmp-"), "{left:?}");
    train(&session, &["run.dir=memory"]);
    outcome(&session, "run", 12).assert_same(&outcome(&session, "memory", 12), "after a kill");
}

#[test]
fn changed_shards_are_indexed_again() {
    let session = session(ONE);
    train(&session, &[INDEX, "run.dir=first"]);
    let mut changed = rows();
    changed[3].1 = "another caption".to_owned();
    shards(&session, &changed);
    let error = session.fail(2, &arguments(&[INDEX, "run.dir=first", "train.epochs=4"]));
    assert!(error.contains("train.epochs"), "{error}");
    let error = session.fail(2, &arguments(&[INDEX, "run.dir=first"]));
    assert!(error.contains("the training data have changed since the run started"), "{error}");
    let text = train(&session, &[INDEX, "run.dir=second"]);
    assert!(text.contains("data index read from"), "the refused run wrote it: {text}");
    train(&session, &["run.dir=memory"]);
    let (first, second) = (outcome(&session, "first", 12), outcome(&session, "second", 12));
    second.assert_same(&outcome(&session, "memory", 12), "with changed shards");
    assert_ne!(first.metrics, second.metrics);
    fs::copy(session.path("shards/00.tar"), session.path("shards/03.tar")).unwrap();
    let text = train(&session, &[INDEX, "run.dir=third"]);
    assert!(text.contains("was written anew") && text.contains("03.tar` is new"), "{text}");
}

#[test]
fn runs_share_an_index() {
    let session = session(ONE);
    let runs = ["one", "two", "three"].map(|name| format!("run.dir={name}"));
    let start = |dir: &String| {
        let mut command = session.command(&arguments(&[INDEX, dir]));
        command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = runs.iter().map(start).collect();
    children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
    index(&session);
    let expected = outcome(&session, "one", 12);
    ["two", "three"].into_iter().for_each(|run| outcome(&session, run, 12).assert_same(&expected, run));
}

#[test]
fn windows_resume_exactly() {
    let session = session(ONE);
    let window = "data.shuffle_window=8";
    train(&session, &["run.dir=plain"]);
    let said = train(&session, &["run.dir=whole", window]);
    assert!(!said.contains("shuffle_window"), "{said}");
    let expected = outcome(&session, "whole", 12);
    assert_ne!(outcome(&session, "plain", 12).metrics, expected.metrics, "another order");
    for (step, workers) in [(1, "data.workers=1"), (4, "data.workers=4"), (10, "data.workers=2")] {
        let run = format!("from-{step}");
        copy_run(&session.path("whole"), &session.path(&run), step, 100);
        train(&session, &[&format!("run.dir={run}"), window, workers, INDEX]);
        outcome(&session, &run, 12).assert_same(&expected, &run);
    }
    let run = "killed";
    let dir = format!("run.dir={run}");
    for (lines, delay) in crate::support::kill_moments() {
        let lines = (lines * 12.0) as usize;
        session.kill_after_lines(&arguments(&[&dir, window, INDEX]), run, lines, delay);
    }
    train(&session, &[&dir, window, INDEX]);
    outcome(&session, run, 12).assert_same(&expected, run);
    let error = session.fail(2, &arguments(&["run.dir=whole", "data.shuffle_window=9"]));
    assert!(error.contains("data.shuffle_window: 8 -> 9"), "{error}");
}

#[test]
fn a_window_of_all_samples_is_noted() {
    let session = session(ONE);
    train(&session, &["run.dir=plain", "train.epochs=1"]);
    let said = train(&session, &["run.dir=whole", "train.epochs=1", "data.shuffle_window=1000"]);
    assert!(said.contains("`data.shuffle_window` = 1000, but an epoch has ") && said.contains("one window"), "{said}");
    let [plain, whole] = ["plain", "whole"].map(|run| outcome(&session, run, steps(&session, run)));
    whole.assert_same(&plain, "the order is that of the whole set");
}

#[test]
fn wrong_keys_are_refused() {
    let session = session(ONE);
    for (sets, parts) in [
        (&["data.shuffle_window=0"][..], &["`data.shuffle_window` is 0, expected at least 2"][..]),
        (&["data.shuffle_window=1"], &["is 1, expected at least 2", "set `data.shuffle = false`"]),
        (&["data.shuffle_window=8", "data.shuffle=false"], &["`data.shuffle` is false"]),
        (
            &[INDEX, "data.train.webdataset=", "data.train.csv.path=data.csv"],
            &["`data.train` is not a `webdataset` source", "dualenc data pack"],
        ),
    ] {
        let error = session.fail(2, &arguments(sets));
        parts.iter().for_each(|part| assert!(error.contains(part), "{part}: {error}"));
    }
    session.write("file", "");
    let error = session.fail(2, &arguments(&["data.index_dir=file"]));
    assert!(error.contains("`data.index_dir`: cannot write into") && error.contains("name another folder"), "{error}");
    assert!(!session.path("run/metrics.jsonl").exists());
}
