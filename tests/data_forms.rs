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
const FORMS: [Form; 6] = [
    ("csv", "data.csv", |session, rows| table(session, rows, "data.csv", ",")),
    ("tsv", "data.tsv", |session, rows| table(session, rows, "data.tsv", "\t")),
    ("jsonl", "data.jsonl", jsonl),
    ("folder", "folder", folder),
    ("webdataset", "shards", shards),
    ("coco", "coco.json", coco),
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

fn shards(session: &Session, rows: &[Row]) {
    for (number, rows) in rows.chunks(10).enumerate() {
        let entries = rows.iter().flat_map(|(image, caption)| {
            let name = image.trim_start_matches("images/").to_owned();
            let text = (name.replace(".png", ".txt"), caption.clone().into_bytes());
            [(name, fs::read(session.path(image)).unwrap()), text]
        });
        session.write(&format!("shards/{number:02}.tar"), ustar(&entries.collect::<Vec<_>>()));
    }
}

fn coco(session: &Session, rows: &[Row]) {
    let numbered = || rows.iter().enumerate();
    let images: Vec<Value> = numbered().map(|(id, (image, _))| json!({"id": id, "file_name": image})).collect();
    let annotation = |(id, (_, caption)): (usize, &Row)| json!({"id": 100 + id, "image_id": id, "caption": caption});
    let annotations: Vec<Value> = numbered().map(annotation).collect();
    session.write("coco.json", json!({"images": images, "annotations": annotations}).to_string());
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
    for (form, path, write) in FORMS {
        write(&session, &rows);
        let run = format!("run-{form}");
        let (path, dir) = (format!("data.train.{form}.path={path}"), format!("run.dir={run}"));
        let mut arguments = vec!["train", "--config", "lit.toml", "--set", "data.train.csv=", "--set", &path];
        for set in [&dir, "data.shuffle=true", "train.batch_size=5", "train.epochs=2", "model.text_dropout=0.2"] {
            arguments.extend(["--set", set]);
        }
        session.succeed(&arguments);
        let mut lines = session.metrics(&run, "train");
        lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("pairs_per_sec")));
        assert_eq!(lines.len(), 8, "{form}");
        let expected = expected.get_or_insert_with(|| lines.clone());
        assert_eq!(&lines, expected, "{form}");
    }
}
