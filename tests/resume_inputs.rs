//! What a run must find unchanged when it is resumed: config, data, towers, optimiser state; and what another number of
//! threads does to its numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::soak::{Tensors, copy_run, figure, outcome};
use crate::support::{Session, assert_close, column, goldens, stderr, tensors};

const SAME_SIZE: &str = "as before, but a path, a caption, their order";

fn session(more: &str) -> Session {
    let session = Session::new();
    session.write_config(&format!("[checkpoint]\nevery_steps = 4\nkeep = 3\n{more}"));
    session.copy("train/images", "images");
    session.copy("train/init", "init");
    session.write("data.csv", fs::read(goldens("train/train.csv")).unwrap());
    session
}

fn averaging_session() -> Session {
    let session = session("");
    let config = fs::read_to_string(session.path("lit.toml")).unwrap();
    session.write("lit.toml", config.replace("[train]\n", "[train]\nema_decay = 0.9\n"));
    session
}

fn arguments<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume"];
    let always = ["data.train.csv.path=data.csv", "model.init=init"];
    arguments.extend(always.iter().chain(sets).flat_map(|set| ["--set", *set]));
    arguments
}

/// Resumes, asserts that this is refused with `parts` in the message, and that the run is as it was.
#[track_caller]
fn assert_refused(session: &Session, sets: &[&str], parts: &[&str]) {
    let log = fs::read(session.path("run/metrics.jsonl")).unwrap();
    let config = fs::read(session.path("run/config.toml")).unwrap();
    let text = session.fail(2, &arguments(sets));
    parts.iter().for_each(|part| assert!(text.contains(part), "{part}: {text}"));
    assert!(fs::read(session.path("run/metrics.jsonl")).unwrap() == log, "the log was changed");
    assert!(fs::read(session.path("run/config.toml")).unwrap() == config, "the config was changed");
}

#[test]
fn changed_config_is_refused_or_noted() {
    let session = session("[eval.pairs]\ntask = \"retrieval\"\ndata = \"data.csv\"\nevery_steps = 4\n");
    session.succeed(&arguments(&[]));
    let refused = [
        ("run.seed=2", "run.seed: 1 -> 2"),
        ("model.lock=LU", "model.lock: \"UU\" -> \"LU\""),
        ("model.text_dropout=0.5", "model.text_dropout"),
        ("data.shuffle=true", "data.shuffle: false -> true"),
        ("data.max_tokens=8", "data.max_tokens"),
        ("train.batch_size=6", "train.batch_size: 8 -> 6"),
        ("train.epochs=5", "train.epochs: 4 -> 5"),
        ("train.weight_decay=0.2", "train.weight_decay"),
        ("train.optimizer=lion", "train.optimizer: \"adamw\" -> \"lion\""),
        ("train.loss=sigmoid", "train.loss"),
        ("train.ema_decay=0.9", "train.ema_decay: (not set) -> 0.9"),
    ];
    for (set, shown) in refused {
        assert_refused(&session, &[set], &[shown, "the run cannot be resumed with a different configuration"]);
    }
    // Every refused key is shown at once.
    assert_refused(&session, &["run.seed=2", "train.batch_size=6"], &["run.seed: 1 -> 2", "train.batch_size: 8 -> 6"]);
    let noted = ["run.log_every_steps=3", "data.workers=3", "checkpoint.keep=9", "data.max_bad_fraction=0.5"];
    for set in noted {
        let output = session.run(&arguments(&[set]));
        let text = stderr(&output);
        let key = set.split('=').next().unwrap();
        assert!(output.status.success() && text.contains(&format!("`{key}` has changed")), "{set}: {text}");
    }
    figure(
        "changed_config_is_refused_or_noted",
        &format!("{} keys refused, {} noted; each key is in config/resume_diff.rs", refused.len(), noted.len()),
    );
}

