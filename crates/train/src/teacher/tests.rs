//! Runs with a teacher: its features follow the pairs, caches and parts change no bit, and a resumed run goes on alike.

use std::fs;
use std::path::{Path, PathBuf};

use dualenc_kernels::with_plain_forms;

use crate::config::RunConfig;
use crate::device::PLAIN;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::stop_flag::StopFlag;
use crate::training::position::Start;
use crate::training::training_loop::train;

/// Loss, divergence from the teacher and gradient norm by step; stops the run after `last`.
struct Watch<'a> {
    numbers: Vec<[f64; 3]>,
    skipped: usize,
    last: Option<u64>,
    stop: &'a StopFlag,
}

impl Observer for Watch<'_> {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Step(record) => {
                self.numbers.push([record.loss, record.loss_teacher.unwrap_or(f64::NAN), record.grad_norm]);
                if self.last == Some(record.step) {
                    self.stop.request(15);
                }
            }
            Event::Skipped { .. } => self.skipped += 1,
            _ => {}
        }
    }
}

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(name)
}

fn teacher(name: &str) -> String {
    format!("train.teacher.model={}", goldens(name).display())
}

/// A config of 6 steps in `dir`, for pairs in `data`.
fn config(dir: &Path, data: &Path, sets: &[&str]) -> RunConfig {
    let text = format!(
        "[run]\ndir = {:?}\n[model]\ninit = {:?}\n[data.train.csv]\npath = {data:?}\n\
         [train]\nsteps = 6\nbatch_size = 8\nlearning_rate = 1e-3\n",
        dir.join("run"),
        goldens("train/init"),
    );
    let path = dir.join("run.toml");
    fs::write(&path, text).unwrap();
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    RunConfig::load(&path, &sets).unwrap()
}

fn try_run(dir: &Path, sets: &[&str], start: Start, last: Option<u64>) -> Result<Vec<[f64; 3]>, TrainError> {
    let stop = StopFlag::default();
    let mut watch = Watch { numbers: Vec::new(), skipped: 0, last, stop: &stop };
    let config = config(dir, &goldens("train/train_repeated.csv"), sets);
    train(&config, start, &stop, &mut watch).map(|_| watch.numbers)
}

/// The numbers of a new run in a directory of its own.
fn run(sets: &[&str]) -> Vec<[f64; 3]> {
    let dir = tempfile::tempdir().unwrap();
    let numbers = try_run(dir.path(), sets, Start::New, None).unwrap();
    assert_eq!(numbers.len(), 6);
    numbers
}

#[track_caller]
fn refused(dir: &Path, sets: &[&str], start: Start) -> String {
    let error = try_run(dir, sets, start, None).err().unwrap_or_else(|| panic!("{sets:?} are accepted"));
    assert_eq!(error.kind(), crate::error::ErrorKind::Input, "{error}");
    error.to_string()
}

/// A run with the model that it starts from as its teacher, at the same scale: any image or text of another pair shows.
#[test]
fn own_similarities_cost_nothing() {
    let own = teacher("train/init");
    // e^2
    let sets = [own.as_str(), "train.teacher.scale=7.38905609893065", "model.logit_scale_init=2", "model.lock=LL"];
    for more in [
        &["train.duplicates=mask"][..],
        &["data.captions=slots", "data.caption_slots=3"],
        &["train.micro_batch_size=3"],
        &["train.loss=sigmoid", "train.logit_bias_init=-3", "train.teacher.bias=-3"],
    ] {
        let numbers = run(&[&sets[..], more].concat());
        let [first, last] = [numbers[0], numbers[5]].map(|[_, teacher, _]| teacher);
        assert!(first.abs() < 1e-5, "{more:?}: {first}");
        assert!(last > 1e-5, "{more:?}: training leaves the teacher, {last}");
    }
    let augmented = run(&[&sets[..], &["data.augment={flip=1.0}", "cache.enabled=false"]].concat());
    assert!(augmented[0][1] > 1e-4, "the teacher sees images without augmentation: {augmented:?}");
}

#[test]
fn student_approaches_the_teacher() {
    let clip = teacher("whole/clip");
    let sets = [&clip, "model.lock=LL", "train.teacher.weight=1", "train.learning_rate=0.02", "train.steps=30"];
    let dir = tempfile::tempdir().unwrap();
    let numbers = try_run(dir.path(), &sets, Start::New, None).unwrap();
    // Means of an epoch of three batches.
    let epochs: Vec<f64> = numbers.chunks(3).map(|steps| steps.iter().map(|step| step[1]).sum::<f64>() / 3.0).collect();
    assert!(epochs[9] < 0.8 * epochs[0], "{epochs:?}");
}

#[test]
fn caches_change_no_bit() {
    let clip = teacher("whole/clip");
    for (lock, more) in [("LU", "train.duplicates=mask"), ("UU", "train.micro_batch_size=3"), ("LL", "run.seed=3")] {
        let lock = format!("model.lock={lock}");
        let sets = [clip.as_str(), &lock, more];
        let off = run(&[&sets[..], &["cache.enabled=false"]].concat());
        assert!(off.iter().flatten().all(|number| number.is_finite()), "{off:?}");
        let cache = tempfile::tempdir().unwrap();
        let shared = format!("cache.dir={}", cache.path().display());
        for what in ["filling", "filled"] {
            assert_eq!(run(&[&sets[..], &[&shared]].concat()), off, "{sets:?}, {what}");
        }
    }
    // The teacher's towers are those of the run: both use the same files.
    let sets = [teacher("train/init"), "model.lock=LL".to_owned()];
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    assert_eq!(run(&sets), run(&[&sets[..], &["cache.enabled=false"]].concat()));
}

