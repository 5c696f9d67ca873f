//! Several sources in one run, with weights, selections and prompt templates, and the validation split: trained,
//! resumed, cached and evaluated.

use std::fs;

use serde_json::Value;

use crate::data_forms::rows;
use crate::soak::{copy_run, outcome};
use crate::support::Session;

/// Three sources: 12 pairs of which an epoch has half, 8 pairs twice, and 4 labels in prompts.
const SOURCES: &str = "[[data.train]]\ncsv.path = \"first.csv\"\nweight = 0.5\n\
                       [[data.train]]\ncsv.path = \"second.csv\"\nweight = 2\nonly = \"rows.txt\"\n\
                       [[data.train]]\ncsv.path = \"labels.csv\"\ntemplates = \"templates.txt\"\n\
                       classnames = \"classes.txt\"\n";

/// Pairs per epoch of [`SOURCES`].
const PAIRS: u64 = 6 + 16 + 4;

fn session(data: &str, more: &str) -> Session {
    let session = Session::new();
    session.write_config("");
    session.copy("train/images", "images");
    let config = fs::read_to_string(session.path("lit.toml")).unwrap();
    let (before, after) = config.split_once("[data]").unwrap();
    let train = &after[after.find("[train]").unwrap()..];
    let checkpoint = "[checkpoint]\nevery_steps = 1\nkeep = 100\n";
    session.write("lit.toml", format!("{before}[data]\nshuffle = true\n{data}{train}{checkpoint}{more}"));
    let line = |(image, caption): &(String, String)| format!("{image},\"{caption}\"\n");
    let table = |rows: &[(String, String)]| format!("image,caption\n{}", rows.iter().map(line).collect::<String>());
    let rows = rows();
    session.write("first.csv", table(&rows[..12]));
    session.write("second.csv", table(&rows[10..20]));
    session.write("rows.txt", "1\n2\n3\n4\n5\n6\n7\n8\n");
    let labels = rows[20..].iter().zip([1, 0, 1, 1]).map(|((image, _), label)| (image.clone(), label.to_string()));
    session.write("names.txt", "images/10.png\nimages/99.png\n");
    session.write("labels.csv", table(&labels.collect::<Vec<_>>()));
    session.write("classes.txt", "cat\ndog\n");
    session.write("templates.txt", "a photo of a {c}\nthe {c}\n");
    session
}

fn train(session: &Session, sets: &[&str]) {
    let always = ["train.batch_size=6", "train.epochs=3"];
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume"];
    arguments.extend(always.iter().chain(sets).flat_map(|set| ["--set", *set]));
    session.succeed(&arguments);
}

#[test]
fn mixed_sources_resume_exactly() {
    let session = session(SOURCES, "");
    let steps = 3 * (PAIRS / 6);
    for lock in ["model.lock=UU", "model.lock=LL"] {
        let whole = format!("whole-{}", &lock[11..]);
        let dir = format!("run.dir={whole}");
        train(&session, &[lock, &dir, "cache.dir=cache"]);
        let expected = outcome(&session, &whole, steps);
        for (step, workers) in [(3, "data.workers=1"), (4, "data.workers=4"), (9, "data.workers=2")] {
            let run = format!("{whole}-{step}");
            copy_run(&session.path(&whole), &session.path(&run), step, 100);
            train(&session, &[lock, &format!("run.dir={run}"), workers, "cache.dir=cache"]);
            outcome(&session, &run, steps).assert_same(&expected, &format!("{lock}, after step {step}"));
        }
        let off = format!("{whole}-off");
        train(&session, &[lock, &format!("run.dir={off}"), "cache.enabled=false"]);
        outcome(&session, &off, steps).assert_same(&expected, &format!("{lock}, without a cache"));
    }
}

#[test]
fn weights_change_what_is_trained() {
    let losses = |weight: &str| {
        let session = session(&SOURCES.replace("weight = 0.5", weight), "");
        train(&session, &["train.epochs=1"]);
        session.metrics("run", "train").iter().map(|line| line["loss"].clone()).collect::<Vec<Value>>()
    };
    let half = losses("weight = 0.5");
    assert_eq!(half.len() as u64, PAIRS / 6);
    assert_ne!(half, losses("weight = 0.75"));
    assert_eq!(losses("weight = 1.5").len() as u64, (18 + 16 + 4) / 6);
}

