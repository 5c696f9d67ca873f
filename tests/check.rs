//! `dualenc check` on data that train badly or not at all: what it says must be what training does.

use std::fs;

use serde_json::Value;

use crate::support::{Session, goldens, stderr};

/// A session on a copy of the golden data, with `rows` of `image,caption`.
fn session(rows: &[(&str, &str)], more: &str) -> Session {
    let session = Session::new();
    session.write_config(more);
    session.copy("train/images", "images");
    let rows: String = rows.iter().map(|(image, caption)| format!("images/{image}.png,{caption}\n")).collect();
    session.write("data.csv", format!("image,caption\n{rows}"));
    session
}

/// Eight images with captions of their own.
const EIGHT: [(&str, &str); 8] = [
    ("00", "a red circle"),
    ("01", "a green square"),
    ("02", "blue stripes"),
    ("03", "a yellow triangle"),
    ("04", "a ball"),
    ("05", "the sea"),
    ("06", "a black square"),
    ("07", "stripes"),
];

const DATA: &str = "data.train.csv.path=data.csv";

/// Runs a check with `sets`; returns its exit code, its findings, and what a person reads.
fn check(session: &Session, sets: &[&str]) -> (i32, Value, String) {
    let mut arguments = vec!["check", "--config", "lit.toml", "--json", "findings.json", "--set", DATA];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let output = session.run(&arguments);
    let json = serde_json::from_slice(&fs::read(session.path("findings.json")).unwrap()).unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap() + &stderr(&output);
    (output.status.code().unwrap(), json, text)
}

/// The exit code of a run with `sets`, and its log.
fn train(session: &Session, sets: &[&str]) -> (i32, String) {
    let mut arguments = vec!["train", "--config", "lit.toml", "--set", DATA, "--set", "train.warmup_steps=0"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let output = session.run(&arguments);
    let _ = fs::remove_dir_all(session.path("run"));
    (output.status.code().unwrap(), stderr(&output))
}

/// The finding of this code, and its level.
fn find<'a>(json: &'a Value, code: &str) -> Option<(&'a str, &'a Value)> {
    let found = json["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == code)?;
    Some((found["level"].as_str().unwrap(), found))
}

#[track_caller]
fn level<'a>(json: &'a Value, code: &str) -> &'a str {
    find(json, code).unwrap_or_else(|| panic!("no {code} in {json:#}")).0
}

