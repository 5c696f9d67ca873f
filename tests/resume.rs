//! A run that is killed and resumed ends with the same bits as one that never stops, including dropout and data order.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Session, goldens, kill_moments, stderr, tensors};

/// A debug build takes about a second.
const STEPS: usize = 240;

fn session() -> Session {
    let session = Session::new();
    session.write_config("[checkpoint]\nevery_steps = 7\nkeep = 2\n");
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

/// Metrics without what depends on time.
fn reproducible(session: &Session, run: &str) -> Vec<Value> {
    ["train", "warning"].map(|kind| session.reproducible(run, kind)).concat()
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
fn resumes_after_sigkill() {
    for lock in ["model.lock=UU", "model.lock=LU"] {
        assert_kills_change_nothing(&session(), lock);
    }
}

#[test]
fn whitened_run_survives_sigkill() {
    let session = session();
    // Only the towers come from the golden model, so the projections are new.
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

/// Kills and resumes a run until it finishes, and compares it with one that never stops.
#[track_caller]
fn assert_kills_change_nothing(session: &Session, lock: &str) {
    session.succeed(&arguments("run.dir=whole", lock));
    assert_eq!(session.metrics("whole", "train").len(), STEPS);

    let arguments = arguments("run.dir=killed", lock);
    let kills = kill_moments()
        .filter(|(share, delay)| {
            session.kill_after_lines(&arguments, "killed", (share * STEPS as f64) as usize, *delay)
        })
        .count();
    assert!(kills >= 6, "only {kills} kills");
    session.succeed(&arguments);
    assert_same_end(session, "killed", "whole");
}

#[test]
fn signal_saves_and_sets_exit_code() {
    let session = session();
    session.succeed(&arguments("run.dir=whole", "model.lock=UU"));
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let run = format!("run.dir={signal}");
        let child = session.command(&arguments(&run, "model.lock=UU")).stderr(Stdio::piped()).spawn().unwrap();
        signal_a_step(&session, signal, child.id(), signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let text = stderr(&output);
        assert!(text.contains("use `--resume` to continue"), "{text}");
        session.succeed(&arguments(&run, "model.lock=UU"));
        assert_same_end(&session, signal, "whole");
    }
}

/// Sends `signal` to a process that trains in `run`.
fn signal_a_step(session: &Session, run: &str, process: u32, signal: &str) {
    // The first metrics show that the signal will arrive in the training loop.
    let metrics = session.path(run).join("metrics.jsonl");
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&metrics).map_or(0, |file| file.len()) < 400 {
        assert!(Instant::now() < deadline, "no step within a minute");
        sleep(Duration::from_millis(2));
    }
    let kill = Command::new("kill").args([format!("-{signal}"), process.to_string()]).status().unwrap();
    assert!(kill.success());
}

/// A closed terminal ends a run as SIGTERM does, unless `nohup` has its signal ignored.
#[test]
#[cfg(target_os = "linux")]
fn hangup_saves_unless_it_is_ignored() {
    let session = session();
    session.succeed(&arguments("run.dir=whole", "model.lock=UU"));
    for (disposition, run, code) in [("--default-signal=HUP", "ended", 129), ("--ignore-signal=HUP", "kept", 0)] {
        let set = format!("run.dir={run}");
        let command = session.command(&arguments(&set, "model.lock=UU"));
        let mut wrapped = Command::new("env");
        wrapped.arg(disposition).arg(command.get_program()).args(command.get_args());
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        wrapped.current_dir(command.get_current_dir().unwrap()).stdout(Stdio::null());
        let child = wrapped.stderr(Stdio::piped()).spawn().unwrap();
        signal_a_step(&session, run, child.id(), "HUP");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        if code != 0 {
            session.succeed(&arguments(&set, "model.lock=UU"));
        }
        assert_same_end(&session, run, "whole");
    }
}

#[test]
fn finished_run_has_no_steps_left() {
    let session = session();
    session.succeed(&arguments("run.dir=run", "model.lock=UU"));
    let before = std::fs::read(session.path("run/metrics.jsonl")).unwrap();
    session.succeed(&arguments("run.dir=run", "model.lock=UU"));
    assert_eq!(std::fs::read(session.path("run/metrics.jsonl")).unwrap(), before);
}

#[test]
fn deleted_log_is_noticed() {
    let session = session();
    let sets = ["--set", "checkpoint.every_steps=80", "--set", "checkpoint.keep=3"];
    let arguments = [arguments("run.dir=run", "model.lock=LU"), sets.to_vec()].concat();
    session.succeed(&arguments);
    std::fs::remove_dir_all(session.path("run/checkpoints/step-000240")).unwrap();
    std::fs::remove_file(session.path("run/metrics.jsonl")).unwrap();
    let output = session.run(&arguments);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    let expected = "run/metrics.jsonl` lacks 160 steps of the 160 before this resume: 1 to 160; reports leave them out";
    assert!(text.contains(expected), "{text}");
    assert_eq!(session.metrics("run", "train").len(), 80);
}

#[test]
fn resume_prunes_what_a_kill_left() {
    let session = session();
    let sets = ["--set", "checkpoint.every_steps=40", "--set", "checkpoint.keep=3"];
    session.succeed(&[arguments("run.dir=run", "model.lock=LU"), sets.to_vec()].concat());
    let names = || {
        let entries = std::fs::read_dir(session.path("run/checkpoints")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["step-000160", "step-000200", "step-000240"]);
    // As after a kill between the rename and the deletion of a save with `keep = 1`.
    let sets = ["--set", "checkpoint.every_steps=40", "--set", "checkpoint.keep=1"];
    session.succeed(&[arguments("run.dir=run", "model.lock=LU"), sets.to_vec()].concat());
    assert_eq!(names(), ["step-000240"]);
}
