//! `dualenc plan` predicts a run and leaves no trace: not in the run, not in the feature cache, not in the temporary
//! directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Session, column, goldens};

/// Every file below `dir` with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Runs `plan` with its temporary directory in the session, and returns what it found.
#[track_caller]
fn plan(session: &Session, sets: &[&str]) -> Value {
    let temporary = session.path("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut command = session.command(&["plan", "--config", "lit.toml", "--json", "-"]);
    command.env("TMPDIR", &temporary).args(sets.iter().flat_map(|set| ["--set", *set]));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(files(&temporary).len(), 0, "the temporary directory is empty again");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn session() -> Session {
    let session = Session::new();
    let data = goldens("train/train.csv");
    session.write_config(&format!("[eval.pairs]\ntask = \"retrieval\"\ndata = {data:?}\n"));
    session
}

/// The shares of a step by part. They add up to the step.
#[track_caller]
fn shares(step: &Value) -> BTreeMap<String, f64> {
    let (parts, seconds) = (step["parts"].as_array().unwrap(), step["seconds"].as_f64().unwrap());
    assert!(seconds > 0.0 && step["pairs_per_second"].as_f64().unwrap() > 0.0);
    let sum: f64 = column(parts, "seconds").iter().sum();
    assert!((sum - seconds).abs() < 1e-6 * seconds, "{sum} of {seconds}");
    let shares = column(parts, "share");
    assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{shares:?}");
    parts.iter().map(|part| part["part"].as_str().unwrap().to_owned()).zip(shares).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

fn train(session: &Session, run: &str, sets: &[&str]) -> Vec<Value> {
    let dir = format!("run.dir={run}");
    let sets = sets.iter().copied().chain([dir.as_str()]);
    session.succeed(
        &["train", "--config", "lit.toml"].into_iter().chain(sets.flat_map(|set| ["--set", set])).collect::<Vec<_>>(),
    );
    session.metrics(run, "train")
}

#[test]
fn plan_changes_no_run() {
    let session = session();
    let sets = ["model.lock=LL", "data.shuffle=true", "train.epochs=2"];
    let without = train(&session, "without", &sets);
    let before = files(session.path("").as_path());
    plan(&session, &sets);
    fs::remove_dir(session.path("tmp")).unwrap();
    assert_eq!(files(session.path("").as_path()), before, "a run that does not exist yet");

    let dir = [&sets[..], &["run.dir=without"]].concat();
    let found = plan(&session, &dir);
    fs::remove_dir(session.path("tmp")).unwrap();
    assert_eq!(files(session.path("").as_path()), before, "a run that is over, and its cache");
    assert!(found["notes"][0].as_str().unwrap().contains("holds a run already"), "{}", found["notes"]);
    assert_eq!(number(&found["cache"][0]["present"]), 24, "features that are there are counted");

    let with = train(&session, "with", &sets);
    for name in ["step", "loss", "grad_norm", "logit_scale"] {
        assert_eq!(column(&with, name), column(&without, name), "{name}");
    }
}

#[test]
fn locked_tower_has_two_kinds_of_steps() {
    let session = session();
    let found = plan(&session, &["model.lock=LU", "train.epochs=3"]);
    let stage = &found["stages"][0];
    let (first, later) = (shares(&stage["step"]), shares(&stage["cached_step"]));
    let names =
        ["locked image tower", "optimiser", "other", "projections and loss", "text tower", "waiting for images"];
    assert_eq!(first.keys().collect::<Vec<_>>(), names);
    assert!(first["locked image tower"] > 0.0 && first["text tower"] > 0.0);
    assert!(!later.contains_key("image tower"));

    let data = &found["data"];
    let counts = ["images", "captions", "pairs", "batch_size", "steps_per_epoch", "total_steps"];
    assert_eq!(counts.map(|name| number(&data[name])), [24, 24, 24, 8, 3, 9]);
    let time = |name: &str| found["time"][name].as_f64().unwrap();
    assert!(time("first_epoch") >= time("later_epoch") && time("later_epoch") > 0.0);
    let sum = ["start", "training", "evaluations", "checkpoints"].map(time).iter().sum::<f64>();
    assert!((sum - time("run")).abs() < 1e-6 * sum);
    assert_eq!(number(&found["evaluations"][0]["runs"]), 4);
    assert_eq!(number(&found["checkpoints"]["count"]), 1);

    // The 24 images of the training data are those of the evaluation: 16 values of 4 bytes, and a record, each.
    assert_eq!((&found["cache"][0]["what"], number(&found["cache"][0]["rows"])), (&"images".into(), 24));
    assert_eq!(number(&found["cache"][0]["bytes"]) % 24, 0);
    assert!(found["fit"].is_null() && found["time"]["fit_alone"].is_null(), "{found}");
    assert_eq!(found["cache"].as_array().unwrap().len(), 1, "the text tower trains");
    let tower = found["parameters"].as_array().unwrap().iter().find(|part| part["name"] == "image tower").unwrap();
    assert!(tower["trainable"] == 0 && number(&tower["locked"]) > 0, "{tower}");
    let memory = &found["memory"];
    let trainable = found["parameters"].as_array().unwrap().iter().map(|part| number(&part["trainable"])).sum::<u64>();
    assert_eq!((number(&memory["gradients"]), number(&memory["optimizer"])), (4 * trainable, 8 * trainable));
    // A system may refuse to start the count of the peak over.
    if let Some(peak) = memory["peak"].as_u64() {
        assert!(peak > number(&memory["gradients"]) && number(&memory["available"]) > peak, "{memory}");
    }
    assert!(!found["advice"]["text"].as_str().unwrap().is_empty());
}

#[test]
fn trained_towers_have_one_kind_of_step() {
    let session = session();
    for sets in [&["model.lock=UU"][..], &["model.lock=UU", "train.micro_batch_size=3"], &["cache.enabled=false"]] {
        let found = plan(&session, sets);
        let stage = &found["stages"][0];
        let parts = shares(&stage["step"]);
        assert!(parts["image tower"] > 0.0 && parts["text tower"] > 0.0 && parts["optimiser"] > 0.0, "{parts:?}");
        assert!(stage["cached_step"].is_null() && found["cache"] == Value::Array(Vec::new()), "{stage}");
        assert_eq!(found["time"]["first_epoch"], found["time"]["later_epoch"]);
    }
}

#[test]
fn each_stage_is_measured() {
    let session = session();
    session.write_config(
        "[[train.stage]]\nfrom_epoch = 1\nlock = \"LU\"\n[[train.stage]]\nfrom_epoch = 3\nlock = \"LU\"\n",
    );
    let found = plan(&session, &["model.lock=UU"]);
    let stages = found["stages"].as_array().unwrap();
    assert_eq!(stages.iter().map(|stage| number(&stage["from_step"])).collect::<Vec<_>>(), [0, 3, 9]);
    assert_eq!(stages.iter().map(|stage| number(&stage["steps"])).collect::<Vec<_>>(), [3, 6, 3]);
    assert!(shares(&stages[0]["step"]).contains_key("image tower"));
    assert!(shares(&stages[1]["step"]).contains_key("locked image tower"));
    assert!(stages[0]["cached_step"].is_null() && !stages[1]["cached_step"].is_null());
    assert!(stages[2]["cached_step"].is_null(), "the stage before it has filled the cache");
}

#[test]
fn plan_refuses_what_training_refuses() {
    let session = session();
    for (code, sets) in [
        (2, ["train.batch_size=25", "data.shuffle=true"]),
        (2, ["model.init=./nowhere", "run.seed=1"]),
        (2, ["data.train.csv.path=nowhere.csv", "run.seed=1"]),
        (2, ["run.device=tpu", "run.seed=1"]),
    ] {
        let arguments = |command| [command, "--config", "lit.toml", "--set", sets[0], "--set", sets[1]];
        assert_eq!(session.fail(code, &arguments("plan")), session.fail(code, &arguments("train")));
    }
    // Loss and gradient are not finite in training either.
    let text = session.fail(
        3,
        &["plan", "--config", "lit.toml", "--set", "train.learning_rate=1e30", "--set", "train.warmup_steps=0"],
    );
    assert!(text.contains("`plan` saves nothing"), "{text}");
    session.fail(2, &["plan", "--config", "lit.toml", "--steps", "0"]);
}

#[test]
fn table_names_the_figures() {
    let session = session();
    let text = session.succeed(&["plan", "--config", "lit.toml", "--set", "model.lock=LU", "--steps", "1"]);
    for line in [
        "parameters  ",
        "step  ",
        "later step  ",
        "images  ",
        "epoch  ",
        "run  ",
        "memory  ",
        "cache  ",
        "change first  ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line}: {text}");
    }
    assert!(text.contains("evaluation `pairs`") && text.contains("an estimate"), "{text}");
}

#[test]
fn signal_leaves_nothing() {
    let session = session();
    let temporary = session.path("tmp");
    fs::create_dir(&temporary).unwrap();
    // More steps than the time to measure in has room for.
    let mut command = session.command(&["plan", "--config", "lit.toml", "--steps", "1000000", "--log", "json"]);
    command.args(["--set", "train.steps=2000000", "--set", "train.epochs="]).env("TMPDIR", &temporary);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"kind\":\"work\"")), "no step");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let last = lines.last().unwrap();
    assert!(last.contains("stopped by a signal"), "{last}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(files(&temporary).len(), 0);
    assert!(!session.path("run").exists());
}

