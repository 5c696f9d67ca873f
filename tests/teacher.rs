//! What the commands say about a run with a teacher.

use std::fs;

use serde_json::Value;

use crate::support::{Session, goldens};

fn session() -> Session {
    let session = Session::new();
    session.write_config(&format!("[train.teacher]\nmodel = {:?}\nweight = 0.3\n", goldens("whole/clip")));
    session
}

fn with<'a>(command: &[&'a str], sets: &[&'a str]) -> Vec<&'a str> {
    command.iter().copied().chain(sets.iter().flat_map(|set| ["--set", *set])).collect()
}

#[test]
fn log_inspection_and_card_name_the_teacher() {
    let session = session();
    session.succeed(&with(&["train", "--config", "lit.toml"], &["model.lock=LU", "train.epochs=1"]));
    let steps = session.metrics("run", "train");
    assert_eq!(steps.len(), 3);
    assert!(steps.iter().all(|step| step["loss_teacher"].as_f64().unwrap() > 0.0), "{steps:?}");
    let text = session.succeed(&["inspect", "run"]);
    assert!(text.contains("teacher") && text.contains("whole/clip`"), "{text}");
    let found: Value = serde_json::from_str(&session.succeed(&["inspect", "run", "--json", "-"])).unwrap();
    assert!(found["run"]["teacher"].as_str().unwrap().ends_with("whole/clip"), "{found}");
    session.succeed(&["export", "--model", "run", "--out", "exported"]);
    let card = fs::read_to_string(session.path("exported/README.md")).unwrap();
    assert!(card.contains("clip, weight 0.3, scale 60"), "{card}");
    assert!(!card.contains("whole/clip"), "a card names no directories: {card}");
}

#[test]
fn cache_command_fills_for_the_teacher() {
    let session = session();
    let sets = ["model.lock=UU", "cache.dir=cache", "train.epochs=1"];
    let text = session.succeed(&with(&["cache", "--config", "lit.toml"], &sets));
    assert!(text.contains("24 images of the teacher: 24 computed"), "{text}");
    assert!(text.contains("24 captions of the teacher: 20 computed, 0 already there, 4 repeated"), "{text}");
    let files = || {
        let files = fs::read_dir(session.path("cache")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.map(|path| (path.clone(), fs::metadata(path).unwrap().len())).collect();
        files.sort();
        files
    };
    let filled = files();
    session.succeed(&with(&["train", "--config", "lit.toml"], &sets));
    assert_eq!(files(), filled, "training computes nothing again");
}

#[test]
fn plan_counts_the_teacher() {
    let session = session();
    let plan = |sets: &[&str]| -> Value {
        let text = session.succeed(&with(&["plan", "--config", "lit.toml", "--json", "-"], sets));
        serde_json::from_str(&text).unwrap()
    };
    let found = plan(&["model.lock=UU"]);
    let names: Vec<&str> =
        found["cache"].as_array().unwrap().iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(names, ["images of the teacher", "captions of the teacher"]);
    assert!(
        found["cache"]
            .as_array()
            .unwrap()
            .iter()
            .all(|entry| entry["rows"].as_u64() >= Some(20) && entry["present"] == 0),
        "{found}"
    );
    assert!(found["time"]["teacher"].as_f64().unwrap() > 0.0, "{}", found["time"]);
    assert!(found["memory"]["teacher"].as_u64().unwrap() > 1000, "{}", found["memory"]);
    assert!(!session.path("run").exists(), "`plan` leaves no trace");
    let found = plan(&["model.lock=LL", "cache.enabled=false"]);
    assert!(found["notes"].to_string().contains("features of the teacher"), "{}", found["notes"]);
    let text = session.succeed(&with(&["plan", "--config", "lit.toml"], &["model.lock=LU"]));
    assert!(text.contains("to compute features of the teacher") && text.contains("(teacher "), "{text}");
}

#[test]
fn check_loads_the_teacher() {
    let session = session();
    let text = session.succeed(&["check", "--config", "lit.toml"]);
    assert!(text.contains("teacher: `") && text.contains("weight 0.3, scale 60"), "{text}");
    let text = session.fail(2, &with(&["check", "--config", "lit.toml"], &["train.teacher.model=./gone"]));
    assert!(text.contains("`train.teacher.model`") && text.contains("gone"), "{text}");
    let text = session.fail(2, &with(&["check", "--config", "lit.toml"], &["train.loss=sigmoid"]));
    assert!(text.contains("has no `logit_bias`"), "{text}");
}

#[test]
fn unusable_teachers_are_named_by_their_key() {
    let session = session();
    session.succeed(&with(&["train", "--config", "lit.toml"], &["model.lock=LU", "train.epochs=1"]));
    session.succeed(&["export", "--model", "run", "--out", "heads", "--format", "heads"]);
    let towers = goldens("train/vit").display().to_string();
    for (dir, expected) in [
        ("./heads", "it has the heads of a model alone, without towers"),
        ("./none", "none"),
        (&*towers, "is not a model: expected a run directory"),
    ] {
        let set = format!("train.teacher.model={dir}");
        for command in ["train", "check"] {
            let sets = ["model.lock=LU", "run.dir=other", &set];
            let output = session.run(&with(&[command, "--config", "lit.toml"], &sets));
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).replace('\n', " ");
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(output.status.code(), Some(2), "{command}: {text}");
            assert_eq!(text.matches("`train.teacher.model`: ").count(), 1, "{command}: {text}");
            assert!(text.contains(expected) && !text.contains("rename"), "{command}: {text}");
        }
    }
    session.write("texts.txt", "a red circle\n");
    let embed = ["embed", "--model", "heads", "--texts", "texts.txt", "--out", "embeds.safetensors"];
    for arguments in [&["inspect", "heads"][..], &embed] {
        let text = session.fail(2, arguments);
        assert!(text.contains("`model_type` is `dualenc-heads`") && !text.contains("supported"), "{text}");
        assert!(text.contains("give the run it was exported from"), "{text}");
    }
}
