//! Round trips, retention, and damage to every file.

mod mutations;

use std::cell::Cell;
use std::fs;
use std::path::Path;

use super::*;
use crate::run_dir::checkpoint::retention::clean;
use crate::run_dir::checkpoint::tensors::serialize;

fn progress(step: u64) -> Progress {
    Progress {
        step,
        samples_seen: step * 8,
        total_steps: 9,
        data: "d".into(),
        pairs: None,
        locked: "l".into(),
        towers: None,
        teacher: None,
        threads: 2,
        skipped_steps: Vec::new(),
        bad_images: Vec::new(),
        is_rescue: false,
        is_fit: false,
    }
}

fn tensors(value: f32) -> BTreeMap<String, HostTensor> {
    [("a.weight".to_owned(), HostTensor { shape: vec![2, 3], values: vec![value; 6] })].into()
}

fn saved(tensors: BTreeMap<String, HostTensor>) -> BTreeMap<String, StateTensor<'static>> {
    tensors.into_iter().map(|(name, tensor)| (name, tensor.into())).collect()
}

fn write(dir: &Path, step: u64, retention: Retention) {
    let state = Tensors { model: saved(tensors(step as f32)), optimizer: saved(tensors(-1.0)), ema: None };
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
        damaged.extend((0..intact.len()).step_by(7).map(|at| {
            let mut bytes = intact.clone();
            bytes[at] ^= 1 << (at % 8);
            bytes
        }));
        for bytes in damaged {
            fs::write(&path, bytes).unwrap();
            let found = newest_valid(dir.path()).unwrap().unwrap();
            let reported: Vec<String> = found.damaged.iter().map(ToString::to_string).collect();
            assert_eq!(found.checkpoint.progress.step, 1, "{name}");
            assert!(reported.len() == 1 && reported[0].contains("step-000002"), "{reported:?}");
            cases += 1;
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(newest_valid(dir.path()).unwrap().unwrap().checkpoint.progress.step, 1);
    }
    assert!(cases > 150, "{cases}");
}

/// Rewrites the manifest of the checkpoint at `path`, with its checksum.
fn edit_manifest(path: &Path, edit: impl FnOnce(&str) -> String) {
    let text = fs::read_to_string(path.join(MANIFEST)).unwrap();
    let (fields, _) = text.split_once(",\n  \"checksum\"").unwrap();
    let edited = edit(fields);
    let checksum = blake3::hash(edited.as_bytes()).to_hex();
    fs::write(path.join(MANIFEST), format!("{edited},\n  \"checksum\": \"{checksum}\"\n}}\n")).unwrap();
}

#[test]
fn refuses_newer_format() {
    let dir = tempfile::tempdir().unwrap();
    save_steps(dir.path(), [1, 2], 2);
    let path = dir.path().join("step-000002");
    edit_manifest(&path, |fields| fields.replace("\"format\": 2", "\"format\": 3"));
    let error = newest_valid(dir.path()).unwrap_err().to_string();
    assert!(error.contains("has format 3, but this program reads formats up to 2"), "{error}");
    // Neither its fields nor the place of its checksum are known.
    fs::write(path.join(MANIFEST), "{\"format\": 17}").unwrap();
    let error = newest_valid(dir.path()).unwrap_err().to_string();
    assert!(error.contains("has format 17"), "{error}");
}

#[test]
fn changed_manifest_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    save_steps(dir.path(), [1], 1);
    let path = dir.path().join("step-000001").join(MANIFEST);
    let intact = fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("\"samples_seen\": 8", "\"samples_seen\": 9"),
        ("\"total_steps\": 9", "\"total_steps\": 8"),
        ("\"threads\": 2", "\"threads\": 3"),
        ("\"format\": 2", "\"format\": 1"),
        ("\"format\": 2", "\"format\": 3"),
        ("  \"step\"", " \"step\""),
    ] {
        assert!(intact.contains(from), "{intact}");
        fs::write(&path, intact.replace(from, to)).unwrap();
        let error = load(&dir.path().join("step-000001")).unwrap_err().to_string();
        assert!(
            error.contains("`manifest.json` is damaged: its contents do not match their checksum"),
            "{to}: {error}"
        );
    }
    let without = intact.split_once(",\n  \"checksum\"").unwrap().0.to_owned() + "\n}\n";
    fs::write(&path, without).unwrap();
    let error = load(&dir.path().join("step-000001")).unwrap_err().to_string();
    assert!(error.contains("must end with a checksum, and there is none"), "{error}");
}

