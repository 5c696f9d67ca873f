//! Commands that take flags in place of a config: data with images elsewhere, and messages that name the flags.

use std::fs;

use crate::support::{Session, goldens, stderr};

/// A table in `lists`, with the images in `photos/images`.
fn apart() -> Session {
    let session = Session::new();
    session.copy("train/images", "photos/images");
    session.write("lists/pairs.csv", fs::read(goldens("train/train.csv")).unwrap());
    session
}

/// Arguments that evaluate the golden model, with `more`.
fn eval<'a>(model: &'a str, task: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["eval", "--model", model, "--task", task, "--json", "-"], more].concat()
}

#[test]
fn root_finds_images_elsewhere() {
    let session = apart();
    session.copy("train/images", "images");
    session.write("pairs.csv", fs::read(goldens("train/train.csv")).unwrap());
    let model = goldens("train/init").display().to_string();
    let figures = |more: &[&str]| session.succeed(&eval(&model, "retrieval", more));
    assert_eq!(figures(&["--data", "lists/pairs.csv", "--root", "photos"]), figures(&["--data", "pairs.csv"]));
    let embed = |more: &[&str]| {
        session.succeed(&[&["embed", "--model", &model, "--out", "out.safetensors", "--images"], more].concat());
        crate::support::floats(&session.path("out.safetensors"), "image_embeds")
    };
    assert_eq!(embed(&["lists/pairs.csv", "--root", "photos"]), embed(&["pairs.csv"]));

    let text = session.fail(2, &eval(&model, "retrieval", &["--data", "lists/pairs.csv", "--root", "none"]));
    assert!(text.contains("`--root`: `none` is not a folder"), "{text}");
    let text = session.fail(2, &eval(&model, "retrieval", &["--data", "photos/images", "--root", "photos"]));
    assert!(text.contains("`photos/images` is no table: its images are in it; remove `--root`"), "{text}");
    let embed = ["embed", "--model", &model, "--out", "out.safetensors", "--images", "photos", "--root", "photos"];
    let text = session.fail(2, &embed);
    assert!(text.contains("`photos` is no table: its images are in it; remove `--root`"), "{text}");
    let text = session.fail(2, &eval(&model, "zero-shot", &["--images", "photos", "--root", "photos"]));
    assert!(text.contains("`--root` is the folder at which the image paths in `--data` start"), "{text}");
}

#[test]
fn messages_name_flags() {
    let session = apart();
    let model = goldens("train/init").display().to_string();
    let fail = |task: &str, more: &[&str]| session.fail(2, &eval(&model, task, more));
    let text = fail("loss", &["--data", "lists/pairs.csv", "--root", "photos"]);
    assert!(text.contains("24 pairs do not fill one pool of 256; set `--pool-size` to at most 24"), "{text}");
    let text = fail("retrieval", &["--data", "lists/pairs.csv"]);
    assert!(text.contains("images cannot be used, more than `--max-bad-fraction` = 0.01 allows"), "{text}");
    assert!(text.contains("or raise `--max-bad-fraction`\n"), "{text}");

    session.write("odd.csv", "one,two,three\na,b,c\n");
    let text = fail("retrieval", &["--data", "odd.csv"]);
    assert!(text.contains("`image` has no flag: set it in a config, below `[eval.NAME.data]`"), "{text}");
    let text = session.fail(2, &["embed", "--model", &model, "--out", "o.safetensors", "--images", "odd.csv"]);
    assert!(text.contains("`image` has no flag: change it in a copy of the file"), "{text}");

    for class in ["a", "b"] {
        session.copy("train/images", &format!("classes/{class}"));
    }
    session.write("names.txt", "crane\ncrane\n");
    let output = session.run(&eval(&model, "zero-shot", &["--images", "classes", "--classnames", "names.txt"]));
    assert!(stderr(&output).contains("give them different names with `--classnames`"), "{}", stderr(&output));
}

#[test]
fn conflicts_are_found_before_the_work() {
    let session = apart();
    let model = goldens("train/init").display().to_string();
    let fail = |task: &str, more: &[&str]| session.fail(2, &eval(&model, task, more));
    for task in ["zero-shot", "linear-probe"] {
        let text = fail(task, &["--images", "photos", "--data", "lists/pairs.csv"]);
        assert!(text.contains("'--images <FOLDER>' cannot be used with '--data <FILE>'"), "{text}");
    }
    let text = fail("retrieval", &["--images", "photos"]);
    assert!(text.contains("`--task retrieval` needs images and captions: give `--data FILE` instead of"), "{text}");
    assert!(fail("loss", &[]).contains("`--task loss` needs images and captions: give `--data FILE`\n"));
    let missing = ["eval", "--model", "none", "--task", "loss", "--data", "lists/pairs.csv", "--json", "no/x.json"];
    let text = session.fail(2, &missing);
    assert!(text.contains("cannot write `no/x.json`: `no` is not a directory; create it"), "{text}");
}

#[test]
fn class_names_in_another_order_are_refused() {
    let session = apart();
    let model = goldens("train/init").display().to_string();
    for class in ["fire_ant", "owl"] {
        session.copy("train/images", &format!("classes/{class}"));
    }
    let run = |names: &str| {
        session.write("names.txt", names);
        session.run(&eval(&model, "zero-shot", &["--images", "classes", "--classnames", "names.txt"]))
    };
    let text = stderr(&run("owl\nFire ant\n"));
    assert!(text.contains("in another order: name 1 is `owl`, but folder 1 in sorted order is `fire"), "{text}");
    assert!(run("Fire ant\nowl\n").status.success() && run("owl\nbird\n").status.success());

    session.write("labels.csv", "image,label\nphotos/images/00.png,fire-ant\n");
    session.write("names.txt", "fire ant\nowl\n");
    let data = ["--data", "labels.csv", "--classnames", "names.txt"];
    let text = session.fail(2, &eval(&model, "zero-shot", &data));
    assert!(text.contains("has the label `fire-ant`") && text.contains("did you mean `fire ant`?"), "{text}");
}

#[test]
fn tables_are_no_texts() {
    let session = apart();
    let model = goldens("train/init").display().to_string();
    let embed = ["embed", "--model", &model, "--out", "out.safetensors", "--texts"];
    let text = session.fail(2, &[&embed[..], &["lists/pairs.csv"]].concat());
    assert!(text.contains("it is a table: line 1 has the names of 2 columns, `image`, `caption`"), "{text}");
    assert!(!session.path("out.safetensors").exists());
    session.write("texts.csv", "a cat, black\na dog\n");
    session.succeed(&[&embed[..], &["texts.csv"]].concat());
}
