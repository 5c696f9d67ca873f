//! One set of pairs in every form that data can have trains to the same bits.

use std::fs;

use serde_json::{Value, json};

use crate::resume_matrix::ustar;
use crate::support::{Session, goldens};

/// A pair: the path of its image and its caption.
type Row = (String, String);

/// A form: its key in `[data.train]`, the path that the key `path` names, and what writes the rows there.
type Form = (&'static str, &'static str, fn(&Session, &[Row]));

/// To test another form, add a line.
const FORMS: [Form; 14] = [
    ("csv", "data.csv", |session, rows| table(session, rows, "data.csv", ",")),
    ("tsv", "data.tsv", |session, rows| table(session, rows, "data.tsv", "\t")),
    ("jsonl", "data.jsonl", jsonl),
    ("folder", "folder", folder),
    ("webdataset", "shards", shards),
    ("coco", "coco.json", coco),
    ("json", "list.json", list),
    ("json", "karpathy.json", karpathy),
    ("json", "coco-again.json", |session, rows| coco_file(session, rows, "coco-again.json")),
    ("folder", "hub-jsonl", hub_jsonl),
    ("folder", "hub-csv", hub_csv),
    ("folder", "downloads", downloads),
    ("webdataset", "packed", packed),
    ("parquet", "parquet/*.parquet", |session, _| drop(session.copy("train/parquet", "parquet"))),
];

fn table(session: &Session, rows: &[Row], name: &str, separator: &str) {
    let line = |(image, caption): &Row| format!("{image}{separator}\"{caption}\"\n");
    session.write(name, format!("image{separator}caption\n") + &rows.iter().map(line).collect::<String>());
}

fn jsonl(session: &Session, rows: &[Row]) {
    let line = |(image, caption): &Row| json!({"image": image, "caption": caption}).to_string() + "\n";
    session.write("data.jsonl", rows.iter().map(line).collect::<String>());
}

fn folder(session: &Session, rows: &[Row]) {
    for (image, caption) in rows {
        let target = image.replace("images/", "folder/");
        session.write(&target, fs::read(session.path(image)).unwrap());
        session.write(&target.replace(".png", ".txt"), caption);
    }
}

pub fn shards(session: &Session, rows: &[Row]) {
    for (number, rows) in rows.chunks(10).enumerate() {
        let entries = rows.iter().flat_map(|(image, caption)| {
            let name = image.trim_start_matches("images/").to_owned();
            let text = (name.replace(".png", ".txt"), caption.clone().into_bytes());
            [(name, fs::read(session.path(image)).unwrap()), text]
        });
        session.write(&format!("shards/{number:02}.tar"), ustar(&entries.collect::<Vec<_>>()));
    }
}

fn list(session: &Session, rows: &[Row]) {
    let object = |(image, caption): &Row| json!({"image": image, "caption": caption});
    session.write("list.json", Value::from(rows.iter().map(object).collect::<Vec<_>>()).to_string());
}

fn karpathy(session: &Session, rows: &[Row]) {
    let object = |(image, caption): &Row| json!({"filename": image, "split": "train", "sentences": [{"raw": caption}]});
    let images: Vec<Value> = rows.iter().map(object).collect();
    session.write("karpathy.json", json!({"dataset": "golden", "images": images}).to_string());
}

/// Copies the images to `folder`, and returns their names there with the captions.
fn copied(session: &Session, rows: &[Row], folder: &str) -> Vec<Row> {
    let copy = |(image, caption): &Row| {
        let name = image.trim_start_matches("images/").to_owned();
        session.write(&format!("{folder}/{name}"), fs::read(session.path(image)).unwrap());
        (name, caption.clone())
    };
    rows.iter().map(copy).collect()
}

/// ImageFolder of the `datasets` library.
fn hub_jsonl(session: &Session, rows: &[Row]) {
    let rows = copied(session, rows, "hub-jsonl");
    let line = |(name, caption): &Row| json!({"file_name": name, "text": caption}).to_string() + "\n";
    session.write("hub-jsonl/metadata.jsonl", rows.iter().map(line).collect::<String>());
}

fn hub_csv(session: &Session, rows: &[Row]) {
    let rows = copied(session, rows, "hub-csv");
    let line = |(name, caption): &Row| format!("{name},\"{caption}\"\n");
    session.write("hub-csv/metadata.csv", format!("file_name,text\n{}", rows.iter().map(line).collect::<String>()));
}

