//! `dualenc data pack`: other forms of the same data train to the same bits, and an interrupted command goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Session, column, goldens};

const PACK: [&str; 4] = ["data", "pack", "--config", "lit.toml"];

/// A session with a config that trains on `data.csv`, a table of the golden images.
fn session(more: &str) -> Session {
    let session = Session::new();
    session.write_config(more);
    session.copy("train/images", "images");
    fs::copy(goldens("train/train.csv"), session.path("data.csv")).unwrap();
    let config = fs::read_to_string(session.path("lit.toml")).unwrap();
    let golden = format!("{:?}", goldens("train/train.csv"));
    session.write("lit.toml", config.replace(&golden, "\"data.csv\""));
    session
}

/// Losses of a run with `sets`.
fn losses(session: &Session, run: &str, sets: &[&str]) -> Vec<f64> {
    let dir = format!("run.dir={run}");
    let mut arguments = vec!["train", "--config", "lit.toml", "--set", &dir, "--set", "data.shuffle=true"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
    column(&session.metrics(run, "train"), "loss")
}

/// The files below a directory, with their content.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn packed_data_train_to_the_same_bits() {
    let session = session("");
    let expected = losses(&session, "csv", &[]);
    assert_eq!(expected.len(), 12);
    let text = session.succeed(&[&PACK[..], &["--out", "shards", "--samples", "7"]].concat());
    assert!(text.contains("wrote 24 images with 24 captions") && text.contains("4 shards"), "{text}");
    let sets = ["data.train.csv=", "data.train.webdataset.path=shards"];
    assert_eq!(losses(&session, "shards-run", &sets), expected);
    // The whole captions and images come back, in order.
    let set = ["--set", "data.train.csv=", "--set", "data.train.webdataset.path=shards"];
    session.succeed(&[&PACK[..], &["--out", "files", "--format", "folder"], &set].concat());
    let table = fs::read_to_string(session.path("files/pairs.csv")).unwrap();
    let lines = |text: &str| text.lines().map(|line| line.split_once(',').unwrap().1.to_owned()).collect::<Vec<_>>();
    // The packed shards name the image that was packed, which names the original.
    let packed = |(number, line): (usize, String)| match number {
        0 => "caption,original".to_owned(),
        _ => format!("{line},{:06}.tar/{:06}.png", (number - 1) / 7, number - 1),
    };
    let source = lines(&fs::read_to_string(session.path("data.csv")).unwrap());
    assert_eq!(lines(&table), source.into_iter().enumerate().map(packed).collect::<Vec<_>>());
    for image in 0..24 {
        let packed = fs::read(session.path(&format!("files/images/{image:06}.png"))).unwrap();
        assert_eq!(packed, fs::read(session.path(&format!("images/{image:02}.png"))).unwrap());
    }
    assert_eq!(losses(&session, "files-run", &["data.train.csv.path=files/pairs.csv"]), expected);
}

#[test]
fn equal_data_give_equal_bytes() {
    let session = session("");
    for out in ["one", "two"] {
        session.succeed(&[&PACK[..], &["--out", out, "--shard-size", "20kB"]].concat());
    }
    let (one, two) = (files(&session.path("one")), files(&session.path("two")));
    assert!(one.len() > 3 && one == two, "{:?}", one.keys());
    assert!(one.iter().all(|(name, bytes)| name == "pack.json" || bytes.len() <= 20_000));
    let again = session.succeed(&[&PACK[..], &["--out", "one", "--shard-size", "20kB"]].concat());
    assert!(again.contains("wrote 24 images"), "{again}");
    // Each image has the name that it had.
    let shard = String::from_utf8_lossy(&one["000000.tar"]);
    assert!(shard.contains("{\"original\":\"images/03.png\"}"), "{shard}");
    // A shard that is lost is written again.
    fs::remove_file(session.path("one/000001.tar")).unwrap();
    session.succeed(&[&PACK[..], &["--out", "one", "--shard-size", "20kB"]].concat());
    assert_eq!(files(&session.path("one")), two);
    for (more, expected) in [
        (&["--samples", "3"][..], "other options"),
        (&["--resize", "8"], "other options"),
        (&["--set", "data.max_pixels=1000000"], "`max_pixels` was 178956970, now 1000000"),
    ] {
        let text = session.fail(2, &[&PACK[..], &["--out", "one"], more].concat());
        assert!(text.contains(expected), "{text}");
    }
    session.write("data.csv", "image,caption\nimages/00.png,a cat\n");
    let text = session.fail(2, &[&PACK[..], &["--out", "one", "--shard-size", "20kB"]].concat());
    assert!(text.contains("was packed from other data"), "{text}");
    let text = session.fail(2, &[&PACK[..], &["--out", "images"]].concat());
    assert!(text.contains("images` is not empty"), "{text}");
}

