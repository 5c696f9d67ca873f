//! `dualenc init` on the layouts in which data come: splits are kept apart, and names say what they are.

use std::fs;

use crate::data_forms::rows;
use crate::init::{TOWERS, round_trip, session};
use crate::resume_matrix::ustar;
use crate::support::{Session, goldens};

/// What `init` says about `data`, and the config that it writes.
#[track_caller]
fn init(session: &Session, data: &str) -> (String, String) {
    let out = format!("{}.toml", data.replace(['/', '.', '*'], "-"));
    let said = session.succeed(&[&["init", data, "--out", &out][..], &TOWERS].concat());
    let config = fs::read_to_string(session.path(&out)).unwrap();
    (said, config)
}

/// The value at `keys` of a config, as TOML writes it; empty if there is none.
fn at<'a>(config: &'a str, keys: &str) -> &'a str {
    let (section, key) = keys.rsplit_once('.').unwrap();
    let header = format!("[{section}]");
    let lines = config.lines().skip_while(|line| !line.starts_with(&header)).skip(1);
    let mut lines = lines.take_while(|line| !line.starts_with('['));
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    value.map_or("", |value| value.split("    #").next().unwrap_or(value))
}

/// `train`, `val` or `test` of image `number`: 16, 4 and 4.
fn split(number: usize) -> &'static str {
    ["train", "train", "train", "train", "val", "test"][number % 6]
}

/// A csv of the golden images of a split, or all of them with a column `split`.
fn table(of: Option<&str>) -> String {
    let mut text = String::from(if of.is_some() { "image,caption\n" } else { "image,caption,split\n" });
    for (number, (image, caption)) in rows().iter().enumerate() {
        match of {
            Some(wanted) if wanted == split(number) => text += &format!("{image},\"{caption}\"\n"),
            Some(_) => {}
            None => text += &format!("{image},\"{caption}\",{}\n", split(number)),
        }
    }
    text
}

/// Images with a caption beside each, in a folder per split.
fn folders(session: &Session, folder: &str) {
    for (number, (image, caption)) in rows().iter().enumerate() {
        let bytes = fs::read(session.path(&format!("data/{image}"))).unwrap();
        let stem = format!("{folder}/{}/{number:02}", split(number));
        session.write(&format!("{stem}.png"), bytes);
        session.write(&format!("{stem}.txt"), caption);
    }
}

#[track_caller]
fn assert_apart(said: &str) {
    let line = |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{said}"));
    assert!(line("to train on: ").ends_with("16 images with 16 captions"), "{said}");
    assert!(line("to evaluate on: ").ends_with("4 images with 4 captions"), "{said}");
    assert!(line("not used: ").contains("test"), "{said}");
}

#[test]
fn split_column_is_obeyed() {
    let session = session();
    session.write("data/pairs.csv", table(None));
    let (said, config) = round_trip(&session, "data", "column");
    assert_apart(&said);
    assert!(said.contains("`data/pairs.csv`, split `train`: 16 images"), "{said}");
    assert_eq!(at(&config, "data.train.csv.split"), "\"train\"");
    assert_eq!(at(&config, "eval.validation.data.csv.split"), "\"val\"");
    // Without a validation split, some of the training data are held out.
    session.write("data/pairs.csv", table(None).replace(",val\n", ",test\n"));
    let (said, config) = init(&session, "data/pairs.csv");
    assert!(said.contains("not used: `data/pairs.csv`, split `test`: 8 images"), "{said}");
    assert!(!at(&config, "data.validation_fraction").is_empty(), "{config}");
    // Splits that say nothing about their use are all trained on, and reported.
    session.write("data/folds.csv", table(None).replace(",val\n", ",fold2\n").replace(",train\n", ",fold1\n"));
    let (said, config) = init(&session, "data/folds.csv");
    assert!(said.contains("the rows of all splits are used, `fold1` (16), `fold2` (4), `test` (4)"), "{said}");
    assert_eq!(at(&config, "data.train.csv.split"), "");
}

#[test]
fn files_of_splits_are_apart() {
    let session = session();
    for name in ["train", "val", "test"] {
        session.write(&format!("data/{name}.csv"), table(Some(name)));
    }
    for data in ["data", "data/train.csv"] {
        let (said, config) = init(&session, data);
        assert_apart(&said);
        assert_eq!(at(&config, "eval.validation.data.csv.path"), "\"data/val.csv\"");
    }
}