/// What img2dataset writes as files: a folder per shard, with a table and statistics beside it.
fn downloads(session: &Session, rows: &[Row]) {
    for (number, rows) in rows.chunks(12).enumerate() {
        for (name, caption) in copied(session, rows, &format!("downloads/{number:05}")) {
            let beside = |extension: &str| format!("downloads/{number:05}/{}", name.replace("png", extension));
            session.write(&beside("txt"), &caption);
            session.write(&beside("json"), json!({"caption": caption, "status": "success", "width": 16}).to_string());
        }
        session.write(&format!("downloads/{number:05}_stats.json"), json!({"count": rows.len()}).to_string());
        session.write(
            &format!("downloads/{number:05}.parquet"),
            fs::read(goldens("parquet/img2dataset.parquet")).unwrap(),
        );
    }
}

/// Shards of `dualenc data pack`.
fn packed(session: &Session, rows: &[Row]) {
    table(session, rows, "packed.csv", ",");
    let path = "data.train.csv.path=packed.csv";
    session.succeed(&["data", "pack", "--config", "lit.toml", "--set", path, "--out", "packed"]);
}

fn coco(session: &Session, rows: &[Row]) {
    coco_file(session, rows, "coco.json");
}

fn coco_file(session: &Session, rows: &[Row], name: &str) {
    let numbered = || rows.iter().enumerate();
    let images: Vec<Value> = numbered().map(|(id, (image, _))| json!({"id": id, "file_name": image})).collect();
    let annotation = |(id, (_, caption)): (usize, &Row)| json!({"id": 100 + id, "image_id": id, "caption": caption});
    let annotations: Vec<Value> = numbered().map(annotation).collect();
    session.write(name, json!({"images": images, "annotations": annotations}).to_string());
}

/// The golden pairs.
pub fn rows() -> Vec<Row> {
    let csv = fs::read_to_string(goldens("train/train.csv")).unwrap();
    let pairs = csv.lines().skip(1).map(|row| row.split_once(',').unwrap());
    pairs.map(|(image, caption)| (image.to_owned(), caption.trim_matches('"').to_owned())).collect()
}

#[test]
fn one_set_trains_alike_in_every_form() {
    let session = Session::new();
    session.write_config("");
    session.copy("train/images", "images");
    let rows = rows();
    assert_eq!(rows.len(), 24);
    let mut expected: Option<Vec<Value>> = None;
    for (form, name, write) in FORMS {
        write(&session, &rows);
        let path = name;
        let run = format!("run-{}", path.replace(['/', '.', '*'], "-"));
        let (path, dir) = (format!("data.train.{form}.path={path}"), format!("run.dir={run}"));
        let mut arguments = vec!["train", "--config", "lit.toml", "--set", "data.train.csv=", "--set", &path];
        for set in [&dir, "data.shuffle=true", "train.batch_size=5", "train.epochs=2", "model.text_dropout=0.2"] {
            arguments.extend(["--set", set]);
        }
        session.succeed(&arguments);
        let lines = session.reproducible(&run, "train");
        assert_eq!(lines.len(), 8, "{path}");
        let expected = expected.get_or_insert_with(|| lines.clone());
        assert_eq!(&lines, expected, "{name}");
    }
}

/// `./images/0.png` and `images/0.png` are one image, however the table is named.
#[test]
fn name_of_the_table_changes_no_figure() {
    let session = Session::new();
    session.copy("dual/vit_bert", "model");
    session.write("images/0.png", fs::read(goldens("train/images/00.png")).unwrap());
    session.write("images/1.png", fs::read(goldens("train/images/01.png")).unwrap());
    session.write("d.csv", "image,caption\nimages/0.png,a red square\n./images/0.png,a square\nimages/1.png,a thing\n");
    let figures = |table: &str| -> Value {
        let arguments = ["eval", "--model", "model", "--task", "retrieval", "--json", "-", "--data", table];
        serde_json::from_str(&session.succeed(&arguments)).unwrap()
    };
    let expected = figures(session.path("d.csv").to_str().unwrap());
    assert_eq!(expected["num_images"], 2, "{expected}");
    for table in ["d.csv", "./d.csv"] {
        assert_eq!(figures(table), expected, "{table}");
    }
}
