//! `data.captions = "slots"`: several captions of an image as positives at once, trained, resumed, cached, in parts,
//! packed, and reported by the commands that look ahead.

use std::fs;

use serde_json::Value;

use crate::data_forms::rows;
use crate::soak::{copy_run, outcome};
use crate::support::{Session, assert_close, column};

/// Two of three columns at once; the first is always there.
const SLOTS: [&str; 3] = [
    "data.train={csv={path=\"data.csv\",captions=[\"name\",\"raw\",\"long\"]},caption_weights=[1,2,1]}",
    "data.captions=slots",
    "data.pin_first_caption=true",
];

/// 24 images with a name, a caption and, but for every fourth, a longer one.
fn session() -> Session {
    let session = Session::new();
    session.write_config("[checkpoint]\nevery_steps = 1\nkeep = 100\n");
    session.copy("train/images", "images");
    let line = |(at, (image, caption)): (usize, (String, String))| {
        let long = if at % 4 == 3 { String::new() } else { format!("a drawing that shows {caption}") };
        format!("{image},name {},\"{caption}\",\"{long}\"\n", at % 20)
    };
    let rows: String = rows().into_iter().enumerate().map(line).collect();
    session.write("data.csv", format!("image,name,raw,long\n{rows}"));
    session
}

fn train(session: &Session, run: &str, sets: &[&str]) -> Vec<Value> {
    let dir = format!("run.dir={run}");
    let always = [dir.as_str(), "data.shuffle=true", "train.epochs=3", "train.duplicates=positives", "cache.dir=cache"];
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume"];
    arguments.extend(SLOTS.iter().chain(&always).chain(sets).flat_map(|set| ["--set", *set]));
    session.succeed(&arguments);
    session.metrics(run, "train")
}

#[test]
fn slots_resume_exactly() {
    let session = session();
    let cases: [&[&str]; 3] = [
        &["model.lock=UU", "data.caption_slots=3", "model.text_dropout=0.2"],
        &["model.lock=LU", "train.loss=sigmoid", "data.word_dropout=0.3"],
        &["model.lock=LL", "train.micro_batch_size=3"],
    ];
    for (number, sets) in cases.into_iter().enumerate() {
        let whole = format!("whole-{number}");
        assert_eq!(train(&session, &whole, sets).len(), 9);
        let expected = outcome(&session, &whole, 9);
        for (step, workers) in [(2, "data.workers=1"), (6, "data.workers=4")] {
            let run = format!("{whole}-{step}");
            copy_run(&session.path(&whole), &session.path(&run), step, 100);
            train(&session, &run, &[sets, &[workers]].concat());
            outcome(&session, &run, 9).assert_same(&expected, &format!("{sets:?} after step {step}"));
        }
    }
    let refused = |set: &str| {
        let mut arguments = vec!["train", "--config", "lit.toml", "--resume", "--set", "run.dir=whole-2"];
        let sets = ["data.shuffle=true", "train.epochs=3", "train.duplicates=positives", "cache.dir=cache", set];
        arguments.extend(SLOTS.iter().chain(cases[2]).chain(&sets).flat_map(|set| ["--set", *set]));
        session.fail(2, &arguments)
    };
    assert!(refused("data.caption_slots=3").contains("data.caption_slots: 2 -> 3"));
    assert!(refused("data.pin_first_caption=false").contains("data.pin_first_caption: true -> (not set)"));
}

#[test]
fn cached_and_split_batches_agree() {
    let session = session();
    for (loss, lock) in [("train.loss=softmax", "model.lock=LL"), ("train.loss=sigmoid", "model.lock=UL")] {
        let name = |what: &str| format!("{}-{what}", &loss[11..]);
        let cached = train(&session, &name("cached"), &[loss, lock]);
        let computed = train(&session, &name("computed"), &[loss, lock, "cache.enabled=false"]);
        for key in ["loss", "grad_norm", "text_spread", "chance_loss", "num_duplicates"] {
            assert_eq!(column(&cached, key), column(&computed, key), "{key}");
        }
        let parts = train(&session, &name("parts"), &[loss, lock, "train.micro_batch_size=3"]);
        for key in ["loss", "grad_norm", "chance_loss"] {
            assert_close(key, &column(&parts, key), &column(&cached, key), 1e-4);
        }
    }
}

