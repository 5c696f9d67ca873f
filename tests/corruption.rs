//! Damage to a checkpoint, seen from the command line: it is named, an older checkpoint takes over, and a checkpoint
//! that the user names is refused. More mutations are in `crates/train/src/run_dir/checkpoint/tests/mutations.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::soak::{Draws, figure, outcome, scaled, whole_checkpoints};
use crate::support::{Session, assert_close, column, goldens, stderr};

const STEPS: u64 = 12;

const RESUME: [&str; 4] = ["train", "--config", "lit.toml", "--resume"];

fn session() -> Session {
    let session = Session::new();
    session.write_config("ema_decay = 0.9\n[checkpoint]\nevery_steps = 4\nkeep = 3\n");
    session
}

/// Damages a file in one of six ways; returns which.
fn damage(draws: &mut Draws, path: &Path) -> &'static str {
    let mut bytes = fs::read(path).unwrap();
    let at = draws.below(bytes.len());
    let kind = match draws.below(6) {
        0 => {
            bytes[at] ^= 1 << draws.below(8);
            "flipped bit"
        }
        1 => {
            bytes.truncate(at);
            "truncation"
        }
        2 => {
            bytes.extend(vec![b'x'; 1 + draws.below(600)]);
            "appended bytes"
        }
        3 => {
            let end = bytes.len().min(at + 1 + draws.below(512));
            let before = bytes[at..end].to_vec();
            bytes[at..end].fill(0);
            // Zeros over zeros are no damage.
            if bytes[at..end] == before[..] {
                bytes[at] = 0xff;
            }
            "zeroed block"
        }
        4 => {
            bytes.clear();
            "empty file"
        }
        _ => {
            fs::remove_file(path).unwrap();
            return "deleted file";
        }
    };
    fs::write(path, bytes).unwrap();
    kind
}

/// The files of a checkpoint, sorted by name.
fn files(checkpoint: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(checkpoint).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 5, "{files:?}");
    files
}

#[test]
fn damage_is_named_and_survived() {
    let session = session();
    session.succeed(&[RESUME.as_slice(), &["--set", "run.dir=whole"]].concat());
    let whole = outcome(&session, "whole", STEPS);
    let images = goldens("train/images");
    let images = images.to_str().unwrap();
    let pairs = goldens("train/train.csv");
    let pairs = pairs.to_str().unwrap();
    let mut draws = Draws::new("damage_is_named_and_survived");
    let count = scaled(15);
    for round in 0..count {
        let name = format!("run-{round}");
        let run = session.path(&name);
        crate::soak::copy_run(&session.path("whole"), &run, STEPS, 3);
        let newest = run.join("checkpoints/step-000012");
        let files = files(&newest);
        let file = &files[round as usize % files.len()];
        let kind = damage(&mut draws, file);
        let what = format!("{round}: {kind} of {}", file.file_name().unwrap().display());

        // Named by the user: refused by every command that reads it.
        let checkpoint = format!("{name}/checkpoints/step-000012");
        let text = match round % 3 {
            0 => session.fail(2, &["embed", "--model", &checkpoint, "--images", images, "--out", "x.safetensors"]),
            1 => session.fail(2, &["export", "--model", &checkpoint, "--out", "hf"]),
            _ => session.fail(2, &["eval", "--model", &checkpoint, "--task", "retrieval", "--data", pairs]),
        };
        assert!(text.contains("step-000012"), "{what}: {text}");
        assert!(!session.path("x.safetensors").exists() && !session.path("hf").exists(), "{what}");

        // Found by `--resume`: named and skipped.
        let output = session.run(&[RESUME.as_slice(), &["--set", &format!("run.dir={name}")]].concat());
        let text = stderr(&output);
        assert!(output.status.success(), "{what}: {text}");
        let warning = text.lines().find(|line| line.starts_with("warning") && line.contains("step-000012"));
        assert!(warning.is_some_and(|line| line.contains("resuming from the checkpoint of step 8")), "{what}: {text}");
        assert!(text.contains("resuming after step 8"), "{what}: {text}");
        assert_eq!(whole_checkpoints(&run), [4, 8, 12], "{what}");
        outcome(&session, &name, STEPS).assert_same(&whole, &what);
        fs::remove_dir_all(run).unwrap();
    }
    figure("damage_is_named_and_survived", &format!("{count} of {count} detected, the older one used"));
}

