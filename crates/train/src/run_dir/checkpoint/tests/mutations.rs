//! Random damage to every file of a checkpoint. `DUALENC_SOAK` multiplies the mutations, `DUALENC_SEED` draws others.

use dualenc_data::mix;

use super::*;

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
            model: saved(model),
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

/// The newest valid checkpoint, and the errors of newer ones.
fn newest(dir: &Path) -> Result<(Checkpoint, Vec<String>), TrainError> {
    let Newest { checkpoint, damaged } = newest_valid(dir)?.unwrap();
    Ok((checkpoint, damaged.iter().map(ToString::to_string).collect()))
}

#[test]
#[expect(clippy::print_stdout, reason = "a figure of the fault table")]
fn each_mutation_is_detected() {
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
        assert!(matches!(refused, TrainError::Checkpoint { .. }), "{what}: {refused}");
        let (found, reported) = newest(dir.path()).unwrap();
        assert_eq!((found.progress.step, found.config.as_str()), (1, "x = 1\n"), "{what}");
        assert!(reported.len() == 1 && reported[0].contains("step-000002"), "{what}: {reported:?}");
        fs::write(path_of(dir.path(), 2).join(name), bytes).unwrap();
    }
    assert_eq!(load(&path_of(dir.path(), 2)).unwrap().progress, progress(2));
    assert!(kinds.len() >= 25, "{kinds:?}");
    println!("figure: each_mutation_is_detected: {count} mutations, {count} detected (seed {seed})");
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
