//! Killed anywhere and resumed: the same bits as the run that was never stopped, dropout and order included.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Session, goldens, tensors};

/// Long enough that a kill lands inside: about a second in a debug build.
const STEPS: usize = 240;

fn session() -> Session {
    let session = Session::new();
    session.reference_config("[checkpoint]\nevery_steps = 7\nkeep = 2\n");
    session
}

fn arguments<'a>(run: &'a str, lock: &'a str) -> Vec<&'a str> {
    // 24 pairs in batches of 5: the last partial batch of each epoch is dropped, dropout is on in both towers.
    let mut arguments =
        vec!["train", "--config", "lit.toml", "--resume", "--set", "train.epochs=60", "--set", "train.batch_size=5"];
    arguments.extend([
        "--set",
        "data.shuffle=true",
        "--set",
        "model.text_dropout=0.2",
        "--set",
        "data.word_dropout=0.2",
        "--set",
        run,
        "--set",
        lock,
    ]);
    if lock.ends_with("UU") {
        arguments.extend(["--set", "model.image_dropout=0.2"]);
    }
    arguments
}

/// Metrics without the one figure that depends on the clock.
fn reproducible(session: &Session, run: &str) -> Vec<Value> {
    let mut lines = session.metrics(run, "train");
    for line in &mut lines {
        line.as_object_mut().unwrap().remove("pairs_per_sec").unwrap();
    }
    lines.extend(session.metrics(run, "warning"));
    lines
}

#[track_caller]
fn assert_same_end(session: &Session, run: &str, reference: &str) {
    let last = format!("checkpoints/step-{STEPS:06}");
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let found = tensors(&session.path(run).join(&last).join(file));
        let expected = tensors(&session.path(reference).join(&last).join(file));
        assert!(expected.len() > 20, "{file} holds {} tensors", expected.len());
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        let differing: Vec<&String> = expected.keys().filter(|name| found[*name] != expected[*name]).collect();
        assert!(differing.is_empty(), "{file} differs in {differing:?}");
    }
    let (found, expected) = (reproducible(session, run), reproducible(session, reference));
    assert_eq!(session.metrics(run, "train").len(), STEPS);
    assert_eq!(found, expected);
}

#[test]
fn a_run_killed_at_many_moments_ends_with_the_same_bits() {
    for lock in ["model.lock=UU", "model.lock=LU"] {
        assert_kills_change_nothing(&session(), lock);
    }
}

#[test]
fn a_run_that_starts_from_whitened_features_and_is_killed_ends_with_the_same_bits() {
    let session = session();
    // Towers taken out of the whole model, so that the projections start afresh.
    let text = std::fs::read_to_string(session.path("lit.toml")).unwrap();
    let towers = format!("image_tower = {init:?}\ntext_tower = {init:?}", init = goldens("train/init"));
    let config: Vec<&str> =
        text.lines().map(|line| if line.starts_with("init = ") { towers.as_str() } else { line }).collect();
    let config = config.join("\n").replace("[data]\n", "[model.image_projection]\nwhitening = 0.6\n[data]\n");
    session.write("lit.toml", config);
    assert_kills_change_nothing(&session, "model.lock=LU");
    let plain = ["run.dir=plain", "model.image_projection.whitening=0"].map(|set| ["--set", set]).concat();
    session.succeed(&[arguments("train.epochs=60", "model.lock=LU"), plain].concat());
    assert_ne!(reproducible(&session, "plain")[0]["loss"], reproducible(&session, "whole")[0]["loss"]);
}

/// Kills a run until one comes to its end, and compares it with one that was never stopped.
#[track_caller]
fn assert_kills_change_nothing(session: &Session, lock: &str) {
    let started = Instant::now();
    session.succeed(&arguments("run.dir=whole", lock));
    let whole = started.elapsed();
    assert_eq!(session.metrics("whole", "train").len(), STEPS);

    let mut kills = 0;
    for round in 1.. {
        let mut child = session
            .command(&arguments("run.dir=killed", lock))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Moments spread over the run; later rounds are given longer, so that the run comes to its end.
        sleep(whole.mul_f64(0.11 * f64::from(round) * (0.5 + 0.5 * (f64::from(round * 7 % 5) / 5.0))));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        match status.signal() {
            Some(9) => kills += 1,
            _ => {
                assert!(status.success(), "{status}");
                break;
            }
        }
        assert!(kills < 60, "the run never comes to its end");
    }
    assert!(kills >= 3, "only {kills} kills");
    assert_same_end(session, "killed", "whole");
}

#[test]
fn a_save_killed_at_each_of_its_moments_loses_nothing() {
    let session = session();
    session.succeed(&arguments("run.dir=whole", "model.lock=UU"));
    let points = [
        "before_model.safetensors",
        "inside_model.safetensors",
        "before_optimizer.safetensors",
        "inside_optimizer.safetensors",
        "before_config.toml",
        "inside_config.toml",
        "before_manifest",
        "before_rename",
        "after_rename",
        "while_pruning",
    ];
    for point in points {
        let run = format!("run.dir={point}");
        let output = session.command(&arguments(&run, "model.lock=UU")).env("DUALENC_FAIL_AT", point).output().unwrap();
        assert_eq!(output.status.signal(), Some(6), "{point} was not reached");
        session.succeed(&arguments(&run, "model.lock=UU"));
        assert_same_end(&session, point, "whole");
        let names = std::fs::read_dir(session.path(point).join("checkpoints")).unwrap();
        let names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().all(|name| name.starts_with("step-") && !name.contains("tmp")), "{point}: {names:?}");
    }
}

#[test]
fn a_signal_saves_and_stops_with_its_code() {
    let session = session();
    session.succeed(&arguments("run.dir=whole", "model.lock=UU"));
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let run = format!("run.dir={signal}");
        let child = session.command(&arguments(&run, "model.lock=UU")).stderr(Stdio::piped()).spawn().unwrap();
        // Wait for the first line of metrics, so that the signal meets the loop.
        let metrics = session.path(signal).join("metrics.jsonl");
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::fs::metadata(&metrics).map_or(0, |file| file.len()) < 400 {
            assert!(Instant::now() < deadline, "no step within a minute");
            sleep(Duration::from_millis(2));
        }
        let kill =
            std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", crate::support::stderr(&output));
        let text = crate::support::stderr(&output);
        assert!(text.contains("use `--resume` to continue"), "{text}");
        session.succeed(&arguments(&run, "model.lock=UU"));
        assert_same_end(&session, signal, "whole");
    }
}

#[test]
fn a_finished_run_resumes_to_nothing() {
    let session = session();
    session.succeed(&arguments("run.dir=run", "model.lock=UU"));
    let before = std::fs::read(session.path("run/metrics.jsonl")).unwrap();
    session.succeed(&arguments("run.dir=run", "model.lock=UU"));
    assert_eq!(std::fs::read(session.path("run/metrics.jsonl")).unwrap(), before);
}
