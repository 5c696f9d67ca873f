//! The best of a sequence of evaluations, and of runs that are killed in between. `DUALENC_SOAK` multiplies the
//! sequences, `DUALENC_SEED` draws others.

use std::collections::BTreeMap;
use std::fs;

use dualenc_data::mix;
use dualenc_model::HostTensor;
use serde_json::json;

use super::*;
use crate::optim::state_tensor::StateTensor;
use crate::run_dir::checkpoint::manifest::Progress;
use crate::run_dir::checkpoint::retention::Retention;
use crate::run_dir::checkpoint::{self, Tensors};
use crate::run_dir::metrics_log::{Entry, Line, MetricsLog};

fn section(best: &str, patience: Option<u64>, min_delta: f64) -> CheckpointSection {
    CheckpointSection { best: Some(best.to_owned()), patience, min_delta, ..CheckpointSection::default() }
}

fn after(section: &CheckpointSection, values: &[f64]) -> BestTracker {
    let mut tracker = BestTracker::new(section);
    values.iter().zip(1..).for_each(|(&value, step)| tracker.record_value(step, Some(value)));
    tracker
}

#[test]
fn higher_is_better_except_loss() {
    let values = [0.5, 0.7, 0.7, 0.2];
    assert_eq!(after(&section("a.acc1", None, 0.0), &values).best, Some((2, 0.7)));
    assert_eq!(after(&section("a.loss", None, 0.0), &values).best, Some((4, 0.2)));
    // An improvement of less than `min_delta` does not count.
    assert_eq!(after(&section("a.acc1", None, 0.25), &values).best, Some((1, 0.5)));
}

#[test]
fn baseline_may_be_better_than_best() {
    let mut tracker = BestTracker::new(&section("a.acc1", None, 0.0));
    [0.1, 0.0].into_iter().zip(0..).for_each(|(value, step)| tracker.record_value(step, Some(value)));
    let best = tracker.best().unwrap();
    assert_eq!((best.step, best.better_baseline()), (1, Some(0.1)));
    tracker.record_value(2, Some(0.2));
    assert_eq!(tracker.best().unwrap().better_baseline(), None);
    let mut losses = BestTracker::new(&section("a.loss", None, 0.0));
    [1.0, 2.0].into_iter().zip(0..).for_each(|(value, step)| losses.record_value(step, Some(value)));
    assert_eq!(losses.best().unwrap().better_baseline(), Some(1.0));
}

#[test]
fn patience_counts_stale_evaluations() {
    let section = section("a.acc1", Some(2), 0.0);
    assert!(!after(&section, &[0.5, 0.6, 0.4]).is_exhausted());
    assert!(after(&section, &[0.5, 0.6, 0.4, 0.6]).is_exhausted());
    assert!(!after(&section, &[0.5, 0.4, 0.6, 0.4]).is_exhausted());
    let mut none = BestTracker::new(&section);
    none.record_value(1, None);
    none.record_value(2, None);
    assert!(none.is_exhausted() && none.best().is_none());
}

/// The directory of a run.
struct Disk {
    dir: tempfile::TempDir,
    section: CheckpointSection,
}

impl Disk {
    fn write(&self, step: u64, keep: usize, best: Option<u64>) {
        let progress = Progress {
            step,
            samples_seen: 0,
            total_steps: 1,
            data: String::new(),
            pairs: None,
            locked: String::new(),
            towers: None,
            teacher: None,
            threads: 1,
            skipped_steps: Vec::new(),
            bad_images: Vec::new(),
            is_rescue: false,
            is_fit: false,
        };
        let tensor = HostTensor { shape: vec![1], values: vec![step as f32] };
        let model: BTreeMap<_, _> = [("a".to_owned(), StateTensor::from(tensor.clone()))].into();
        let optimizer = [("a.first".to_owned(), StateTensor::from(tensor))].into();
        let tensors = Tensors { model, optimizer, ema: None };
        checkpoint::save(&checkpoints_of(self.dir.path()), &progress, "", tensors, Retention { keep, best }).unwrap();
    }

    /// Opens the run: its newest valid step, the tracker replayed up to there, and the log.
    fn open(&self) -> (u64, BestTracker, MetricsLog) {
        let checkpoints = checkpoints_of(self.dir.path());
        retention::clean(&checkpoints).unwrap();
        let newest = checkpoint::newest_valid(&checkpoints).unwrap().map(|newest| newest.checkpoint);
        let step = newest.map_or(0, |newest| newest.progress.step);
        let log = MetricsLog::open(&metrics_of(self.dir.path()), step).unwrap();
        (step, BestTracker::of_run(&self.section, self.dir.path(), step, None).unwrap(), log)
    }
}

/// The metric at `step`.
fn metric(seed: u64, step: u64) -> f64 {
    (mix(seed, &[step]) % 20) as f64 / 20.0
}

fn from_env(name: &str) -> u64 {
    std::env::var(name).map_or(1, |value| value.parse().unwrap())
}

