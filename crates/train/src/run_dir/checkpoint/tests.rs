//! Round trips, retention, and damage to every file.

mod mutations;

use std::fs;
use std::path::Path;

use super::*;
use crate::run_dir::checkpoint::retention::clean;

fn progress(step: u64) -> Progress {
    Progress { step, samples_seen: step * 8, total_steps: 9, data: "d".into(), locked: "l".into(), threads: 2 }
}

fn tensors(value: f32) -> BTreeMap<String, HostTensor> {
    [("a.weight".to_owned(), HostTensor { shape: vec![2, 3], values: vec![value; 6] })].into()
}

fn saved(tensors: BTreeMap<String, HostTensor>) -> BTreeMap<String, StateTensor<'static>> {
    tensors.into_iter().map(|(name, tensor)| (name, tensor.into())).collect()
}

fn write(dir: &Path, step: u64, retention: Retention) {
    let state = Tensors { model: tensors(step as f32), optimizer: saved(tensors(-1.0)), ema: None };
    save(dir, &progress(step), "x = 1\n", state, retention).unwrap();
}

fn save_steps(dir: &Path, steps: impl IntoIterator<Item = u64>, keep: usize) {
    for step in steps {
        write(dir, step, Retention { keep, best: None });
    }
}

#[test]
fn round_trips() {
    let dir = tempfile::tempdir().unwrap();
    save_steps(dir.path(), [3], 2);
    let loaded = load(&dir.path().join("step-000003")).unwrap();
    assert_eq!((loaded.progress.clone(), loaded.config.as_str()), (progress(3), "x = 1\n"));
    assert_eq!((loaded.optimizer().unwrap(), loaded.model), (tensors(-1.0), tensors(3.0)));
}

#[test]
fn keeps_newest_and_removes_leftovers() {
    let dir = tempfile::tempdir().unwrap();
    save_steps(dir.path(), 1..=5, 2);
    fs::create_dir(dir.path().join("step-000009.tmp-1")).unwrap();
    fs::create_dir(dir.path().join(".trash-step-000001")).unwrap();
    fs::write(dir.path().join(".notes.tmp-aB3xYz"), b"x").unwrap();
    clean(dir.path()).unwrap();
    let mut names: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["step-000004", "step-000005"]);
}

#[test]
fn damage_falls_back_to_older_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut cases = 0;
    for name in [MODEL, OPTIMIZER, CONFIG, MANIFEST] {
        save_steps(dir.path(), [1, 2], 3);
        let path = dir.path().join("step-000002").join(name);
        let intact = fs::read(&path).unwrap();
        let mut damaged: Vec<Vec<u8>> =
            (0..intact.len()).step_by(intact.len().div_ceil(60)).map(|end| intact[..end].to_vec()).collect();
        if name != MANIFEST {
            damaged.extend((0..intact.len()).step_by(7).map(|at| {
                let mut bytes = intact.clone();
                bytes[at] ^= 1 << (at % 8);
                bytes
            }));
        }
        for bytes in damaged {
            fs::write(&path, bytes).unwrap();
            let mut reported = Vec::new();
            let found = newest_valid(dir.path(), |error| reported.push(error.to_string())).unwrap().unwrap();
            assert_eq!(found.progress.step, 1, "{name}");
            assert!(reported.len() == 1 && reported[0].contains("step-000002"), "{reported:?}");
            cases += 1;
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(newest_valid(dir.path(), |_| ()).unwrap().unwrap().progress.step, 1);
    }
    assert!(cases > 150, "{cases}");
}

#[test]
fn refuses_newer_format() {
    let dir = tempfile::tempdir().unwrap();
    save_steps(dir.path(), [1], 1);
    let path = dir.path().join("step-000001");
    let text = fs::read_to_string(path.join(MANIFEST)).unwrap().replace("\"format\": 1", "\"format\": 2");
    fs::write(path.join(MANIFEST), text).unwrap();
    let error = newest_valid(dir.path(), |_| ()).unwrap_err().to_string();
    assert!(error.contains("has format 2, but this program reads formats up to 1"), "{error}");
}
