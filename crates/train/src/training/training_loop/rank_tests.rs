//! Several devices compute the bits of one, whatever is trained and wherever the run is resumed.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::events::Event;

const STEPS: u64 = 12;

/// Stops the run after `last`, and keeps the warnings.
struct Watch<'a> {
    last: Option<u64>,
    stop: &'a StopFlag,
    warnings: Vec<String>,
    /// Images that evaluations report as encoded.
    images: Vec<usize>,
}

impl Observer for Watch<'_> {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Step(record) if self.last == Some(record.step) => self.stop.request(15),
            Event::Warning(warning) => self.warnings.push(warning),
            Event::Work { name: "pairs: images", done, .. } => self.images.push(done),
            _ => {}
        }
    }
}

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(name).canonicalize().unwrap()
}

fn config(dir: &Path, devices: usize, sets: &[&str]) -> RunConfig {
    let text = format!(
        "[run]\ndir = {:?}\ndevice = {:?}\n[model]\ninit = {:?}\n[data.train.csv]\npath = {:?}\n\
         [train]\nsteps = {STEPS}\nbatch_size = 8\nlearning_rate = 1e-3\n",
        dir.join("run"),
        vec!["cpu"; devices],
        goldens("train/init"),
        goldens("train/train_repeated.csv"),
    );
    let path = dir.join("run.toml");
    fs::write(&path, text).unwrap();
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    RunConfig::load(&path, &sets).unwrap_or_else(|error| panic!("{error}"))
}

/// Trains in `dir` on `devices` devices; `last`: the step to stop after.
fn run(dir: &Path, devices: usize, sets: &[&str], start: Start, last: Option<u64>) -> Result<Vec<String>, TrainError> {
    let stop = StopFlag::default();
    let mut watch = Watch { last, stop: &stop, warnings: Vec::new(), images: Vec::new() };
    train(&config(dir, devices, sets), start, &stop, &mut watch)?;
    Ok(watch.warnings)
}

/// What a run left that does not depend on time: its log, the tensors of its last checkpoint and the images found bad.
fn left(dir: &Path) -> (Vec<Value>, Vec<(String, blake3::Hash)>, Value) {
    let run = dir.join("run");
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for key in ["time", "pairs_per_sec", "loader_wait", "seconds"] {
            line.as_object_mut().unwrap().remove(key);
        }
        line
    };
    let checkpoint = run.join(format!("checkpoints/step-{STEPS:06}"));
    let mut files: Vec<String> =
        fs::read_dir(&checkpoint).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|name| name.ends_with(".safetensors"));
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    let hashes = files.iter().map(|name| blake3::hash(&fs::read(checkpoint.join(name)).unwrap()));
    let manifest: Value = serde_json::from_str(&fs::read_to_string(checkpoint.join("manifest.json")).unwrap()).unwrap();
    (log.lines().map(line).collect(), files.iter().cloned().zip(hashes).collect(), manifest["bad_images"].clone())
}

/// Trains on each number of devices and compares what is left. `parts`: the setting of one device that several have by
/// default, if it is not in `sets`.
#[track_caller]
fn assert_same_bits(sets: &[&str], parts: Option<&str>, devices: &[usize]) {
    let one = tempfile::tempdir().unwrap();
    let of_one: Vec<&str> = sets.iter().copied().chain(parts).collect();
    run(one.path(), 1, &of_one, Start::New, None).unwrap();
    let expected = left(one.path());
    assert_eq!(expected.0.iter().filter(|line| line["kind"] == "train").count() as u64, STEPS, "{sets:?}");
    for &devices in devices {
        let several = tempfile::tempdir().unwrap();
        run(several.path(), devices, sets, Start::New, None).unwrap();
        assert_eq!(left(several.path()), expected, "{devices} devices, {sets:?}");
    }
}

/// What several devices have by default.
const EIGHTHS: Option<&str> = Some("train.micro_batch_size=1");

#[test]
fn devices_compute_the_bits_of_one() {
    let dropout = ["model.text_dropout=0.3", "model.image_dropout=0.2"];
    for loss in ["train.loss=softmax", "train.loss=sigmoid"] {
        assert_same_bits(&["model.lock=LU", loss, dropout[0], "train.ema_decay=0.9"], EIGHTHS, &[2, 4]);
        assert_same_bits(&["model.lock=UU", loss, dropout[0], dropout[1]], EIGHTHS, &[2, 4]);
        assert_same_bits(&["model.lock=LL", loss], EIGHTHS, &[2, 4]);
    }
}

/// Gradients that are on the devices are read, added up and written back.
#[test]
fn gradients_on_devices_give_the_bits_of_one() {
    let [one, two] = ["run.device=plain", "run.device=plain,plain"].map(|devices| {
        let dir = tempfile::tempdir().unwrap();
        let sets = ["model.lock=UU", "model.text_dropout=0.3", "train.micro_batch_size=2", devices];
        run(dir.path(), 1, &sets, Start::New, None).unwrap();
        left(dir.path())
    });
    assert_eq!(one, two);
}

