//! Rows and images that cannot be used: found before the first step where that is cheap, counted by cause, and listed.

use std::fs;

use dualenc_data::ShardWriter;
use serde_json::Value;

use crate::data_forms::rows;
use crate::support::{Session, copy_run_at, goldens, stderr};

/// The golden pairs, with a missing, an empty and a damaged image and one row without a caption.
fn session() -> Session {
    let session = Session::new();
    session.write_config("[checkpoint]\nevery_steps = 1\nkeep = 100\n");
    session.copy("train/images", "images");
    fs::remove_file(session.path("images/05.png")).unwrap();
    session.write("images/09.png", "");
    session.write("images/12.png", "<!DOCTYPE html>not found");
    let line = |(image, caption): &(String, String)| format!("{image},\"{caption}\"\n");
    let table = rows().iter().map(line).collect::<String>();
    session.write("data.csv", format!("image,caption\nimages/00.png,\n{table}"));
    session
}

fn arguments<'a>(dir: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let always = ["data.train.csv.path=data.csv", "data.shuffle=true", "train.epochs=2", dir];
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume"];
    arguments.extend(always.iter().chain(sets).flat_map(|set| ["--set", *set]));
    arguments
}

fn list(session: &Session, run: &str) -> String {
    fs::read_to_string(session.path(run).join("bad_samples.jsonl")).unwrap()
}

#[test]
fn bad_samples_are_listed_by_cause() {
    let session = session();
    let output = session.run(&arguments("run.dir=whole", &["data.max_bad_fraction=0.2"]));
    let log = stderr(&output);
    assert!(output.status.success(), "{log}");
    let whole = list(&session, "whole");
    let lines: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let field = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("kind"), ["row", "image", "image", "image"]);
    assert_eq!(field("cause"), ["empty caption", "not found", "empty file", "not an image"]);
    assert_eq!((&lines[0]["row"], &lines[0]["key"]), (&2.into(), &Value::Null));
    assert!(lines[0]["source"].as_str().unwrap().ends_with("data.csv"));
    assert!(lines[1]["key"].as_str().unwrap().ends_with("05.png"));
    let summary = "3 images could not be used: empty file (1), not an image (1), not found (1); 1 row could not be \
                   used: empty caption (1); see `";
    assert!(log.contains(summary), "{log}");

    // A resumed run has the same list, even if a killed process had found more.
    copy_run_at(&session.path("whole"), &session.path("resumed"), 1);
    fs::write(session.path("resumed").join("bad_samples.jsonl"), whole.clone() + "{\"kind\":\"image\"}\n{\"ki")
        .unwrap();
    session.succeed(&arguments("run.dir=resumed", &["data.max_bad_fraction=0.2"]));
    assert_eq!(list(&session, "resumed"), whole);
    let losses = |run: &str| session.metrics(run, "train").iter().map(|line| line["loss"].clone()).collect::<Vec<_>>();
    assert_eq!(losses("resumed"), losses("whole"));
}

#[test]
fn healthy_runs_have_no_list() {
    let session = Session::new();
    session.write_config("");
    let log = stderr(&session.run(&["train", "--config", "lit.toml", "--set", "train.epochs=1"]));
    assert!(!session.path("run/bad_samples.jsonl").exists());
    assert!(!log.contains("could not be used"), "{log}");
}

#[test]
fn missing_files_stop_a_run_at_once() {
    let session = session();
    fs::remove_dir_all(session.path("images")).unwrap();
    let error = session.fail(2, &arguments("run.dir=run", &["data.max_bad_fraction=0.5"]));
    let expected = "24 of 24 images cannot be used, more than `data.max_bad_fraction` = 0.5 allows: not found (24)\n";
    assert!(error.contains(expected) && !error.contains("at least"), "{error}");
    assert!(error.contains("05.png: cannot be read: No such file") && !error.contains("step"), "{error}");
    assert!(!session.path("run/bad_samples.jsonl").exists(), "a refused run changes nothing");
}

#[test]
fn absent_and_empty_files_are_counted_together() {
    let session = session();
    let error = session.fail(2, &arguments("run.dir=run", &["data.max_bad_fraction=0.05"]));
    assert!(error.contains("at least 2 of 24 images cannot be used"), "{error}");
    assert!(error.contains("allows: empty file (1), not found (1)\n"), "{error}");
}