#[test]
fn shards_of_splits_are_apart() {
    let session = session();
    for (name, shards) in [("train", 2), ("val", 1), ("test", 1)] {
        for shard in 0..shards {
            let mut entries = Vec::new();
            for (number, (image, caption)) in rows().iter().enumerate().filter(|(at, _)| split(*at) == name) {
                if number % shards == shard {
                    let bytes = fs::read(session.path(&format!("data/{image}"))).unwrap();
                    entries.push((format!("{number:03}.png"), bytes));
                    entries.push((format!("{number:03}.txt"), caption.clone().into_bytes()));
                }
            }
            session.write(&format!("shards/{name}-{shard:04}.tar"), ustar(&entries));
            session.write(&format!("folders/{name}/{shard:04}.tar"), ustar(&entries));
        }
    }
    let (said, config) = round_trip(&session, "shards", "shards");
    assert_apart(&said);
    assert_eq!(at(&config, "data.train.webdataset.path"), "\"shards/train-*.tar\"");
    assert_eq!(at(&config, "eval.validation.data.webdataset.path"), "\"shards/val-0000.tar\"");
    let (said, config) = init(&session, "shards/train-*.tar");
    assert!(said.contains("to evaluate on: `shards/val-0000.tar`: 4 images"), "{said}");
    assert_eq!(at(&config, "data.train.webdataset.path"), "\"shards/train-*.tar\"");
    let (said, config) = init(&session, "folders");
    assert_apart(&said);
    assert_eq!(at(&config, "data.train.webdataset.path"), "\"folders/train\"");
}

#[test]
fn folders_of_splits_are_apart() {
    let session = session();
    folders(&session, "flat");
    folders(&session, "unzipped/dataset");
    folders(&session, "yolo/images");
    session.write("yolo/labels/notes.md", "none");
    for (data, train) in [("flat", "flat"), ("unzipped", "unzipped/dataset"), ("yolo", "yolo/images")] {
        let (said, config) = init(&session, data);
        assert_apart(&said);
        assert_eq!(at(&config, "data.train.folder.path"), format!("\"{train}/train\""));
        assert_eq!(at(&config, "eval.validation.data.folder.path"), format!("\"{train}/val\""));
    }
}

#[test]
fn hub_directories_are_read() {
    let session = session();
    for (split, parquet) in [("train", "train-00000-of-00001"), ("validation", "validation-00000-of-00001")] {
        let bytes = fs::read(goldens(&format!("train/parquet/{parquet}.parquet"))).unwrap();
        session.write(&format!("converted/default/{split}/0000.parquet"), &bytes);
        session.write(&format!("plain/{split}.parquet"), &bytes);
        session.write(&format!("hub/data/{parquet}.parquet"), &bytes);
    }
    session.write("hub/dataset_infos.json", format!("{{\"default\": {{\"description\": \"{}\"}}}}", "x".repeat(99)));
    for data in ["converted", "plain", "hub"] {
        let (said, config) = init(&session, data);
        assert!(said.contains("16 images with 16 captions") && said.contains("to evaluate on: "), "{said}");
        assert!(!said.contains("cannot be used"), "{said}");
        assert!(at(&config, "eval.validation.data.parquet.path").contains("validation"), "{config}");
    }
}

#[test]
fn images_without_captions_are_told() {
    let session = session();
    for (number, (image, caption)) in rows().iter().enumerate() {
        let bytes = fs::read(session.path(&format!("data/{image}"))).unwrap();
        session.write(&format!("camera/IMG_{number:04}.png"), bytes);
        if number % 6 > 0 {
            session.write(&format!("camera/IMG_{number:04}.txt"), caption);
        }
    }
    let (said, config) = round_trip(&session, "camera", "camera");
    assert!(said.contains("20 images with 20 captions") && said.contains("no caption (4)"), "{said}");
    assert!(config.contains("# 4 of 24 images have no caption there: they are left out"), "{config}");
    assert_eq!(at(&config, "data.train.folder.captions_from"), "\"txt\"");
}

