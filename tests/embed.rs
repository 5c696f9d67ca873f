//! `dualenc embed` takes the images of a table, of shards and of parquet files as `eval --data` does.

use std::fs;

use serde_json::Value;

use crate::data_forms::rows;
use crate::resume_matrix::ustar;
use crate::support::{Session, goldens, stderr, tensors};

/// The embeddings of `images`, a row each, and the file names of the images.
#[track_caller]
fn embed(session: &Session, images: &str) -> (Vec<Vec<u8>>, Vec<String>) {
    let model = goldens("train/init");
    let model = model.to_str().unwrap();
    session.succeed(&["embed", "--model", model, "--images", images, "--out", "out.safetensors"]);
    let file = session.path("out.safetensors");
    let (_, shape, bytes) = tensors(&file).remove("image_embeds").unwrap();
    let rows = bytes.chunks(bytes.len() / shape[0]).map(<[u8]>::to_vec).collect();
    let bytes = fs::read(&file).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let paths: Vec<String> = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["image_paths"]).unwrap();
    assert_eq!(shape[0], paths.len());
    (rows, paths)
}

fn names(paths: &[String]) -> Vec<&str> {
    paths.iter().map(|path| path.rsplit('/').next().unwrap()).collect()
}

#[test]
fn every_form_embeds_alike() {
    let session = Session::new();
    session.copy("train/images", "images");
    session.copy("train/parquet", "parquet");
    let (expected, paths) = embed(&session, "images");
    assert_eq!((expected.len(), names(&paths)[23]), (24, "23.png"));

    // Two captions an image, and the last image first.
    let mut pairs = rows();
    pairs.sort_by(|left, right| right.0.cmp(&left.0));
    let line = |(image, _): &(String, String)| format!("{image},a\n{image},b\n");
    session.write("pairs.csv", format!("image,caption\n{}", pairs.iter().map(line).collect::<String>()));
    let (embeds, paths) = embed(&session, "pairs.csv");
    assert!(embeds.iter().eq(expected.iter().rev()), "distinct images in the order of the rows");
    assert_eq!(names(&paths)[0], "23.png");

    let line = |(image, caption): &(String, String)| serde_json::json!({"image": image, "caption": caption});
    let objects: Vec<Value> = rows().iter().map(line).collect();
    session.write("pairs.jsonl", objects.iter().map(|object| format!("{object}\n")).collect::<String>());
    session.write("pairs.json", Value::from(objects).to_string());
    session.write("shards/notes.txt", "a text beside the shards");
    for (number, rows) in rows().chunks(10).enumerate() {
        let entries = rows.iter().flat_map(|(image, caption)| {
            let name = image.trim_start_matches("images/").to_owned();
            let text = (name.replace(".png", ".txt"), caption.clone().into_bytes());
            [(name, fs::read(session.path(image)).unwrap()), text]
        });
        session.write(&format!("shards/{number:02}.tar"), ustar(&entries.collect::<Vec<_>>()));
    }
    for images in ["pairs.jsonl", "pairs.json", "shards", "shards/{00..02}.tar"] {
        let (embeds, paths) = embed(&session, images);
        assert!(embeds == expected, "{images}");
        assert_eq!(names(&paths)[0], "00.png", "{images}: {paths:?}");
    }
    let (train, paths) = embed(&session, "parquet/train-00000-of-00001.parquet");
    assert!(train == expected[..16]);
    assert!(paths[0].ends_with("parquet/row 1"), "{paths:?}");
    let (validation, _) = embed(&session, "parquet/validation-*.parquet");
    assert!(validation == expected[16..]);
}

#[test]
fn rows_without_images_are_told() {
    let session = Session::new();
    session.copy("train/images", "images");
    session.write("pairs.csv", "image,caption\nimages/00.png,a\n,b\nimages/01.png,\n");
    let model = goldens("train/init");
    let arguments = ["embed", "--model", model.to_str().unwrap(), "--out", "out.safetensors", "--images"];
    let output = session.run(&[&arguments[..], &["pairs.csv"]].concat());
    let text = stderr(&output);
    assert!(output.status.success() && text.contains("2 rows could not be used: "), "{text}");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("wrote 1 image") && out.contains("; 2 rows were left out"), "{out}");
    assert!(session.fail(2, &[&arguments[..], &["none.csv"]].concat()).contains("none.csv"));
}
