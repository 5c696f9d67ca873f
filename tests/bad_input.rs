//! Invalid input: exit code 2, and a message that names the file, the value found, the value expected and the fix.

use std::fs;

use crate::support::{Session, goldens, stderr};

const TRAIN: [&str; 3] = ["train", "--config", "lit.toml"];

/// Trains with overrides, asserts exit code 2 and an error line, and returns stderr.
#[track_caller]
fn refusal(session: &Session, sets: &[&str]) -> String {
    let mut arguments = TRAIN.to_vec();
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let text = session.fail(2, &arguments);
    assert!(text.lines().any(|line| line.starts_with("error")), "{text}");
    text
}

fn session() -> Session {
    let session = Session::new();
    session.write_config("");
    session
}

#[test]
fn mistyped_key_shows_its_line() {
    let session = Session::new();
    session.write_config("learning_rat = 1\n");
    let text = session.fail(2, &TRAIN);
    let line = fs::read_to_string(session.path("lit.toml"))
        .unwrap()
        .lines()
        .position(|line| line.starts_with("learning_rat "))
        .unwrap()
        + 1;
    assert!(text.contains(&format!("lit.toml:{line}:1")) && text.contains("learning_rate"), "{text}");
    assert!(text.contains("^^^^^^^^^^^^"), "{text}");
}

#[test]
fn missing_config_is_named() {
    let text = Session::new().fail(2, &["train", "--config", "nowhere.toml"]);
    assert!(text.contains("cannot read the config `nowhere.toml`"), "{text}");
}

#[test]
fn rejects_bad_batch_device_or_tower() {
    let session = session();
    assert!(refusal(&session, &["train.batch_size=1"]).contains("batch_size"));
    let text = refusal(&session, &["run.device=tpu"]);
    assert!(text.contains("device `tpu` cannot be used") && text.contains("devices of this build: cpu"), "{text}");
    let text = refusal(&session, &["train.batch_size=100", "data.shuffle=true"]);
    assert!(text.contains("24 pairs do not fill one batch of 100"), "{text}");
    assert!(!session.path("run/checkpoints").join("step-000001").exists());

    let missing = refusal(
        &session,
        &["run.dir=other", "model.init=", "model.image_tower=./no/vit", "model.text_tower=./no/bert"],
    );
    assert!(missing.contains("no/vit"), "{missing}");
    let text = refusal(&session, &["run.dir=third", &format!("model.init={}", goldens("train/images").display())]);
    assert!(text.contains("is not a model: expected a run directory"), "{text}");
}

#[test]
fn large_images_follow_max_pixels() {
    let session = session();
    session.copy("train/images", "images");
    session.write("data.csv", fs::read(goldens("train/train.csv")).unwrap());
    let expected = "pixels is over the limit of 9 (`data.max_pixels`, or `--max-pixels` without a config); raise it or \
                    resize the image";
    let text = refusal(&session, &["data.train.csv.path=data.csv", "run.dir=small", "data.max_pixels=9"]);
    assert!(text.contains(expected), "{text}");
    let text = refusal(&session, &["run.dir=none", "data.max_pixels=0"]);
    assert!(text.contains("`data.max_pixels` is 0, expected a number of pixels, at least 1"), "{text}");

    let mut arguments = TRAIN.to_vec();
    ["data.train.csv.path=data.csv", "run.dir=run", "train.epochs=1"]
        .iter()
        .for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
    let embed = ["embed", "--model", "run", "--images", "images", "--out", "e.safetensors"];
    session.succeed(&embed);
    let text = session.fail(2, &[&embed[..], &["--max-pixels", "9"]].concat());
    assert!(text.contains(expected), "{text}");
    let eval = ["eval", "--model", "run", "--task", "retrieval", "--data", "data.csv"];
    session.succeed(&eval);
    let text = session.fail(2, &[&eval[..], &["--max-pixels", "9"]].concat());
    assert!(text.contains(expected), "{text}");
}

