//! `dualenc select`: lists of training images, and training on them.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::support::{Session, bitmap, floats, goldens};

const COLOURS: [(&str, [u8; 3]); 3] = [("red", [220, 40, 40]), ("green", [40, 200, 60]), ("blue", [50, 60, 220])];

/// Nine red images, four green ones and three blue ones, each with a caption; and a config for them.
fn coloured(more: &str) -> Session {
    let session = Session::new();
    session.write_config("");
    let config = fs::read_to_string(session.path("lit.toml")).unwrap();
    let (before, after) = config.split_once("[data.train.csv]").unwrap();
    let after = &after[after.find("[train]").unwrap()..];
    let mut rows = String::from("image,caption\n");
    for number in 0..9 {
        for (at, (name, colour)) in COLOURS.iter().enumerate() {
            if number < [9, 4, 3][at] {
                session.write(&format!("images/{name}{number}.bmp"), bitmap(*colour, number));
                rows += &format!("images/{name}{number}.bmp,a {name} square number {number}\n");
            }
        }
    }
    session.write("pairs.csv", rows);
    session.write("lit.toml", format!("{before}[data.train]\ncsv.path = \"pairs.csv\"\n{after}{more}"));
    session
}

/// What a selection to `rows.txt` says; the list of an earlier one is deleted first.
fn select(session: &Session, arguments: &[&str]) -> Value {
    let _ = fs::remove_file(session.path("rows.txt"));
    let fixed = ["select", "--config", "lit.toml", "--out", "rows.txt", "--json", "-"];
    serde_json::from_str(&session.succeed(&[&fixed, arguments].concat())).unwrap()
}

/// How many images of each colour a list has.
fn by_colour(session: &Session, list: &str) -> BTreeMap<String, usize> {
    let text = fs::read_to_string(session.path(list)).unwrap();
    let (first, names) = text.split_once('\n').unwrap();
    assert_eq!(first, "image");
    let mut counts = BTreeMap::new();
    for name in names.lines() {
        let (colour, _) = COLOURS.iter().find(|(colour, _)| name.starts_with(&format!("images/{colour}"))).unwrap();
        *counts.entry((*colour).to_owned()).or_default() += 1;
    }
    counts
}

fn counts(expected: [usize; 3]) -> BTreeMap<String, usize> {
    let all = COLOURS.iter().zip(expected).filter(|(_, count)| *count > 0);
    all.map(|((name, _), count)| ((*name).to_owned(), count)).collect()
}

#[test]
fn clusters_are_balanced() {
    let session = coloured("");
    let found = select(&session, &["--clusters", "3", "--cap", "3"]);
    assert_eq!((&found["images"], &found["selected"]), (&Value::from(16), &Value::from(9)));
    assert_eq!(found["cluster_sizes"], Value::from(vec![9, 4, 3]));
    assert_eq!(by_colour(&session, "rows.txt"), counts([3, 3, 3]));

    // As many clusters as images, at most.
    let arguments = ["--clusters", "100", "--cap", "1"];
    let output = session.run(&[&["select", "--config", "lit.toml", "--out", "all.txt"][..], &arguments].concat());
    let (text, notes) = (String::from_utf8_lossy(&output.stdout), crate::support::stderr(&output));
    assert!(notes.contains("100 clusters are asked for, but only 16 images are left to group"), "{notes}");
    assert!(text.contains("16 clusters of 1 image each before the limit"), "{text}");

    // The list is what `only` takes.
    session.succeed(&[
        "train",
        "--config",
        "lit.toml",
        "--set",
        "data.train.only=rows.txt",
        "--set",
        "train.epochs=1",
        "--set",
        "train.warmup_steps=0",
        "--set",
        "train.batch_size=3",
    ]);
    let steps = session.metrics("run", "train");
    assert_eq!(steps.iter().map(|it| it["samples_seen"].as_u64().unwrap()).max(), Some(9));
    session.write("rows.txt", "image\nimages/red0.bmp\nimages/violet.bmp\n");
    let error = session.fail(2, &["check", "--config", "lit.toml", "--set", "data.train.only=rows.txt"]);
    assert!(error.contains("lacks 1 of the 2 names in this list: `images/violet.bmp`"), "{error}");
}

