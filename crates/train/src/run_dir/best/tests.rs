use std::collections::BTreeMap;
use std::fs;

use dualenc_data::mix;
use dualenc_model::HostTensor;
use serde_json::json;

use super::*;
use crate::optim::state_tensor::StateTensor;
use crate::run_dir::checkpoint::{Progress, Retention, Tensors};
use crate::run_dir::metrics_log::MetricsLog;

fn section(best: &str, patience: Option<u64>, min_delta: f64) -> CheckpointSection {
    CheckpointSection { best: Some(best.to_owned()), patience, min_delta, ..CheckpointSection::default() }
}

fn after(section: &CheckpointSection, figures: &[f64]) -> BestTracker {
    let mut selection = BestTracker::new(section);
    figures.iter().zip(1..).for_each(|(&value, step)| selection.record_value(step, Some(value)));
    selection
}

#[test]
fn more_is_better_except_of_a_loss() {
    let figures = [0.5, 0.7, 0.7, 0.2];
    assert_eq!(after(&section("a.acc1", None, 0.0), &figures).best, Some((2, 0.7)));
    assert_eq!(after(&section("a.loss", None, 0.0), &figures).best, Some((4, 0.2)));
    // Better than the best by no more than `min_delta`.
    assert_eq!(after(&section("a.acc1", None, 0.25), &figures).best, Some((1, 0.5)));
}

#[test]
fn patience_counts_evaluations_without_improvement() {
    let section = section("a.acc1", Some(2), 0.0);
    assert!(!after(&section, &[0.5, 0.6, 0.4]).is_exhausted());
    assert!(after(&section, &[0.5, 0.6, 0.4, 0.6]).is_exhausted());
    assert!(!after(&section, &[0.5, 0.4, 0.6, 0.4]).is_exhausted());
    let mut none = BestTracker::new(&section);
    none.record_value(1, None);
    none.record_value(2, None);
    assert!(none.is_exhausted() && none.best().is_none());
}

/// A run as far as its disk is concerned.
struct Disk {
    dir: tempfile::TempDir,
    section: CheckpointSection,
}

impl Disk {
    fn write(&self, step: u64, keep: usize, best: Option<u64>) {
        let progress =
            Progress { step, samples_seen: 0, total_steps: 1, data: String::new(), locked: String::new(), threads: 1 };
        let tensor = HostTensor { shape: vec![1], values: vec![step as f32] };
        let model: BTreeMap<_, _> = [("a".to_owned(), tensor.clone())].into();
        let optimizer = [("a.first".to_owned(), StateTensor::from(tensor))].into();
        let tensors = Tensors { model, optimizer, ema: None };
        checkpoint::save(&checkpoints_of(self.dir.path()), &progress, "", tensors, Retention { keep, best }).unwrap();
    }

    /// As a run opens: the newest valid step, what the log says up to there, and the log.
    fn open(&self) -> (u64, BestTracker, MetricsLog) {
        let checkpoints = checkpoints_of(self.dir.path());
        checkpoint::clean(&checkpoints).unwrap();
        let newest = checkpoint::newest_valid(&checkpoints, |_| ()).unwrap();
        let step = newest.map_or(0, |newest| newest.progress.step);
        let log = MetricsLog::open(&metrics_of(self.dir.path()), step).unwrap();
        (step, BestTracker::of_run(&self.section, self.dir.path(), step).unwrap(), log)
    }
}

/// Of step `step`, whenever it is evaluated.
fn figure(seed: u64, step: u64) -> f64 {
    (mix(seed, &[step]) % 20) as f64 / 20.0
}

#[test]
fn whatever_is_saved_evaluated_and_killed_the_best_and_the_newest_stay_and_the_record_is_the_same() {
    for seed in 0..60 {
        let mut draws = (0..).map(|n| mix(seed, &[n, 7]));
        let mut draw = |below: u64| draws.next().unwrap() % below;
        let (keep, every, min_delta) = (1 + draw(3) as usize, 1 + draw(6), [0.0, 0.1][draw(2) as usize]);
        let disk = Disk { dir: tempfile::tempdir().unwrap(), section: section("e.acc1", Some(4), min_delta) };
        fs::create_dir_all(checkpoints_of(disk.dir.path())).unwrap();
        let (mut step, mut selection, mut log) = disk.open();
        let mut kills = 0;
        while step < 30 {
            step += 1;
            if step.is_multiple_of(2) {
                let metrics = json!({"acc1": figure(seed, step)}).as_object().unwrap().clone();
                let record = EvalRecord { step, name: "e".into(), task: "zero-shot".into(), metrics };
                log.eval(&record).unwrap();
                selection.record(&record);
            }
            let due = step.is_multiple_of(every) || selection.best_step() == Some(step) || step == 30;
            let killed = kills < 12 && draw(4) == 0;
            match (due, killed, draw(3)) {
                // Killed before the save, or after it and before anything was pruned.
                (true, true, 0) => {}
                (true, true, 1) => disk.write(step, usize::MAX, None),
                (true, true, _) => {
                    // Half a save, and half a line.
                    let torn = checkpoints_of(disk.dir.path()).join(format!("step-{step:06}.tmp-1"));
                    fs::create_dir_all(torn).unwrap();
                    fs::OpenOptions::new()
                        .append(true)
                        .open(metrics_of(disk.dir.path()))
                        .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"kind\":\"ev"))
                        .unwrap();
                }
                (true, false, _) => disk.write(step, keep, selection.best_step()),
                (false, ..) => {}
            }
            if killed {
                kills += 1;
                (step, selection, log) = disk.open();
            }
            // The same as a run that was never stopped has at this step.
            let mut whole = BestTracker::new(&disk.section);
            (2..=step).step_by(2).for_each(|at| whole.record_value(at, Some(figure(seed, at))));
            assert_eq!((selection.best, selection.stale), (whole.best, whole.stale), "seed {seed} step {step}");
            let there = checkpoint::list(&checkpoints_of(disk.dir.path()));
            let saved = there.last().map_or(0, |(at, _)| *at);
            for wanted in selection.best_step().filter(|best| *best <= saved).into_iter().chain([saved]) {
                let valid = wanted == 0
                    || checkpoint::load(&checkpoint::path_of(&checkpoints_of(disk.dir.path()), wanted)).is_ok();
                assert!(valid, "seed {seed} step {step}: {wanted} of {there:?}");
            }
            if due && !killed {
                assert!(there.len() <= keep + 1, "seed {seed}: {there:?}");
            }
        }
    }
}

#[test]
fn a_damaged_later_checkpoint_does_not_cost_the_one_just_written() {
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
fn a_best_that_was_never_kept_gives_way_to_one_that_is() {
    let disk = Disk { dir: tempfile::tempdir().unwrap(), section: section("e.acc1", None, 0.0) };
    fs::create_dir_all(checkpoints_of(disk.dir.path())).unwrap();
    let line = |step, value| format!("{{\"kind\":\"eval\",\"step\":{step},\"name\":\"e\",\"acc1\":{value}}}\n");
    fs::write(metrics_of(disk.dir.path()), line(1, 0.9) + &line(2, 0.5) + &line(3, 0.4)).unwrap();
    disk.write(2, 3, None);
    disk.write(3, 3, None);
    assert_eq!(disk.open().1.best, Some((2, 0.5)));
}
