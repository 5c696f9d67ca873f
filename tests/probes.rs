//! k-NN and linear probes of an image tower, and `dualenc probe`.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Session, bitmap, edit_floats, goldens, stderr};

const COLOURS: [[u8; 3]; 3] = [[220, 40, 40], [40, 200, 60], [50, 60, 220]];
const NAMES: [&str; 3] = ["red", "green", "blue"];

/// Folders `train` and `test` with one folder per class, and a model.
fn labelled(session: &Session) {
    session.copy("dual/vit_bert", "model");
    for number in 0..8 {
        for (colour, name) in NAMES.iter().enumerate() {
            let side = if number < 5 { "train" } else { "test" };
            session.write(&format!("{side}/{name}/{number}.bmp"), bitmap(COLOURS[colour], number));
            session.write(&format!("all/{name}/{number}.bmp"), bitmap(COLOURS[colour], number));
        }
    }
}

fn eval(session: &Session, task: &str, arguments: &[&str]) -> Value {
    let fixed = ["eval", "--model", "model", "--task", task, "--json", "-"];
    serde_json::from_str(&session.succeed(&[&fixed, arguments].concat())).unwrap()
}

#[test]
fn probes_tell_colours_apart() {
    let session = Session::new();
    labelled(&session);
    for task in ["knn", "linear-probe"] {
        let found = eval(&session, task, &["--train-images", "train", "--images", "test"]);
        assert_eq!(found["task"], task);
        for name in ["acc1", "mean_per_class_recall", "acc1_embeds"] {
            assert_eq!(found[name], 1.0, "{task} {name}: {found}");
            // Nine of nine: 9 / (9 + 1.96^2) is the low end of the score interval.
            let ends = &found[format!("{name}_ci95")];
            assert!((ends[0].as_f64().unwrap() - 0.700_85).abs() < 1e-5 && ends[1] == 1.0, "{task} {name}: {ends}");
        }
        assert_eq!(found["acc5"], Value::Null);
        let counts = ["num_images", "num_train_images", "num_classes", "num_unreadable"].map(|name| &found[name]);
        assert_eq!(counts, [&json!(9), &json!(15), &json!(3), &json!(0)]);
        assert_eq!(found["train_side"], "given");
    }

    // Labels that do not follow the images: no classifier is right about them all.
    let rows: String =
        (0..8).flat_map(|n| NAMES.map(|name| format!("all/{name}/{n}.bmp,{}\n", NAMES[n * 7 % 3]))).collect();
    session.write("shuffled.csv", format!("image,label\n{rows}"));
    assert!(eval(&session, "knn", &["--data", "shuffled.csv"])["acc1"].as_f64().unwrap() < 0.8);
    let found = eval(&session, "knn", &["--train-data", "shuffled.csv", "--images", "test", "--neighbors", "1"]);
    // The tested images are in `shuffled.csv`, too, and are not learned from.
    assert_eq!((&found["num_train_copies"], &found["num_train_images"]), (&json!(9), &json!(15)));
    assert!(found["acc1"].as_f64().unwrap() < 0.8, "{found}");
}

#[test]
fn split_is_named() {
    let session = Session::new();
    labelled(&session);
    let found = eval(&session, "knn", &["--images", "all", "--neighbors", "3"]);
    assert_eq!((&found["train_side"], &found["acc1"], &found["neighbors"]), (&json!("split"), &json!(1.0), &json!(3)));
    assert_eq!((&found["num_images"], &found["num_train_images"]), (&json!(12), &json!(12)));
    let output = session.run(&["eval", "--model", "model", "--task", "linear-probe", "--images", "all"]);
    let (log, table) = (stderr(&output), String::from_utf8(output.stdout).unwrap());
    assert!(log.contains("half of each class, 12 images") && log.contains("`--train-images`"), "{log}");
    assert!(table.contains("train_side") && table.contains("  split\n"), "{table}");
    session.write("one/red/0.bmp", bitmap(COLOURS[0], 0));
    let error = session.fail(2, &["eval", "--model", "model", "--task", "knn", "--images", "one"]);
    assert!(error.contains("no class has two images"), "{error}");
}