#[test]
fn step_equals_directory_name() {
    let dir = tempfile::tempdir().unwrap();
    save_steps(dir.path(), [1, 2], 2);
    fs::rename(dir.path().join("step-000002"), dir.path().join("step-000007")).unwrap();
    let error = load(&dir.path().join("step-000007")).unwrap_err().to_string();
    assert!(error.contains("it is of step 2, its directory of step 7"), "{error}");
    assert_eq!(newest_valid(dir.path()).unwrap().unwrap().checkpoint.progress.step, 1);
    // A copy under a name of its own is as good as the original.
    fs::rename(dir.path().join("step-000007"), dir.path().join("favourite")).unwrap();
    assert_eq!(load(&dir.path().join("favourite")).unwrap().progress.step, 2);
}

#[test]
fn all_damaged_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(newest_valid(&dir.path().join("none")).unwrap().is_none());
    assert!(newest_valid(dir.path()).unwrap().is_none());
    save_steps(dir.path(), [1, 2], 2);
    fs::write(dir.path().join("step-000001").join(MODEL), b"x").unwrap();
    fs::remove_file(dir.path().join("step-000002").join(MANIFEST)).unwrap();
    let error = newest_valid(dir.path()).unwrap_err().to_string();
    for part in ["none of the 2 checkpoints", "step-000001", "it has 1 bytes", "step-000002", "`manifest.json`"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn unreadable_disk_is_not_damage() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    save_steps(dir.path(), [1, 2], 2);
    let path = dir.path().join("step-000002").join(MODEL);
    fs::remove_file(&path).unwrap();
    // A link to itself fails with ELOOP, whoever reads it: an error of the system, not a missing file.
    symlink(&path, &path).unwrap();
    let error = newest_valid(dir.path()).unwrap_err();
    assert!(matches!(&error, TrainError::Read { path: found, .. } if *found == path), "{error}");
    let file = dir.path().join("file");
    fs::write(&file, b"x").unwrap();
    assert!(matches!(newest_valid(&file), Err(TrainError::Read { .. })));
}

#[test]
fn values_that_are_not_finite() {
    let dir = tempfile::tempdir().unwrap();
    save_steps(dir.path(), [1], 1);
    let mut bad = tensors(0.5);
    bad.get_mut("a.weight").unwrap().values[4] = f32::NAN;
    let good = || saved(tensors(1.0));
    for spoiled in [
        Tensors { model: saved(bad.clone()), optimizer: good(), ema: Some(good()) },
        Tensors { model: good(), optimizer: saved(bad.clone()), ema: Some(good()) },
        Tensors { model: good(), optimizer: good(), ema: Some(saved(bad.clone())) },
    ] {
        let error = save(dir.path(), &progress(7), "x = 1\n", spoiled, Retention { keep: 1, best: None }).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("after step 7, 1 of the 6 values of `a.weight` are not finite"), "{error}");
        let entries: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(entries, ["step-000001"], "nothing is left of it, and the one before stays");
    }
    // A file that an older version wrote.
    save_steps(dir.path(), [2], 2);
    let path = dir.path().join("step-000002");
    let bytes = serialize(saved(bad), &path).unwrap();
    let mut manifest = Manifest::parse(&fs::read_to_string(path.join(MANIFEST)).unwrap(), &path).unwrap();
    manifest.files.insert(MODEL.to_owned(), FileEntry::of(&bytes));
    fs::write(path.join(MODEL), bytes).unwrap();
    fs::write(path.join(MANIFEST), manifest.to_text().unwrap()).unwrap();
    let found = newest_valid(dir.path()).unwrap().unwrap();
    assert_eq!((found.checkpoint.progress.step, found.damaged.len()), (1, 1));
    let error = found.damaged[0].to_string();
    assert!(error.contains("1 of the 6 values of the tensor `a.weight` are not finite, the first is NaN"), "{error}");
}

#[test]
fn each_tensor_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let reads = Cell::new(0);
    let read = || {
        reads.set(reads.get() + 1);
        Ok(vec![0.5; 6])
    };
    let tensor = |name: &str| [(name.to_owned(), StateTensor::read_by(vec![2, 3], read))].into();
    let state = Tensors { model: tensor("a"), optimizer: tensor("b"), ema: Some(tensor("c")) };
    save(dir.path(), &progress(1), "x = 1\n", state, Retention { keep: 1, best: None }).unwrap();
    assert_eq!(reads.get(), 3);
}
