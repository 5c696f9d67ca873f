//! Zero-shot classification of labelled images in every form.

use std::fs;

use serde_json::{Value, json};

use crate::resume_matrix::ustar;
use crate::support::{Session, goldens};

const CLASSES: [&str; 3] = ["blue circle", "red square", "thing"];

/// The class of each of 9 images.
fn label(image: usize) -> usize {
    [1, 1, 0, 0, 2, 2, 1, 0, 2][image]
}

fn bytes(image: usize) -> Vec<u8> {
    fs::read(goldens(&format!("train/images/{image:02}.png"))).unwrap()
}

fn session() -> Session {
    let session = Session::new();
    session.copy("dual/vit_bert", "model");
    session.write("templates.txt", "{c}\na picture of a {c}\n");
    session.write("names.txt", CLASSES.join("\n"));
    for image in 0..9 {
        session.write(&format!("images/{image:02}.png"), bytes(image));
    }
    session
}

fn eval(session: &Session, arguments: &[&str]) -> Value {
    let fixed = ["eval", "--model", "model", "--task", "zero-shot", "--json", "-"];
    serde_json::from_str(&session.succeed(&[&fixed, arguments].concat())).unwrap()
}

fn rows(line: impl Fn(usize) -> String) -> String {
    (0..9).map(|image| line(image) + "\n").collect()
}

#[test]
fn every_form_has_the_same_figures() {
    let session = session();
    for image in 0..9 {
        let class = CLASSES[label(image)].replace(' ', "_");
        session.write(&format!("folder/{class}/{image:02}.png"), bytes(image));
    }
    let expected = eval(&session, &["--images", "folder", "--templates", "templates.txt"]);
    assert_eq!((&expected["num_images"], &expected["num_classes"]), (&9.into(), &3.into()));

    session.write(
        "names.csv",
        format!("image,label\n{}", rows(|it| format!("images/{it:02}.png,{}", CLASSES[label(it)]))),
    );
    session.write("numbers.csv", format!("image,label\n{}", rows(|it| format!("images/{it:02}.png,{}", label(it)))));
    let object = |it: usize| json!({"image": format!("images/{it:02}.png"), "caption": CLASSES[label(it)]}).to_string();
    session.write("names.jsonl", rows(object));
    let entries = |it: usize| {
        [(format!("s{it:02}.png"), bytes(it)), (format!("s{it:02}.cls"), label(it).to_string().into_bytes())]
    };
    let entries: Vec<(String, Vec<u8>)> = (0..9).flat_map(entries).collect();
    for (number, part) in entries.chunks(6).enumerate() {
        session.write(&format!("wds/test/{number}.tar"), ustar(part));
    }
    // The layout of CLIP_benchmark: both lists are found beside the shards.
    session.write("wds/classnames.txt", CLASSES.join("\n"));
    session.write("wds/zeroshot_classification_templates.txt", "{c}\na picture of a {c}\n");
    let templates = ["--templates", "templates.txt"];
    for (data, more) in [
        ("folder", &templates[..]),
        ("names.csv", &templates),
        ("names.jsonl", &templates),
        ("names.csv", &["--classnames", "names.txt", "--templates", "templates.txt"]),
        ("numbers.csv", &["--classnames", "names.txt", "--templates", "templates.txt"]),
        ("wds/test/{0..2}.tar", &[]),
    ] {
        assert_eq!(eval(&session, &[&["--data", data], more].concat()), expected, "{data} {more:?}");
    }
    let log = session.run(&["eval", "--model", "model", "--task", "zero-shot", "--data", "wds/test"]);
    let log = String::from_utf8(log.stderr).unwrap();
    assert!(log.contains("class names from ") && log.contains("prompt templates from "), "{log}");

    let error = session.fail(2, &["eval", "--model", "model", "--task", "zero-shot"]);
    assert!(error.contains("needs `--images` or `--data`"), "{error}");
    session.write("wrong.csv", "image,label\nimages/00.png,owl\n");
    let wrong = ["--data", "wrong.csv", "--classnames", "names.txt"];
    let error = session.fail(2, &[&["eval", "--model", "model", "--task", "zero-shot"], &wrong[..]].concat());
    assert!(error.contains("has the label `owl`; expected a number from 0 to 2, or one of the 3"), "{error}");
}