#[test]
fn odd_parts_are_shared_to_the_bit() {
    // 3 and 5 parts, the last of them smaller.
    assert_same_bits(&["model.lock=UU", "model.text_dropout=0.3", "train.micro_batch_size=3"], None, &[2]);
    assert_same_bits(&["model.lock=LU", "train.batch_size=9", "train.micro_batch_size=2"], None, &[2, 4]);
    // In the order of the file, the last batch of an epoch is smaller.
    let sets = ["model.lock=UL", "data.shuffle=false", "train.batch_size=10", "train.micro_batch_size=2"];
    assert_same_bits(&sets, None, &[2]);
}

#[test]
fn terms_and_fits_are_the_same_on_several_devices() {
    let terms = ["model.lock=LL", "train.mixup_alpha=0.5", "train.structure=10", "train.matryoshka=[8, 3]"];
    assert_same_bits(&terms, EIGHTHS, &[2]);
    let slots = ["model.lock=UU", "data.captions=slots", "data.caption_slots=3", "cache.enabled=false"];
    assert_same_bits(&slots, EIGHTHS, &[2]);
    let towers = ["image_tower=train/vit", "text_tower=train/bert"];
    let towers = towers.map(|tower| tower.replace("train", goldens("train").to_str().unwrap()));
    let towers: Vec<String> = towers.into_iter().map(|tower| format!("model.{tower}")).collect();
    let fit = ["model.init=", "model.embed_dim=8", "model.lock=LU", &towers[0], &towers[1], "model.head_init=cca"];
    assert_same_bits(&fit, EIGHTHS, &[2]);
    let stages = ["model.lock=LL", "train.stage=[{from_step=6, lock=\"LU\"}]", "train.ema_decay=0.9"];
    assert_same_bits(&stages, EIGHTHS, &[2]);
}

#[test]
fn teachers_and_structure_are_shared_to_the_bit() {
    let teacher = format!("train.teacher.model={}", goldens("whole/clip").display());
    let (slots, masks) = (["data.captions=slots", "data.caption_slots=3"], "train.duplicates=mask");
    let structure = ["train.structure=10", "train.structure_warmup_steps=0"];
    let sigmoid = ["train.loss=sigmoid", "train.teacher.bias=-9"];
    assert_same_bits(&["model.lock=LU", &teacher, masks, structure[0], structure[1]], EIGHTHS, &[2, 4, 8]);
    assert_same_bits(&["model.lock=UU", &teacher, masks, sigmoid[0], sigmoid[1]], EIGHTHS, &[2, 4, 8]);
    // Terms of both sides, and several widths and slots.
    let all = [structure[0], structure[1], slots[0], slots[1], "model.lock=LL", "train.matryoshka=[8, 3]"];
    assert_same_bits(&[&all[..], &[&teacher, masks]].concat(), EIGHTHS, &[2, 4]);
    assert_same_bits(&[&all[..], &[&teacher, sigmoid[0], sigmoid[1]]].concat(), EIGHTHS, &[2, 4]);
    // 3 parts, the last of them smaller.
    let parts = ["train.micro_batch_size=3", "model.lock=LL"];
    assert_same_bits(&[parts[0], parts[1], &teacher, structure[0], structure[1]], None, &[2]);
}

#[test]
fn evaluations_are_shared() {
    let data = tempfile::tempdir().unwrap();
    with_bad_images(data.path());
    let pairs = data.path().join("train.csv");
    let retrieval = format!("eval.pairs={{task=\"retrieval\", data={pairs:?}, every_steps=5, at_start=true}}");
    let loss = format!("eval.loss={{task=\"loss\", pool_size=4, data={pairs:?}, every_steps=12}}");
    for lock in ["model.lock=UU", "model.lock=LU"] {
        let sets = [lock, &retrieval, &loss, "data.max_bad_fraction=0.5", "train.ema_decay=0.9"];
        assert_same_bits(&sets, EIGHTHS, &[2, 4]);
    }
    // A pass encodes up to 16 images, besides those that cannot be read, and the set has 24.
    let sets = ["model.lock=UU", &retrieval, "data.max_bad_fraction=0.5", "train.micro_batch_size=1"];
    for (devices, expected) in [(1, vec![20, 24]), (4, vec![24])] {
        let dir = tempfile::tempdir().unwrap();
        let stop = StopFlag::default();
        let mut watch = Watch { last: Some(1), stop: &stop, warnings: Vec::new(), images: Vec::new() };
        train(&config(dir.path(), devices, &sets), Start::New, &stop, &mut watch).unwrap();
        assert_eq!(watch.images, expected, "{devices} devices");
    }
}

