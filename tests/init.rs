//! `dualenc init`: the config that it writes passes the check, and trains.

use std::fs;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::data_forms::rows;
use crate::resume_matrix::ustar;
use crate::support::{Session, goldens, tensors};

/// A session with the golden images in `data/images`, and the tiny towers.
pub fn session() -> Session {
    let session = Session::new();
    session.copy("train/images", "data/images");
    session.copy("train/vit", "towers/vit");
    session.copy("train/bert", "towers/bert");
    session
}

pub const TOWERS: [&str; 4] = ["--image-tower", "towers/vit", "--text-tower", "towers/bert"];

/// Writes a config for `data`, checks it, and trains 2 steps; returns what `init` said and the config.
#[track_caller]
pub fn round_trip(session: &Session, data: &str, name: &str) -> (String, String) {
    let out = format!("{name}.toml");
    let said = session.succeed(&[&["init", data, "--out", &out][..], &TOWERS].concat());
    let config = fs::read_to_string(session.path(&out)).unwrap();
    let run = format!("run.dir=runs/{name}");
    let small = ["--set", "model.embed_dim=8", "--set", "run.threads=2", "--set", &run];
    session.succeed(&[&["check", "--config", &out][..], &small].concat());
    let steps = ["--set", "train.epochs=", "--set", "train.steps=2"];
    session.succeed(&[&["train", "--config", &out][..], &small, &steps].concat());
    assert_eq!(session.metrics(&format!("runs/{name}"), "train").len(), 2, "{config}");
    (said, config)
}

/// The value at a path of keys in a config, as the program reads it.
fn resolved(session: &Session, name: &str, keys: &[&str]) -> Value {
    let text = fs::read_to_string(session.path(&format!("runs/{name}/config.toml"))).unwrap();
    let mut table = Value::Null;
    let mut section = Vec::<String>::new();
    // The resolved config is flat enough to be read line by line.
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.split('.').map(str::to_owned).collect();
        } else if let Some((key, value)) = line.split_once(" = ") {
            let at: Vec<&str> = section.iter().map(String::as_str).chain([key]).collect();
            if at == keys {
                table = serde_json::from_str(value).unwrap_or(Value::String(value.to_owned()));
            }
        }
    }
    table
}

#[test]
fn table_becomes_a_config_that_trains() {
    let session = session();
    fs::copy(goldens("train/train.csv"), session.path("data/train.csv")).unwrap();
    let (said, config) = round_trip(&session, "data", "csv");
    assert!(said.contains("24 images with 24 captions") && said.contains("dualenc check --config csv.toml"), "{said}");
    assert!(config.contains("path = \"data/train.csv\""), "{config}");
    assert!(config.contains("batch_size = 8"), "{config}");
    // The closed form is the better model of few pairs.
    assert!(said.contains("then dualenc fit --config csv.toml") && said.contains("pairs (21 here)"), "{said}");
    assert!(config.contains("# dualenc fit --config csv.toml"), "{config}");
    // The hash gives fewer than a fifth, which is no reason to take two fifths.
    assert!(said.contains("held out for validation: 3 of 24 images (`validation_fraction = 0.25`)"), "{said}");
    for line in ["here 3 of 24 images.", "validation_fraction = 0.25"] {
        assert!(config.contains(line), "{config}");
    }
    // 7,000 images, a twentieth of them held out.
    let rows: String = (0..7000).map(|number| format!("images/none-{number}.png,a word\n")).collect();
    session.write("many/train.csv", format!("image,caption\n{rows}"));
    let said = session.succeed(&[&["init", "many", "--out", "many.toml"][..], &TOWERS].concat());
    let many = fs::read_to_string(session.path("many.toml")).unwrap();
    assert!(said.contains("then dualenc train --config many.toml") && !many.contains("dualenc fit"), "{said}{many}");
    let text = session.fail(2, &["init", "data", "--out", "csv.toml"]);
    assert!(text.contains("`csv.toml` exists already, and is not overwritten"), "{text}");
    // The file alone gives the same source.
    let (_, config) = round_trip(&session, "data/train.csv", "file");
    assert!(config.contains("path = \"data/train.csv\""), "{config}");
}

