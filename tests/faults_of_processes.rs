//! Of the processes that mpirun starts, one alone fails, is lost or is not asked for. With the feature `mpi`.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::processes::{
    EIGHTHS, SOON, alone, arguments, count, finished, mpirun, process_of, reaches, send, session, started, succeed,
};
use crate::soak::whole_checkpoints;
use crate::support::{Session, goldens, stderr};

/// The name of this machine, as MPI says it.
fn host() -> String {
    String::from_utf8(Command::new("uname").arg("-n").output().unwrap().stdout).unwrap().trim().to_owned()
}

/// A session with training images that may be changed.
fn session_with_images() -> Session {
    let session = session();
    session.copy("train/images", "images");
    fs::copy(goldens("train/train.csv"), session.path("data.csv")).unwrap();
    session
}

/// The training data of [`session_with_images`]. Of each eight images, the second of two processes reads the last four.
const IMAGES: [&str; 2] = ["data.train.csv.path=data.csv", "model.lock=UU"];

/// Runs two processes and asserts that they end with this exit code and say why once.
#[track_caller]
fn refused(session: &Session, arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let output = finished(started(&mut mpirun(session, &[(2, arguments)])));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(count(&text, "error: "), 1, "{text}");
    assert!(output.stdout.is_empty(), "{output:?}");
    text
}

#[test]
fn commands_that_are_not_shared_are_refused_once() {
    let session = session();
    let started_at = Instant::now();
    let model = goldens("train/init").to_str().unwrap().to_owned();
    session.write("texts.txt", "a red circle\n");
    for arguments in [
        &["fit", "--config", "lit.toml"][..],
        &["plan", "--config", "lit.toml"],
        &["check", "--config", "lit.toml"],
        &["embed", "--model", &model, "--texts", "texts.txt", "--out", "x.safetensors"],
        &["export", "--model", &model, "--out", "exported"],
    ] {
        let text = refused(&session, arguments);
        assert!(text.contains("2 processes were started together (`OMPI_COMM_WORLD_SIZE` is set)"), "{text}");
        assert!(text.contains("start this one without the launcher"), "{text}");
    }
    assert!(started_at.elapsed() < 5 * SOON, "{:?}", started_at.elapsed());
    for written in ["run", "x.safetensors", "exported"] {
        assert!(!session.path(written).exists(), "{written}");
    }
    // What the program says of itself is no work, and one process is alone.
    let version = succeed(&session, 2, vec!["--version".to_owned()]);
    assert_eq!(count(&String::from_utf8(version.stdout).unwrap(), "dualenc "), 2);
    let embed = ["embed", "--model", &model, "--texts", "texts.txt", "--out", "x.safetensors"].map(str::to_owned);
    succeed(&session, 1, embed.to_vec());
    assert!(session.path("x.safetensors").exists());
}

#[test]
fn image_that_one_process_loses_ends_all() {
    const STEPS: usize = 300;
    for (damage, cause) in [(None, "not found (1)"), (Some("<!DOCTYPE html>"), "not an image (1)")] {
        let session = session_with_images();
        let sets = [&IMAGES[..], &["data.max_bad_fraction=0"]].concat();
        succeed(&session, 2, arguments("whole", STEPS, &sets));
        let mut child = started(&mut mpirun(&session, &[(2, arguments("run", STEPS, &sets))]));
        assert!(reaches(&mut child, &session.path("run/metrics.jsonl"), 20));
        let damaged_at = Instant::now();
        fs::rename(session.path("images/22.png"), session.path("22.png")).unwrap();
        if let Some(content) = damage {
            session.write("22.tmp", content);
            fs::rename(session.path("22.tmp"), session.path("images/22.png")).unwrap();
        }
        let output = finished(child);
        let text = stderr(&output);
        assert!(damaged_at.elapsed() < SOON, "{:?}: {text}", damaged_at.elapsed());
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert_eq!(count(&text, "error: "), 1, "{text}");
        let start = format!("error: rank 1 ({}, cpu): at least 1 of 24 images cannot be used", host());
        assert!(text.contains(&start) && text.contains(cause) && text.contains("22.png: "), "{text}");
        assert!(text.contains("repair or remove them") && text.contains("or raise `data.max_bad_fraction`"), "{text}");
        let steps = session.metrics("run", "train").len() as u64;
        assert!((15..STEPS as u64).contains(&steps), "{steps} steps");
        assert_eq!(whole_checkpoints(&session.path("run")).last(), Some(&steps), "the state before the step is saved");
        assert_eq!(names(&session, "run"), ["22.png"]);

        fs::rename(session.path("22.png"), session.path("images/22.png")).unwrap();
        succeed(&session, 2, arguments("run", STEPS, &sets));
        session.assert_same_run("run", "whole", STEPS);
        assert!(!session.path("run/bad_samples.jsonl").exists());
    }
}

/// The images that `bad_samples.jsonl` of a run names.
fn names(session: &Session, run: &str) -> Vec<String> {
    let list = fs::read_to_string(session.path(run).join("bad_samples.jsonl")).unwrap();
    let name = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["key"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
    };
    list.lines().map(name).collect()
}