#[test]
fn resumed_run_has_the_same_bits() {
    let [clip, siglip] = ["whole/clip", "whole/siglip"].map(teacher);
    for sets in [
        [clip.as_str(), "model.lock=LU", "train.micro_batch_size=3"],
        [siglip.as_str(), "model.lock=LL", "train.loss=sigmoid"],
        [clip.as_str(), "model.lock=UU", "cache.enabled=false"],
    ] {
        let expected = run(&sets);
        let dir = tempfile::tempdir().unwrap();
        let mut found = try_run(dir.path(), &sets, Start::New, Some(2)).unwrap();
        assert_eq!(found.len(), 2);
        found.extend(try_run(dir.path(), &sets, Start::RESUME, None).unwrap());
        assert_eq!(found, expected, "{sets:?}");
    }
}

#[test]
fn plain_forms_compute_alike() {
    let clip = teacher("whole/clip");
    let sets = [clip.as_str(), "model.lock=LU", "train.duplicates=mask"];
    let expected = run(&sets);
    let device = format!("run.device={PLAIN}");
    let found = with_plain_forms(|| run(&[&sets[..], &[&device]].concat()));
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found / expected - 1.0).abs() < 1e-4, "{found}, expected {expected}");
    }
}

#[test]
fn another_teacher_is_refused_at_resume() {
    let dir = tempfile::tempdir().unwrap();
    let [clip, siglip] = ["whole/clip", "whole/siglip"].map(teacher);
    try_run(dir.path(), &[&clip, "model.lock=LL"], Start::New, Some(2)).unwrap();
    let found = refused(dir.path(), &[&siglip, "model.lock=LL"], Start::RESUME);
    assert!(found.contains("siglip") && found.contains("is not the one that the checkpoint"), "{found}");
    for changed in [&["model.lock=LL"][..], &[&clip, "model.lock=LL", "train.teacher.weight=0.3"]] {
        let found = refused(dir.path(), changed, Start::RESUME);
        assert!(found.contains("train.teacher.weight"), "{found}");
    }
    // The same teacher at another place.
    let moved = dir.path().join("moved");
    fs::create_dir(&moved).unwrap();
    for entry in fs::read_dir(goldens("whole/clip")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), moved.join(entry.file_name())).unwrap();
    }
    let moved = format!("train.teacher.model={}", moved.display());
    assert_eq!(try_run(dir.path(), &[&moved, "model.lock=LL"], Start::RESUME, None).unwrap().len(), 4);
}

#[test]
fn run_is_a_teacher() {
    let dir = tempfile::tempdir().unwrap();
    try_run(dir.path(), &["model.lock=UU"], Start::New, None).unwrap();
    let own = format!("train.teacher.model={}", dir.path().join("run").display());
    let numbers = run(&[&own, "model.lock=LU"]);
    assert!(numbers.iter().all(|[_, teacher, _]| *teacher > 1e-3), "{numbers:?}");
}

#[test]
fn teacher_must_fit_the_loss() {
    let dir = tempfile::tempdir().unwrap();
    let clip = teacher("whole/clip");
    let found = refused(dir.path(), &[&clip, "train.loss=sigmoid"], Start::New);
    assert!(found.contains("has no `logit_bias`") && found.contains("train.teacher.bias"), "{found}");
    let found = refused(dir.path(), &["train.teacher.model=./nothing"], Start::New);
    assert!(found.contains("nothing"), "{found}");
    run(&[&clip, "model.lock=LL", "train.loss=sigmoid", "train.teacher.bias=-4"]);
    // SigLIP has a scale and a bias of its own.
    run(&[&teacher("whole/siglip"), "model.lock=LL", "train.loss=sigmoid"]);
}

#[test]
fn unreadable_image_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let images = goldens("train/images");
    let rows = (0..24).map(|n| match n {
        5 => "broken.png,a broken image\n".to_owned(),
        n => format!("{},caption number {n}\n", images.join(format!("{n:02}.png")).display()),
    });
    let data = dir.path().join("data.csv");
    fs::write(&data, format!("image,caption\n{}", rows.collect::<String>())).unwrap();
    fs::write(dir.path().join("broken.png"), b"no image").unwrap();
    let clip = teacher("whole/clip");
    let stop = StopFlag::default();
    let mut watch = Watch { numbers: Vec::new(), skipped: 0, last: None, stop: &stop };
    let config = config(dir.path(), &data, &[&clip, "model.lock=LL", "data.max_bad_fraction=0.1"]);
    train(&config, Start::New, &stop, &mut watch).unwrap();
    assert_eq!((watch.numbers.len(), watch.skipped), (6, 1));
    assert!(watch.numbers.iter().flatten().all(|number| number.is_finite()), "{:?}", watch.numbers);
}