/// A run that the program of the format's time wrote: LL, 16 steps, stopped after step 14 with its newest checkpoint at
/// step 12, averaged weights, a best checkpoint.
#[test]
fn old_formats_still_resume() {
    for format in ["v1", "v2"] {
        let session = Session::new();
        copy_tree(&goldens("checkpoints").join(format), &session.path(""));
        session.copy("train/init", "init");
        session.copy("train/images", "images");
        session.write("data.csv", fs::read(goldens("train/train.csv")).unwrap());
        assert_eq!(whole_checkpoints(&session.path("run")), [12]);
        let output = session.run(&RESUME);
        let text = stderr(&output);
        assert!(output.status.success() && text.contains("resuming after step 12"), "{format}: {text}");
        session.succeed(&[RESUME.as_slice(), &["--set", "run.dir=whole"]].concat());
        let [resumed, whole] = ["run", "whole"].map(|run| {
            let lines = session.metrics(run, "train");
            assert_eq!(column(&lines, "step"), (1..=16).map(f64::from).collect::<Vec<_>>(), "{format}");
            column(&lines, "loss")
        });
        // Other processors round differently from the one that wrote the file.
        assert_close("loss", &resumed, &whole, 1e-4);
        // The run is older than the evaluation before the first step.
        let [resumed, whole] = ["run", "whole"].map(|run| column(&session.metrics(run, "eval"), "step"));
        assert_eq!([&[0.0][..], &resumed].concat(), whole, "{format}");
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn newer_format_is_refused() {
    let session = session();
    session.succeed(&[RESUME.as_slice(), &["--set", "run.dir=run"]].concat());
    let manifest = session.path("run/checkpoints/step-000012/manifest.json");
    // Its other fields, and whether it ends with a checksum, are for the newer program to know.
    let mut newer: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    newer["format"] = 999.into();
    newer.as_object_mut().unwrap().remove("checksum");
    fs::write(&manifest, newer.to_string()).unwrap();
    let log = fs::read(session.path("run/metrics.jsonl")).unwrap();
    // An older checkpoint is there, but a newer program has gone on from it.
    for arguments in [RESUME.as_slice(), &["export", "--model", "run/checkpoints/step-000012", "--out", "hf"]] {
        let text = session.fail(2, arguments);
        assert!(text.contains("has format 999, but this program reads formats up to"), "{text}");
        assert!(text.contains("update the program"), "{text}");
    }
    assert_eq!(fs::read(session.path("run/metrics.jsonl")).unwrap(), log);
}

#[test]
fn run_of_damaged_checkpoints_is_refused() {
    let session = session();
    session.succeed(&[RESUME.as_slice(), &["--set", "run.dir=run"]].concat());
    let mut draws = Draws::new("run_of_damaged_checkpoints_is_refused");
    for step in [4, 8, 12] {
        let checkpoint = session.path(&format!("run/checkpoints/step-{step:06}"));
        damage(&mut draws, &checkpoint.join("optimizer.safetensors"));
    }
    let before = tree(&session.path("run"));
    let text = session.fail(2, &RESUME);
    for step in [4, 8, 12] {
        assert!(text.contains(&format!("step-{step:06}")), "{text}");
    }
    assert!(text.contains("optimizer.safetensors"), "{text}");
    assert!(tree(&session.path("run")) == before, "the run was changed");
}

/// Every file below `dir` with its bytes.
fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            found.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}