#[test]
fn bad_images_of_all_processes_are_listed() {
    const STEPS: usize = 12;
    let session = session_with_images();
    for bad in ["03", "05", "13", "17", "22"] {
        session.write(&format!("images/{bad}.png"), "no image");
    }
    // A file that is missing is known before the first step.
    fs::remove_file(session.path("images/07.png")).unwrap();
    let sets = [&IMAGES[..], &["data.max_bad_fraction=0.3", "data.shuffle=true"]].concat();
    alone(&session, &arguments("one", STEPS, &[&sets[..], &[EIGHTHS]].concat()));
    let expected = names(&session, "one");
    let mut sorted = expected.clone();
    sorted.sort();
    assert_eq!(sorted, ["03.png", "05.png", "07.png", "13.png", "17.png", "22.png"]);
    for processes in [2, 4] {
        let run = format!("processes-{processes}");
        let text = stderr(&succeed(&session, processes, arguments(&run, STEPS, &sets)));
        assert_eq!(names(&session, &run), expected, "{processes} processes");
        assert!(text.contains("6 images could not be used: not an image (5), not found (1); see `"), "{text}");
        session.assert_same_run(&run, "one", STEPS);
    }

    // Above the limit, the list has what the process found that is not the first.
    for good in ["03", "07", "17"] {
        fs::copy(session.path("images/00.png"), session.path(&format!("images/{good}.png"))).unwrap();
    }
    let sets = [&IMAGES[..], &["data.max_bad_fraction=0.1"]].concat();
    let output = finished(started(&mut mpirun(&session, &[(2, arguments("stopped", STEPS, &sets))])));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("error: rank 1 (") && text.contains("at least 3 of 24 images cannot be used"), "{text}");
    assert_eq!(names(&session, "stopped"), ["05.png", "13.png", "22.png"]);
}

#[test]
fn config_of_another_machine_is_named_with_it() {
    let session = session();
    session.write("other.toml", fs::read_to_string(session.path("lit.toml")).unwrap().replace("epochs", "epoch"));
    let with = |config: &str| {
        let mut arguments = arguments("run", 12, &[]);
        arguments[2] = config.to_owned();
        arguments
    };
    for (config, expected) in [
        ("other.toml", "help: did you mean `epochs`?"),
        ("gone.toml", "cannot read the config `gone.toml`: No such file or directory"),
    ] {
        let groups = [(1, with("lit.toml")), (1, with(config))];
        let output = finished(started(&mut mpirun(&session, &groups)));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(&format!("error: rank 1 ({}): ", host())), "{text}");
        assert!(text.contains(expected), "{text}");
        assert!(!session.path("run").exists());
    }
}

#[test]
fn resuming_says_how_to_keep_the_threads() {
    let session = session();
    let with = |threads| ["train.schedule=constant", threads];
    succeed(&session, 2, arguments("run", 5, &with("run.threads=1")));
    let text = stderr(&succeed(&session, 2, arguments("run", 10, &with("run.threads=2"))));
    let warning = "started with 1 thread and continues with 2 in each process: ";
    assert!(text.contains(warning) && text.contains("`run.threads = 1` keeps them"), "{text}");
}

#[test]
fn signal_that_waits_for_others_says_how_to_go_on() {
    let session = session();
    let sets = ["checkpoint.every_steps=1000000"];
    let mut child = started(&mut mpirun(&session, &[(2, arguments("run", 1_000_000, &sets))]));
    assert!(reaches(&mut child, &session.path("run/metrics.jsonl"), 3));
    let [first, other] = [0, 1].map(|rank| process_of(&child, rank).unwrap());
    send("-STOP", &other);
    send("-TERM", &first);
    std::thread::sleep(Duration::from_secs(1));
    send("-CONT", &other);
    let output = finished(child);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(143), "{text}");
    let answer = "stopping after the step; if the launcher ends the run before, `--resume` continues from the newest";
    assert_eq!(count(&text, answer), 1, "{text}");
    assert_eq!(count(&text, "stopped by a signal after step"), 1, "{text}");
}

/// Kills the process of `rank` in the middle of a run of several `processes`.
fn killed(session: &Session, run: &str, processes: usize, rank: usize) -> (Output, Duration) {
    let sets = ["checkpoint.every_steps=5"];
    let mut command = mpirun(session, &[(processes, arguments(run, 1_000_000, &sets))]);
    // A busy machine gets more than a second before mpirun kills the others.
    let mut child = started(command.env("OMPI_MCA_odls_base_sigkill_timeout", "3"));
    assert!(reaches(&mut child, &session.path(run).join("metrics.jsonl"), 12));
    send("-KILL", &process_of(&child, rank).unwrap());
    let killed_at = Instant::now();
    (finished(child), killed_at.elapsed())
}

#[test]
fn lost_process_is_named_once() {
    let session = session();
    for (processes, rank) in [(2, 1), (3, 0), (4, 2)] {
        let run = format!("run-{processes}");
        let (output, took) = killed(&session, &run, processes, rank);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(137), "{text}");
        assert!(took < SOON, "{took:?}: {text}");
        assert_eq!(count(&text, "error: "), 1, "{text}");
        let expected = format!("error: rank {rank} ({}, cpu): its process has ended without a word", host());
        assert!(text.contains(&expected) && text.contains("`--resume` continues from the newest"), "{text}");
        let checkpoints = whole_checkpoints(&session.path(&run));
        assert!(checkpoints.len() >= 2, "{checkpoints:?}");
        // The first process saves the state before the step, if it lives.
        let steps = session.metrics(&run, "train").len() as u64;
        assert_eq!(checkpoints.last() == Some(&steps), rank > 0 || steps.is_multiple_of(5), "{checkpoints:?}, {steps}");
    }
}