#[test]
fn all_slots_are_learned() {
    let session = session();
    let two = train(&session, "two", &["train.epochs=12"]);
    let loss = column(&two, "loss");
    assert!(loss[33..].iter().sum::<f64>() < 0.9 * loss[..3].iter().sum::<f64>(), "{loss:?}");
    // Images are counted, not captions: three batches of 8 in an epoch.
    assert_eq!((two.len(), two[35]["samples_seen"].as_u64()), (36, Some(288)));
    // Twenty names of 24 images: most batches repeat one.
    assert!(column(&two, "num_duplicates").iter().sum::<f64>() > 0.0);
    let one = train(&session, "one", &["train.epochs=12", "data.captions=one", "data.pin_first_caption=false"]);
    assert_ne!(column(&one, "loss"), loss);
}

#[test]
fn packed_columns_train_to_the_same_bits() {
    let session = session();
    let text = fs::read_to_string(session.path("data.csv")).unwrap().replace("\"\"", "\"nothing more\"");
    session.write("data.csv", text);
    let expected = column(&train(&session, "csv", &[]), "loss");
    let mut arguments = vec!["data", "pack", "--config", "lit.toml", "--out", "shards", "--samples", "7"];
    arguments.extend(SLOTS.iter().flat_map(|set| ["--set", *set]));
    let output = session.run(&arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("set it for them again: `caption_weights`"), "{told}");
    let shards = "data.train={webdataset={path=\"shards\"},caption_weights=[1,2,1]}";
    assert_eq!(column(&train(&session, "tar", &[shards]), "loss"), expected);
}

#[test]
fn commands_tell_the_slots() {
    let session = session();
    let with = |command: &[&str], sets: &[&str]| {
        let sets = SLOTS.iter().chain(sets).flat_map(|set| ["--set", *set]);
        let arguments: Vec<&str> = command.iter().copied().chain(sets).collect();
        let output = session.run(&arguments);
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
    };
    let check = ["check", "--config", "lit.toml", "--fast"];
    let found = with(&check, &[]);
    assert!(found.contains("24 pairs per epoch, each of an image and 2 of its captions"), "{found}");
    assert!(!found.contains("fewer than"), "{found}");
    let found = with(&check, &["data.caption_slots=3"]);
    assert!(found.contains("6 of 24 images have fewer than 3 captions, which repeat"), "{found}");
    let one_column = "data.train={csv={path=\"data.csv\",caption=\"raw\"},caption_weights=[1,2]}";
    let found = with(&check, &[one_column]);
    assert!(found.contains("no image has more than one caption"), "{found}");
    assert!(found.contains("`data.train.caption_weights` has no effect"), "{found}");
    let found = with(&["plan", "--config", "lit.toml", "--steps", "1"], &["model.lock=LL"]);
    assert!(found.contains("8 pairs of 2 captions each"), "{found}");

    train(&session, "run", &["train.epochs=1"]);
    let found = session.succeed(&["inspect", "run"]);
    assert!(found.contains("2 of each image at once"), "{found}");
}

#[test]
fn diverged_step_lists_all_captions() {
    let session = session();
    let mut arguments = vec!["train", "--config", "lit.toml"];
    let sets = ["train.learning_rate=1e30", "train.clip_grad_norm=0", "train.warmup_steps=0", "train.weight_decay=0"];
    arguments.extend(SLOTS.iter().chain(&sets).flat_map(|set| ["--set", *set]));
    session.fail(3, &arguments);
    let mut files = fs::read_dir(session.path("run")).unwrap().map(|entry| entry.unwrap().path());
    let dump = files.find(|path| path.to_string_lossy().contains("not-finite-step"));
    let dump: Value = serde_json::from_slice(&fs::read(dump.unwrap()).unwrap()).unwrap();
    let captions = dump["samples"][0]["captions"].as_array().unwrap();
    assert!(captions.len() == 2 && captions[0].as_str().unwrap().starts_with("name "), "{captions:?}");
}