#[test]
fn killed_pack_goes_on() {
    let session = session("");
    let rows: String =
        (0..2400).map(|row| format!("images/x{row:04}.png,caption number {row} of \"many\", in order\n")).collect();
    session.write("data.csv", format!("image,caption\n{}", rows.replace("\"many\",", "many")));
    for row in 0..2400 {
        fs::hard_link(
            session.path(&format!("images/{:02}.png", row % 24)),
            session.path(&format!("images/x{row:04}.png")),
        )
        .unwrap();
    }
    let arguments = |out: &'static str| [&PACK[..], &["--out", out, "--samples", "20"]].concat();
    session.succeed(&arguments("whole"));
    let expected = files(&session.path("whole"));
    let mut kills = 0;
    for shard in ["000003.tar", "000040.tar", "000090.tar"] {
        let mut child = session.command(&arguments("out")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !session.path("out").join(shard).exists() && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "no {shard} after a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
        kills += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        // What is there under a final name is whole.
        for (name, bytes) in files(&session.path("out")) {
            assert!(name == "pack.json" || name.starts_with('.') || expected[&name] == bytes, "{name}");
        }
    }
    assert!(kills > 0, "every command ended before it was killed");
    // Killed before the first file is complete.
    session.write("early/.pack.json.tmp-abc123", "{");
    session.succeed(&arguments("early"));
    assert!(files(&session.path("early")) == expected);
    session.succeed(&arguments("out"));
    let found = files(&session.path("out"));
    assert!(found == expected, "{:?}", found.keys());
}

#[test]
fn bad_images_are_left_out_and_listed() {
    let session = session("");
    session.write("images/03.png", "text");
    fs::remove_file(session.path("images/05.png")).unwrap();
    let text = session.fail(2, &[&PACK[..], &["--out", "out"]].concat());
    assert!(text.contains("cannot be used, more than `data.max_bad_fraction` = 0.01 allows"), "{text}");
    // Raising the limit is enough: what is written stays.
    let set = ["--set", "data.max_bad_fraction=0.1"];
    let text = session.succeed(&[&PACK[..], &["--out", "out"], &set].concat());
    assert!(text.contains("wrote 22 images") && text.contains("left out: 2 images and 0 rows"), "{text}");
    let list = fs::read_to_string(session.path("out/bad_samples.jsonl")).unwrap();
    let bad: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<_> =
        bad.iter().map(|line| (line["image"].as_u64().unwrap(), line["cause"].as_str().unwrap())).collect();
    assert_eq!(found, [(3, "not an image"), (5, "not found")]);
}

#[test]
fn images_are_reduced_and_reencoded() {
    let session = session("");
    session.succeed(&[&PACK[..], &["--out", "small", "--format", "folder", "--resize", "20"]].concat());
    let width = |name: &str| {
        let bytes = fs::read(session.path(name)).unwrap();
        let side = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        side(16).min(side(20))
    };
    assert!((0..24).all(|image| width(&format!("small/images/{image:06}.png")) == 20));
    session.succeed(
        &[&PACK[..], &["--out", "jpeg", "--format", "folder", "--max-side", "24", "--quality", "80"]].concat(),
    );
    let jpeg = fs::read(session.path("jpeg/images/000000.jpg")).unwrap();
    assert!(jpeg.starts_with(b"\xff\xd8\xff"));
    session.succeed(&["check", "--config", "lit.toml", "--set", "data.train.csv.path=jpeg/pairs.csv"]);
    // A size that no image exceeds changes nothing.
    session.succeed(&[&PACK[..], &["--out", "same", "--format", "folder", "--resize", "1000"]].concat());
    assert_eq!(
        fs::read(session.path("same/images/000000.png")).unwrap(),
        fs::read(session.path("images/00.png")).unwrap()
    );
}

#[test]
fn splits_and_evaluations_are_packed_apart() {
    let session = session("[eval.validation]\ntask = \"retrieval\"\n");
    let set = ["--set", "data.validation_fraction=0.4"];
    let packed = |out: &str, more: &[&str]| {
        session.succeed(&[&PACK[..], &["--out", out, "--format", "folder"], &set, more].concat());
        fs::read_to_string(session.path(out).join("pairs.csv")).unwrap().lines().skip(1).count()
    };
    let (train, validation) = (packed("train", &[]), packed("validation", &["--eval", "validation"]));
    assert_eq!(train + validation, 24);
    assert!(train > 0 && validation > 0);
    let text = session.fail(2, &[&PACK[..], &["--out", "x", "--eval", "other"], &set].concat());
    assert!(text.contains("there is no evaluation `other`; those of the config: `validation`"), "{text}");

    let config = fs::read_to_string(session.path("lit.toml")).unwrap();
    let config = config.replace("[eval.validation]\ntask = \"retrieval\"\n", "");
    let two =
        "[[data.train]]\ncsv = { path = \"data.csv\" }\nweight = 2.0\n[[data.train]]\ncsv = { path = \"data.csv\" }\n";
    session.write("lit.toml", config.replace("[data.train.csv]\npath = \"data.csv\"\n", two));
    let text = session.fail(2, &[&PACK[..], &["--out", "x"]].concat());
    assert!(text.contains("different weights or templates") && text.contains("--source N"), "{text}");
    let text = session.succeed(&[&PACK[..], &["--out", "x", "--source", "1"]].concat());
    assert!(text.contains("wrote 24 images"), "{text}");
}

#[test]
fn full_disk_leaves_whole_shards() {
    let session = session("");
    session.succeed(&[&PACK[..], &["--out", "whole", "--samples", "8"]].concat());
    let size = fs::metadata(session.path("whole/000000.tar")).unwrap().len();
    // A limit on the size of a file stands for a full disk: bash counts in units of 1024 bytes.
    let limit = size / 1024 / 2;
    let script = format!(
        "ulimit -f {limit}; exec {} data pack --config lit.toml --out out --samples 8",
        env!("CARGO_BIN_EXE_dualenc")
    );
    let output =
        std::process::Command::new("bash").args(["-c", &script]).current_dir(session.path("")).output().unwrap();
    let text = crate::support::stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot write") && text.contains("000000.tar"), "{text}");
    assert_eq!(files(&session.path("out")).keys().collect::<Vec<_>>(), ["pack.json"]);
    session.succeed(&[&PACK[..], &["--out", "out", "--samples", "8"]].concat());
    assert_eq!(files(&session.path("out")), files(&session.path("whole")));
}
