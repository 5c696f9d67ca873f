//! Training with the forms that devices without kernels take: the losses are those of the kernels, and a resumed run
//! goes on with the same bits. On this machine's CPU, so that any build covers these forms.

use std::path::{Path, PathBuf};

use dualenc_kernels::with_plain_forms;

use super::*;
use crate::device::PLAIN;
use crate::error::ErrorKind;
use crate::events::Event;

/// Losses and gradient norms by step; stops the run after `last`.
struct Watch<'a> {
    numbers: Vec<[f64; 2]>,
    last: Option<u64>,
    stop: &'a StopFlag,
}

impl Observer for Watch<'_> {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Step(record) = event {
            self.numbers.push([record.loss, record.grad_norm]);
            if self.last == Some(record.step) {
                self.stop.request(15);
            }
        }
    }
}

/// Trains in `dir`; `last`: the step to stop after.
pub(super) fn run(dir: &Path, device: &str, sets: &[&str], start: Start, last: Option<u64>) -> Vec<[f64; 2]> {
    try_run(dir, device, sets, start, last).unwrap()
}

fn try_run(
    dir: &Path,
    device: &str,
    sets: &[&str],
    start: Start,
    last: Option<u64>,
) -> Result<Vec<[f64; 2]>, TrainError> {
    let stop = StopFlag::default();
    let mut watch = Watch { numbers: Vec::new(), last, stop: &stop };
    train(&config(dir, device, sets), start, &stop, &mut watch)?;
    Ok(watch.numbers)
}

fn config(dir: &Path, device: &str, sets: &[&str]) -> RunConfig {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/train");
    let text = format!(
        "[run]\ndir = {:?}\ndevice = {device:?}\n[model]\ninit = {:?}\n[data.train.csv]\npath = {:?}\n\
         [train]\nsteps = 20\nbatch_size = 8\nlearning_rate = 1e-3\n",
        dir.join(device),
        goldens.join("init"),
        goldens.join("train_repeated.csv"),
    );
    let path = dir.join("run.toml");
    std::fs::write(&path, text).unwrap();
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    RunConfig::load(&path, &sets).unwrap()
}

fn assert_same_losses(sets: &[&str], tolerance: f64) {
    let (kernels, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = run(kernels.path(), "cpu", sets, Start::New, None);
    let found = with_plain_forms(|| run(plain.path(), PLAIN, sets, Start::New, None));
    assert_eq!(found.len(), 20);
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        for (found, expected) in found.iter().zip(expected) {
            let difference = (found / expected - 1.0).abs();
            assert!(difference <= tolerance, "{sets:?}, step {}: {found}, expected {expected}", step + 1);
        }
    }
}

#[test]
fn plain_forms_give_losses_of_kernels() {
    assert_same_losses(&["model.lock=LU"], 1e-5);
}

#[test]
fn plain_forms_pool_and_update_alike() {
    let duplicates = "train.duplicates=positives";
    assert_same_losses(&["model.lock=LU", "model.text_pool=mean", "train.loss=sigmoid", duplicates], 1e-4);
    assert_same_losses(&["model.lock=UL", "train.optimizer=adafactor", "train.label_smoothing=0.1"], 1e-4);
    assert_same_losses(&["model.lock=UU", "train.optimizer=sgd", "train.ema_decay=0.9", duplicates], 1e-4);
}

#[test]
fn plain_forms_drop_the_same_units() {
    let dropout = ["model.text_dropout=0.3", "model.image_dropout=0.2"];
    assert_same_losses(&[&["model.lock=UU"], &dropout[..]].concat(), 1e-4);
    assert_same_losses(&[&["model.lock=LU", "train.micro_batch_size=3"], &dropout[..1]].concat(), 1e-4);
}

/// Trains once in one go, and once stopped and resumed.
pub(super) fn assert_resumes(device: &str, sets: &[&str]) {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = run(whole.path(), device, sets, Start::New, None);
    let mut found = run(parts.path(), device, sets, Start::New, Some(7));
    // A device has the next step queued when the signal comes.
    assert!((7..=8).contains(&found.len()), "{}", found.len());
    found.extend(run(parts.path(), device, sets, Start::RESUME, None));
    assert_eq!(found, expected);
}