/// A blank line would give every later number the name of another class.
#[test]
fn blank_lines_shift_no_class_number() {
    let session = session();
    session.write("numbers.csv", format!("image,label\n{}", rows(|it| format!("images/{it:02}.png,{}", label(it)))));
    session.write(
        "names.csv",
        format!("image,label\n{}", rows(|it| format!("images/{it:02}.png,{}", CLASSES[label(it)]))),
    );
    session.write("blank.txt", CLASSES.join("\n\n"));
    session.write("ends.txt", CLASSES.join("\n") + "\n\n\n");
    let entries = |it: usize| {
        [(format!("s{it:02}.png"), bytes(it)), (format!("s{it:02}.cls"), label(it).to_string().into_bytes())]
    };
    session.write("wds/test/0.tar", ustar(&(0..9).flat_map(entries).collect::<Vec<_>>()));
    session.write("wds/classnames.txt", CLASSES.join("\n\n"));
    let fixed = ["eval", "--model", "model", "--task", "zero-shot", "--data"];
    for more in [&["numbers.csv", "--classnames", "blank.txt"][..], &["wds/test"]] {
        let error = session.fail(2, &[&fixed, more].concat());
        assert!(error.contains("line 2: it is blank, and line n is the name of class n - 1"), "{more:?}: {error}");
    }
    let expected = eval(&session, &["--data", "numbers.csv", "--classnames", "ends.txt"]);
    // Labels that are names are found wherever they stand.
    assert_eq!(eval(&session, &["--data", "names.csv", "--classnames", "blank.txt"]), expected);
}

#[test]
fn batch_size_changes_no_figure() {
    let session = session();
    let classes = rows(|it| format!("images/{it:02}.png,{}", CLASSES[label(it)]));
    session.write("labels.csv", format!("image,label\n{classes}"));
    let captions = rows(|it| format!("images/{it:02}.png,{} number {it}", "very ".repeat(it)));
    session.write("pairs.csv", format!("image,caption\n{captions}"));
    let figures = |batch_size: usize| {
        session.write_config(&format!(
            "[eval.classes]\ntask = \"zero-shot\"\ndata = \"labels.csv\"\ntemplates = \"templates.txt\"\n\
             batch_size = {batch_size}\n[eval.pairs]\ntask = \"retrieval\"\ndata = \"pairs.csv\"\n\
             batch_size = {batch_size}\n"
        ));
        session.succeed(&["eval", "--config", "lit.toml", "--checkpoint", "model", "--json", "-"])
    };
    let expected = figures(1);
    assert_eq!(figures(7), expected);
    assert_eq!(figures(256), expected);
}

#[test]
fn several_labels_have_average_precision() {
    let session = session();
    let both = rows(|it| {
        let image = format!("images/{it:02}.png");
        format!("{image},{}\n{image},{}", CLASSES[label(it)], CLASSES[(label(it) + it) % 3])
    });
    session.write("labels.csv", format!("image,label\n{both}"));
    let metrics = eval(&session, &["--data", "labels.csv", "--templates", "builtin:photos", "--details"]);
    assert_eq!(metrics.get("acc1"), None, "{metrics}");
    let value = metrics["mean_average_precision"].as_f64().unwrap();
    let classes = metrics["classes"].as_array().unwrap();
    let by_class: Vec<f64> = classes.iter().map(|class| class["average_precision"].as_f64().unwrap()).collect();
    assert!((by_class.iter().sum::<f64>() / 3.0 - value).abs() < 1e-12, "{metrics}");
    let ends = metrics["mean_average_precision_ci95"].as_array().unwrap();
    assert!(ends[0].as_f64().unwrap() <= value && value <= ends[1].as_f64().unwrap(), "{metrics}");
}

