//! Files with the same bytes are one image, whatever their names: in the loss, in retrieval, with and without a cache.

use std::fs;

use serde_json::Value;

use crate::data_forms::rows;
use crate::support::Session;

/// Images that the first of them is copied to.
const COPIES: [usize; 4] = [3, 7, 8, 15];

/// The golden pairs. In `same.csv`, some rows name the same file; in `copies.csv`, they name copies of that file;
/// in `other.csv`, files with another byte at the end, which decodes to the same pixels.
fn session() -> Session {
    let session = Session::new();
    session.write_config("");
    session.copy("train/images", "images");
    let first = fs::read(session.path("images/00.png")).unwrap();
    let mut tables = ["image,caption\n"; 3].map(str::to_owned);
    for (row, (image, caption)) in rows().iter().enumerate() {
        let is_copy = COPIES.contains(&row);
        if is_copy {
            session.write(&format!("copies/{row}.png"), &first);
            session.write(&format!("other/{row}.png"), [&first[..], &[row as u8]].concat());
        }
        let place = |dir: &str| if is_copy { format!("{dir}/{row}.png") } else { image.clone() };
        let same = if is_copy { "images/00.png".to_owned() } else { image.clone() };
        for (table, image) in tables.iter_mut().zip([same, place("copies"), place("other")]) {
            // Some of the golden captions are equal.
            *table += &format!("{image},\"{caption}, number {row}\"\n");
        }
    }
    for (name, table) in ["same", "copies", "other"].iter().zip(tables) {
        session.write(&format!("{name}.csv"), table);
    }
    session
}

/// Trains and returns the lines of the log without those that depend on time or on the names of files.
fn train(session: &Session, run: &str, data: &str, sets: &[&str]) -> Vec<Value> {
    let (dir, path) = (format!("run.dir={run}"), format!("data.train.csv.path={data}.csv"));
    let always = ["data.shuffle=true", "train.batch_size=12", "train.epochs=3", &dir, &path];
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume"];
    arguments.extend(always.iter().chain(sets).flat_map(|set| ["--set", *set]));
    session.succeed(&arguments);
    let mut lines = ["train", "eval"].map(|kind| session.reproducible(run, kind)).concat();
    lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("fingerprint")));
    lines
}

fn duplicates(lines: &[Value]) -> u64 {
    lines.iter().map(|line| line["num_duplicates"].as_u64().unwrap()).sum()
}

#[test]
fn copies_train_as_one_image() {
    let session = session();
    for mode in ["positives", "mask"] {
        let mode_set = format!("train.duplicates={mode}");
        let run = |data: &str| train(&session, &format!("{mode}-{data}"), data, &[&mode_set]);
        let (same, copies, other) = (run("same"), run("copies"), run("other"));
        assert_eq!(copies, same, "{mode}");
        assert!(duplicates(&same) > 6, "{mode}: {}", duplicates(&same));
        assert_eq!(duplicates(&other), 0, "{mode}: files with other bytes are other images");
        let last = |lines: &[Value]| lines.last().unwrap()["loss"].clone();
        // Images with the same pixels have the same logits, so that positives among them change the loss by rounding at
        // most.
        if mode == "mask" {
            assert_ne!(last(&other), last(&same), "{mode}");
        }
    }
}

#[test]
fn cached_copies_train_as_uncached() {
    let session = session();
    for (name, views) in [("plain", &[][..]), ("views", &["data.augment.flip=0.5", "cache.views=2"])] {
        let lock = ["model.lock=LU", "train.duplicates=positives"];
        let run = |run: &str, more: &[&str]| {
            train(&session, &format!("{name}-{run}"), "copies", &[&lock[..], views, more].concat())
        };
        // Without a cache, there are as many views as with one.
        let cold = run("cold", &["cache.dir=cache"]);
        assert!(duplicates(&cold) > 6, "{name}: {}", duplicates(&cold));
        assert_eq!(run("warm", &["cache.dir=cache", "data.workers=1"]), cold, "{name}");
        if name == "plain" {
            assert_eq!(run("off", &["cache.enabled=false"]), cold, "{name}");
        }
    }
}

#[test]
fn copies_are_one_image_in_evaluations() {
    let session = session();
    let config = fs::read_to_string(session.path("lit.toml")).unwrap();
    let evaluate = |data: &str| {
        let pairs = format!("[eval.pairs]\ntask = \"retrieval\"\ndata = \"{data}.csv\"\n");
        let pools = format!("[eval.pools]\ntask = \"loss\"\ndata = \"{data}.csv\"\npool_size = 12\n");
        session.write("lit.toml", format!("{config}{pairs}{pools}"));
        let duplicates = ["train.epochs=1", "train.warmup_steps=0", "train.duplicates=mask"];
        let lines = train(&session, &format!("eval-{data}"), "same", &duplicates);
        lines.into_iter().filter(|line| line["kind"] == "eval").collect::<Vec<_>>()
    };
    let (same, mut copies, other) = (evaluate("same"), evaluate("copies"), evaluate("other"));
    assert_eq!(same.len(), 4);
    for (line, copied) in same.iter().zip(&mut copies) {
        assert_eq!((&line["num_images"], line.get("num_copies")), (&20.into(), None));
        assert_eq!(copied.as_object_mut().unwrap().remove("num_copies"), Some(COPIES.len().into()));
        assert_eq!(copied, line);
    }
    assert_eq!(other[0]["num_images"], 24);
    assert_ne!(other[1]["loss"], same[1]["loss"]);
}
