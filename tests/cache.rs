//! Caching the features of locked towers does not change a run by a bit: while the cache fills, once it is full, shared
//! by processes, killed, damaged, or with augmented views. Features in half precision change the losses, reproducibly.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Session, assert_close, column, edit_floats, goldens, stderr, tensors};

/// 24 images, one of them unreadable, each with two captions; a retrieval and a zero-shot evaluation.
fn session() -> Session {
    let session = Session::new();
    session.write_config(
        "[checkpoint]\nevery_steps = 5\n[eval.pairs]\ntask = \"retrieval\"\ndata = \"data.csv\"\n\
         [eval.classes]\ntask = \"zero-shot\"\nimages = \"classes\"\n",
    );
    session.copy("train/images", "images");
    session.write("images/03.png", "<!DOCTYPE html>not found");
    let rows = fs::read_to_string(goldens("train/train.csv")).unwrap();
    let again = rows.lines().skip(1).map(|row| format!("{row} again\n"));
    session.write("data.csv", rows.clone() + &again.collect::<String>());
    for (class, image) in [("one", "00.png"), ("one", "01.png"), ("two", "02.png"), ("two", "05.png")] {
        session.write(&format!("classes/{class}/{image}"), fs::read(session.path("images").join(image)).unwrap());
    }
    session
}

fn arguments<'a>(command: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let always = [
        "data.train.csv.path=data.csv",
        "data.shuffle=true",
        "data.max_bad_fraction=0.1",
        "train.epochs=3",
        "train.batch_size=7",
    ];
    let mut arguments = vec![command, "--config", "lit.toml"];
    arguments.extend(always.iter().chain(sets).flat_map(|set| ["--set", *set]));
    arguments
}

fn train(session: &Session, sets: &[&str]) {
    session.succeed(&[arguments("train", sets), vec!["--resume"]].concat());
}

/// Dtype, shape and bytes by name.
type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

/// Everything a run writes that does not depend on time.
#[derive(PartialEq)]
struct Outcome {
    metrics: Vec<Value>,
    /// Of the last checkpoint.
    model: Tensors,
    optimizer: Tensors,
}