#[test]
fn details_of_other_tasks_are_named() {
    let session = session();
    let labels = rows(|it| format!("images/{it:02}.png,{}", CLASSES[label(it)]));
    session.write("labels.csv", format!("image,label\n{labels}"));
    let arguments = ["eval", "--model", "model", "--task", "retrieval", "--details", "--data", "labels.csv"];
    let text = crate::support::stderr(&session.run(&arguments));
    assert!(text.contains("`--details` has nothing on the task retrieval"), "{text}");
}

#[test]
fn details_show_every_class() {
    let session = session();
    let labels = rows(|it| format!("images/{it:02}.png,{}", label(it)));
    session.write("labels.csv", format!("image,label\n{labels}"));
    // Several names a class, a name that two classes have, and a class without images.
    session.write("names.json", r#"[["blue circle", "disc"], "red square", "thing", "thing"]"#);
    let data = ["--data", "labels.csv", "--classnames", "names.json"];
    let metrics = eval(&session, &[&data, &["--details"][..]].concat());
    let classes = metrics["classes"].as_array().unwrap();
    let images: Vec<u64> = classes.iter().map(|class| class["images"].as_u64().unwrap()).collect();
    assert_eq!(images, [3, 3, 3, 0]);
    assert_eq!((&classes[0]["name"], &classes[3]["recall"]), (&json!("blue circle"), &Value::Null));
    let answered: u64 = classes.iter().map(|class| class["answered"].as_u64().unwrap()).sum();
    let confused: u64 = metrics["confusions"].as_array().unwrap().iter().map(|it| it["count"].as_u64().unwrap()).sum();
    let right = metrics["acc1"].as_f64().unwrap() * 9.0;
    assert_eq!(answered, 9);
    assert!((confused as f64 + right - 9.0).abs() < 1e-9, "{metrics}");
    let output = session.run(&[&["eval", "--model", "model", "--task", "zero-shot", "--details"], &data[..]].concat());
    let (out, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(out.contains(" to 0.") || out.contains(" to 1."), "{out}");
    assert!(out.contains("class") && out.contains("answered") && !out.contains("_ci95"), "{out}");
    assert!(log.contains("1 of 4 classes have no image: `thing`"), "{log}");
    assert!(log.contains("several classes have the same name"), "{log}");
}

/// What an evaluation refuses of `classnames`, training and `check` refuse too.
#[test]
fn class_names_fit_their_folders_everywhere() {
    let session = Session::new();
    session.write_config("");
    let classes = ["0", "1", "10", "2", "ape/x", "cat/x", "dog/x"];
    for (number, class) in classes.into_iter().enumerate() {
        let dir = if number < 4 { "numbers" } else { "animals" };
        session.write(&format!("{dir}/{class}/{number}.png"), bytes(number));
    }
    let refused = |dir: &str, names: &str, expected: &str| {
        session.write("names.txt", names);
        let train = format!("data.train={{classes={{path=\"{dir}\"}}, classnames=\"names.txt\"}}");
        let eval = format!("eval.z={{task=\"zero-shot\", images=\"{dir}\", classnames=\"names.txt\"}}");
        for (command, set) in [("train", &train), ("check", &train), ("check", &eval)] {
            let output = session.run(&[command, "--config", "lit.toml", "--set", set]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command} {set}: {text}");
            assert!(text.contains(expected), "{command} {set}: {text}");
        }
    };
    refused("animals", "dog\nape\ncat\n", "in another order: name 1 is `dog`, but folder 1 in sorted order is `ape`");
    refused("animals", "ape\ncat\n", "it has 2 class names, but");
    refused("numbers", "zero\none\ntwo\nten\n", "name 3 may be that of the folder `10` or of `2`");
}