#[test]
fn near_images_are_left_out() {
    let session = coloured("[eval.test]\ntask = \"retrieval\"\ndata = \"test.csv\"\n");
    session.write("images/other.bmp", bitmap(COLOURS[2].1, 77));
    fs::copy(session.path("images/green1.bmp"), session.path("images/copy.bmp")).unwrap();
    session.write("test.csv", "image,caption\nimages/other.bmp,blue\nimages/copy.bmp,green\n");
    let found = select(&session, &["--near", "0.9"]);
    let stages: Vec<_> = found["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["stage"].as_str().unwrap(), it["images"].as_u64().unwrap()))
        .collect();
    // The evaluation has one green file, and looks like all green and blue images.
    assert_eq!(stages, [("overlap", 1), ("near_evaluation", 6), ("near", 8)]);
    assert_eq!(by_colour(&session, "rows.txt"), counts([1, 0, 0]));
    let found = select(&session, &["--near", "0.9", "--keep-overlap", "--set", "cache.enabled=false"]);
    assert_eq!(found["selected"], 3);
    assert_eq!(by_colour(&session, "rows.txt"), counts([1, 1, 1]));
    let error = session.fail(2, &["select", "--config", "lit.toml", "--near=-1", "--out", "none.txt"]);
    assert!(
        error.contains("no image is left: of 16, 0 cannot be used")
            && error.contains("15 since they look like an image of an evaluation")
            && !session.path("none.txt").exists(),
        "{error}"
    );
}

#[test]
fn scores_are_cosines_with_captions() {
    let session = coloured("");
    let model = goldens("train/init").to_str().unwrap().to_owned();
    let table = fs::read_to_string(session.path("pairs.csv")).unwrap();
    let rows: Vec<(&str, &str)> = table.lines().skip(1).map(|line| line.split_once(',').unwrap()).collect();
    session.write("texts.txt", rows.iter().map(|(_, caption)| format!("{caption}\n")).collect::<String>());
    session.succeed(&[
        "embed",
        "--model",
        &model,
        "--images",
        "pairs.csv",
        "--texts",
        "texts.txt",
        "--out",
        "e.safetensors",
    ]);
    let [images, texts] = ["image_embeds", "text_embeds"].map(|name| floats(&session.path("e.safetensors"), name));
    let dim = images.len() / rows.len();
    let cosine = |row: usize| (0..dim).map(|at| images[row * dim + at] * texts[row * dim + at]).sum::<f32>();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|&a, &b| cosine(b).total_cmp(&cosine(a)));
    let best = |count: usize| {
        let mut names: Vec<&str> = order[..count].iter().map(|&row| rows[row].0).collect();
        names.sort_by_key(|name| rows.iter().position(|(image, _)| image == name));
        format!("image\n{}\n", names.join("\n"))
    };

    let found = select(&session, &["--model", &model, "--keep", "0.25"]);
    assert_eq!(fs::read_to_string(session.path("rows.txt")).unwrap(), best(4));
    let threshold = found["scores"]["threshold"].as_f64().unwrap();
    assert!((threshold - f64::from(cosine(order[3]))).abs() < 1e-5, "{found}");
    let mean = (0..rows.len()).map(|row| f64::from(cosine(row))).sum::<f64>() / rows.len() as f64;
    assert!((found["scores"]["mean"].as_f64().unwrap() - mean).abs() < 1e-5, "{found}");
    let between = format!("{}", (cosine(order[6]) + cosine(order[7])) / 2.0);
    select(&session, &["--model", &model, "--min-score", &between]);
    assert_eq!(fs::read_to_string(session.path("rows.txt")).unwrap(), best(7));

    // With an earlier list, its images stay.
    session.write("earlier.txt", format!("image\n{}\n{}\n", rows[order[15]].0, rows[order[0]].0));
    let found = select(&session, &["--model", &model, "--keep", "0.25", "--union", "earlier.txt"]);
    assert_eq!((&found["selected"], &found["added"]), (&Value::from(5), &Value::from(1)));

    let found =
        select(&session, &["--model", &model, "--per-class", "2", "--classnames", "a red square,a blue square"]);
    assert_eq!(found["selected"], 4);
    let supplies = [0, 1].map(|class| found["classes"][class]["supply"].as_u64().unwrap());
    assert_eq!((supplies.iter().sum::<u64>(), &found["classes"][1]["images"]), (16, &Value::from(2)));
}

#[test]
fn held_out_images_stay() {
    let session = coloured("");
    session.write(
        "lit.toml",
        fs::read_to_string(session.path("lit.toml"))
            .unwrap()
            .replace("shuffle = false", "shuffle = false\nvalidation_fraction = 0.3"),
    );
    let found = select(&session, &["--clusters", "3", "--cap", "1"]);
    let (images, held_out) = (found["images"].as_u64().unwrap(), found["held_out"].as_u64().unwrap());
    assert!(images + held_out == 16 && held_out > 0, "{found}");
    assert_eq!(found["lists"][0]["images"], held_out + 3);
    let summary =
        session.succeed(&["select", "--config", "lit.toml", "--out", "c.txt", "--clusters", "3", "--cap", "1"]);
    assert!(summary.contains(&format!("3 of {images} training images are selected")), "{summary}");
    assert!(summary.contains("stay held out") && summary.contains("[data.train]\nonly = \"c.txt\""), "{summary}");
    // The same images are held out of what is selected.
    let again = session.succeed(&[
        "select",
        "--config",
        "lit.toml",
        "--set",
        "data.train.only=rows.txt",
        "--out",
        "b.txt",
        "--near",
        "1",
        "--json",
        "-",
    ]);
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!((&again["images"], &again["held_out"]), (&Value::from(3), &Value::from(held_out)));
}

