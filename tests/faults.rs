//! Damaged checkpoints, stale caches, changed settings and second processes are reported, and no training is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Session, assert_close, column, goldens, stderr, tensors};

fn session() -> Session {
    let session = Session::new();
    session.write_config("[checkpoint]\nevery_steps = 4\nkeep = 3\n");
    session
}

const TRAIN: [&str; 3] = ["train", "--config", "lit.toml"];
const RESUME: [&str; 4] = ["train", "--config", "lit.toml", "--resume"];

#[test]
fn damaged_checkpoint_falls_back_to_older() {
    let session = session();
    session.succeed(&TRAIN);
    let whole = tensors(&session.path("run/checkpoints/step-000012/model.safetensors"));
    let damaged = session.path("run/checkpoints/step-000012/model.safetensors");
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&damaged, bytes).unwrap();
    let output = session.run(&RESUME);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("step-000012") && text.contains("is damaged: its contents do not match"), "{text}");
    assert!(text.contains("resuming after step 8"), "{text}");
    assert_eq!(tensors(&damaged), whole);
    assert_eq!(session.metrics("run", "train").len(), 12);

    // A damaged checkpoint that the user names is an error.
    fs::write(&damaged, b"short").unwrap();
    let images = goldens("train/images");
    let checkpoint = "run/checkpoints/step-000012";
    let text = session
        .fail(2, &["embed", "--model", checkpoint, "--images", images.to_str().unwrap(), "--out", "x.safetensors"]);
    assert!(text.contains("`model.safetensors` is damaged: it has 5 bytes"), "{text}");
}