/// Images that only decoding shows to be bad stop the run in the middle, and the list has them.
#[test]
fn stopped_run_lists_the_last_images() {
    let session = session();
    for image in ["05", "09"] {
        fs::copy(session.path("images/00.png"), session.path(&format!("images/{image}.png"))).unwrap();
    }
    for image in ["20", "22"] {
        session.write(&format!("images/{image}.png"), "<!DOCTYPE html>not found");
    }
    let sets = ["data.max_bad_fraction=0.1", "data.shuffle=false", "train.batch_size=4", "data.workers=1"];
    let error = session.fail(2, &arguments("run.dir=run", &sets));
    assert!(error.contains("at least 3 of 24 images cannot be used"), "{error}");
    assert!(error.contains("`dualenc check --config FILE` decodes all"), "{error}");
    assert!(!session.metrics("run", "train").is_empty(), "{error}");
    let list = list(&session, "run");
    let lines: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let images: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "image").collect();
    assert_eq!((lines.len(), images.len()), (4, 3), "{list}");
    for name in ["12.png", "20.png", "22.png"] {
        assert!(images.iter().any(|line| line["key"].as_str().unwrap().ends_with(name)), "{name}: {list}");
    }
    // With a higher limit, the run goes on and lists each once.
    let sets = ["data.max_bad_fraction=0.2", "data.shuffle=false", "train.batch_size=4", "data.workers=1"];
    session.succeed(&arguments("run.dir=run", &sets));
    assert_eq!(self::list(&session, "run").lines().count(), 4);
}

/// As above, but another device than the first, which writes the list, has found them.
#[test]
fn last_images_of_other_devices_are_listed() {
    let session = session();
    for image in ["05", "09", "12"] {
        fs::copy(session.path("images/00.png"), session.path(&format!("images/{image}.png"))).unwrap();
    }
    // Of each batch of four, the second device loads the last two.
    for image in ["18", "22", "23"] {
        session.write(&format!("images/{image}.png"), "<!DOCTYPE html>not found");
    }
    let sets = ["data.max_bad_fraction=0.1", "data.shuffle=false", "train.batch_size=4", "data.workers=1"];
    let error = session.fail(2, &[&arguments("run.dir=run", &sets)[..], &["--device", "cpu,cpu"]].concat());
    assert!(error.contains("rank 1 (cpu): ") && error.contains("at least 3 of 24 images"), "{error}");
    let list = list(&session, "run");
    for name in ["18.png", "22.png", "23.png"] {
        assert_eq!(list.matches(name).count(), 1, "{name}: {list}");
    }
}

#[test]
fn missing_evaluation_files_stop_a_run_at_once() {
    let session = Session::new();
    session.write_config("");
    session.copy("train/images", "images");
    session
        .write("eval.csv", "image,caption\nimages/00.png,a\nimages/01.png,b\nimages/gone.png,c\nimages/lost.png,d\n");
    for (class, image) in [("cat", "00"), ("dog", "01")] {
        fs::create_dir_all(session.path(&format!("classes/{class}"))).unwrap();
        fs::copy(session.path(&format!("images/{image}.png")), session.path(&format!("classes/{class}/1.png")))
            .unwrap();
    }
    session.write("classes/dog/2.png", "");
    let evals = [
        ("eval.x={task=\"retrieval\",data=\"eval.csv\"}", "2 of 4 images cannot be used", "gone.png"),
        ("eval.x={task=\"zero-shot\",images=\"classes\"}", "1 of 3 images cannot be used", "2.png"),
    ];
    for (eval, expected, name) in evals {
        let error = session.fail(2, &["train", "--config", "lit.toml", "--set", eval]);
        assert!(error.contains("evaluation `x`: ") && error.contains(expected) && error.contains(name), "{error}");
        assert!(!session.path("run/metrics.jsonl").exists(), "no step was done: {error}");
        let check = session.fail(2, &["check", "--config", "lit.toml", "--set", eval]);
        assert!(check.contains(expected), "{check}");
        session.succeed(&[
            "train",
            "--config",
            "lit.toml",
            "--set",
            eval,
            "--set",
            "data.max_bad_fraction=0.5",
            "--set",
            "train.epochs=1",
            "--set",
            "run.dir=tolerant",
        ]);
        fs::remove_dir_all(session.path("tolerant")).unwrap();
    }
    // Every image of a class is gone, which no limit allows.
    session.write("classes/cat/1.png", "");
    let sets = ["train", "--config", "lit.toml", "--set", evals[1].0, "--set", "data.max_bad_fraction=1"];
    let error = session.fail(2, &sets);
    assert!(error.contains("no image of the class `cat`"), "{error}");
}