#[test]
fn sides_are_checked() {
    let session = Session::new();
    labelled(&session);
    fs::remove_dir_all(session.path("train/green")).unwrap();
    let run = ["eval", "--model", "model", "--task", "knn", "--images", "test"];
    let error = session.fail(2, &[&run[..], &["--train-images", "train"]].concat());
    assert!(error.contains("no usable image of the class `green`") && error.contains("`--train-images`"), "{error}");
    let error = session.fail(2, &[&run[..], &["--templates", "builtin:photo"]].concat());
    assert!(error.contains("`--templates` is an option of `--model DIR` with `--task` `zero-shot`"), "{error}");
    fs::create_dir_all(session.path("train/green")).unwrap();
    fs::copy(session.path("test/green/5.bmp"), session.path("train/green/copy.bmp")).unwrap();
    let error = session.fail(2, &[&run[..], &["--train-images", "train"]].concat());
    assert!(error.contains("of the class `green`, the train side has only copies of tested images"), "{error}");
    session.write("two.csv", "image,label\ntest/red/5.bmp,red\ntest/red/5.bmp,blue\n");
    let error = session.fail(2, &["eval", "--model", "model", "--task", "linear-probe", "--data", "two.csv"]);
    assert!(error.contains("an image has 2 classes"), "{error}");
}

#[test]
fn probes_run_during_training() {
    let session = Session::new();
    labelled(&session);
    session.write_config(
        "[eval.near]\ntask = \"knn\"\nimages = \"test\"\ntrain_images = \"train\"\nevery_steps = 6\n\
         [eval.line]\ntask = \"linear-probe\"\nimages = \"all\"\n[checkpoint]\nbest = \"near.acc1_embeds\"\n",
    );
    session.succeed(&["train", "--config", "lit.toml"]);
    let evals = session.metrics("run", "eval");
    let named = |name: &str| evals.iter().filter(|line| line["name"] == name).collect::<Vec<_>>();
    assert!(named("near").len() >= 3 && named("line").len() >= 4, "{evals:?}");
    assert!(named("near").iter().all(|line| line["acc1_embeds"].is_f64() && line["neighbors"] == 15), "{evals:?}");

    session.write_config("[eval.x]\ntask = \"linear-probe\"\nimages = \"test\"\nneighbors = 3\n");
    let error = session.fail(2, &["train", "--config", "lit.toml"]);
    assert!(error.contains("`eval.x.neighbors` is only for a knn evaluation"), "{error}");
}

/// A table of the images, each with a caption of its class and the captions of `caption`.
fn pairs(session: &Session, name: &str, caption: impl Fn(usize) -> String) {
    let rows: String = (0..24).map(|at| format!("pairs/{at}.bmp,{}\n", caption(at))).collect();
    session.write(name, format!("image,caption\n{rows}"));
    for at in 0..24 {
        session.write(&format!("pairs/{at}.bmp"), bitmap(COLOURS[at % 3], at));
    }
}

#[test]
fn matching_captions_fit_better() {
    let session = Session::new();
    session.copy("train/vit", "vit");
    session.copy("train/bert", "bert");
    pairs(&session, "right.csv", |at| format!("a {} square", NAMES[at % 3]));
    pairs(&session, "wrong.csv", |at| format!("a {} square", NAMES[at * 5 / 7 % 3]));
    let probe = |data: &str| -> Value {
        let arguments = ["probe", "--image-towers", "vit", "--text-towers", "bert", "--json", "-", "--data", data];
        serde_json::from_str(&session.succeed(&arguments)).unwrap()
    };
    let (right, wrong) = (probe("right.csv"), probe("wrong.csv"));
    assert_eq!((&right["pairs"], &right["fitted"], &right["tested"]), (&json!(24), &json!(12), &json!(12)));
    let best = |found: &Value, name: &str| found["combinations"][0][name].as_f64().unwrap();
    for name in ["mutual_knn", "cka", "image_retrieval_recall@1", "text_retrieval_recall@1"] {
        assert!(best(&right, name) > best(&wrong, name) + 0.1, "{name}: {right} {wrong}");
    }
    assert_eq!(best(&right, "image_retrieval_recall@1"), 1.0);
    let all = right["combinations"].as_array().unwrap();
    let order: Vec<f64> = all
        .iter()
        .map(|it| ["image_retrieval_recall@1", "text_retrieval_recall@1"].map(|name| it[name].as_f64().unwrap()))
        .map(|[one, other]| one + other)
        .collect();
    assert!(order.len() >= 4 && order.is_sorted_by(|one, other| one >= other), "{order:?}");
}

