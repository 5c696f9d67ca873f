//! `dualenc init` with a tower or a column that is not what its option names.

use std::fs;

use serde_json::json;

use crate::data_forms::rows;
use crate::init::{TOWERS, session};
use crate::support::{Session, goldens};

/// What `init` says when it refuses; it writes nothing.
#[track_caller]
fn refused(session: &Session, arguments: &[&str]) -> String {
    let text = session.fail(2, &[&["init"], arguments, &["--out", "refused.toml"]].concat());
    assert!(!session.path("refused.toml").exists(), "{text}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn wrong_towers_are_refused() {
    let session = session();
    fs::copy(goldens("train/train.csv"), session.path("data/train.csv")).unwrap();
    session.write("towers/empty/notes.txt", "none");
    for (option, tower, expected) in [
        ("--image-tower", "towers/vti", "there is no directory `towers/vti`; did you mean `towers/vit`?"),
        ("--text-tower", "./towers/brt", "there is no directory `./towers/brt`; did you mean `./towers/bert`?"),
        ("--image-tower", "towers/zzzz", "there is no directory `towers/zzzz`; expected a directory with"),
        ("--image-tower", "towers/zzzz", "as others in `towers` are; if a hub id is meant, write it into the config"),
        ("--image-tower", "towers/vit/config.json", "`towers/vit/config.json` is a file; name its directory"),
        ("--image-tower", "towers/empty", "`towers/empty` holds no `config.json`"),
        ("--image-tower", "towers/bert", "`model_type` is `bert`, which is not a supported image tower"),
        ("--text-tower", "towers/vit", "`model_type` is `vit`, which is not a supported text tower"),
    ] {
        let text = refused(&session, &["data", option, tower]);
        assert!(text.contains(&format!("`{option}`: ")) && text.contains(expected), "{option} {tower}: {text}");
    }
    // What may be an id of the hub is not refused, and named.
    let said = session.succeed(&["init", "data", "--image-tower", "dualenc-none/none", "--out", "hub.toml"]);
    assert!(said.contains("there is no directory `dualenc-none/none`: it is taken for a hub id"), "{said}");
    let said = session.succeed(&[&["init", "data", "--out", "right.toml"][..], &TOWERS].concat());
    assert!(!said.contains("there is no directory"), "{said}");
}

#[test]
fn wrong_columns_are_refused() {
    let session = session();
    let objects: Vec<_> = rows().iter().map(|(image, caption)| json!({"photo": image, "words": caption})).collect();
    let lines: String = objects.iter().map(|object| format!("{object}\n")).collect();
    let table: String = rows().iter().map(|(image, caption)| format!("{image},\"{caption}\"\n")).collect();
    session.write("data/t.csv", format!("photo,words\n{table}"));
    let tabs: String = rows().iter().map(|(image, caption)| format!("{image}\t{caption}\n")).collect();
    session.write("data/t.tsv", format!("photo\twords\n{tabs}"));
    session.write("data/t.jsonl", lines);
    session.write("data/t.json", json!(objects).to_string());
    for file in ["t.csv", "t.tsv", "t.jsonl", "t.json"].map(|name| format!("data/{name}")) {
        let both = |image: &str, caption: &str| refused(&session, &[&file, "--image", image, "--caption", caption]);
        let text = both("phto", "words");
        assert!(text.contains("t.") && text.contains("phto") && text.contains("--image \"photo\""), "{file}: {text}");
        let text = both("photo", "wrds");
        assert!(text.contains("wrds") && text.contains("--caption \"words\""), "{file}: {text}");
        // Columns that are there, and hold something else.
        let text = both("words", "photo");
        let first = &rows()[0].1;
        assert!(text.contains(&format!("`--image words` holds no images: there is no file `{first}`")), "{text}");
        let text = both("photo", "photo");
        assert!(text.contains("`--caption photo` is the column of `--image`, too"), "{text}");
    }
    session.write("data/u.csv", format!("photo,words,file\n{}", table.replace("\"\n", "\",a.png\n")));
    let text = refused(&session, &["data/u.csv", "--image", "photo", "--caption", "file"]);
    assert!(text.contains("`--caption file` holds names of images, such as `a.png`"), "{text}");
    // Class folders beside the table are no reason to call it missing.
    for class in ["cat", "dog"] {
        session.write(&format!("mixed/{class}/1.png"), fs::read(session.path("data/images/00.png")).unwrap());
    }
    session.write("mixed/t.csv", format!("photo,words\n{table}"));
    let text = refused(&session, &["mixed", "--image", "phto", "--caption", "words"]);
    assert!(text.contains("no table here can be read with them") && text.contains("phto"), "{text}");
    session.copy("train/parquet", "hub");
    let text = refused(&session, &["hub", "--image", "imge", "--caption", "caption"]);
    assert!(text.contains("imge") && text.contains("image"), "{text}");
}

/// Where all columns have usual names, the message names the right one.
#[test]
fn usual_column_is_proposed() {
    let session = session();
    let table: String = rows().iter().map(|(image, caption)| format!("{image},\"{caption}\"\n")).collect();
    session.write("data/t.csv", format!("image,caption\n{table}"));
    let text = refused(&session, &["data/t.csv", "--image", "caption", "--caption", "image"]);
    assert!(text.contains("did you mean `--image image`?"), "{text}");
    // Images that are not there yet have the names of images.
    session.write("data/gone.csv", "image,words\nx/1.png,a cat\nx/2.png,a dog\n");
    let said = session.succeed(
        &[&["init", "data/gone.csv", "--image", "image", "--caption", "words", "--out", "gone.toml"][..], &TOWERS]
            .concat(),
    );
    assert!(said.contains("2 of 2 image files are missing"), "{said}");
}