/// The contents of every file below `dir`, by path.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn all_checkpoints_damaged_changes_nothing() {
    let session = session();
    session.succeed(&TRAIN);
    for (step, name) in [(4, "optimizer.safetensors"), (8, "manifest.json"), (12, "config.toml")] {
        let path = session.path(&format!("run/checkpoints/step-{step:06}/{name}"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[9] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    // What a killed process leaves stays too, until a run is accepted.
    fs::create_dir(session.path("run/checkpoints/step-000016.tmp-aB3xYz")).unwrap();
    session.write("run/checkpoints/step-000016.tmp-aB3xYz/model.safetensors", b"half");
    let before = contents(&session.path("run"));
    let text = session.fail(2, &RESUME);
    for part in ["none of the 3 checkpoints", "step-000004", "step-000008", "step-000012", "another `run.dir`"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(contents(&session.path("run")), before);
    let text = session.fail(2, &["embed", "--model", "run", "--texts", "lit.toml", "--out", "x.safetensors"]);
    assert!(text.contains("none of the 3 checkpoints"), "{text}");
}

#[test]
fn lost_checkpoints_are_not_a_fresh_start() {
    let session = session();
    session.succeed(&[&TRAIN[..], &["--set", "train.epochs=8"]].concat());
    fs::remove_dir_all(session.path("run/checkpoints")).unwrap();
    let before = fs::read(session.path("run/metrics.jsonl")).unwrap();
    let resume = [&RESUME[..], &["--set", "train.epochs=8"]].concat();
    let text = session.fail(2, &resume);
    assert!(text.contains("has logged 24 steps but holds no checkpoint"), "{text}");
    assert_eq!(fs::read(session.path("run/metrics.jsonl")).unwrap(), before);
    // A run that was killed before its first checkpoint starts over, and says so.
    let early = [&RESUME[..], &["--set", "run.dir=early"]].concat();
    let killed = session.command(&early).env("DUALENC_FAIL_AT", "before_model.safetensors").output().unwrap();
    assert!(!killed.status.success());
    // Another run does not take the place of this one and its metrics.
    let logged = fs::read(session.path("early/metrics.jsonl")).unwrap();
    let other = ["--set", "train.batch_size=6", "--set", "run.log_every_steps=3"];
    let text = session.fail(2, &[&early[..], &other].concat());
    assert!(text.contains("train.batch_size: 8 -> 6") && !text.contains("starts over"), "{text}");
    assert!(!text.contains("log_every_steps"), "a refused run accepts no change: {text}");
    assert_eq!(fs::read(session.path("early/metrics.jsonl")).unwrap(), logged);
    let gone = ["--set", "eval.gone.task=retrieval", "--set", "eval.gone.data=gone.csv"];
    let text = session.fail(2, &[&early[..], &other[2..], &gone].concat());
    assert!(text.contains("gone.csv") && !text.contains("has changed"), "a refused run accepts no change: {text}");
    let output = session.run(&[&early[..], &other[2..]].concat());
    let text = stderr(&output);
    assert!(output.status.success() && text.contains("starts over, after 4 steps that were lost"), "{text}");
    assert!(text.contains("`run.log_every_steps` has changed: "), "{text}");
    assert_eq!(session.metrics("early", "train").len(), 12);
}

#[test]
fn saved_run_without_checkpoints_is_refused() {
    // Whether their directory is gone or empty, however few steps were logged.
    for remove in ["run/checkpoints", "run/checkpoints/step-000012"] {
        let session = Session::new();
        session.write_config("[checkpoint]\nkeep = 1\n");
        session.succeed(&TRAIN);
        fs::remove_dir_all(session.path(remove)).unwrap();
        let before = contents(&session.path("run"));
        for _again in 0..2 {
            let text = session.fail(2, &RESUME);
            assert!(text.contains("has logged 12 steps but holds no checkpoint"), "{text}");
            assert_eq!(contents(&session.path("run")), before);
            assert_eq!(session.path("run/checkpoints").exists(), remove != "run/checkpoints");
        }
        // As in a run of an older version: its lock says nothing.
        if remove == "run/checkpoints" {
            fs::write(session.path("run/run.lock"), b"").unwrap();
            (0..2).for_each(|_| drop(session.fail(2, &RESUME)));
        }
    }
}

#[test]
fn failed_evaluation_saves_the_state() {
    let session = Session::new();
    session.copy("train/images", "images");
    session.write("held.csv", fs::read(goldens("train/train.csv")).unwrap());
    let held = "[eval.held]\ntask = \"loss\"\ndata = \"held.csv\"\npool_size = 8\nevery_steps = 5\n";
    session.write_config(&format!("{held}at_start = false\n"));
    let bytes = fs::read(session.path("images/03.png")).unwrap();
    fs::write(session.path("images/03.png"), &bytes[..20]).unwrap();
    let text = session.fail(2, &TRAIN);
    assert!(text.contains("03.png") && text.contains("held"), "{text}");
    assert!(session.path("run/checkpoints/step-000005").is_dir(), "{text}");
    fs::write(session.path("images/03.png"), &bytes).unwrap();
    let output = session.run(&RESUME);
    let text = stderr(&output);
    assert!(output.status.success() && text.contains("resuming after step 5"), "{text}");
    let steps = column(&session.metrics("run", "eval"), "step");
    assert_eq!(steps, [5.0, 10.0, 12.0]);
}

#[cfg(unix)]
#[test]
fn unreadable_evaluation_changes_nothing() {
    let session = Session::new();
    session.copy("train/images", "images");
    session.write("held.csv", fs::read(goldens("train/train.csv")).unwrap());
    session.write_config(
        "[eval.held]\ntask = \"loss\"\ndata = \"held.csv\"\npool_size = 8\nevery_steps = 4\n\
         [checkpoint]\nevery_steps = 4\nbest = \"held.loss\"\n",
    );
    session.succeed(&TRAIN);
    fs::remove_dir_all(session.path("run/checkpoints/step-000012")).unwrap();
    // A link to itself cannot be looked at: an error of the system.
    let image = session.path("images/03.png");
    fs::remove_file(&image).unwrap();
    std::os::unix::fs::symlink(&image, &image).unwrap();
    let before = contents(&session.path("run"));
    let text = session.fail(1, &[&RESUME[..], &["--set", "checkpoint.every_steps=5"]].concat());
    assert!(text.contains("03.png"), "{text}");
    assert_eq!(contents(&session.path("run")), before);
}

#[test]
fn config_of_a_user_is_not_overwritten() {
    let session = session();
    let config = fs::read(session.path("lit.toml")).unwrap();
    fs::create_dir(session.path("project")).unwrap();
    session.write("project/config.toml", &config);
    let text = session.fail(2, &["train", "--config", "project/config.toml", "--set", "run.dir=."]);
    assert!(text.contains("config.toml` does not belong to a run, and a run would overwrite it"), "{text}");
    assert!(!session.path("project/run.lock").exists());
    assert_eq!(fs::read(session.path("project/config.toml")).unwrap(), config);
    // That of a run which was killed before its first step is.
    let early = [&TRAIN[..], &["--set", "run.dir=early"]].concat();
    session.succeed(&early);
    fs::remove_dir_all(session.path("early/checkpoints")).unwrap();
    fs::write(session.path("early/metrics.jsonl"), "").unwrap();
    session.succeed(&early);
    // So is that of a copy with checkpoints alone.
    for name in ["metrics.jsonl", "run.lock"] {
        fs::remove_file(session.path("early").join(name)).unwrap();
    }
    session.succeed(&[&RESUME[..], &["--set", "run.dir=early"]].concat());
}

#[test]
fn deleted_log_or_lock_ends_the_run() {
    for (name, truncate) in [("metrics.jsonl", false), ("run.lock", false), ("metrics.jsonl", true)] {
        let session = session();
        let sets = ["train.epochs=100000", "checkpoint.every_steps=1"];
        let arguments = [&RESUME[..], &sets.map(|set| ["--set", set]).concat()].concat();
        let mut command = session.command(&arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !session.path("run/checkpoints/step-000003").exists() {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none());
            sleep(Duration::from_millis(5));
        }
        let path = session.path("run").join(name);
        if truncate {
            fs::File::options().write(true).open(path).unwrap().set_len(5).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(name) && text.contains("was deleted, moved or changed by another program"), "{text}");
    }
}

#[test]
fn inspect_names_init_cycle() {
    let session = session();
    let train = |run: &str, more: &[&str]| {
        let run = format!("run.dir={run}");
        session.succeed(&[&TRAIN[..], &["--set", &run], more].concat());
    };
    train("one", &[]);
    train("two", &["--set", "model.init=one"]);
    fs::remove_dir_all(session.path("one")).unwrap();
    fs::rename(session.path("two"), session.path("one")).unwrap();
    let found = session.problems(&["inspect", "one", "--json", "-"]);
    assert!(found.contains("`model.init` leads back to"), "{found}");
}

#[test]
fn damaged_log_line_is_reported() {
    let session = Session::new();
    session.write_config(&format!(
        "[eval.held]\ntask = \"loss\"\ndata = {:?}\npool_size = 8\nevery_steps = 4\n\
         [checkpoint]\nevery_steps = 4\nbest = \"held.loss\"\n",
        goldens("train/train.csv")
    ));
    session.succeed(&TRAIN);
    let path = session.path("run/metrics.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    // A byte that no text has, and a last line without an end.
    let mut bytes = text.replacen("\"step\":3,", "\"step\":~,", 1).into_bytes();
    let place = bytes.iter().position(|&byte| byte == b'~').unwrap();
    bytes[place] = 0xff;
    bytes.extend(b"{\"kind\":\"ev\xc3");
    fs::write(&path, bytes).unwrap();
    let output = session.run(&RESUME);
    let message = stderr(&output);
    assert!(
        output.status.success() && message.contains("damaged lines removed from") && message.contains(": 1"),
        "{message}"
    );
    assert_eq!(session.metrics("run", "train").len(), 11);
}

#[test]
fn refuses_second_owner() {
    let session = session();
    let long =
        [TRAIN.as_slice(), &["--set", "train.epochs=100000", "--set", "checkpoint.every_steps=1000000"]].concat();
    let mut child = session.command(&long).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !session.path("run/metrics.jsonl").exists() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5));
    }
    let text = session.fail(2, &RESUME);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(text.contains("is in use by another process"), "{text}");
}

#[test]
fn refuses_overwrite_and_changed_config() {
    let session = session();
    session.succeed(&TRAIN);
    let before = fs::read(session.path("run/metrics.jsonl")).unwrap();
    let text = session.fail(2, &TRAIN);
    assert!(text.contains("already holds a run (step 12)") && text.contains("`--resume`"), "{text}");

    // A change that would be accepted alone is not called accepted.
    let changes = ["--set", "train.learning_rate=2e-3", "--set", "run.log_every_steps=3"];
    let text = session.fail(2, &[RESUME.as_slice(), &changes].concat());
    assert!(text.contains("train.learning_rate: 0.001 -> 0.002") && !text.contains("log_every_steps"), "{text}");
    let shorter = fs::read_to_string(goldens("train/train.csv")).unwrap();
    let dir = goldens("train");
    let rows: Vec<String> =
        shorter.lines().take(20).map(|row| row.replacen("images/", &format!("{}/images/", dir.display()), 1)).collect();
    session.write("fewer.csv", rows.join("\n"));
    let text = session.fail(2, &[RESUME.as_slice(), &["--set", "data.train.csv.path=fewer.csv"]].concat());
    assert!(text.contains("there were 24 images with 24 captions, and there are 19 images with 19"), "{text}");
    assert_eq!(fs::read(session.path("run/metrics.jsonl")).unwrap(), before);
}

#[test]
fn refuses_changed_data() {
    let session = session();
    let dir = goldens("train");
    let text = fs::read_to_string(goldens("train/train.csv")).unwrap();
    let local = text.replace("images/", &format!("{}/images/", dir.display()));
    session.write("data.csv", &local);
    let train = [TRAIN.as_slice(), &["--set", "data.train.csv.path=data.csv"]].concat();
    session.succeed(&train);
    let lines: Vec<&str> = local.lines().collect();
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    session.write("data.csv", swapped.join("\n"));
    let text = session.fail(2, &[RESUME.as_slice(), &["--set", "data.train.csv.path=data.csv"]].concat());
    assert!(text.contains("the training data have changed since the run started"), "{text}");
}

#[test]
fn changed_image_or_row_is_recomputed() {
    let session = session();
    session.copy("train/images", "images");
    session.write("data.csv", fs::read(goldens("train/train.csv")).unwrap());
    let train = |run: &str, more: &[&str]| {
        let run = format!("run.dir={run}");
        let sets = [
            "--set",
            "data.train.csv.path=data.csv",
            "--set",
            "model.lock=LU",
            "--set",
            "cache.dir=cache",
            "--set",
            &run,
        ];
        session.succeed(&[TRAIN.as_slice(), &sets, more].concat());
    };
    let losses = |run: &str| column(&session.metrics(run, "train"), "loss");
    let stores = || {
        let files = fs::read_dir(session.path("cache")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().unwrap() == "values").collect::<Vec<_>>()
    };

    train("first", &[]);
    let [store] = stores().try_into().unwrap();
    let filled = fs::read(&store).unwrap();
    train("second", &[]);
    assert_eq!(losses("first"), losses("second"));
    assert_eq!(fs::read(&store).unwrap(), filled, "the second run wrote to the cache");

    // A truncated row.
    fs::write(&store, &filled[..filled.len() - 9]).unwrap();
    train("third", &[]);
    assert_eq!(losses("first"), losses("third"));

    // A new image under the old file name.
    fs::copy(session.path("images/05.png"), session.path("images/00.png")).unwrap();
    train("fourth", &[]);
    assert_ne!(losses("first"), losses("fourth"));
    train("uncached", &["--set", "cache.enabled=false"]);
    assert_close("loss", &losses("fourth"), &losses("uncached"), 1e-6);

    // Other image processing needs another store.
    train("bigger", &["--set", "model.image_size=48"]);
    assert_eq!(stores().len(), 2);
}