#[test]
fn three_devices_are_close() {
    let (one, three) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sets = ["model.lock=LU", "train.micro_batch_size=1"];
    run(one.path(), 1, &sets, Start::New, None).unwrap();
    run(three.path(), 3, &sets, Start::New, None).unwrap();
    let losses = |dir: &Path| -> Vec<f64> { left(dir).0.iter().filter_map(|line| line["loss"].as_f64()).collect() };
    let (expected, found) = (losses(one.path()), losses(three.path()));
    assert_eq!(expected.len() as u64, STEPS);
    assert!(found.iter().zip(expected).all(|(found, expected)| (found / expected - 1.0).abs() < 1e-4), "{found:?}");
}

#[test]
fn resumes_on_another_number_of_devices() {
    let sets = ["model.lock=UU", "model.text_dropout=0.3", "model.image_dropout=0.2", "train.ema_decay=0.9"];
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), 2, &sets, Start::New, None).unwrap();
    let expected = left(whole.path());
    let parts = tempfile::tempdir().unwrap();
    run(parts.path(), 2, &sets, Start::New, Some(3)).unwrap();
    // Its config does not set the micro-batches, which the checkpoint has.
    run(parts.path(), 1, &sets, Start::RESUME, Some(5)).unwrap();
    run(parts.path(), 1, &sets, Start::RESUME, Some(8)).unwrap();
    run(parts.path(), 4, &sets, Start::RESUME, None).unwrap();
    assert_eq!(left(parts.path()), expected);
}

/// The golden pairs in `dir`, with damaged images in different shares of a batch.
fn with_bad_images(dir: &Path) -> String {
    fs::create_dir_all(dir.join("images")).unwrap();
    for entry in fs::read_dir(goldens("train/images")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.join("images").join(entry.file_name())).unwrap();
    }
    for bad in ["03", "07", "11", "16", "20"] {
        fs::write(dir.join(format!("images/{bad}.png")), "no image").unwrap();
    }
    fs::copy(goldens("train/train.csv"), dir.join("train.csv")).unwrap();
    format!("data.train.csv.path={}", dir.join("train.csv").display())
}

#[test]
fn bad_images_are_found_alike() {
    let data = tempfile::tempdir().unwrap();
    let data = with_bad_images(data.path());
    for lock in ["model.lock=UU", "model.lock=LU"] {
        let sets = [lock, &data, "data.max_bad_fraction=0.5"];
        assert_same_bits(&sets, EIGHTHS, &[2, 4]);
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), 2, &sets, Start::New, Some(1)).unwrap();
        run(dir.path(), 4, &sets, Start::RESUME, None).unwrap();
        let found = left(dir.path()).2;
        assert_eq!(found.as_array().map(Vec::len), Some(5), "{found}");
    }
}

#[test]
fn too_many_bad_images_end_all_devices() {
    let data = tempfile::tempdir().unwrap();
    let data = with_bad_images(data.path());
    for devices in [2, 4] {
        let dir = tempfile::tempdir().unwrap();
        // No device finds four of them alone.
        let sets = ["model.lock=UU", &data, "data.max_bad_fraction=0.15"];
        let error = run(dir.path(), devices, &sets, Start::New, None).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("rank ") && message.contains(" (cpu): "), "{message}");
        assert!(message.contains("`data.max_bad_fraction` = 0.15"), "{message}");
        assert_eq!(error.kind(), crate::error::ErrorKind::Input);
    }
}

#[test]
fn diverged_run_ends_on_all_devices() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["model.lock=UU", "train.learning_rate=1e30", "train.optimizer=sgd"];
    let error = run(dir.path(), 2, &sets, Start::New, None).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::NotFinite, "{error}");
    assert!(error.to_string().starts_with("rank 0 (cpu): "), "{error}");
}

#[test]
fn too_few_parts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |devices: usize, sets: &[&str]| {
        let path = dir.path().join("run.toml");
        config(dir.path(), 1, &[]);
        let mut sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        sets.push(format!("run.device={}", vec!["cpu"; devices].join(",")));
        RunConfig::load(&path, &sets).unwrap_err().to_string()
    };
    let message = refused(2, &["train.micro_batch_size=8"]);
    assert!(message.contains("a batch of 8 pairs is too small for the 2 devices"), "{message}");
    assert!(message.contains("lower `train.micro_batch_size`"), "{message}");
    assert!(refused(9, &[]).contains("too small for the 9 devices"));
    // The last batch of an epoch has 4 pairs, one part.
    let sets = ["data.shuffle=false", "train.batch_size=10", "train.micro_batch_size=5"];
    let message = run(dir.path(), 2, &sets, Start::New, None).unwrap_err().to_string();
    assert!(message.contains("the last batch of an epoch has 4 pairs") && message.contains("shuffle"), "{message}");
    assert!(!message.starts_with("rank"), "{message}");
}