/// A step that is not finite changes nothing, though a device has queued its update, and maybe the step after it. The
/// state before it is saved.
pub(super) fn assert_divergence_changes_nothing(device: &str, more: &[&str]) {
    let files = ["model.safetensors", "optimizer.safetensors", "ema.safetensors"];
    // The update of step 6 ruins the weights. Step 7 is the first of a stage that trains more, and begins to average
    // more; or one of several.
    for (next, files) in [("{from_step=6, lock='UU'}", &files[..2]), ("{from_step=15, lock='UU'}", &files[..])] {
        let (diverged, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stages = format!("train.stage=[{{from_step=5, lock='LU', learning_rate=1e30}}, {next}]");
        let fixed = ["model.lock=LU", "train.schedule=constant", "train.clip_grad_norm=0", "train.ema_decay=0.9"];
        let sets = [&fixed[..], &[&stages], more].concat();
        let error = try_run(diverged.path(), device, &sets, Start::New, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFinite, "{error}");
        assert!(error.to_string().contains("the state after step 6 is saved"), "{next}: {error}");
        // The last step before that changes the weights to large ones, which a run saves if it is stopped there.
        let saved = |dir: &Path, file: &str| std::fs::read(dir.join(device).join("checkpoints/step-000006").join(file));
        run(stopped.path(), device, &[&sets[..], &["checkpoint.every_steps=6"]].concat(), Start::New, Some(6));
        for file in files {
            let expected = saved(stopped.path(), file).unwrap();
            assert!(saved(diverged.path(), file).unwrap() == expected, "{next}: {file} differs");
        }
    }
}

/// A batch that cannot be read comes while a step is not finished: the state after that step is saved as that.
#[test]
fn failure_saves_the_state_after_the_step_in_progress() {
    for device in ["cpu", PLAIN] {
        let [good, bad] = [false, true].map(|is_bad| {
            let dir = tempfile::tempdir().unwrap();
            let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/train");
            std::fs::create_dir(dir.path().join("images")).unwrap();
            for entry in std::fs::read_dir(goldens.join("images")).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), dir.path().join("images").join(entry.file_name())).unwrap();
            }
            std::fs::copy(goldens.join("train.csv"), dir.path().join("train.csv")).unwrap();
            if is_bad {
                // In the third batch.
                std::fs::write(dir.path().join("images/20.png"), "no image").unwrap();
            }
            dir
        });
        let run_in = |dir: &Path, last: Option<u64>| {
            let data = format!("data.train.csv.path={}", dir.join("train.csv").display());
            let fixed = ["model.lock=UU", "data.shuffle=false", "data.max_bad_fraction=0", "checkpoint.every_steps=2"];
            // A checkpoint at the step before would finish it.
            let sets = if last.is_none() { &fixed[..3] } else { &fixed[..] };
            try_run(dir, device, &[sets, &[&data]].concat(), Start::New, last)
        };
        let error = run_in(bad.path(), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{error}");
        run_in(good.path(), Some(2)).unwrap();
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let saved =
                |dir: &Path| std::fs::read(dir.join(device).join("checkpoints/step-000002").join(file)).unwrap();
            assert!(saved(bad.path()) == saved(good.path()), "{device}: {file} differs");
        }
        assert!(!bad.path().join(device).join("checkpoints/step-000001").exists());
    }
}

/// Has no place for checkpoints from the first step on.
struct FailingDisk(PathBuf);

impl Observer for FailingDisk {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Step(_) = event {
            std::fs::remove_dir_all(&self.0).unwrap();
            std::fs::write(&self.0, "a file").unwrap();
        }
    }
}

#[test]
fn a_failing_disk_does_not_hide_spoiled_weights() {
    for (learning_rate, kind) in [("1e-3", ErrorKind::Run), ("1e39", ErrorKind::NotFinite)] {
        let dir = tempfile::tempdir().unwrap();
        let rate = format!("train.learning_rate={learning_rate}");
        let config = config(dir.path(), "cpu", &["train.steps=1", "train.optimizer=sgd", &rate]);
        let mut disk = FailingDisk(dir.path().join("cpu/checkpoints"));
        let error = train(&config, Start::New, &StopFlag::default(), &mut disk).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn divergence_changes_nothing() {
    for device in ["cpu", PLAIN] {
        for optimizer in ["train.optimizer=adamw", "train.optimizer=adafactor"] {
            assert_divergence_changes_nothing(device, &[optimizer]);
        }
    }
}

#[test]
fn plain_forms_resume_with_the_same_bits() {
    let sets = ["model.lock=LU", "model.text_dropout=0.3", "train.loss=sigmoid"];
    with_plain_forms(|| assert_resumes(PLAIN, &sets));
}

/// Every term of the loss.
const TERMS: [&str; 5] = [
    "model.lock=LL",
    "train.mixup_alpha=0.5",
    "train.structure=10",
    "train.structure_warmup_steps=9",
    "train.matryoshka=[8, 3]",
];

#[test]
fn plain_forms_compute_terms_alike() {
    assert_same_losses(&TERMS, 1e-4);
}

#[test]
fn terms_resume_with_the_same_bits() {
    assert_resumes("cpu", &TERMS);
    let parts = [&TERMS[..], &["train.micro_batch_size=3", "train.loss=sigmoid"]].concat();
    assert_resumes("cpu", &parts);
}

#[test]
fn log_has_terms_and_widths() {
    let dir = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/train/train_repeated.csv");
    let eval = format!("eval.pairs={{task='retrieval', data='{}'}}", data.display());
    let best = "checkpoint.best=pairs.image_retrieval_recall@1_dim8";
    run(dir.path(), "cpu", &[&TERMS[..], &[eval.as_str(), best]].concat(), Start::New, Some(2));
    let log = std::fs::read_to_string(dir.path().join("cpu/metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_kind = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(of_kind("train").len(), 2);
    assert!(of_kind("train").iter().all(|line| line["loss_structure"].as_f64().unwrap() > 0.0));
    for end in ["", "_dim8", "_dim3"] {
        let recall = of_kind("eval")[0][format!("text_retrieval_recall@5{end}")].as_f64();
        assert!(recall.is_some_and(|recall| (0.0..=1.0).contains(&recall)), "{end}: {recall:?}");
    }
    assert!(of_kind("eval")[0].get("num_images_dim8").is_none());
}