#[test]
fn skips_bad_images_up_to_limit() {
    let session = session();
    session.copy("train/images", "images");
    session.write("data.csv", fs::read(goldens("train/train.csv")).unwrap());
    session.write("images/03.png", "<html>404</html>");
    fs::remove_file(session.path("images/07.png")).unwrap();
    for lock in ["model.lock=UU", "model.lock=LU"] {
        let run = format!("run.dir={}", &lock[11..]);
        let sets = ["data.train.csv.path=data.csv", lock, &run];
        let text = refusal(&session, &sets);
        // Missing files are found before any image is read.
        assert!(text.contains("07.png") && text.contains("data.max_bad_fraction"), "{text}");
        assert!(text.contains("not found (1)"), "{text}");
        let run = format!("run.dir=tolerant{}", &lock[11..]);
        let mut arguments = TRAIN.to_vec();
        let sets = ["data.train.csv.path=data.csv", lock, &run, "data.max_bad_fraction=0.1"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let output = session.run(&arguments);
        let text = stderr(&output);
        assert!(output.status.success(), "{text}");
        assert_eq!(text.matches("warning: skipped").count(), 2, "{text}");
        assert!(text.contains("07.png"), "{text}");
    }
    let steps = session.metrics("tolerantUU", "train").len();
    assert_eq!((steps, session.metrics("tolerantLU", "train").len()), (12, 12));
}

#[cfg(unix)]
#[test]
fn failing_disk_ends_run() {
    // A link to itself stands for a file that the disk cannot read: the image is neither missing nor damaged.
    let session = Session::new();
    session.write_config("[eval.held]\ntask = \"retrieval\"\ndata = \"held.csv\"\nevery_steps = 2\n");
    session.copy("train/images", "images");
    session.write("held.csv", fs::read(goldens("train/train.csv")).unwrap());
    fs::remove_file(session.path("images/03.png")).unwrap();
    std::os::unix::fs::symlink("03.png", session.path("images/03.png")).unwrap();
    let text = session.fail(1, &TRAIN);
    assert!(text.contains("03.png") && !session.path("run/metrics.jsonl").exists(), "before the first step: {text}");
    let model = goldens("train/init");
    let eval = ["eval", "--model", model.to_str().unwrap(), "--task", "retrieval", "--data", "held.csv"];
    let text = session.fail(1, &eval);
    assert!(text.contains("03.png") && text.contains("in each of 4 tries"), "no score of the other images: {text}");
    let text =
        session.fail(1, &[&TRAIN[..], &["--set", "run.dir=other", "--set", "data.train.csv.path=held.csv"]].concat());
    assert!(text.contains("03.png") && !text.contains("skipped"), "{text}");
}

#[test]
fn rejects_tokenizer_larger_than_embedding() {
    let session = session();
    let dir = session.copy("train/bert", "bert");
    let tokenizer = fs::read_to_string(dir.join("tokenizer.json")).unwrap();
    let mut parsed: serde_json::Value = serde_json::from_str(&tokenizer).unwrap();
    parsed["model"]["vocab"]["unlisted"] = 5000.into();
    fs::write(dir.join("tokenizer.json"), parsed.to_string()).unwrap();
    let image = format!("model.image_tower={}", goldens("train/vit").display());
    let text = refusal(&session, &["model.init=", &image, "model.text_tower=./bert"]);
    assert!(text.contains("has ids up to 5000") && text.contains("word table has"), "{text}");
}

#[test]
fn rejects_unusable_towers() {
    let session = session();
    let copy = |name: &str| session.copy("train/vit", name);
    let text_tower = format!("model.text_tower={}", goldens("train/bert").display());
    let train = |dir: &str| {
        refusal(&session, &["model.init=", &text_tower, &format!("model.image_tower=./{dir}"), "run.dir=x"])
    };
    let edit = |dir: &std::path::Path, from: &str, to: &str| {
        let path = dir.join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    };
    edit(&copy("shapes"), "\"patch_size\": 8", "\"patch_size\": 16");
    let text = train("shapes");
    assert!(
        text.contains("embeddings.patch_embeddings.projection.weight: expected [16, 3, 16, 16], found [16, 3, 8, 8]"),
        "{text}"
    );

    edit(&copy("family"), "\"model_type\": \"vit\"", "\"model_type\": \"whisper\"");
    let text = train("family");
    assert!(text.contains("`model_type` is `whisper`") && text.contains("supported: vit, deit, beit"), "{text}");

    let dir = copy("pickle");
    fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin")).unwrap();
    let text = train("pickle");
    assert!(text.contains("is a pickle") && text.contains("save_pretrained"), "{text}");

    let path = copy("nan").join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let text = train("nan");
    assert!(text.contains("nan/model.safetensors`: 1 tensor holds NaN or infinite values:"), "{text}");
    assert!(text.contains(": 1 of ") && text.contains("use an earlier checkpoint"), "{text}");

    fs::write(copy("broken").join("model.safetensors"), b"\xff\xff\xff\xff\xff\xff\xff\x7f{}").unwrap();
    let text = train("broken");
    assert!(text.contains("is not a readable safetensors file"), "{text}");
}

#[test]
fn rejects_unwritable_run_dir() {
    let session = session();
    session.write("file", "");
    let text = refusal(&session, &["run.dir=file/run"]);
    assert!(text.contains("cannot write to the run directory") && text.contains("choose another `run.dir`"), "{text}");
}

#[test]
fn rejects_unwritable_cache() {
    let session = session();
    session.write("file", "");
    // A tower that is not there: models would load after this.
    let sets =
        ["cache.dir=file/cache", "model.lock=LL", "model.init=", "model.image_tower=./no", "model.text_tower=./no"];
    let text = refusal(&session, &sets);
    assert!(
        text.contains("cannot write to the feature cache") && text.contains("choose another `cache.dir`"),
        "{text}"
    );
    // Towers that train are not cached.
    let text = refusal(&session, &[&["model.lock=UU"], &sets[2..], &sets[..1]].concat());
    assert!(!text.contains("feature cache"), "{text}");
}

#[test]
fn bad_evaluation_stops_before_training() {
    let session = Session::new();
    session.write_config("[eval.a]\ntask = \"zero-shot\"\nimages = \"nowhere\"\n");
    assert!(session.fail(2, &TRAIN).contains("nowhere"));
    fs::create_dir_all(session.path("nowhere/cat")).unwrap();
    fs::copy(goldens("train/images/00.png"), session.path("nowhere/cat/0.png")).unwrap();
    session.write("templates.txt", "a photo of a cat\n");
    let text = session.fail(2, &[TRAIN.as_slice(), &["--set", "eval.a.templates=templates.txt"]].concat());
    assert!(text.contains("has no `{c}` where the class name goes"), "{text}");
    assert!(!session.path("run/metrics.jsonl").exists() || session.metrics("run", "train").is_empty());
}