#[test]
fn layers_and_poolings_are_compared() {
    let session = Session::new();
    session.copy("train/vit", "vit");
    session.copy("towers/vit", "deep");
    session.write("deep/preprocessor_config.json", fs::read(goldens("train/vit/preprocessor_config.json")).unwrap());
    session.copy("train/bert", "bert");
    pairs(&session, "pairs.csv", |at| format!("a {} square", NAMES[at % 3]));
    let fixed = ["probe", "--image-towers", "vit,deep", "--text-towers", "bert", "--data", "pairs.csv"];
    let run = |more: &[&str]| session.run(&[&fixed[..], more].concat());
    let found = run(&["--layers", "all", "--pooling", "mean", "--json", "all.json"]);
    assert!(found.status.success(), "{}", stderr(&found));
    let table = String::from_utf8(found.stdout).unwrap();
    assert!(
        table.starts_with("image tower") && table.contains("by chance") && table.contains("deep (mean)"),
        "{table}"
    );
    let chance: Vec<&str> = table.lines().find(|line| line.starts_with("by chance")).unwrap().split(' ').collect();
    let chance: Vec<f64> = chance.iter().filter_map(|word| word.parse().ok()).collect();
    // Three captions: a right answer comes first in a third of the orders.
    assert!(chance.len() == 4 && (chance[2] - 1.0 / 3.0).abs() < 0.05 && chance[3] > chance[2], "{table}");
    assert!(table.contains("image_pool = \"mean\"") && table.contains("text_tower = \"bert\""), "{table}");
    let all: Value = serde_json::from_str(&fs::read_to_string(session.path("all.json")).unwrap()).unwrap();
    let layers = |tower: &str| {
        let sides = all["combinations"].as_array().unwrap().iter().map(|it| &it["image"]);
        let mut layers: Vec<u64> =
            sides.filter(|side| side["tower"] == tower).map(|side| side["layer"].as_u64().unwrap()).collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    };
    assert_eq!((layers("vit"), layers("deep")), (vec![1], vec![1, 2, 3]));

    // Names are those of the config, and a pooler is only compared at the layer that it was trained for.
    let found = run(&["--layers", "all", "--json", "-"]);
    assert!(found.status.success(), "{}", stderr(&found));
    let all: Value = serde_json::from_slice(&found.stdout).unwrap();
    let pools = |layer: u64| {
        let sides = all["combinations"].as_array().unwrap().iter().map(|it| &it["image"]);
        let of_layer = sides.filter(|side| side["tower"] == "deep" && side["layer"] == layer);
        let mut pools: Vec<String> = of_layer.map(|side| format!("{} {}", side["pool"], side["width"])).collect();
        pools.sort_unstable();
        pools.dedup();
        pools
    };
    let plain = ["\"cls\" 20", "\"cls+mean\" 40", "\"mean\" 20"];
    assert_eq!(pools(1), plain);
    assert_eq!(pools(3), [&plain[..], &["\"pooler\" 20"]].concat());
    let found = run(&["--layers", "all", "--pooling", "cls+mean,mean", "--top", "99"]);
    let (table, warned) = (String::from_utf8_lossy(&found.stdout).into_owned(), stderr(&found));
    assert!(found.status.success() && table.contains("deep (cls+mean)"), "{table} {warned}");
    assert!(warned.contains("`bert` cannot be pooled by `cls+mean`, which is left out"), "{warned}");

    let fails = |more: &[&str]| session.fail(2, &[&fixed[..], more].concat());
    assert!(fails(&["--layers", "2"]).contains("`--layers 2`: `vit` has 1 layer that can be pooled; give 1"));
    assert!(fails(&["--layers", "x"]).contains("expected `last`, `all`, or numbers"));
    assert!(fails(&["--sample", "9"]).contains("9 pairs of `pairs.csv` can be used, too few"));
    session.write("pairs/3.bmp", "no image");
    let error = fails(&[]);
    assert!(error.contains("1 of 24 images cannot be used") && error.contains("`--max-bad-fraction`"), "{error}");
    let table = session.succeed(&[&fixed[..], &["--max-bad-fraction", "0.1"]].concat());
    assert!(table.contains("23 pairs") && table.contains("1 image cannot be used"), "{table}");
}

#[test]
fn blind_towers_come_last() {
    let session = Session::new();
    session.copy("train/vit", "vit");
    session.copy("train/bert", "seeing");
    let blind = session.copy("train/bert", "blind").join("model.safetensors");
    // Every word is the same to this tower, and captions have the same length.
    edit_floats(&blind, "embeddings.word_embeddings.weight", |_| 0.0);
    pairs(&session, "pairs.csv", |at| format!("a {} square", NAMES[at % 3]));
    let output = session.run(&[
        "probe",
        "--image-towers",
        "vit",
        "--text-towers",
        "blind,seeing",
        "--data",
        "pairs.csv",
        "--json",
        "-",
    ]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let towers: Vec<&str> =
        found["combinations"].as_array().unwrap().iter().map(|it| it["text"]["tower"].as_str().unwrap()).collect();
    assert!(towers.contains(&"blind") && towers.is_sorted_by(|one, other| one >= other), "{towers:?}");
    let log = stderr(&output);
    assert!(log.contains("`blind`, layer 2, pooled by `mean`, is the same for every input"), "{log}");
}
