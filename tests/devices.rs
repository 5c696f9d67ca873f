//! Several devices in one process share each batch, and compute what one device computes.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Session, goldens, kill_moments};

/// Steps of [`Session::write_config`].
const STEPS: usize = 12;

fn session() -> Session {
    let session = Session::new();
    session.write_config(
        "[checkpoint]\nevery_steps = 2\nkeep = 3\n\
         [eval.pairs]\ntask = \"retrieval\"\ndata = \"pairs.csv\"\nevery_steps = 4\n",
    );
    session.write_pairs("pairs.csv");
    session
}

fn arguments<'a>(dir: &'a str, devices: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let sets = [dir, "model.text_dropout=0.2", "model.image_dropout=0.2"];
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume", "--device", devices];
    arguments.extend(sets.iter().chain(more).flat_map(|set| ["--set", *set]));
    arguments
}

#[test]
fn several_devices_train_as_one() {
    let session = session();
    session.succeed(&arguments("run.dir=one", "cpu", &["train.micro_batch_size=1"]));
    session.succeed(&arguments("run.dir=two", "cpu,cpu", &[]));
    session.assert_same_run("two", "one", STEPS);
    assert_eq!(session.metrics("two", "eval").len(), 4, "one evaluation each, by the first device");
    let config = fs::read_to_string(session.path("two/config.toml")).unwrap();
    assert!(config.contains("device = [\"cpu\", \"cpu\"]\n"), "{config}");
    assert!(config.contains("micro_batch_size = 1\n"), "{config}");
}

#[test]
fn killed_run_goes_on_with_any_number_of_devices() {
    let session = session();
    // A run that was killed before its first checkpoint starts over, with what its config says.
    let more = ["train.epochs=20", "train.micro_batch_size=1"];
    session.succeed(&arguments("run.dir=whole", "cpu,cpu", &more));
    let devices = ["cpu,cpu", "cpu", "cpu,cpu,cpu,cpu"];
    let mut kills = 0;
    for ((part, delay), devices) in kill_moments().zip(devices.iter().cycle()) {
        let lines = (part * 60.0) as usize;
        kills +=
            usize::from(session.kill_after_lines(&arguments("run.dir=parts", devices, &more), "parts", lines, delay));
    }
    assert!(kills > 2, "{kills} kills");
    session.succeed(&arguments("run.dir=parts", "cpu", &more));
    session.assert_same_run("parts", "whole", 60);
}

#[test]
fn signal_stops_all_devices() {
    let session = session();
    let more = ["train.epochs=100000", "run.dir=run"];
    let arguments = arguments("checkpoint.every_steps=1000000", "cpu,cpu", &more);
    let mut child = session.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let log = session.path("run/metrics.jsonl");
    while !fs::read_to_string(&log).is_ok_and(|log| log.contains("\"train\"")) {
        assert!(Instant::now() < deadline, "no step");
        sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still running");
        }
        sleep(Duration::from_millis(10));
    };
    assert_eq!(code, Some(143));
    let steps = session.metrics("run", "train").len();
    assert!(session.path(&format!("run/checkpoints/step-{steps:06}/manifest.json")).exists(), "step {steps} is saved");
}

#[test]
fn devices_that_do_not_fit_are_refused() {
    let session = session();
    let refused = |devices: &str, more: &[&str]| session.fail(2, &arguments("run.dir=run", devices, more));
    let text = refused("cpu,ndarray", &[]);
    assert!(text.contains("`run.device` is `cpu,ndarray`, expected devices of one kind"), "{text}");
    for devices in ["cpu,", ",cpu"] {
        let text = refused(devices, &[]);
        assert!(text.contains("`run.device` is empty, expected a device") && text.contains("1 problem in"), "{text}");
    }
    // It would remove the key, as `--set run.device=` does, and the run would take the default.
    assert!(refused("", &[]).contains("expected a device, such as `cpu` or `cuda:0`"));
    let text = refused("cpu,cpu", &["train.micro_batch_size=8"]);
    assert!(text.contains("a batch of 8 pairs is too small for the 2 devices of `run.device`"), "{text}");
    assert!(!session.path("run").exists());
}

#[test]
fn failure_names_the_device() {
    let session = session();
    session.copy("train/images", "images");
    fs::copy(goldens("train/train.csv"), session.path("data.csv")).unwrap();
    for bad in ["03", "10", "17", "22"] {
        session.write(&format!("images/{bad}.png"), "no image");
    }
    let data = ["data.train.csv.path=data.csv", "data.max_bad_fraction=0.1"];
    let text = session.fail(2, &arguments("run.dir=run", "cpu,cpu", &data));
    assert!(text.contains("rank ") && text.contains("(cpu): "), "{text}");
    assert!(text.contains("more than `data.max_bad_fraction` = 0.1 allows"), "{text}");
}

#[cfg(not(feature = "mpi"))]
#[test]
fn processes_of_a_launcher_are_refused() {
    let session = session();
    let text = |variable: &str, value: &str, command: &str| {
        let mut command = session.command(&[command, "--config", "lit.toml"]);
        let output = command.env(variable, value).output().unwrap();
        (output.status.code(), crate::support::stderr(&output))
    };
    for (variable, value) in [("OMPI_COMM_WORLD_SIZE", "2"), ("PMI_SIZE", "2"), ("SLURM_STEP_NUM_TASKS", "2")] {
        let (code, text) = text(variable, value, "train");
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(&format!("2 processes were started together (`{variable}` is set)")), "{text}");
        assert!(text.contains("each would train alone") && text.contains("--features mpi"), "{text}");
        assert!(!session.path("run").exists());
    }
    let (code, text) = text("OMPI_COMM_WORLD_SIZE", "2", "fit");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("of all commands only `train` shares its work"), "{text}");
    let mut command = session.command(&["train", "--config", "lit.toml"]);
    assert!(command.env("OMPI_COMM_WORLD_SIZE", "1").output().unwrap().status.success());
}

#[test]
fn commands_of_a_launcher_are_refused() {
    let session = session();
    let run = |rank: &str, arguments: &[&str]| {
        let mut command = session.command(arguments);
        command.env("SLURM_STEP_NUM_TASKS", "2").env("SLURM_PROCID", rank);
        let started = Instant::now();
        let output = command.output().unwrap();
        (output.status.code(), crate::support::stderr(&output), started.elapsed())
    };
    let model = goldens("train/init").to_str().unwrap().to_owned();
    for arguments in [
        &["fit", "--config", "lit.toml"][..],
        &["eval", "--model", &model],
        &["embed", "--model", &model, "--texts", "pairs.csv", "--out", "x"],
        &["export", "--model", &model, "--out", "x"],
        &["index", "x", "--out", "x"],
        &["init", "pairs.csv"],
        &["check", "--config", "lit.toml"],
        &["plan", "--config", "lit.toml"],
        &["cache", "--config", "lit.toml"],
        &["inspect", &model],
    ] {
        let (code, text, _) = run("0", arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains("of all commands only `train` shares its work between them"), "{arguments:?}: {text}");
        assert!(text.contains("unset `SLURM_STEP_NUM_TASKS`"), "{text}");
    }
    assert!(!session.path("x").exists());
    // Another process than the first waits, as the launcher may end it meanwhile, but does not fail without a word.
    let (code, text, took) = run("1", &["plan", "--config", "lit.toml"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("2 processes were started together") && took > Duration::from_secs(2), "{took:?}: {text}");
    assert_eq!(run("0", &["schema"]).0, Some(0));
    assert_eq!(run("0", &["plan", "--help"]).0, Some(0));
}