#[test]
fn sources_have_lists_of_their_own() {
    let session = coloured("");
    let config = fs::read_to_string(session.path("lit.toml")).unwrap();
    let table = fs::read_to_string(session.path("pairs.csv")).unwrap();
    let of = |colour: &str| {
        let lines = table.lines().filter(|line| line.starts_with("image,") || line.contains(colour));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    session.write("reds.csv", of("red"));
    session.write("blues.csv", of("blue"));
    let sources = "[[data.train]]\ncsv.path = \"reds.csv\"\n[[data.train]]\ncsv.path = \"blues.csv\"";
    session.write("lit.toml", config.replace("[data.train]\ncsv.path = \"pairs.csv\"", sources));
    let found = select(&session, &["--clusters", "2", "--cap", "2"]);
    let lists: Vec<_> = (0..2)
        .map(|at| (found["lists"][at]["source"].as_str().unwrap(), found["lists"][at]["path"].as_str().unwrap()))
        .collect();
    assert_eq!(lists, [("data.train[0]", "rows-1.txt"), ("data.train[1]", "rows-2.txt")]);
    assert_eq!(
        (by_colour(&session, "rows-1.txt"), by_colour(&session, "rows-2.txt")),
        (counts([2, 0, 0]), counts([0, 0, 2]))
    );
}

#[test]
fn requests_without_sense_are_refused() {
    let session = coloured("");
    let fail = |arguments: &[&str]| {
        session.fail(2, &[&["select", "--config", "lit.toml", "--out", "rows.txt"], arguments].concat())
    };
    assert!(fail(&[]).contains("there is nothing to select by; give `--near`"));
    assert!(fail(&["--keep", "0.5"]).contains("--model"));
    assert!(fail(&["--keep", "0", "--model", "m"]).contains("expected a fraction above 0, at most 1"));
    let missing = fail(&["--model", "m", "--per-class", "1", "--classnames", "none.txt"]);
    assert!(missing.contains("`--classnames` `none.txt` does not exist; give a file with one name"), "{missing}");
    assert!(fail(&["--near", "0.9", "--union", "none.txt"]).contains("`--union`: cannot read `none.txt`"));
    let missing = fail(&["--near", "0.9", "--set", "data.train.only=none.txt"]);
    assert!(missing.contains("`data.train.only`: cannot read `") && missing.contains("none.txt`"), "{missing}");
    assert!(fail(&["--clusters", "3"]).contains("--cap"));
    assert!(fail(&["--near", "2"]).contains("expected a cosine from -1 to 1"));
    session.write("earlier.txt", "a.png\n");
    assert!(fail(&["--near", "0.9", "--union", "earlier.txt"]).contains("its first line is not `image`"));
    assert!(!session.path("rows.txt").exists());
}

#[test]
fn lists_are_not_overwritten() {
    let session = coloured("");
    select(&session, &["--clusters", "3", "--cap", "3"]);
    let list = fs::read(session.path("rows.txt")).unwrap();
    let refused = session.fail(2, &["select", "--config", "lit.toml", "--out", "rows.txt", "--near", "0.9"]);
    assert!(refused.contains("`rows.txt` exists already, and is not overwritten"), "{refused}");
    assert_eq!(fs::read(session.path("rows.txt")).unwrap(), list);
    // With several sources, each list is looked for.
    let config = fs::read_to_string(session.path("lit.toml")).unwrap();
    let two = "[[data.train]]\ncsv.path = \"pairs.csv\"\n".repeat(2);
    session.write("lit.toml", config.replace("[data.train]\ncsv.path = \"pairs.csv\"\n", &two));
    session.write("new-2.txt", "mine");
    let refused = session.fail(2, &["select", "--config", "lit.toml", "--out", "new.txt", "--near", "0.9"]);
    assert!(refused.contains("`new-2.txt` exists already") && !session.path("new-1.txt").exists(), "{refused}");
    assert_eq!(fs::read(session.path("new-2.txt")).unwrap(), b"mine");
}
