//! Stores that are truncated, damaged, shared or large.

use std::io::Write;

use super::*;

const WIDTH: usize = 3;
const ROW: usize = WIDTH * 4;

fn content(number: u8) -> ContentHash {
    *blake3::hash(&[number]).as_bytes()
}

fn feature(number: u8) -> [f32; WIDTH] {
    [f32::from(number), 0.5, -1.0 / 3.0]
}

fn open(dir: &Path) -> FeatureStore {
    FeatureStore::open(dir, &blake3::hash(b"tower and processing"), WIDTH, CacheDtype::F32).unwrap()
}

fn insert(store: &FeatureStore, numbers: &[u8]) {
    let contents: Vec<_> = numbers.iter().map(|&number| content(number)).collect();
    let features: Vec<f32> = numbers.iter().flat_map(|&number| feature(number)).collect();
    store.insert(&contents, &features).unwrap();
}

fn get(store: &FeatureStore, number: u8) -> Option<[f32; WIDTH]> {
    let row = store.find(&content(number))?;
    let mut out = [0.0; WIDTH];
    store.read(&[row], &mut out).is_empty().then_some(out)
}

/// Fills a store with 1, 2, 3 and returns the paths of its two files.
fn filled(dir: &Path) -> (PathBuf, PathBuf) {
    let store = open(dir);
    insert(&store, &[1, 2]);
    insert(&store, &[3]);
    let files = store.files.unwrap();
    (files.index_path, files.values_path)
}

#[track_caller]
fn assert_survivors(dir: &Path, survivors: &[u8], what: &str) {
    let store = open(dir);
    for number in 1..=3 {
        assert_eq!(get(&store, number), survivors.contains(&number).then(|| feature(number)), "{number}, {what}");
    }
    // Lost rows can be added again, and are found when the store is next opened.
    insert(&store, &[1, 2, 3, 9]);
    for store in [store, open(dir)] {
        for number in [1, 2, 3, 9] {
            assert_eq!(get(&store, number), Some(feature(number)), "{number}, {what}");
        }
    }
}

#[test]
fn index_truncated_at_any_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (index, values) = filled(dir.path());
    let (records, rows) = (fs::read(&index).unwrap(), fs::read(&values).unwrap());
    assert_eq!((records.len(), rows.len()), (3 * RECORD_BYTES, 3 * ROW));
    for end in 0..=records.len() {
        fs::write(&index, &records[..end]).unwrap();
        fs::write(&values, &rows).unwrap();
        let survivors: Vec<u8> = (1..=(end / RECORD_BYTES) as u8).collect();
        assert_survivors(dir.path(), &survivors, &format!("cut at {end}"));
    }
}

#[test]
fn values_truncated_at_any_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (index, values) = filled(dir.path());
    let (records, rows) = (fs::read(&index).unwrap(), fs::read(&values).unwrap());
    for end in 0..=rows.len() {
        fs::write(&index, &records).unwrap();
        fs::write(&values, &rows[..end]).unwrap();
        let survivors: Vec<u8> = (1..=(end / ROW) as u8).collect();
        assert_survivors(dir.path(), &survivors, &format!("cut at {end}"));
    }
}

#[test]
fn flipped_byte_loses_one_row() {
    let dir = tempfile::tempdir().unwrap();
    let (index, values) = filled(dir.path());
    let whole = [fs::read(&index).unwrap(), fs::read(&values).unwrap()];
    for (file, size) in [(0, RECORD_BYTES), (1, ROW)] {
        for byte in 0..whole[file].len() {
            let mut bytes = whole.clone();
            bytes[file][byte] ^= 1;
            fs::write(&index, &bytes[0]).unwrap();
            fs::write(&values, &bytes[1]).unwrap();
            let lost = (byte / size) as u8 + 1;
            let survivors: Vec<u8> = (1..=3).filter(|&number| number != lost).collect();
            assert_survivors(dir.path(), &survivors, &format!("byte {byte} of file {file}"));
        }
    }
}