#[test]
fn fits_and_equal_texts_count_once() {
    let session = session();
    // The texts of the evaluation are those of the training data, of which 20 differ.
    let sets = ["model.lock=LL", "train.epochs=1"];
    let found = plan(&session, &sets);
    let rows =
        |what: &str| found["cache"].as_array().unwrap().iter().find(|it| it["what"] == what).unwrap()["rows"].clone();
    assert_eq!((rows("images"), rows("captions")), (Value::from(24), Value::from(20)), "{found}");
    let fitted = ["model.init=", "model.lock=LL", "model.head_init=cca", "model.embed_dim=6", "train.epochs=1"];
    let towers = [("image_tower", "train/vit"), ("text_tower", "train/bert")];
    let towers = towers.map(|(key, path)| format!("model.{key}={}", goldens(path).display()));
    let fitted = [&fitted[..], &towers.each_ref().map(String::as_str)].concat();
    let found = plan(&session, &fitted);
    let seconds = |found: &Value, of: &str, name: &str| found[of][name].as_f64().unwrap();
    let fit = |found: &Value| ["features_seconds", "closed_form_seconds"].map(|name| seconds(found, "fit", name));
    assert_eq!((number(&found["fit"]["images"]), number(&found["fit"]["texts"])), (24, 20));
    let [features, closed_form] = fit(&found);
    assert!(features > 0.0 && closed_form > 0.0, "{found}");
    let time = |name: &str| seconds(&found, "time", name);
    assert!((time("fit") - features - closed_form).abs() < 1e-9, "{found}");
    let sum = ["start", "fit", "training", "evaluations", "checkpoints"].map(time).iter().sum::<f64>();
    assert!((sum - time("run")).abs() < 1e-6 * sum, "{found}");
    // The evaluation reads the features that the fit has computed, and so does every step.
    let evaluation = &found["evaluations"][0];
    assert_eq!(evaluation["first_seconds"], evaluation["later_seconds"]);
    assert!(time("filling_cache") == 0.0 && found["stages"][0]["cached_step"].is_null(), "{found}");
    let alone = time("start") + time("fit") + evaluation["first_seconds"].as_f64().unwrap();
    assert!(time("fit_alone") >= alone, "{found}");
    // A text tower that trains is cached for the fit, and filled by no step.
    let found = plan(&session, &[&fitted[..], &["model.lock=LU"]].concat());
    let cached: Vec<&str> = found["cache"].as_array().unwrap().iter().map(|it| it["what"].as_str().unwrap()).collect();
    assert_eq!(cached, ["images", "captions"]);
    // Features that are there are not computed.
    session.succeed(
        &["fit", "--config", "lit.toml"]
            .into_iter()
            .chain(fitted.iter().flat_map(|set| ["--set", *set]))
            .collect::<Vec<_>>(),
    );
    assert_eq!(fit(&plan(&session, &fitted))[0], 0.0);
}