fn outcome(session: &Session, run: &str) -> Outcome {
    let metrics = ["train", "eval"].map(|kind| session.reproducible(run, kind)).concat();
    let mut checkpoints: Vec<PathBuf> =
        fs::read_dir(session.path(run).join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    checkpoints.sort();
    let last = checkpoints.last().unwrap();
    let [model, optimizer] = ["model", "optimizer"].map(|file| tensors(&last.join(format!("{file}.safetensors"))));
    Outcome { metrics, model, optimizer }
}

fn store_files(session: &Session, dir: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(session.path(dir)).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn cold_and_warm_match_uncached() {
    let session = session();
    for lock in ["LU", "UL", "LL"] {
        let (lock_key, dir) = (format!("model.lock={lock}"), format!("cache.dir=cache-{lock}"));
        let run = |name: &str, more: &[&str]| {
            let name = format!("{lock}-{name}");
            let run_dir = format!("run.dir={name}");
            train(&session, &[&[lock_key.as_str(), &dir, &run_dir], more].concat());
            outcome(&session, &name)
        };
        let off = run("off", &["cache.enabled=false"]);
        assert_eq!(off.metrics.iter().filter(|line| line["kind"] == "train").count(), 18, "{lock}");
        assert_eq!(off.metrics.iter().filter(|line| line["kind"] == "eval").count(), 8, "{lock}");
        assert!(run("cold", &[]) == off, "{lock}: filling the cache changed the run");
        let filled = store_files(&session, &format!("cache-{lock}"));
        assert_eq!(filled.len(), if lock == "LL" { 4 } else { 2 });
        assert!(run("warm", &["data.workers=3"]) == off, "{lock}: the filled cache changed the run");
        assert!(store_files(&session, &format!("cache-{lock}")) == filled, "{lock}: the second run wrote to the cache");
        // The same holds for `dualenc eval`.
        let json = |more: &[&str]| {
            let text = session.succeed(
                &[arguments("eval", &[&lock_key, &dir, &format!("run.dir={lock}-warm")]), more.to_vec()].concat(),
            );
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let evaluated = json(&["--json", "-"]);
        let after = store_files(&session, &format!("cache-{lock}"));
        assert!(after == filled, "{lock}: the features of a trainable tower were cached");
        let last = |name: &str| off.metrics.iter().rfind(|line| line["name"] == name).unwrap().clone();
        for name in ["pairs", "classes"] {
            for (key, value) in evaluated["evaluations"][name].as_object().unwrap() {
                // The log of a run has their number, and `bad_samples.jsonl` those of training.
                if key == "skipped" {
                    assert_eq!(value.as_array().unwrap().len(), last(name)["num_unreadable"], "{lock} {name}");
                    continue;
                }
                assert_eq!(value, &last(name)[key], "{lock} {name} {key}");
            }
        }
    }
}

#[test]
fn cache_command_fills_for_training() {
    let session = session();
    let sets = |run| ["model.lock=LL", "cache.dir=cache", run];
    let text = session.succeed(&arguments("cache", &sets("run.dir=run")));
    // 24 images each for training and retrieval, of which 23 are readable; 4 for classification, all cached by then.
    assert!(text.contains("52 images: 23 computed, 0 already there, 27 repeated, 2 cannot be used; 1"), "{text}");
    assert!(text.contains("98 captions: ") && text.contains(".values"), "{text}");
    assert!(!session.path("run").exists(), "`dualenc cache` created the run directory");
    let filled = store_files(&session, "cache");
    let text = session.succeed(&arguments("cache", &sets("run.dir=run")));
    assert!(
        text.contains("52 images: 0 computed, 23 already there, 27 repeated")
            && text.contains("captions: 0 computed, "),
        "{text}"
    );
    train(&session, &sets("run.dir=run"));
    assert!(store_files(&session, "cache") == filled);
    train(&session, &["model.lock=LL", "cache.enabled=false", "run.dir=off"]);
    assert!(outcome(&session, "run") == outcome(&session, "off"));

    let text = session.succeed(&arguments("cache", &["model.lock=LU", "cache.dir=image-only"]));
    assert!(text.contains("52 images: ") && !text.contains("captions"), "the text tower trains: {text}");
    assert_eq!(store_files(&session, "image-only").len(), 2);
    let text = session.fail(2, &arguments("cache", &["model.lock=UU"]));
    assert!(text.contains("`model.lock` is `UU`, no tower is locked"), "{text}");
    let text = session.fail(2, &arguments("cache", &["model.lock=LU", "cache.enabled=false"]));
    assert!(text.contains("`cache.enabled` is false"), "{text}");
}

#[test]
fn killed_writers_change_nothing() {
    let session = session();
    let lock = "model.lock=LL";
    train(&session, &[lock, "cache.enabled=false", "run.dir=off"]);
    let off = outcome(&session, "off");
    let started = Instant::now();
    train(&session, &[lock, "run.dir=timed"]);
    let duration = started.elapsed();
    for round in 0..8 {
        let spawn = |command, sets: &[&str], resume: bool| {
            let mut arguments = arguments(command, sets);
            arguments.extend(resume.then_some("--resume"));
            session.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        // Two processes that share a cache, killed at moments spread over the run.
        let mut processes = [
            spawn("train", &[lock, "cache.dir=cache", "run.dir=killed"], true),
            spawn("cache", &[lock, "cache.dir=cache"], false),
        ];
        sleep(duration.mul_f64(0.12 * f64::from(round + 1)));
        for process in &mut processes {
            let _ = process.kill();
            process.wait().unwrap();
        }
    }
    train(&session, &[lock, "cache.dir=cache", "run.dir=killed"]);
    assert!(outcome(&session, "killed") == off);
    train(&session, &[lock, "cache.dir=cache", "run.dir=after"]);
    assert!(outcome(&session, "after") == off);
}

#[test]
fn damaged_features_are_recomputed() {
    let session = session();
    let sets = ["model.lock=LL", "cache.dir=cache"];
    train(&session, &[sets.as_slice(), &["run.dir=first"]].concat());
    let first = outcome(&session, "first");
    for (path, bytes) in store_files(&session, "cache") {
        let mut flipped = bytes.clone();
        (0..flipped.len()).step_by(11).for_each(|at| flipped[at] ^= 0x40);
        for damaged in [flipped, bytes[..bytes.len() / 2 + 3].to_vec(), Vec::new()] {
            fs::write(&path, damaged).unwrap();
            let _ = fs::remove_dir_all(session.path("again"));
            train(&session, &[sets.as_slice(), &["run.dir=again"]].concat());
            assert!(outcome(&session, "again") == first, "{}", path.display());
        }
    }
}

#[test]
fn half_precision_is_reproducible() {
    let session = session();
    let half = ["model.lock=LL", "cache.dir=cache", "cache.dtype=f16"];
    train(&session, &[half.as_slice(), &["run.dir=cold"]].concat());
    train(&session, &[half.as_slice(), &["run.dir=warm"]].concat());
    let cold = outcome(&session, "cold");
    assert!(outcome(&session, "warm") == cold, "computed features were not rounded like cached ones");
    train(&session, &["model.lock=LL", "cache.enabled=false", "run.dir=off"]);
    let losses = |run: &str| column(&session.metrics(run, "train"), "loss");
    assert_ne!(losses("cold"), losses("off"));
    assert_close("loss", &losses("cold"), &losses("off"), 2e-3);

    // A run that is killed and resumed ends the same.
    let run = [half.as_slice(), &["run.dir=killed"]].concat();
    let child = session.command(&arguments("train", &run)).stderr(Stdio::null()).spawn();
    let mut child = child.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !session.path("killed/checkpoints/step-000005").exists() && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().unwrap();
    train(&session, &run);
    assert!(outcome(&session, "killed") == cold);

    // A run cannot resume with other features.
    for change in [["cache.dtype=f32"].as_slice(), &["cache.dtype=f16", "cache.enabled=false"]] {
        let sets = [["model.lock=LL", "run.dir=cold"].as_slice(), change].concat();
        let output = session.run(&[arguments("train", &sets), vec!["--resume"]].concat());
        assert_eq!(output.status.code(), Some(2), "{change:?}");
        assert!(stderr(&output).contains("features"), "{}", stderr(&output));
    }
}

#[test]
fn augmented_views_match_uncached() {
    let session = session();
    let sets = ["model.lock=LU", "data.augment={crop_scale=[0.5, 1.0], flip=0.5}", "cache.dir=cache"];
    let run = |name: &str, more: &[&str]| {
        let run_dir = format!("run.dir={name}");
        train(&session, &[sets.as_slice(), more, &[&run_dir]].concat());
        outcome(&session, name)
    };
    let text = session.fail(2, &arguments("train", &sets));
    assert!(text.contains("set `cache.views`"), "{text}");
    let off = run("off", &["cache.views=2", "cache.enabled=false"]);
    assert!(run("cold", &["cache.views=2"]) == off);
    let filled = store_files(&session, "cache");
    let text = session.succeed(&arguments("cache", &[sets.as_slice(), &["cache.views=2"]].concat()));
    assert!(text.starts_with("76 images: "), "{text}");
    assert!(run("warm", &["cache.views=2"]) == off);
    assert!(store_files(&session, "cache").values().zip(filled.values()).all(|(now, then)| now.starts_with(then)));
    // Other numbers of views change the run. Without `cache.views`, the third epoch has a view of its own.
    assert!(run("one", &["cache.views=1"]) != off);
    assert!(run("fresh", &["cache.enabled=false"]) != off);
}

/// Rows of every store, sorted, by the name of the store.
type StoreRows = BTreeMap<String, Vec<Vec<u8>>>;

fn store_rows(session: &Session, dir: &str) -> StoreRows {
    /// Bytes of a record of an index.
    const RECORD: usize = 32;
    let files = store_files(session, dir);
    let rows_of = |path: &PathBuf, values: &Vec<u8>| {
        let num_rows = files[&path.with_extension("index")].len() / RECORD;
        let mut rows: Vec<Vec<u8>> = values.chunks(values.len() / num_rows).map(<[u8]>::to_vec).collect();
        assert_eq!(rows.len(), num_rows);
        rows.sort();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), rows)
    };
    files.iter().filter(|(path, _)| path.extension().unwrap() == "values").map(|(path, v)| rows_of(path, v)).collect()
}

#[test]
fn features_go_with_their_tower() {
    let session = session();
    for (copy, tensor) in [("image", "vision_model.pooler.dense.bias"), ("text", "text_model.pooler.dense.bias")] {
        let file = session.copy("train/init", copy).join("model.safetensors");
        edit_floats(&file, tensor, |value| value + 0.25);
    }
    // One cache for all. Each change concerns the image tower, the text tower, or both.
    let always = ["model.lock=LL", "cache.dir=cache", "train.epochs=1"];
    let (mut seen, mut before): (Vec<(&str, Vec<f64>)>, StoreRows) = Default::default();
    for (name, change, new_stores) in [
        ("first", "run.seed=1", 2),
        ("image-weights", "model.init=image", 1),
        ("text-weights", "model.init=text", 1),
        ("image-pool", "model.image_pool=cls", 1),
        ("text-pool", "model.text_pool=mean", 1),
        ("precision", "run.locked_precision=f16", 2),
        ("processing", "model.image_size=48", 1),
    ] {
        let run = |run: &str, more: &[&str]| {
            let run_dir = format!("run.dir={name}-{run}");
            train(&session, &[&always[..], &[change, &run_dir], more].concat());
            outcome(&session, &format!("{name}-{run}"))
        };
        let off = run("off", &["cache.enabled=false"]);
        assert!(run("cold", &[]) == off, "{name}: filling the cache changed the run");
        assert!(run("warm", &[]) == off, "{name}: the cache changed the run");
        let losses = column(&session.metrics(&format!("{name}-warm"), "train"), "loss");
        let stores = store_rows(&session, "cache");
        assert!(before.iter().all(|(store, rows)| stores[store] == *rows), "{name}: changed the rows of other towers");
        let new: Vec<_> = stores.iter().filter(|(store, _)| !before.contains_key(*store)).collect();
        assert_eq!(new.len(), new_stores, "{name}");
        for (store, rows) in new {
            // Other features, not only another file.
            let others = stores.iter().filter(|(other, _)| *other != store);
            others.for_each(|(other, theirs)| assert!(theirs != rows, "{name}: {store} and {other} are equal"));
        }
        for (other, theirs) in &seen {
            assert!(losses != *theirs, "{name} has the losses of {other}");
        }
        seen.push((name, losses));
        before = stores;
    }
    // After all of them, the first is still served its own.
    train(&session, &[&always[..], &["run.seed=1", "run.dir=again"]].concat());
    assert!(outcome(&session, "again") == outcome(&session, "first-off"));
}

#[test]
fn eight_processes_fill_one_cache() {
    let session = session();
    let lock = "model.lock=LL";
    session.succeed(&arguments("cache", &[lock, "cache.dir=alone"]));
    let children: Vec<_> = (0..8)
        .map(|_| {
            let mut command = session.command(&arguments("cache", &[lock, "cache.dir=shared"]));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert!(store_rows(&session, "shared") == store_rows(&session, "alone"));
    train(&session, &[lock, "cache.dir=shared", "run.dir=shared-run"]);
    train(&session, &[lock, "cache.enabled=false", "run.dir=off"]);
    assert!(outcome(&session, "shared-run") == outcome(&session, "off"));
}

#[test]
fn failed_write_names_file_and_loses_nothing() {
    let session = session();
    let (alone, small) = (["model.lock=LL", "cache.dir=alone"], ["model.lock=LL", "cache.dir=small"]);
    session.succeed(&arguments("cache", &alone));
    // No file may grow past two blocks of 512 or 1024 bytes: the rows of the first chunk fit, but not all.
    let command = session.command(&arguments("cache", &small));
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 2; exec \"$0\" \"$@\""]).arg(command.get_program());
    limited.args(command.get_args()).current_dir(session.path(""));
    let output = limited.output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot write `") && text.contains("small/") && text.contains(".values`"), "{text}");
    // Rows without a record are cut off, and the rest is computed.
    session.succeed(&arguments("cache", &small));
    assert!(store_rows(&session, "small") == store_rows(&session, "alone"));
}