#[test]
fn key_and_dtype_select_the_store() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let other = FeatureStore::open(dir.path(), &blake3::hash(b"another"), WIDTH, CacheDtype::F32).unwrap();
    assert_eq!(other.find(&content(1)), None);
    let key = blake3::hash(b"tower and processing");
    let halves = FeatureStore::open(dir.path(), &key, WIDTH, CacheDtype::F16).unwrap();
    assert_eq!(halves.find(&content(1)), None);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 6);
}

#[test]
fn concurrent_writers_share_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let threads: Vec<_> = (0..4u8)
        .map(|owner| {
            let dir = dir.path().to_owned();
            std::thread::spawn(move || {
                let store = open(&dir);
                for number in 0..40 {
                    insert(&store, &[number, 100 + owner * 20 + number % 20]);
                    assert_eq!(get(&store, number), Some(feature(number)));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let store = open(dir.path());
    for number in (0..40).chain(100..180) {
        assert_eq!(get(&store, number), Some(feature(number)), "{number}");
    }
    assert_eq!(store.contents().index.len(), 120, "no content has two rows");
}

#[test]
fn rows_lost_while_open_are_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let (_, values) = filled(dir.path());
    let store = open(dir.path());
    let rows: Vec<Row> = (1..=3).map(|number| store.find(&content(number)).unwrap()).collect();
    OpenOptions::new().write(true).open(&values).unwrap().set_len(ROW as u64 + 1).unwrap();
    assert_eq!(store.read(&rows, &mut [0.0; 3 * WIDTH]), [1, 2]);
    assert_eq!(get(&store, 2), None);
    insert(&store, &[2, 3]);
    assert_eq!([1, 2, 3].map(|number| get(&store, number)), [1, 2, 3].map(|number| Some(feature(number))));
}

#[test]
fn half_precision_rounds_and_refuses_overflow() {
    let dir = tempfile::tempdir().unwrap();
    let store = FeatureStore::open(dir.path(), &blake3::hash(b"tower"), 4096, CacheDtype::F16).unwrap();
    // From the smallest normal number of half precision, 2^-14, to its largest, 65504, with either sign.
    let values: Vec<f32> = (0..4096)
        .map(|at| {
            let size = 2f32.powf(-14.0 + 29.9 * at as f32 / 4095.0);
            if at % 2 == 0 { size } else { -size }
        })
        .collect();
    store.insert(&[content(1)], &values).unwrap();
    let mut read = vec![0.0; 4096];
    assert!(store.read(&[0], &mut read).is_empty());
    let worst = values.iter().zip(&read).map(|(value, read)| ((value - read) / value).abs()).fold(0.0, f32::max);
    assert!(worst <= 2f32.powi(-11) && worst > 2f32.powi(-12), "{worst}");
    let again = read.clone();
    store.insert(&[content(2)], &again).unwrap();
    assert!(store.read(&[1], &mut read).is_empty());
    assert_eq!(read, again, "rounding twice changes nothing");

    let message = store.insert(&[content(3)], &[70_000.0; 4096]).unwrap_err().to_string();
    assert!(message.contains("70000") && message.contains("cache.dtype = \"f32\""), "{message}");
    assert_eq!(store.find(&content(3)), None);
}

#[test]
fn failed_write_leaves_no_row() {
    for fails in ["values", "index"] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        insert(&store, &[1]);
        let full = || OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let files = store.files.as_mut().unwrap();
        let file = if fails == "values" { &mut files.values } else { &mut files.index };
        let whole = std::mem::replace(file, full());
        let contents = [content(2), content(3)];
        let error = store.insert(&contents, &[feature(2), feature(3)].concat()).unwrap_err();
        assert!(matches!(&error, TrainError::Write { path, .. } if path.extension().unwrap() == fails), "{error}");
        assert_eq!([1, 2, 3].map(|number| store.find(&content(number)).is_some()), [true, false, false], "{fails}");

        let files = store.files.as_mut().unwrap();
        *(if fails == "values" { &mut files.values } else { &mut files.index }) = whole;
        insert(&store, &[3, 2]);
        for store in [store, open(dir.path())] {
            for number in 1..=3 {
                assert_eq!(get(&store, number), Some(feature(number)), "{number}, {fails}");
            }
            assert_eq!(store.contents().index.len(), 3);
        }
    }
}

#[test]
fn full_store_refuses_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = FeatureStore { max_rows: 3, ..open(dir.path()) };
    insert(&store, &[1, 2]);
    let features = [feature(3), feature(4)].concat();
    let error = store.insert(&[content(3), content(4)], &features).unwrap_err().to_string();
    assert!(error.contains("is full: it holds at most 3 rows") && error.contains("`cache.dir`"), "{error}");
    // Rows that fit, and those that are there, are still served.
    insert(&store, &[3, 1, 2]);
    assert_eq!(
        [1, 2, 3, 4].map(|number| get(&store, number)),
        [Some(1), Some(2), Some(3), None].map(|n| n.map(feature))
    );
}

#[test]
fn stored_nan_is_recomputed() {
    let key = blake3::hash(b"tower");
    for (dtype, wrong) in [
        (CacheDtype::F32, f32::NAN.to_le_bytes().to_vec()),
        (CacheDtype::F32, f32::NEG_INFINITY.to_le_bytes().to_vec()),
        (CacheDtype::F16, f16::NAN.to_le_bytes().to_vec()),
        (CacheDtype::F16, f16::INFINITY.to_le_bytes().to_vec()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let open = || FeatureStore::open(dir.path(), &key, WIDTH, dtype).unwrap();
        let store = open();
        let features = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
        store.insert(&[content(1), content(2)], &features.concat()).unwrap();
        // As an older version wrote it: the checksum is right.
        let files = store.files.as_ref().unwrap();
        let mut values = fs::read(&files.values_path).unwrap();
        let row_bytes = store.row_bytes();
        values[row_bytes..][..wrong.len()].copy_from_slice(&wrong);
        fs::write(&files.values_path, &values).unwrap();
        let record = record_of(&content(2), checksum(&values[row_bytes..]), 1, &files.key);
        write_all_at(&files.index, &record, RECORD_BYTES as u64).unwrap();
        drop(store);

        let store = open();
        assert_eq!((store.find(&content(1)), store.find(&content(2))), (Some(0), None));
        assert_eq!(store.insert(&[content(2)], &features[1]).unwrap(), [2]);
        let mut read = [0.0; 2 * WIDTH];
        assert!(store.read(&[0, 2], &mut read).is_empty() && read[..] == features.concat());
        assert_eq!(open().find(&content(2)), Some(2));
    }
}

#[test]
fn refuses_values_that_are_not_finite() {
    for dtype in [CacheDtype::F32, CacheDtype::F16] {
        let dir = tempfile::tempdir().unwrap();
        let store = FeatureStore::open(dir.path(), &blake3::hash(b"tower"), WIDTH, dtype).unwrap();
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(store.insert(&[content(1), content(2)], &[1.0, 2.0, 3.0, 4.0, wrong, 6.0]).is_err(), "{wrong}");
            assert_eq!((store.find(&content(1)), store.find(&content(2))), (None, None), "{wrong}");
        }
    }
}

/// `cargo test --release -p dualenc-train ten_million -- --ignored --nocapture`
#[test]
#[ignore = "writes 320 MB and measures"]
fn opens_ten_million_rows() {
    const ROWS: usize = 10_000_000;
    let dir = tempfile::tempdir().unwrap();
    let key = blake3::hash(b"tower");
    let open = || FeatureStore::open(dir.path(), &key, 768, CacheDtype::F32).unwrap();
    let files = open().files.unwrap();
    let content = |row: usize| *blake3::hash(&(row as u64).to_le_bytes()).as_bytes();
    let mut writer = std::io::BufWriter::new(&files.index);
    (0..ROWS).for_each(|row| writer.write_all(&record_of(&content(row), [0; 8], row, &files.key)).unwrap());
    drop(writer);
    // A sparse file: 30 GB that take no space.
    files.values.set_len(ROWS as u64 * 768 * 4).unwrap();
    let started = std::time::Instant::now();
    let store = open();
    let took = started.elapsed();
    assert!(took.as_secs_f64() < 10.0, "{took:?}");
    let contents = store.contents();
    assert_eq!(contents.index.len(), ROWS);
    assert_eq!(contents.index.find(&content(ROWS - 1)), Some((ROWS as Row - 1, State::Unchecked)));
    writeln!(std::io::stderr(), "opened {ROWS} rows of 768 values in {took:?}").unwrap();
}
