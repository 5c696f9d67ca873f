//! Features from files in place of images and texts: everything that works on them, and what is refused.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Session, as_floats, assert_close, column, floats, goldens, stderr, tensors};

const IMAGE_WIDTH: usize = 6;
const TEXT_WIDTH: usize = 4;
const ROWS: usize = 24;

/// Numbers that look random, the same ones each time.
fn values(count: usize, stream: u64) -> Vec<f32> {
    (0..count as u64).map(|at| ((at * 7919 + stream * 104_729) as f32 * 0.618).sin()).collect()
}

/// A `.npy` file of `[rows, width]`.
fn npy(width: usize, values: &[f32]) -> Vec<u8> {
    let shape = (values.len() / width, width);
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape:?}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// A session with features and the config `lit.toml`, with `more` appended.
fn session(more: &str) -> Session {
    let session = Session::new();
    session.write("i.npy", npy(IMAGE_WIDTH, &values(ROWS * IMAGE_WIDTH, 1)));
    session.write("t.npy", npy(TEXT_WIDTH, &values(ROWS * TEXT_WIDTH, 2)));
    session.write("classes.npy", npy(TEXT_WIDTH, &values(6 * TEXT_WIDTH, 3)));
    let numbers = |count: usize, below: usize| (0..count).map(|at| format!("{}\n", at % below)).collect::<String>();
    session.write("labels.txt", numbers(ROWS, 3));
    session.write("class_of.txt", numbers(6, 3));
    session.write("names.txt", "cat\ndog\nbird\n");
    let config = format!(
        "[run]\ndir = \"run\"\nthreads = 2\n[model]\nembed_dim = 8\n[data.train.features]\nimages = \"i.npy\"\n\
         texts = \"t.npy\"\n[train]\nepochs = 2\nbatch_size = 8\nlearning_rate = 1e-2\n\
         [eval.pairs]\ntask = \"retrieval\"\n[eval.pairs.data.features]\nimages = \"i.npy\"\ntexts = \"t.npy\"\n\
         [eval.classes]\ntask = \"zero-shot\"\nimage_features = \"i.npy\"\nlabels = \"labels.txt\"\n\
         class_features = \"classes.npy\"\nclass_of = \"class_of.txt\"\nclassnames = \"names.txt\"\n{more}"
    );
    session.write("lit.toml", config);
    session
}

/// A session with a finished run.
fn trained() -> Session {
    let session = session("");
    session.succeed(&["train", "--config", "lit.toml"]);
    session
}

/// The L2-normalised product of `features` and the matrix `[dim, width]`, in double precision.
fn project(features: &[f32], weight: &[f32], width: usize) -> Vec<f64> {
    let project = |row: &[f32]| {
        let each = weight.chunks_exact(width);
        let dot = |line: &[f32]| line.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let projected: Vec<f64> = each.map(dot).collect();
        let norm = projected.iter().map(|value| value * value).sum::<f64>().sqrt();
        projected.into_iter().map(move |value| value / norm).collect::<Vec<_>>()
    };
    features.chunks_exact(width).flat_map(project).collect()
}

#[test]
fn run_on_features_works_throughout() {
    let session = trained();
    let evals = session.metrics("run", "eval");
    let named = |name: &str| evals.iter().filter(|line| line["name"] == name).cloned().collect::<Vec<Value>>();
    assert_eq!((named("pairs").len(), named("classes").len()), (3, 3));
    assert!(named("classes")[2]["acc1"].as_f64().unwrap() >= 0.0);
    assert_eq!(named("pairs")[2]["num_images"], ROWS);

    // The same figures once more.
    let written = session.succeed(&["eval", "--config", "lit.toml", "--json", "again.json"]);
    assert!(written.contains("pairs") && written.contains("classes"), "{written}");

    for (command, expected) in [
        (&["check", "--config", "lit.toml"][..], "24 images, 24 captions"),
        (&["plan", "--config", "lit.toml", "--steps", "1", "--set", "run.dir=other"], "24"),
        (&["inspect", "run"], "features of 6 values"),
    ] {
        let text = session.succeed(command);
        assert!(text.contains(expected), "{command:?}: {text}");
    }
    session.succeed(&["report", "run"]);
    let refused = session.fail(2, &["cache", "--config", "lit.toml"]);
    assert!(refused.contains("the data are features already"), "{refused}");
    let refused = session.fail(2, &["data", "pack", "--config", "lit.toml", "--out", "packed"]);
    assert!(refused.contains("the data are features"), "{refused}");
}