#[test]
fn validation_split_is_evaluated() {
    let evals = "[eval.held]\ntask = \"retrieval\"\n[eval.pools]\ntask = \"loss\"\npool_size = 2\n";
    let session = session("validation_fraction = 0.25\n[data.train.csv]\npath = \"data.csv\"\n", evals);
    let line = |(image, caption): &(String, String)| format!("{image},\"{caption}\"\n");
    session.write("data.csv", format!("image,caption\n{}", rows().iter().map(line).collect::<String>()));
    train(&session, &["train.epochs=1"]);
    let evals = session.metrics("run", "eval");
    assert_eq!(evals.iter().map(|line| &line["name"]).collect::<Vec<_>>(), ["held", "pools", "held", "pools"]);
    // After the baselines.
    let evals = &evals[2..];
    let held = evals[0]["num_images"].as_u64().unwrap();
    assert!((2..=11).contains(&held), "{held}");
    let trained = session.metrics("run", "train").len() as u64;
    assert_eq!(trained, (24 - held) / 6, "held out images are not trained on");
    let text = session.succeed(&["eval", "--config", "lit.toml", "--json", "-"]);
    let again: Value = serde_json::from_str(&text).unwrap();
    for (name, line) in ["held", "pools"].iter().zip(evals) {
        let found = again["evaluations"][name].as_object().unwrap();
        assert!(found.len() > 3);
        found.iter().for_each(|(key, value)| assert_eq!(value, &line[key], "{name} {key}"));
    }
}

#[test]
fn nonsense_is_refused() {
    for (data, expected) in [
        (SOURCES.replace("weight = 0.5", "weight = -1"), "weight"),
        (SOURCES.replace("weight = 0.5", "weight = 0"), "weight"),
        (SOURCES.replace("weight = 0.5", "weight = nan"), "weight"),
        (SOURCES.replace("rows.txt", "names.txt"), "1 of the 2 names in this list: `images/99.png`"),
        (SOURCES.replace("rows.txt", "none.txt"), "none.txt"),
        (SOURCES.replace("\"templates.txt\"", "\"classes.txt\""), "{c}"),
        (SOURCES.replace("csv.path = \"first.csv\"", "csv.path = \"first.csv\"\njsonl.path = \"x.jsonl\""), "jsonl"),
        (SOURCES.replace("csv.path = \"first.csv\"\n", ""), "csv"),
        (format!("validation_fraction = 1.5\n{SOURCES}"), "validation_fraction"),
        (format!("validation_fraction = -0.5\n{SOURCES}"), "validation_fraction"),
        (format!("validation_fraction = 0.000001\n{SOURCES}"), "leaves no validation image"),
        ("[[data.train]]\n".to_owned(), "csv"),
        ("train = []\n".to_owned(), "data.train"),
    ] {
        let session = session(&data, "");
        let error = session.fail(2, &["train", "--config", "lit.toml"]);
        assert!(error.contains(expected), "{data}\n{error}");
        assert!(!session.path("run").join("metrics.jsonl").exists(), "{data}");
    }
    let session = session(SOURCES, "[eval.held]\ntask = \"retrieval\"\n");
    let error = session.fail(2, &["train", "--config", "lit.toml"]);
    assert!(error.contains("held") && error.contains("data"), "{error}");
}

/// A weight of 0 takes a caption column out: training is as on the other column alone.
#[test]
fn caption_weights_choose_columns() {
    let session = Session::new();
    session.write_config("");
    session.copy("train/images", "images");
    let line = |(image, caption): &(String, String)| format!("{image},something else about {image},\"{caption}\"\n");
    session.write("two.csv", format!("image,raw,long\n{}", rows().iter().map(line).collect::<String>()));
    let losses = |name: &str, data: &str| {
        let (data, dir) = (format!("data.train={{{data}}}"), format!("run.dir={name}"));
        train(&session, &[&data, &dir, "data.captions=one", "data.shuffle=true", "cache.dir=cache"]);
        session.metrics(name, "train").iter().map(|line| line["loss"].to_string()).collect::<Vec<_>>()
    };
    let both = "csv={path=\"two.csv\",captions=[\"raw\",\"long\"]}";
    let long = losses("long", "csv={path=\"two.csv\",caption=\"long\"}");
    let raw = losses("raw", "csv={path=\"two.csv\",caption=\"raw\"}");
    assert_eq!(long.len(), 12);
    assert_ne!(long, raw);
    assert_eq!(losses("only-long", &format!("{both},caption_weights=[0,1]")), long);
    assert_eq!(losses("only-raw", &format!("{both},caption_weights=[1,0]")), raw);
    let mixed = losses("mixed", both);
    assert!(mixed != long && mixed != raw);
}