#[test]
fn captions_in_another_folder_are_told() {
    let session = session();
    fs::rename(session.path("data"), session.path("apart")).unwrap();
    session.write("apart/captions/00.txt", "a red circle");
    let text = session.fail(2, &["init", "apart"]);
    assert!(text.contains("apart/captions` has text files that are not read: move captions beside"), "{text}");
    fs::rename(session.path("apart/images/00.png"), session.path("apart/images/red circle.png")).unwrap();
    let (said, _) = init(&session, "apart");
    assert!(said.contains("warning: `apart/captions` has text files that are not read"), "{said}");
}

/// What is named `train` among other vehicles is a class; a test split is no validation.
#[test]
fn folders_named_as_splits_are_understood() {
    let session = session();
    for image in 0..24 {
        let bytes = fs::read(session.path(&format!("data/images/{image:02}.png"))).unwrap();
        session.write(&format!("vehicles/{}/{image}.png", ["bus", "car", "train"][image % 3]), &bytes);
        let split = if image < 18 { "train" } else { "test" };
        session.write(&format!("labelled/{split}/{}/{image}.png", ["cat", "dog"][image % 2]), &bytes);
    }
    let (said, config) = init(&session, "vehicles");
    assert!(said.contains("`vehicles`: 3 classes, 24 images"), "{said}");
    assert_eq!(at(&config, "data.train.classes.path"), "\"vehicles\"");
    let (said, config) = init(&session, "labelled");
    assert!(said.contains("not used: `labelled/test`: 6 images") && !said.contains("to classify: "), "{said}");
    assert!(!at(&config, "data.validation_fraction").is_empty() && !config.contains("images = "), "{config}");
}

#[test]
fn captions_are_counted_in_tokens() {
    let session = session();
    session.write("data/pairs.csv", table(None));
    session.succeed(&[&["init", "data", "--out", "counted.toml"][..], &TOWERS].concat());
    let counted = fs::read_to_string(session.path("counted.toml")).unwrap();
    assert!(
        counted.contains("# Of 16 captions, the longest has ") && counted.contains(" tokens; none is cut."),
        "{counted}"
    );
    let towers = ["--image-tower", "towers/vit", "--text-tower", "nobody/nothing"];
    session.succeed(&[&["init", "data", "--out", "guessed.toml"][..], &towers].concat());
    let guessed = fs::read_to_string(session.path("guessed.toml")).unwrap();
    assert!(guessed.contains("# Estimated from words, because the tokenizer is not on this machine"), "{guessed}");
}

#[test]
fn runs_have_telling_names() {
    let session = session();
    fs::create_dir_all(session.path("birds")).unwrap();
    fs::rename(session.path("data/images"), session.path("birds/images")).unwrap();
    session.write("birds/train.csv", table(None));
    let run = |data: &str, out: &str| {
        let said = session.succeed(&[&["init", data, "--out", out][..], &TOWERS].concat());
        let config = fs::read_to_string(session.path(out)).unwrap();
        (at(&config, "run.dir").to_owned(), said)
    };
    assert_eq!(run("birds/train.csv", "one.toml").0, "\"runs/birds\"");
    fs::create_dir_all(session.path("runs/birds")).unwrap();
    let (dir, said) = run("birds", "two.toml");
    assert_eq!(dir, "\"runs/birds-2\"");
    assert!(said.contains("the run goes to `runs/birds-2`"), "{said}");
}

/// Images of every class are held out, and classified.
#[test]
fn labels_are_evaluated() {
    let session = session();
    for image in 0..24 {
        let class = ["cat", "red_panda"][image % 2];
        let bytes = fs::read(session.path(&format!("data/images/{image:02}.png"))).unwrap();
        session.write(&format!("animals/{class}/{image}.png"), bytes);
    }
    let (said, config) = round_trip(&session, "animals", "animals");
    assert!(said.contains("held out for validation: "), "{said}");
    assert!(config.contains("task = \"zero-shot\""), "{config}");
    let last = session.metrics("runs/animals", "eval").pop().unwrap();
    assert_eq!(last["name"], "validation");
    let images = last["num_images"].as_u64().unwrap();
    assert!(images >= 4 && last["num_classes"] == 2 && last["acc1"].is_f64(), "{last}");
}