#[test]
fn changed_data_are_refused() {
    let session = session("");
    session.succeed(&arguments(&[]));
    let whole = outcome(&session, "run", 12);
    let intact = fs::read_to_string(session.path("data.csv")).unwrap();
    let lines: Vec<&str> = intact.lines().collect();
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    let cases = [
        ("two rows swapped", swapped.join("\n"), SAME_SIZE),
        ("a caption edited", intact.replacen(lines[3], &format!("{}!", lines[3].trim_end_matches('"')), 1), SAME_SIZE),
        (
            "a row deleted",
            lines[..lines.len() - 1].join("\n"),
            "24 images with 24 captions, and there are 23 images with 23 captions now",
        ),
        ("a row added", format!("{intact}\nimages/00.png,one more\n"), "there are 24 images with 25 captions now"),
        (
            "another image",
            intact.replacen("images/04.png", "images/05.png", 1),
            "there are 23 images with 24 captions now",
        ),
    ];
    for (what, text, change) in &cases {
        assert_ne!(*text, intact, "{what}");
        session.write("data.csv", text);
        assert_refused(&session, &[], &["the training data have changed since the run started", change, "restore"]);
    }
    // The same pairs in another place are the same data.
    fs::create_dir(session.path("moved")).unwrap();
    session.copy("train/images", "moved/images");
    session.write("moved/data.csv", &intact);
    fs::remove_file(session.path("data.csv")).unwrap();
    let output = session.run(&arguments(&["data.train.csv.path=moved/data.csv"]));
    let text = stderr(&output);
    assert!(output.status.success() && text.contains("the pairs must be the same, which is checked"), "{text}");
    outcome(&session, "run", 12).assert_same(&whole, "other place");
    // The same pairs, written otherwise, are too.
    session.write("data.csv", intact.replace('\n', "\r\n"));
    session.succeed(&arguments(&[]));
    outcome(&session, "run", 12).assert_same(&whole, "other line ends");
    figure("changed_data_are_refused", &format!("{} of {} refused", cases.len(), cases.len()));
}

