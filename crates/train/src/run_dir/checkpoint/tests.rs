//! Round trips, retention, and damage to every file. `DUALENC_SOAK` multiplies the mutations, `DUALENC_SEED` draws
//! others.

use std::fs;
use std::path::Path;

use dualenc_data::mix;

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

fn from_env(name: &str) -> u64 {
    std::env::var(name).map_or(1, |value| value.parse().unwrap())
}

/// A checkpoint of each of the steps 1 and 2, with tensors of 1 to 40 kB and averages.
fn write_two(dir: &Path) {
    for step in [1, 2] {
        let values = |salt: u64, count: u64| (0..count).map(|at| mix(salt, &[step, at]) as f32 / 1e19).collect();
        let tensor = |salt, rows: u64| HostTensor { shape: vec![rows as usize, 16], values: values(salt, rows * 16) };
        let model: BTreeMap<_, _> = [("a.weight".to_owned(), tensor(1, 160)), ("b".to_owned(), tensor(2, 17))].into();
        let optimizer = model
            .iter()
            .flat_map(|(name, tensor)| ["first", "second"].map(|moment| (format!("{name}.{moment}"), tensor.clone())));
        let state = Tensors {
            optimizer: saved(optimizer.collect()),
            ema: Some(saved([("a.weight".to_owned(), tensor(3, 160))].into())),
            model,
        };
        save(dir, &progress(step), &format!("x = {step}\n"), state, Retention { keep: 9, best: None }).unwrap();
    }
}

/// Damages file `name` of the checkpoint of step 2; returns how.
fn damage(dir: &Path, name: &str, mut draw: impl FnMut(usize) -> usize) -> &'static str {
    let path = path_of(dir, 2).join(name);
    let mut bytes = fs::read(&path).unwrap();
    let at = draw(bytes.len());
    let end = bytes.len().min(at + 1 + draw(2048));
    let kind = match draw(8) {
        0..=2 => {
            bytes[at] ^= 1 << draw(8);
            "flipped bit"
        }
        3 => {
            bytes.truncate(at);
            "truncation"
        }
        4 => {
            bytes.extend(vec![b'x'; 1 + draw(600)]);
            "appended bytes"
        }
        5 => {
            let is_zero = bytes[at..end].iter().all(|byte| *byte == 0);
            bytes[at..end].fill(if is_zero { 0xff } else { 0 });
            "blanked block"
        }
        6 => {
            bytes = fs::read(path_of(dir, 1).join(name)).unwrap();
            "swapped file"
        }
        _ => {
            fs::remove_file(&path).unwrap();
            return "deleted file";
        }
    };
    // A new file: truncating an old one waits for the disk on file systems that guard against torn writes.
    fs::remove_file(&path).unwrap();
    fs::write(path, bytes).unwrap();
    kind
}

#[test]
fn damage_falls_back_to_older_checkpoint() {
    const FILES: [&str; 5] = [MODEL, OPTIMIZER, EMA, CONFIG, MANIFEST];
    let dir = tempfile::tempdir().unwrap();
    write_two(dir.path());
    let intact: Vec<(&str, Vec<u8>)> =
        FILES.into_iter().map(|name| (name, fs::read(path_of(dir.path(), 2).join(name)).unwrap())).collect();
    let (count, seed) = (400 * from_env("DUALENC_SOAK"), from_env("DUALENC_SEED"));
    let mut kinds: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for round in 0..count {
        let mut draws = (0..).map(|n| mix(seed, &[round, n]));
        let mut draw = |below: usize| (draws.next().unwrap() % below.max(1) as u64) as usize;
        let (name, bytes) = &intact[draw(intact.len())];
        let kind = damage(dir.path(), name, draw);
        let what = format!("round {round}: {kind} of {name}");
        *kinds.entry((kind, name)).or_default() += 1;
        // An explicit path is refused, and the newest valid checkpoint is the older one.
        let refused = load(&path_of(dir.path(), 2)).err().unwrap_or_else(|| panic!("{what} was not detected"));
        if matches!(refused, TrainError::NewerFormat { .. }) {
            // The flipped bit is in the number of the format.
            assert_eq!(*name, MANIFEST, "{what}");
            assert!(newest_valid(dir.path(), |_| ()).is_err(), "{what}");
            fs::write(path_of(dir.path(), 2).join(name), bytes).unwrap();
            continue;
        }
        assert!(matches!(refused, TrainError::Checkpoint { .. }), "{what}: {refused}");
        let mut reported = Vec::new();
        let found = newest_valid(dir.path(), |error| reported.push(error.to_string())).unwrap().unwrap();
        assert_eq!((found.progress.step, found.config.as_str()), (1, "x = 1\n"), "{what}");
        assert!(reported.len() == 1 && reported[0].contains("step-000002"), "{what}: {reported:?}");
        fs::write(path_of(dir.path(), 2).join(name), bytes).unwrap();
    }
    assert_eq!(load(&path_of(dir.path(), 2)).unwrap().progress, progress(2));
    assert!(kinds.len() >= 25, "{kinds:?}");
    println!("figure: damage_falls_back_to_older_checkpoint: {count} mutations, {count} detected (seed {seed})");
}

#[test]
fn manifest_is_damaged_by_any_flipped_bit() {
    let dir = tempfile::tempdir().unwrap();
    write_two(dir.path());
    let path = path_of(dir.path(), 2).join(MANIFEST);
    let intact = fs::read(&path).unwrap();
    for (at, bit) in (0..intact.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bytes = intact.clone();
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        let text = || String::from_utf8_lossy(&bytes).into_owned();
        assert!(load(&path_of(dir.path(), 2)).is_err(), "bit {bit} of byte {at}:\n{}", text());
    }
    // A whole manifest in the directory of another step.
    fs::write(&path, &intact).unwrap();
    fs::rename(path_of(dir.path(), 2), path_of(dir.path(), 3)).unwrap();
    let error = load(&path_of(dir.path(), 3)).unwrap_err().to_string();
    assert!(error.contains("step-000003") && error.contains('2'), "{error}");
}

#[test]
fn cut_file_is_damaged_at_any_length() {
    let dir = tempfile::tempdir().unwrap();
    save_steps(dir.path(), [1, 2], 3);
    for name in [MODEL, OPTIMIZER, CONFIG, MANIFEST] {
        let path = dir.path().join("step-000002").join(name);
        let intact = fs::read(&path).unwrap();
        for end in (0..intact.len()).step_by(intact.len().div_ceil(60)) {
            fs::write(&path, &intact[..end]).unwrap();
            let found = newest_valid(dir.path(), |_| ()).unwrap().unwrap();
            assert_eq!(found.progress.step, 1, "{name} of {end} bytes");
        }
        fs::write(&path, intact).unwrap();
    }
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