#[test]
fn bad_images_end_a_check_as_a_run() {
    let session = session(&EIGHT, "");
    session.write("images/01.png", "");
    session.write("images/02.png", "<html>not found</html>");
    let png = fs::read(session.path("images/03.png")).unwrap();
    session.write("images/03.png", &png[..png.len() / 2]);
    fs::remove_file(session.path("images/04.png")).unwrap();
    for (fraction, code) in [("0.49", 2), ("0.5", 0)] {
        let set = format!("data.max_bad_fraction={fraction}");
        let (found, json, text) = check(&session, &[&set, "train.warmup_steps=0"]);
        assert_eq!(found, code, "{fraction}: {text}");
        assert_eq!(train(&session, &[&set]).0, code, "{fraction}: training and its check differ");
        let bad: Vec<&Value> =
            json["findings"].as_array().unwrap().iter().filter(|finding| finding["code"] == "bad_images").collect();
        let causes: Vec<&str> = bad.iter().map(|finding| finding["values"]["cause"].as_str().unwrap()).collect();
        assert_eq!(causes, ["damaged", "empty file", "not an image", "not found"]);
        let expected = if code == 2 { "problem" } else { "warning" };
        assert!(bad.iter().all(|finding| finding["level"] == expected), "{json:#}");
        assert!(text.contains("1 of 8 image files are missing:") && text.contains("images/04.png"), "{text}");
    }
    // Headers alone do not show that pixels are missing.
    let output = session.run(&["check", "--config", "lit.toml", "--fast", "--json", "-", "--set", DATA]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(level(&json, "fast"), "fact");
    let total = find(&json, "too_many_bad_images").unwrap().1;
    assert_eq!((&total["values"]["count"], output.status.code()), (&3.into(), Some(2)), "{json:#}");
}

#[test]
fn copies_and_overlap_are_found() {
    let rows = [&EIGHT[..], &[("copy", "another circle"), ("small", "a ball"), ("00", "A red circle.")]].concat();
    let session = session(&rows, "[eval.pairs]\ntask = \"retrieval\"\ndata = \"eval.csv\"\n");
    fs::copy(session.path("images/00.png"), session.path("images/copy.png")).unwrap();
    // The same picture in another file: PNG takes a comment behind its header, which is 33 bytes long.
    let png = fs::read(session.path("images/06.png")).unwrap();
    let comment = [&9u32.to_be_bytes()[..], b"tEXtComment\0a", &[0x13, 0xde, 0x2b, 0x5e]].concat();
    session.write("images/small.png", [&png[..33], &with_crc(&comment), &png[33..]].concat());
    session.write("eval.csv", "image,caption\nimages/copy.png,something else\nimages/09.png,The sea\n");
    let (code, json, text) = check(&session, &[]);
    assert_eq!(code, 0, "{text}");
    let items = |code: &str| find(&json, code).unwrap_or_else(|| panic!("no {code}: {json:#}")).1["items"].clone();
    let equal = items("equal_images");
    assert!(equal[0].as_str().unwrap().contains("images/00.png = ") && equal.as_array().unwrap().len() == 1, "{equal}");
    let near = items("near_images");
    assert!(near[0].as_str().unwrap().contains("images/06.png ~ "), "{near}");
    let rows = items("equal_rows");
    assert!(rows.as_array().unwrap().len() == 1 && rows[0].as_str().unwrap().contains("A red circle."), "{rows}");
    let overlap = items("overlap_equal");
    assert!(overlap.as_array().unwrap().len() == 1, "{overlap}");
    assert_eq!(items("overlap_captions"), serde_json::json!(["`The sea`"]));
    assert_eq!(session.run(&["check", "--config", "lit.toml", "--strict", "--set", DATA]).status.code(), Some(2));
}

/// A PNG chunk with the right checksum, from its length, name and content.
fn with_crc(chunk: &[u8]) -> Vec<u8> {
    let len = u32::from_be_bytes(chunk[..4].try_into().unwrap()) as usize;
    let body = &chunk[4..8 + len];
    let mut crc = u32::MAX;
    for byte in body {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    [&chunk[..4], body, &(!crc).to_be_bytes()].concat()
}

#[test]
fn captions_that_say_little_are_named() {
    let same = session(&EIGHT.map(|(image, _)| (image, "ok")), "");
    let (_, log) = train(&same, &["train.epochs=1"]);
    assert!(log.contains("8 captions, 1 distinct, `ok`: nothing tells the pairs apart"), "{log}");
    let (code, json, text) = check(&same, &[]);
    assert_eq!((code, level(&json, "one_caption")), (2, "problem"), "{text}");
    assert!(text.contains("8 captions, 1 distinct") && text.contains("nothing to learn"), "{text}");

    let few = EIGHT.map(|(image, _)| (image, if image < "05" { "good" } else { "bad" }));
    let (code, json, text) = check(&session(&few, ""), &[]);
    assert_eq!((code, level(&json, "few_captions")), (0, "warning"), "{text}");
    assert!(text.contains("8 captions, 2 distinct"), "{text}");

    let mut odd = EIGHT;
    odd[0].1 = "nan";
    odd[1].1 = "IMG_0001.jpg";
    odd[2].1 = "0.5";
    let (code, json, text) = check(&session(&odd, ""), &[]);
    assert_eq!((code, level(&json, "odd_captions")), (0, "warning"), "{text}");
    for expected in ["look like a missing value", "look like a file name", "look like a number"] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[test]
fn captions_with_the_same_tokens_are_named() {
    let mut rows = EIGHT;
    (rows[4].1, rows[5].1) = ("\u{1f600}", "\u{1f601}");
    let session = session(&rows, "");
    let (code, json, text) = check(&session, &[]);
    let (level, finding) = find(&json, "same_tokens").unwrap();
    assert_eq!(
        (code, level, &finding["values"]["same"], &finding["values"]["distinct"]),
        (0, "warning", &2.into(), &8.into()),
        "{text}"
    );
    let expected = "2 of 8 distinct captions have the same tokens as another one, such as `\u{1f600}` and";
    assert!(text.contains(expected), "{text}");
    let (_, log) = train(&session, &["train.epochs=1"]);
    assert!(log.contains(expected), "{log}");
    let (_, json, _) = check(&self::session(&EIGHT, ""), &[]);
    assert_eq!(find(&json, "same_tokens"), None);
}

#[test]
fn skipped_rows_and_pairs_are_told() {
    let mut rows = EIGHT.to_vec();
    rows.push(("08", "one more"));
    rows.push(("09", ""));
    let (code, json, text) = check(&session(&rows, ""), &[]);
    assert_eq!((code, level(&json, "skipped_rows"), level(&json, "unused_pairs")), (0, "warning", "warning"));
    assert!(text.contains("1 row could not be used: empty caption (1)") && text.contains("line 11"), "{text}");
    assert!(text.contains("9 pairs in batches of 8 leave one"), "{text}");
    let (_, json, _) = check(&session(&rows, ""), &["train.batch_size=3"]);
    assert_eq!(find(&json, "unused_pairs"), None);
}

#[test]
fn cut_captions_get_a_limit() {
    let long = "a red circle on a blue ground with a green square and yellow stripes";
    let rows = EIGHT.map(|(image, caption)| (image, if image == "03" { long } else { caption }));
    let session = session(&rows, "");
    let (code, json, text) = check(&session, &["data.max_tokens=6"]);
    let (found, finding) = find(&json, "tokens_cut").unwrap();
    assert_eq!((code, found, &finding["values"]["cut"]), (0, "warning", &1.into()), "{text}");
    let most = finding["values"]["max"].as_u64().unwrap();
    assert!(text.contains(&format!("with `data.max_tokens = {most}`, 0 % are cut")), "{text}");
    let (_, json, text) = check(&session, &[&format!("data.max_tokens={most}")]);
    assert_eq!(level(&json, "tokens"), "fact", "{text}");
    // The data are looked at without the towers, too.
    let (code, json, _) = check(&session, &["model.init=./nowhere"]);
    assert_eq!((code, level(&json, "model"), level(&json, "image_sizes")), (2, "problem", "fact"));
}

#[test]
fn classes_of_an_evaluation_are_counted() {
    let session = session(&EIGHT, "[eval.z]\ntask = \"zero-shot\"\nimages = \"classes\"\n");
    for (class, image) in [("cat", "10"), ("cat", "11"), ("red_panda", "12")] {
        let image = fs::read(goldens("train/images").join(format!("{image}.png"))).unwrap();
        session.write(&format!("classes/{class}/{}.png", image.len()), image);
    }
    let (code, json, text) = check(&session, &[]);
    assert_eq!((code, level(&json, "classes"), level(&json, "classes_of_one")), (0, "fact", "warning"), "{text}");
    assert!(text.contains("2 classes with 1 (`red panda`) to 2 (`cat`) images"), "{text}");
    // A run stops when a class has no image that can be read.
    let bad = fs::read_dir(session.path("classes/red_panda")).unwrap().next().unwrap().unwrap().path();
    fs::write(bad, "text").unwrap();
    let sets = ["data.max_bad_fraction=0.5", "eval.z.every_epochs=1"];
    let (code, json, text) = check(&session, &sets);
    assert_eq!((code, level(&json, "no_usable_images")), (2, "problem"), "{text}");
    let (code, log) = train(&session, &sets);
    assert!(code == 2 && log.contains("no image of the class `red panda`"), "{log}");
}

/// An error that ends the check takes nothing away that was found before.
#[test]
fn data_problems_survive_an_unreachable_hub() {
    let session = session(&EIGHT, "");
    session.write("images/03.png", "");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = session.command(&["check", "--config", "lit.toml", "--json", "findings.json", "--set", DATA]);
    command.args(["--set", "model.init=org/tiny"]);
    command.env("HF_ENDPOINT", format!("http://127.0.0.1:{port}")).env("HF_HOME", session.path("hf"));
    command.env_remove("HF_HUB_OFFLINE").env_remove("TRANSFORMERS_OFFLINE").env_remove("HF_HUB_CACHE");
    let output = command.output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "it may be tried again: {text}");
    for expected in ["1 of 8 images cannot be used", "check the path, the network", "03.png"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let json: Value = serde_json::from_slice(&fs::read(session.path("findings.json")).unwrap()).unwrap();
    let codes: Vec<&Value> = json["findings"].as_array().unwrap().iter().map(|finding| &finding["code"]).collect();
    assert!(codes.contains(&&Value::from("too_many_bad_images")), "{codes:?}");
}

/// A broken config hides no problem of the data or of a tower.
#[test]
fn config_problems_hide_no_data_problem() {
    let session = session(&EIGHT, "[eval.x]\ntask = \"retrieval\"\ndata = \"eval.csv\"\n");
    session.write("images/03.png", "");
    session.write("eval.csv", "image,caption\nimages/09.png,a\nimages/gone.png,b\n");
    let cases: [(&[&str], &[&str]); 5] = [
        (&["train.optimizer=adamm"], &["`adamm`", "03.png", "gone.png"]),
        (&["train.batch_size=", "train.lr=1"], &["train.batch_size", "train.lr", "03.png", "gone.png"]),
        (&["model.init=", "model.image_tower=./nowhere"], &["model.text_tower", "nowhere", "03.png", "gone.png"]),
        (&["run.device=tpu"], &["tpu", "03.png", "gone.png"]),
        (&["eval.x.task=retreival", "model.init=./nowhere"], &["retreival", "03.png", "nowhere"]),
    ];
    for (sets, expected) in cases {
        let (code, json, text) = check(&session, sets);
        assert_eq!(code, 2, "{sets:?}: {text}");
        for part in expected {
            assert!(text.contains(part), "{part} is not named with {sets:?}: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
        assert_eq!(level(&json, "too_many_bad_images"), "problem", "{text}");
    }
    let (_, json, text) = check(&session, &["train.optimizer=adamm", "train.lr=1"]);
    let found = json["findings"].as_array().unwrap().iter().filter(|finding| finding["code"] == "config");
    assert_eq!(found.count(), 2, "{json:#}");
    let places = ["2 problems in the config", "1 of 8 image files are bad"].map(|part| text.find(part).unwrap());
    assert!(places[0] < places[1], "{text}");
    // Without training data, the evaluation and the towers are checked.
    let (code, json, text) = check(&session, &["data.train.csv.pth=x", "model.init=./nowhere"]);
    assert_eq!((code, level(&json, "model"), find(&json, "pairs")), (2, "problem", None), "{text}");
    assert!(text.contains("gone.png") && text.contains("unknown key `data.train.csv.pth`"), "{text}");
    // What does not depend on the wrong key is found, and nothing is made up.
    session.write("eval.csv", "image,caption\nimages/09.png,a\nimages/10.png,b\n");
    let image = fs::read(session.path("images/04.png")).unwrap();
    session.write("images/03.png", image);
    let (code, json, text) = check(&session, &["train.batch_size="]);
    let problems: Vec<_> =
        json["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] == "problem").collect();
    assert_eq!((code, problems.len()), (2, 1), "{text}");
    assert_eq!(level(&json, "tokens"), "fact", "{text}");
}

#[test]
fn warnings_are_counted_at_the_end() {
    let (code, _, text) = check(&session(&EIGHT, ""), &[]);
    assert!(code == 0 && text.contains("no problems found"), "{text}");
    let mut odd = EIGHT;
    odd[2].1 = "0.5";
    let (code, json, text) = check(&session(&odd, ""), &[]);
    assert_eq!((code, &json["warnings"]), (0, &1.into()), "{text}");
    assert!(text.contains("no errors, 1 warning\n") && !text.contains("no problems"), "{text}");
}

#[test]
fn long_lists_are_cut_but_not_in_json() {
    let session = session(&EIGHT, "");
    let rows: String = (0..6).map(|image| format!("images/gone{image}.png,picture {image}\n")).collect();
    let copies: String = (0..6).map(|image| format!("images/copy{image}.png,copy {image}\n")).collect();
    for image in 0..6 {
        fs::copy(session.path("images/00.png"), session.path(&format!("images/copy{image}.png"))).unwrap();
    }
    session.write("data.csv", format!("image,caption\nimages/00.png,a\n{rows}{copies}"));
    let (code, json, text) = check(&session, &[]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("gone2.png\n") && text.contains("... and 3 more: `--json FILE` lists all"), "{text}");
    assert!(!text.contains("gone3.png"), "{text}");
    assert_eq!(find(&json, "bad_images").unwrap().1["items"].as_array().unwrap().len(), 6);
    assert!(text.contains("copy1.png and 4 more"), "{text}");
    let groups = find(&json, "equal_images").unwrap().1["values"]["groups"].clone();
    assert_eq!(groups[0].as_array().unwrap().len(), 7, "{groups}");
}

#[test]
fn data_warnings_are_given_once() {
    let evals = "[eval.a]\ntask = \"retrieval\"\ndata = \"data.csv\"\n\
                 [eval.b]\ntask = \"retrieval\"\ndata = \"data.csv\"\n\
                 [eval.c]\ntask = \"retrieval\"\ndata = \"twice.csv\"\n\
                 [eval.d]\ntask = \"retrieval\"\ndata = \"twice.csv\"\n";
    let session = session(&EIGHT, evals);
    let table = fs::read_to_string(session.path("data.csv")).unwrap();
    let doubled = table.replace('\n', ",x\n").replacen("caption,x", "caption,caption", 1);
    session.write("data.csv", &doubled);
    session.write("twice.csv", &doubled);
    let (_, json, text) = check(&session, &[]);
    assert_eq!(text.matches("several columns are named `caption`").count(), 2, "{text}");
    assert_eq!(level(&json, "data_warning"), "warning");
    let (code, log) = train(&session, &["train.epochs=1"]);
    assert_eq!((code, log.matches("several columns are named `caption`").count()), (0, 2), "{log}");
}

/// Captions that pandas wrote for a missing value are reported in every form of the data.
#[test]
fn null_words_are_told_in_every_form() {
    let session = session(&EIGHT, "");
    let words = ["NaN", "a cat", "null", "a dog", "N/A", "the sea", "stripes", "a ball"];
    let name = |number: usize| format!("{number:02}.png");
    let tab: String = (0..8).map(|row| format!("images/{}\t{}\n", name(row), words[row])).collect();
    session.write("data.tsv", format!("image\tcaption\n{tab}"));
    let comma: String = (0..8).map(|row| format!("images/{},\"{}\"\n", name(row), words[row])).collect();
    session.write("data.csv", format!("image,caption\n{comma}"));
    let line = |row: usize| format!("{{\"image\": \"images/{}\", \"caption\": \"{}\"}}\n", name(row), words[row]);
    session.write("data.jsonl", (0..8).map(line).collect::<String>());
    fs::create_dir_all(session.path("listed")).unwrap();
    for (row, word) in words.iter().enumerate() {
        session.write(&format!("texts/{row:02}.txt"), word);
        for folder in ["texts", "listed"] {
            let target = session.path(&format!("{folder}/{}", name(row)));
            fs::copy(session.path(&format!("images/{}", name(row))), target).unwrap();
        }
    }
    let metadata: String = (0..8).map(|row| format!("{},{}\n", name(row), words[row])).collect();
    session.write("listed/metadata.csv", format!("file_name,text\n{metadata}"));
    let forms =
        ["csv.path=data.csv", "tsv.path=data.tsv", "jsonl.path=data.jsonl", "folder.path=texts", "folder.path=listed"];
    for form in forms {
        let set = format!("data.train.{form}");
        let sets = ["data.train.csv=", set.as_str()];
        let (code, json, text) = check(&session, &sets);
        assert_eq!((code, level(&json, "odd_captions")), (0, "warning"), "{form}: {text}");
        let expected = "3 of 8 captions (37.5 %) look like a missing value; they are used as written";
        assert!(text.contains(expected), "{form}: {text}");
        assert!(!text.contains("a word that stands for"), "it is said once: {text}");
        if session.path("run").exists() {
            fs::remove_dir_all(session.path("run")).unwrap();
        }
        let (code, log) = train(&session, &[sets[0], sets[1], "train.epochs=1"]);
        let expected = "3 of 8 captions are a word that stands for a missing text";
        assert!(code == 0 && log.contains(expected), "{form}: {log}");
    }
}