fn write_tensors(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let dtype = if dtype == "F32" { Dtype::F32 } else { Dtype::I64 };
        (name.clone(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(
        path,
        safetensors::serialize(views.collect::<Vec<_>>(), Some([("format".into(), "pt".into())].into())).unwrap(),
    )
    .unwrap();
}

#[test]
fn changed_towers_are_refused() {
    let session = session("");
    session.succeed(&arguments(&["model.lock=LU"]));
    let file = session.path("init/model.safetensors");
    let intact = fs::read(&file).unwrap();
    let edit = |name: &str| {
        let mut all = tensors(&file);
        let (_, _, bytes) = all.get_mut(name).unwrap_or_else(|| panic!("{name}"));
        bytes[0] ^= 1;
        write_tensors(&file, &all);
    };
    // One bit of the locked tower.
    edit("vision_model.layernorm.bias");
    assert_refused(&session, &["model.lock=LU"], &["the locked weights differ", "restore the tower directories"]);
    fs::write(&file, &intact).unwrap();
    // The initial weights of a tower that trains are in the checkpoint: the original may change.
    edit("text_model.pooler.dense.bias");
    session.succeed(&arguments(&["model.lock=LU"]));
    fs::write(&file, &intact).unwrap();
    // A model of other shapes in the same place.
    let config = session.path("init/config.json");
    let text = fs::read_to_string(&config).unwrap();
    let mut other: Value = serde_json::from_str(&text).unwrap();
    other["text_config"]["num_hidden_layers"] = 1.into();
    fs::write(&config, other.to_string()).unwrap();
    assert_refused(&session, &["model.lock=LU"], &["the text tower (`config.json`) is not the one"]);
}

#[test]
fn changed_files_of_towers_are_refused() {
    let session = session("");
    session.succeed(&arguments(&["train.epochs=2"]));
    session.write("texts.txt", "a red circle\n");
    let embed = ["embed", "--model", "run", "--texts", "texts.txt", "--out", "texts.safetensors"];
    type Edit<'a> = &'a dyn Fn(&mut Value);
    let cases: [(&str, Edit<'_>, &str); 4] = [
        ("processor_config.json", &|it| it["image_processor"]["image_mean"][0] = 0.25.into(), "the image processing"),
        ("tokenizer.json", &|it| it["normalizer"]["lowercase"] = false.into(), "the tokenizer (`tokenizer.json`"),
        ("config.json", &|it| it["vision_config"]["hidden_act"] = "relu".into(), "the image tower (`config.json`)"),
        ("config.json", &|it| it["text_config"]["layer_norm_eps"] = 0.5.into(), "the text tower (`config.json`)"),
    ];
    for (name, edit, what) in cases {
        let file = session.path(&format!("init/{name}"));
        let intact = fs::read(&file).unwrap();
        let mut changed: Value = serde_json::from_slice(&intact).unwrap();
        edit(&mut changed);
        assert_ne!(changed, serde_json::from_slice::<Value>(&intact).unwrap(), "{name}");
        fs::write(&file, changed.to_string()).unwrap();
        let parts = [what, "is not the one that the checkpoint", "restore the files in the tower directories"];
        assert_refused(&session, &["train.epochs=2"], &parts);
        let text = session.fail(2, &embed);
        assert!(text.contains(what) && !session.path("texts.safetensors").exists(), "{text}");
        fs::write(&file, &intact).unwrap();
    }
    session.succeed(&embed);
    session.succeed(&arguments(&["train.epochs=2"]));
}

/// Rewrites a file of a checkpoint and its manifest, in the form of format 1.
fn forge(checkpoint: &Path, file: &str, tensors: &Tensors) {
    write_tensors(&checkpoint.join(file), tensors);
    let path = checkpoint.join("manifest.json");
    let old: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut files = old["files"].clone();
    let bytes = fs::read(checkpoint.join(file)).unwrap();
    files[file] = serde_json::json!({"bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().to_string()});
    let mut manifest = BTreeMap::from([("format", 1.into()), ("files", files)]);
    for name in ["step", "samples_seen", "total_steps", "data", "locked", "threads"] {
        manifest.insert(name, old[name].clone());
    }
    fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

#[test]
fn wrong_tensors_are_refused() {
    let session = averaging_session();
    session.succeed(&arguments(&["run.dir=whole"]));
    let whole = outcome(&session, "whole", 12);
    let shape = |tensors: &mut Tensors, name: &str| {
        let (_, shape, bytes) = tensors.get_mut(name).unwrap();
        shape[0] += 1;
        let row = bytes.len() / (shape[0] - 1);
        bytes.extend(vec![0; row]);
    };
    type Edit<'a> = &'a dyn Fn(&mut Tensors) -> String;
    let first = |tensors: &Tensors| tensors.keys().find(|name| name.contains("text_projection")).unwrap().clone();
    let missing: Edit<'_> = &|tensors| {
        let name = first(tensors);
        tensors.remove(&name);
        name
    };
    let extra: Edit<'_> = &|tensors| {
        let copied = tensors[&first(tensors)].clone();
        tensors.insert("no_such.parameter".to_owned(), copied);
        "no_such.parameter".to_owned()
    };
    let wrong: Edit<'_> = &|tensors| {
        let name = first(tensors);
        shape(tensors, &name);
        name
    };
    let mut cases = 0;
    for file in ["model.safetensors", "optimizer.safetensors", "ema.safetensors"] {
        for (what, edit) in [("missing", missing), ("extra", extra), ("another shape", wrong)] {
            cases += 1;
            let _ = fs::remove_dir_all(session.path("run"));
            copy_run(&session.path("whole"), &session.path("run"), 8, 1);
            let checkpoint = session.path("run/checkpoints/step-000008");
            let intact = tensors(&checkpoint.join(file));
            forge(&checkpoint, file, &intact);
            session.succeed(&arguments(&["run.dir=run"]));
            outcome(&session, "run", 12).assert_same(&whole, "the same tensors, written again");
            fs::remove_dir_all(session.path("run")).unwrap();
            copy_run(&session.path("whole"), &session.path("run"), 8, 1);
            let mut edited = intact.clone();
            let name = edit(&mut edited);
            forge(&checkpoint, file, &edited);
            // Under the path of the parameter, without the name of the optimiser's array.
            let shown = name.split("text_projection").last().map_or("", |_| "text_projection");
            let shown = if what == "extra" { "no_such" } else { shown };
            let text = session.fail(2, &arguments(&["run.dir=run"]));
            assert!(text.contains(shown), "{file}, {what}: {text}");
            assert_eq!(session.metrics("run", "train").len(), 12, "{file}, {what}: the log was cut");
        }
    }
    figure("wrong_tensors_are_refused", &format!("{cases} of {cases} refused"));
}

#[test]
fn other_thread_count_warns_and_stays_close() {
    let session = session("");
    // 3 steps per epoch. After step 4 another number of threads trains for 50 steps.
    let long = ["train.epochs=18", "train.schedule=constant"];
    let train = |run: &str, threads: u64| {
        let (run, threads) = (format!("run.dir={run}"), format!("run.threads={threads}"));
        let output = session.run(&arguments(&[long.as_slice(), &[&run, &threads]].concat()));
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let mut most = 0f64;
    for (from, to) in [(2, 1), (1, 2), (2, 5)] {
        let (whole, other) = (format!("whole-{from}"), format!("from-{from}-to-{to}"));
        if !session.path(&whole).exists() {
            let keep = ["checkpoint.keep=100", &format!("run.dir={whole}"), &format!("run.threads={from}")];
            session.succeed(&arguments(&[long.as_slice(), &keep].concat()));
        }
        copy_run(&session.path(&whole), &session.path(&other), 4, 1);
        let text = train(&other, to);
        let threads = if from == 1 { "thread" } else { "threads" };
        let warning = format!("the run was started with {from} {threads} and continues with {to}");
        let advice = format!("`run.threads = {from}` keeps them");
        assert!(text.contains(&warning) && text.contains(&advice), "{text}");
        let [found, expected] = [&other, &whole].map(|run| column(&session.metrics(run, "train"), "loss"));
        assert_eq!(found.len(), 54);
        assert_close("loss", &found, &expected, 1e-5);
        let difference = found.iter().zip(&expected).map(|(a, b)| (a / b - 1.0).abs());
        most = difference.fold(most, f64::max);
    }
    figure("other_thread_count_warns_and_stays_close", &format!("3 pairs, 50 steps: loss within {most:.1e}"));
}

#[test]
fn image_that_was_bad_stays_bad() {
    let session = session("");
    // As long as the image: the fingerprint of the data has the lengths of the files.
    let image = fs::read(session.path("images/03.png")).unwrap();
    session.write("images/03.png", vec![0; image.len()]);
    let sets = ["data.max_bad_fraction=0.1", "data.shuffle=true", "train.batch_size=5", "checkpoint.keep=100"];
    let train = |run: &str| {
        let run = format!("run.dir={run}");
        session.succeed(&arguments(&[sets.as_slice(), &["checkpoint.every_steps=1", &run]].concat()))
    };
    train("whole");
    let whole = outcome(&session, "whole", 16);
    // The image is back when the run is resumed: the uninterrupted run would not have looked at it again.
    session.write("images/03.png", image);
    for step in [4, 6, 11] {
        let run = format!("resumed-{step}");
        copy_run(&session.path("whole"), &session.path(&run), step, 1);
        train(&run);
        outcome(&session, &run, 16).assert_same(&whole, &run);
    }
    // A run that never met the bad image is another run.
    train("fresh");
    assert_ne!(outcome(&session, "fresh", 16).metrics, whole.metrics);
}