#[test]
#[expect(clippy::print_stdout, reason = "a figure of the fault table")]
fn best_survives_random_kills() {
    let (count, first) = (60 * from_env("DUALENC_SOAK"), from_env("DUALENC_SEED") << 32);
    let (mut saves, mut crashes) = (0, 0);
    for seed in first..first + count {
        let mut draws = (0..).map(|n| mix(seed, &[n, 7]));
        let mut draw = |below: u64| draws.next().unwrap() % below;
        let (keep, every, min_delta) = (1 + draw(3) as usize, 1 + draw(6), [0.0, 0.1][draw(2) as usize]);
        let disk = Disk { dir: tempfile::tempdir().unwrap(), section: section("e.acc1", Some(4), min_delta) };
        fs::create_dir_all(checkpoints_of(disk.dir.path())).unwrap();
        let (mut step, mut tracker, mut log) = disk.open();
        let (mut kills, mut valid_before) = (0, 0);
        while step < 30 {
            step += 1;
            if step.is_multiple_of(2) {
                let metrics = json!({"acc1": metric(seed, step)}).as_object().unwrap().clone();
                let record = EvalRecord {
                    step,
                    name: "e".into(),
                    task: "zero-shot".into(),
                    fingerprint: String::new(),
                    metrics,
                };
                log.append(&Line::now(Entry::Eval(&record))).unwrap();
                tracker.record(&record);
            }
            let due = step.is_multiple_of(every) || tracker.best_step() == Some(step) || step == 30;
            let killed = kills < 12 && draw(4) == 0;
            match (due, killed, draw(4)) {
                // Killed before the save, between the save and pruning, or while an old checkpoint is deleted.
                (true, true, 0) => {}
                (true, true, 1) => disk.write(step, usize::MAX, None),
                (true, true, 2) => {
                    disk.write(step, keep, tracker.best_step());
                    let trash = checkpoints_of(disk.dir.path()).join(".trash-step-000000");
                    fs::create_dir_all(&trash).unwrap();
                    fs::write(trash.join("model.safetensors"), b"half").unwrap();
                }
                (true, true, _) => {
                    // An incomplete checkpoint and an incomplete line.
                    let torn = checkpoints_of(disk.dir.path()).join(format!("step-{step:06}.tmp-1"));
                    fs::create_dir_all(torn).unwrap();
                    fs::OpenOptions::new()
                        .append(true)
                        .open(metrics_of(disk.dir.path()))
                        .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"kind\":\"ev"))
                        .unwrap();
                }
                (true, false, _) => disk.write(step, keep, tracker.best_step()),
                (false, ..) => {}
            }
            (saves, crashes) = (saves + u64::from(due), crashes + u64::from(killed));
            if killed {
                kills += 1;
                (step, tracker, log) = disk.open();
            }
            // A run that is never stopped has the same record at this step.
            let mut uninterrupted = BestTracker::new(&disk.section);
            (2..=step).step_by(2).for_each(|at| uninterrupted.record_value(at, Some(metric(seed, at))));
            assert_eq!(
                (tracker.best, tracker.stale),
                (uninterrupted.best, uninterrupted.stale),
                "seed {seed} step {step}"
            );
            let existing = retention::list(&checkpoints_of(disk.dir.path())).unwrap();
            let saved = existing.last().map_or(0, |(at, _)| *at);
            assert!(saved >= valid_before, "seed {seed} step {step}: step {valid_before} was valid, now {existing:?}");
            valid_before = saved;
            for wanted in tracker.best_step().filter(|best| *best <= saved).into_iter().chain([saved]) {
                let valid = wanted == 0
                    || checkpoint::load(&checkpoint::path_of(&checkpoints_of(disk.dir.path()), wanted)).is_ok();
                assert!(valid, "seed {seed} step {step}: {wanted} of {existing:?}");
            }
            if due && !killed {
                assert!(existing.len() <= keep + 1, "seed {seed}: {existing:?}");
            }
        }
    }
    println!(
        "figure: best_survives_random_kills: {count} sequences, {saves} saves, {crashes} crashes: newest and best \
         are valid after each (seed {})",
        first >> 32
    );
}

#[test]
fn damaged_later_checkpoint_is_not_counted() {
    let disk = Disk { dir: tempfile::tempdir().unwrap(), section: section("e.acc1", None, 0.0) };
    let checkpoints = checkpoints_of(disk.dir.path());
    fs::create_dir_all(&checkpoints).unwrap();
    disk.write(10, 2, None);
    disk.write(20, 2, None);
    fs::write(checkpoint::path_of(&checkpoints, 20).join("model.safetensors"), b"x").unwrap();
    assert_eq!(disk.open().0, 10);
    disk.write(12, 1, None);
    assert_eq!(disk.open().0, 12);
}

#[test]
fn best_is_among_existing_checkpoints() {
    let disk = Disk { dir: tempfile::tempdir().unwrap(), section: section("e.acc1", None, 0.0) };
    fs::create_dir_all(checkpoints_of(disk.dir.path())).unwrap();
    let line = |step, value| format!("{{\"kind\":\"eval\",\"step\":{step},\"name\":\"e\",\"acc1\":{value}}}\n");
    fs::write(metrics_of(disk.dir.path()), line(1, 0.9) + &line(2, 0.5) + &line(3, 0.4)).unwrap();
    disk.write(2, 3, None);
    disk.write(3, 3, None);
    assert_eq!(disk.open().1.best, Some((2, 0.5)));
}