/// Gives a tower more blocks, each a copy of its last one.
fn deepen(session: &Session, dir: &str, blocks: usize) {
    let (config, weights) = (session.path(dir).join("config.json"), session.path(dir).join("model.safetensors"));
    let mut json: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let last = usize::try_from(json["num_hidden_layers"].as_u64().unwrap()).unwrap() - 1;
    json["num_hidden_layers"] = blocks.into();
    fs::write(config, json.to_string()).unwrap();
    let mut all = tensors(&weights);
    let of_last = format!(".layer.{last}.");
    let copied: Vec<String> = all.keys().filter(|name| name.contains(&of_last)).cloned().collect();
    assert!(!copied.is_empty(), "{:?}", all.keys());
    for (block, name) in (last + 1..blocks).flat_map(|block| copied.iter().map(move |name| (block, name))) {
        let tensor = all[name].clone();
        all.insert(name.replace(&of_last, &format!(".layer.{block}.")), tensor);
    }
    let views = all.iter().map(|(name, (_, shape, bytes))| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes.as_slice()).unwrap())
    });
    fs::write(weights, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
}

/// As they are written, with towers that have as many blocks as they name.
#[test]
fn lines_of_a_better_model_train() {
    let session = session();
    fs::copy(goldens("train/train.csv"), session.path("data/train.csv")).unwrap();
    deepen(&session, "towers/vit", 4);
    deepen(&session, "towers/bert", 3);
    let (_, config) = round_trip(&session, "data", "plain");
    let mut uncommented = 0;
    let better: Vec<&str> = config
        .lines()
        .map(|line| {
            match line
                .strip_prefix("# ")
                .filter(|line| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')))
            {
                Some(key) if !key.starts_with("tensorboard") => {
                    uncommented += 1;
                    key
                }
                _ => line,
            }
        })
        .collect();
    assert_eq!(uncommented, 9, "{config}");
    session.write("better.toml", better.join("\n"));
    let small = ["--set", "model.embed_dim=8", "--set", "train.epochs=", "--set", "train.steps=2"];
    session.succeed(&[&["train", "--config", "better.toml", "--set", "run.dir=runs/better"][..], &small].concat());
    let lines = ["fit", "train"].map(|kind| session.metrics("runs/better", kind).len());
    assert_eq!(lines, [1, 2]);
    // Class token and mean of four blocks of width 16, and means of three blocks of width 12.
    let saved = tensors(&session.path("runs/better/checkpoints/step-000002/model.safetensors"));
    let inputs = ["image", "text"].map(|tower| saved[&format!("{tower}_projection.weight")].1.clone());
    assert_eq!(inputs, [vec![128, 8], vec![36, 8]]);
}

#[test]
fn validation_table_is_evaluated() {
    let session = session();
    let rows = fs::read_to_string(goldens("train/train.csv")).unwrap();
    let rows: Vec<&str> = rows.lines().collect();
    let table = |rows: &[&str]| ["image,caption"].iter().chain(rows).fold(String::new(), |text, row| text + row + "\n");
    session.write("data/x_train.csv", table(&rows[1..17]));
    session.write("data/x_val.csv", table(&rows[17..]));
    session.write("data/other.csv", table(&rows[1..3]));
    let (said, config) = round_trip(&session, "data", "split");
    assert!(said.contains("to train on: ") && said.contains("x_train.csv"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("not used: ") && line.contains("other.csv")), "{said}");
    assert!(config.contains("[eval.validation.data.csv]"), "{config}");
    assert_eq!(resolved(&session, "split", &["eval", "validation", "task"]), "retrieval");
    assert!(!config.contains("validation_fraction"), "{config}");
}

#[test]
fn folders_and_shards_become_configs() {
    let session = session();
    let rows = fs::read_to_string(goldens("train/train.csv")).unwrap();
    for row in rows.lines().skip(1) {
        let (image, caption) = row.split_once(',').unwrap();
        let image = format!("data/{}", image.replace(".png", ".txt"));
        session.write(&image, format!("{}\nanother caption\n", caption.trim_matches('"')));
    }
    let (said, config) = round_trip(&session, "data/images", "folder");
    assert!(said.contains("24 images with 48 captions") && said.contains("each epoch draws one"), "{said}");
    assert!(config.contains("[data.train.folder]") && config.contains("captions = \"one\""), "{config}");
    // All images are packed: none is held out for an evaluation.
    let whole: Vec<&str> = config.lines().take_while(|line| !line.starts_with("[eval.validation]")).collect();
    session.write("folder.toml", whole.join("\n"));
    session.succeed(&[
        "data",
        "pack",
        "--config",
        "folder.toml",
        "--out",
        "shards",
        "--set",
        "data.validation_fraction=0",
    ]);
    let (_, config) = round_trip(&session, "shards", "shards");
    assert!(config.contains("[data.train.webdataset]") && config.contains("path = \"shards\""), "{config}");
    // Rows of a list of JSON objects.
    let lines: String = rows
        .lines()
        .skip(1)
        .map(|row| {
            let (image, caption) = row.split_once(',').unwrap();
            format!("{}\n", serde_json::json!({"image": image.replace("images/", ""), "caption": caption}))
        })
        .collect();
    session.write("lists/pairs.jsonl", lines);
    fs::rename(session.path("data/images"), session.path("lists/pictures")).unwrap();
    let (_, config) = round_trip(&session, "lists", "jsonl");
    assert!(config.contains("root = \"lists/pictures\""), "the images are found: {config}");
}

#[test]
fn class_folders_beside_a_table_are_classified() {
    let session = session();
    fs::copy(goldens("train/train.csv"), session.path("data/train.csv")).unwrap();
    for (class, image) in [("cat", "00"), ("dog", "01")] {
        let image = fs::read(session.path(&format!("data/images/{image}.png"))).unwrap();
        session.write(&format!("data/heldout/{class}/1.png"), &image);
        session.write(&format!("data/other/{class}/1.png"), &image);
    }
    let (said, config) = round_trip(&session, "data", "classes");
    assert!(said.contains("not used: `data/other`, class folders too: `images` of an `[eval.NAME]`"), "{said}");
    assert!(said.contains("to classify: `data/heldout`") && config.contains("task = \"zero-shot\""), "{said}{config}");
    assert_eq!(session.metrics("runs/classes", "eval").last().unwrap()["num_classes"], 2);
}

/// A labelled folder trains through `[data.train.classes]`.
#[test]
fn class_folders_train() {
    let session = session();
    for image in 0..24 {
        let (class, split) = (["cat", "dog", "red_panda"][image % 3], if image < 18 { "train" } else { "val" });
        let bytes = fs::read(session.path(&format!("data/images/{image:02}.png"))).unwrap();
        session.write(&format!("labelled/{split}/{class}/{image}.png"), bytes);
    }
    let (_, config) = round_trip(&session, "labelled", "labelled");
    assert!(config.contains("[data.train.classes]") && config.contains("path = \"labelled/train\""), "{config}");
    assert!(config.contains("images = \"labelled/val\""), "{config}");
}

#[test]
fn splits_of_a_json_file_are_used() {
    let session = session();
    let split = |number: usize| ["train", "restval", "val", "test"][[0, 0, 0, 1, 2, 3][number % 6]];
    let images: Vec<Value> = rows()
        .iter()
        .enumerate()
        .map(|(number, (image, caption))| {
            let name = image.trim_start_matches("images/");
            serde_json::json!({"filename": name, "split": split(number), "sentences": [{"raw": caption}]})
        })
        .collect();
    session.write("data/dataset.json", serde_json::json!({"images": images, "dataset": "golden"}).to_string());
    for data in ["data", "data/dataset.json"] {
        let (said, config) = round_trip(&session, data, &data.replace(['/', '.'], "-"));
        assert!(config.contains("[data.train.json]") && config.contains("split = \"train+restval\""), "{config}");
        assert!(config.contains("[eval.validation.data.json]") && config.contains("split = \"val\""), "{config}");
        assert!(said.contains("16 images with 16 captions") && said.contains("4 images with 4 captions"), "{said}");
        assert!(config.contains("root = \"data/images\"") && !said.contains("missing"), "{said}{config}");
    }
    // One list without splits.
    let list: Vec<Value> =
        rows().iter().map(|(image, text)| serde_json::json!({"image": image, "text": text})).collect();
    session.write("data/list.json", serde_json::json!(list).to_string());
    let (said, config) = round_trip(&session, "data/list.json", "list");
    assert!(said.contains("24 images with 24 captions") && config.contains("[data.train.json]"), "{said}{config}");
}

#[test]
fn parts_of_parquet_tables_are_one_set() {
    let session = session();
    session.copy("train/parquet", "hub/data");
    for data in ["hub", "hub/data"] {
        let (said, config) = round_trip(&session, data, &data.replace('/', "-"));
        assert!(config.contains("[data.train.parquet]"), "{config}");
        assert!(config.contains("path = \"hub/data/train-*.parquet\""), "{config}");
        assert!(config.contains("path = \"hub/data/validation-*.parquet\""), "{config}");
        assert!(said.contains("16 images with 16 captions") && !said.contains("not used"), "{said}");
    }
}

#[test]
fn shards_of_img2dataset_become_a_config() {
    let session = session();
    let mut shards = [Vec::new(), Vec::new()];
    for (number, (image, caption)) in rows().iter().enumerate() {
        let bytes = fs::read(session.path(&format!("data/{image}"))).unwrap();
        let (shard, key) = (number / 12, format!("{:05}{:04}", number / 12, number % 12));
        let json = serde_json::json!({"caption": caption, "url": "https://example.org/a.png", "status": "success"});
        let entries = [("png", bytes), ("txt", caption.clone().into_bytes()), ("json", json.to_string().into_bytes())];
        for (extension, bytes) in entries {
            shards[shard].push((format!("{key}.{extension}"), bytes));
        }
    }
    let statistics = serde_json::json!({"count": 12, "successes": 12, "failed_to_download": 0, "duration": 1.5});
    for (number, entries) in shards.iter().enumerate() {
        session.write(&format!("shards/{number:05}.tar"), ustar(entries));
        session.write(&format!("shards/{number:05}_stats.json"), statistics.to_string());
        let table = fs::read(goldens("parquet/img2dataset.parquet")).unwrap();
        session.write(&format!("shards/{number:05}.parquet"), table);
    }
    let (said, config) = round_trip(&session, "shards", "shards");
    assert!(config.contains("[data.train.webdataset]"), "{config}");
    assert!(said.contains("24 images with 24 captions"), "{said}");
    assert!(!said.contains("cannot be used") && !said.contains("not used"), "{said}");
}

#[test]
fn nothing_to_train_on_is_told() {
    let session = session();
    session.write("empty/a.mov", "x");
    session.write("empty/b.mov", "x");
    session.write("empty/notes.docx", "x");
    let text = session.fail(2, &["init", "empty"]);
    assert!(text.contains("holds nothing to train on: found 2 mov, 1 docx"), "{text}");
    session.write("empty/bad.csv", "x,y\n1,2\n");
    let text = session.fail(2, &["init", "empty"]);
    assert!(text.contains("bad.csv") && text.contains("has no column"), "{text}");
    assert!(!session.path("lit.toml").exists());
    session.write("gone.csv", "image,caption\nnone.png,a cat\nneither.png,a dog\nnowhere.png,\n");
    let said = session.succeed(&["init", "gone.csv", "--out", "gone.toml"]);
    for expected in ["2 of 2 image files are missing, such as", "rows that cannot be used: empty caption (1)"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    session.fail(2, &["init", "nowhere"]);
}

/// Captions that cannot be read are not replaced by the names of files.
#[test]
fn unreadable_table_is_no_folder() {
    let session = session();
    for (image, name) in [("00", "IMG cat"), ("01", "IMG dog"), ("02", "IMG fish")] {
        let bytes = fs::read(goldens(&format!("train/images/{image}.png"))).unwrap();
        session.write(&format!("photos/{name}.png"), bytes);
    }
    session.write("photos/Captions.csv", "Nr;Beschreibung\n1;eine Katze\n2;ein Hund\n");
    let text = session.fail(2, &["init", "photos", "--out", "x.toml"]);
    assert!(text.contains("has images, and data that cannot be read") && text.contains("Captions.csv"), "{text}");
    assert!(!session.path("x.toml").exists());
}

#[test]
fn captions_beside_the_images_are_found() {
    let session = session();
    let rows = fs::read_to_string(goldens("train/train.csv")).unwrap();
    let rows: Vec<(&str, &str)> = rows.lines().skip(1).filter_map(|row| row.split_once(',')).collect();
    let name = |image: &str| image.rsplit('/').next().unwrap().to_owned();
    // Kaggle's Flickr8k: `Images/` and `captions.txt`.
    session.copy("train/images", "flickr/Images");
    let lines: String = rows.iter().map(|(image, caption)| format!("{},{caption}\n", name(image))).collect();
    session.write("flickr/captions.txt", format!("image,caption\n{lines}"));
    let (said, config) = round_trip(&session, "flickr", "flickr");
    assert!(said.contains("24 images with 24 captions") && config.contains("captions.txt"), "{said}\n{config}");
    // COCO: `annotations/` beside the folder of images.
    session.copy("train/images", "coco/train2017");
    let images: Vec<Value> =
        rows.iter().enumerate().map(|(id, row)| json!({"id": id, "file_name": name(row.0)})).collect();
    let captions: Vec<Value> =
        rows.iter().enumerate().map(|(id, row)| json!({"image_id": id, "caption": row.1.trim_matches('"')})).collect();
    let annotations = json!({"images": images, "annotations": captions});
    session.write("coco/annotations/captions_train2017.json", annotations.to_string());
    let (said, config) = round_trip(&session, "coco", "coco");
    assert!(
        said.contains("24 images with 24 captions") && config.contains("captions_train2017.json"),
        "{said}\n{config}"
    );
}

/// Columns with names that say nothing are given by the user, and messages name the option for them.
#[test]
fn unusual_columns_are_named() {
    let session = session();
    let rows = fs::read_to_string(goldens("train/train.csv")).unwrap();
    let rows: String = rows.lines().map(|row| format!("{row},a word\n")).collect();
    session.write("data/odd.csv", rows.replacen("image,caption,a word", "what,said,more", 1));
    let text = session.fail(2, &["init", "data/odd.csv", "--image", "what"]);
    assert!(text.contains("has no column `caption`") && text.contains("set `--caption` to the column"), "{text}");
    let said = session.succeed(
        &[&["init", "data/odd.csv", "--image", "what", "--caption", "said", "--out", "odd.toml"][..], &TOWERS].concat(),
    );
    assert!(said.contains("image from `what`, caption from `said`"), "{said}");
    let config = fs::read_to_string(session.path("odd.toml")).unwrap();
    assert!(config.contains("image = \"what\"") && config.contains("caption = \"said\""), "{config}");
    session.succeed(&["check", "--fast", "--config", "odd.toml", "--set", "model.embed_dim=8"]);
    // A folder with the table, and one without any.
    let text = session.fail(2, &["init", "data", "--image", "none", "--caption", "said"]);
    assert!(text.contains("has no column `none`"), "{text}");
    session.write("pictures/a red circle.png", fs::read(session.path("data/images/00.png")).unwrap());
    let text = session.fail(2, &["init", "pictures", "--caption", "said"]);
    assert!(text.contains("name columns of a table") && text.contains("there is no table"), "{text}");
}