/// Writes `eval.csv`: two images, and seven that are texts.
fn write_bad_table(session: &Session) {
    let mut table = "image,caption\nimages/00.png,a\nimages/01.png,b\n".to_owned();
    for image in 13..20 {
        session.write(&format!("images/{image}.png"), "text");
        table += &format!("images/{image}.png,text {image}\n");
    }
    session.write("eval.csv", table);
}

#[test]
fn only_three_images_a_source_are_named() {
    let session = session();
    write_bad_table(&session);
    let eval = "eval.x={task=\"retrieval\",data=\"eval.csv\",every_epochs=1}";
    let output = session.run(&arguments("run.dir=run", &["data.max_bad_fraction=0.8", eval]));
    let log = stderr(&output);
    assert!(output.status.success(), "{log}");
    // The source and the evaluation, which runs twice.
    assert_eq!(log.matches("warning: skipped").count(), 6, "{log}");
    assert_eq!(log.matches("run/bad_samples.jsonl` lists all").count(), 1, "{log}");
    let summary = "evaluation `x`: 7 images of 9 could not be used: not an image (7); `dualenc check` names each";
    assert_eq!(log.matches(summary).count(), 1, "{log}");
    assert!(log.contains("10 images could not be used: "), "{log}");
    assert_eq!(list(&session, "run").lines().count(), 11);
}

/// The first are named on stderr, all of them where the result is.
#[test]
fn results_list_all_unusable_images() {
    let session = session();
    write_bad_table(&session);
    let model = goldens("train/init");
    let common = ["--model", model.to_str().unwrap(), "--max-bad-fraction", "0.8"];
    let run = |command: &str, more: &[&str]| {
        let output = session.run(&[&[command], &common[..], more].concat());
        let text = stderr(&output);
        assert!(output.status.success(), "{text}");
        assert_eq!(text.matches("warning: skipped").count(), 3, "{text}");
        (String::from_utf8(output.stdout).unwrap(), text)
    };
    let assert_listed = |list: &Value| {
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), 7, "{list:?}");
        assert!(list[6]["image"].as_str().unwrap().ends_with("images/19.png"), "{list:?}");
        assert!(list.iter().all(|bad| bad["reason"].as_str().unwrap().contains("is a text")), "{list:?}");
    };
    let eval = ["--task", "retrieval", "--data", "eval.csv"];
    let (_, text) = run("eval", &[&eval[..], &["--json", "found.json"]].concat());
    assert!(text.contains("`found.json` lists all"), "{text}");
    let found = fs::read_to_string(session.path("found.json")).unwrap();
    assert_listed(&serde_json::from_str::<Value>(&found).unwrap()["skipped"]);
    let (_, text) = run("eval", &eval);
    assert!(text.contains("`--json FILE` lists all"), "{text}");

    let (line, text) = run("embed", &["--images", "eval.csv", "--out", "e.safetensors"]);
    assert!(text.contains("`e.safetensors` lists all"), "{text}");
    assert!(line.contains("7 images were skipped (metadata entry `skipped_images`)"), "{line}");
    let bytes = fs::read(session.path("e.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_listed(&serde_json::from_str(&metadata.metadata().as_ref().unwrap()["skipped_images"]).unwrap());
}

/// A row of a table has its number, a sample of a shard its key.
#[test]
fn samples_of_shards_have_keys() {
    let session = Session::new();
    session.write_config("");
    let mut shard = ShardWriter::new(Vec::new());
    for (image, (_, caption)) in rows().iter().enumerate() {
        let bytes = fs::read(goldens("train/images").join(format!("{image:02}.png"))).unwrap();
        shard.add(&format!("{image:02}.png"), &bytes).unwrap();
        shard.add(&format!("{image:02}.txt"), if image == 5 { b" " } else { caption.as_bytes() }).unwrap();
    }
    shard.add("lonely.txt", b"no image").unwrap();
    session.write("s.tar", shard.finish().unwrap());
    let sets = ["data.train.csv=", "data.train.webdataset.path=s.tar", "train.epochs=1"];
    let mut arguments = vec!["train", "--config", "lit.toml"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
    let list = list(&session, "run");
    let lines: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: Vec<&str> = lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    assert!(keys.len() == 2 && keys[0].ends_with("s.tar/05") && keys[1].ends_with("s.tar/lonely"), "{list}");
    assert!(lines.iter().all(|line| line["row"].is_null()), "{list}");
}