#[test]
fn trained_heads_embed_other_features() {
    let session = trained();
    // The model needs none of the data it was trained on.
    let (images, texts) = (values(5 * IMAGE_WIDTH, 8), values(3 * TEXT_WIDTH, 9));
    fs::remove_file(session.path("i.npy")).unwrap();
    fs::remove_file(session.path("t.npy")).unwrap();
    session.write("new_images.npy", npy(IMAGE_WIDTH, &images));
    session.write("new_texts.npy", npy(TEXT_WIDTH, &texts));
    let embed = ["embed", "--model", "run", "--images", "new_images.npy", "--texts", "new_texts.npy"];
    session.succeed(&[&embed[..], &["--out", "e.safetensors"]].concat());
    session.succeed(&["export", "--model", "run", "--format", "heads", "--out", "heads"]);

    let heads = session.path("heads/model.safetensors");
    for (side, width, features) in [("image", IMAGE_WIDTH, &images), ("text", TEXT_WIDTH, &texts)] {
        let name = format!("{side}_projection.weight");
        assert_eq!(tensors(&heads)[&name].1, [8, width], "as torch.nn.Linear has it");
        let expected = project(features, &floats(&heads, &name), width);
        let found = floats(&session.path("e.safetensors"), &format!("{side}_embeds"));
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(found, it)| (f64::from(*found) - it).abs() < 1e-5), "{side}");
    }
    let config: Value = serde_json::from_slice(&fs::read(session.path("heads/config.json")).unwrap()).unwrap();
    assert_eq!((&config["image"]["width"], &config["embed_dim"]), (&IMAGE_WIDTH.into(), &8.into()));
    assert_eq!(as_floats(&tensors(&heads)["logit_scale"].2).len(), 1);
    let card = fs::read_to_string(session.path("heads/README.md")).unwrap();
    assert!(card.contains("load_file(\"model.safetensors\")") && !card.contains("0 tokens"), "{card}");

    for format in ["transformers", "sentence-transformers"] {
        let refused = session.fail(2, &["export", "--model", "run", "--format", format, "--out", "hf"]);
        assert!(refused.contains("export what it has with `--format heads`"), "{refused}");
    }
    for (arguments, expected) in [
        (
            &["embed", "--model", "run", "--texts", "names.txt", "--out", "x.safetensors"][..],
            "the model has no text tower",
        ),
        (&["embed", "--model", "run", "--images", ".", "--out", "x.safetensors"], "the model has no image tower"),
        (&["embed", "--model", "run", "--images", "new_texts.npy", "--out", "x.safetensors"], "with 4 values"),
        (&["search", "--model", "run", "--index", "e.safetensors", "a cat"], "`dualenc embed --texts FILE`"),
        (&["classify", "--model", "run", "--labels", "cat,dog", "new_images.npy"], "the model has no image tower"),
        (&["eval", "--model", "run", "--task", "retrieval", "--data", "pairs.csv"], "the model has no image tower"),
    ] {
        session.write("pairs.csv", "image,caption\na.png,a cat\nb.png,a dog\n");
        let output = session.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn bad_rows_count_as_bad_samples() {
    let session = session("");
    let mut images = values(ROWS * IMAGE_WIDTH, 1);
    images[3 * IMAGE_WIDTH + 1] = f32::NAN;
    images[5 * IMAGE_WIDTH..6 * IMAGE_WIDTH].fill(0.0);
    session.write("i.npy", npy(IMAGE_WIDTH, &images));
    let refused = session.fail(2, &["train", "--config", "lit.toml", "--set", "eval.classes=", "--set", "eval.pairs="]);
    assert!(refused.contains("more than `data.max_bad_fraction` = 0.01 allows"), "{refused}");
    assert!(
        refused.contains("i.npy/row 4: value 2 is NaN") && refused.contains("row 6: all values are 0"),
        "{refused}"
    );
    assert!(!session.path("run/metrics.jsonl").exists(), "all rows are known before the first step");
    session.succeed(&["train", "--config", "lit.toml", "--set", "data.max_bad_fraction=0.1", "--set", "run.dir=kept"]);
    let listed = fs::read_to_string(session.path("kept/bad_samples.jsonl")).unwrap();
    assert!(listed.contains("row 4") && listed.contains("row 6"), "{listed}");
    let last = session.metrics("kept", "eval").into_iter().rfind(|line| line["name"] == "pairs").unwrap();
    assert_eq!((&last["num_images"], &last["num_unreadable"]), (&(ROWS - 2).into(), &2.into()));
    let problems = session.fail(2, &["check", "--config", "lit.toml"]);
    assert!(
        problems.contains("i.npy/row 4: value 2 is NaN") && problems.contains("row 6: all values are 0"),
        "{problems}"
    );
}

/// Each image with two texts: row by row, and the first texts of all images before the second ones.
#[test]
fn several_texts_of_an_image_train_at_once() {
    let session = session("");
    let texts = values(2 * ROWS * TEXT_WIDTH, 4);
    let rows: Vec<&[f32]> = texts.chunks_exact(TEXT_WIDTH).collect();
    let apart = [0, 1].map(|first| rows.iter().copied().skip(first).step_by(2).collect::<Vec<_>>().concat()).concat();
    let numbers = |of: fn(usize) -> usize| (0..2 * ROWS).map(|row| format!("{}\n", of(row))).collect::<String>();
    session.write("together.npy", npy(TEXT_WIDTH, &texts));
    session.write("together.txt", numbers(|row| row / 2));
    session.write("apart.npy", npy(TEXT_WIDTH, &apart));
    session.write("apart.txt", numbers(|row| row % ROWS));
    let with = |command: &[&str], run: &str, texts: &str, more: &[&str]| {
        let sets = [
            format!("run.dir={run}"),
            format!("data.train.features.texts={texts}.npy"),
            format!("data.train.features.image_of={texts}.txt"),
            "data.captions=slots".to_owned(),
        ];
        let sets = sets.iter().map(String::as_str).chain(more.iter().copied());
        session.succeed(&command.iter().copied().chain(sets.flat_map(|set| ["--set", set])).collect::<Vec<_>>())
    };
    let losses = |run: &str, texts: &str, more: &[&str]| {
        with(&["train", "--config", "lit.toml"], run, texts, more);
        column(&session.metrics(run, "train"), "loss")
    };
    let together = losses("together", "together", &[]);
    assert!(together.len() == 6 && together.iter().all(|loss| loss.is_finite()), "{together:?}");
    // Each caption has its own row, wherever it is in the file.
    assert_eq!(losses("apart", "apart", &[]), together);
    assert_close("parts", &losses("parts", "together", &["train.micro_batch_size=3"]), &together, 1e-4);
    assert_ne!(losses("one", "together", &["data.caption_slots=1"]), together);
    let plan = with(&["plan", "--config", "lit.toml", "--steps", "1"], "planned", "together", &[]);
    assert!(plan.contains("8 pairs of 2 captions each"), "{plan}");
}

#[test]
fn other_features_refuse_to_resume() {
    let session = session("");
    session.succeed(&["train", "--config", "lit.toml", "--set", "train.epochs=1", "--set", "train.schedule=constant"]);
    let resume = ["train", "--config", "lit.toml", "--resume", "--set", "train.schedule=constant"];
    // A file of the same size.
    session.write("i.npy", npy(IMAGE_WIDTH, &values(ROWS * IMAGE_WIDTH, 5)));
    let refused = session.fail(2, &resume);
    assert!(refused.contains("data"), "{refused}");
    session.write("i.npy", npy(IMAGE_WIDTH, &values(ROWS * IMAGE_WIDTH, 1)));
    session.succeed(&resume);
    // Another width changes the model.
    session.write("i.npy", npy(3, &values(ROWS * 3, 1)));
    let refused = session.fail(2, &resume);
    assert!(refused.contains("`model.image_width` has changed") || refused.contains("model.image_width"), "{refused}");
}

#[test]
fn configs_that_cannot_be_are_refused() {
    let session = session("");
    let vit = goldens("train/vit").to_str().unwrap().to_owned();
    let refused = |sets: &[&str], expected: &str| {
        let mut arguments = vec!["train", "--config", "lit.toml"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let text = session.fail(2, &arguments);
        assert!(text.contains(expected), "{sets:?}: {text}");
    };
    refused(&["model.lock=LU"], "the text tower trains, but `data.train.features` has features of texts");
    refused(&["model.lock=UL"], "the image tower trains");
    refused(&[&format!("model.image_tower={vit}")], "has what this tower would compute");
    refused(&["model.image_size=32"], "`model.image_size` is set, but");
    refused(&["data.word_dropout=0.1"], "`data.word_dropout` is set, but");
    refused(&["data.train.features.texts="], "it has features of images alone");
    refused(&["model.image_width=5"], "features of images with 6 values, but the model takes 5");
    refused(&["eval.pairs.data.features.images=t.npy"], "features of images with 4 values, but the model takes 6");
    refused(&["eval.classes.class_of="], "classes.npy` has features of 6 classes, but the images have 3 classes");
    refused(&["eval.classes.class_features=", "eval.classes.class_of="], "the model has no text tower");
    refused(&["eval.classes.labels="], "name a file with the class of each row with `labels`");
    refused(&["eval.classes.image_features=", "eval.classes.labels="], "missing key `eval.classes.images`");
    session.write("labels.txt", "0\n7\n".repeat(ROWS / 2));
    refused(&[], "`labels` has class 7, but there are 3 class names");
    assert!(!Path::new(&session.path("run")).join("checkpoints").exists());
}

#[test]
fn rows_of_features_are_selected() {
    let session = trained();
    let select = ["select", "--config", "lit.toml", "--keep-overlap"];
    session.succeed(&[&select[..], &["--model", "run", "--keep", "0.5", "--out", "rows.txt"]].concat());
    let list = fs::read_to_string(session.path("rows.txt")).unwrap();
    assert_eq!((list.lines().next(), list.lines().count()), (Some("image"), 1 + ROWS / 2));
    session.succeed(&["train", "--config", "lit.toml", "--set", "data.train.only=rows.txt", "--set", "run.dir=half"]);
    let half = |it: &Value| it["samples_seen"].as_u64() == Some(2 * 8);
    assert!(session.metrics("half", "train").last().is_some_and(half), "12 rows are a batch of 8 an epoch");
    // A model of images and texts has no use for them.
    let model = goldens("train/init").to_str().unwrap().to_owned();
    let refused = session.fail(2, &[&select[..], &["--model", &model, "--keep", "0.5", "--out", "other.txt"]].concat());
    assert!(refused.contains("features of images, but the model has a"), "{refused}");
}
