//! Features from files. The fixtures and what they hold are from `scripts/feature_goldens.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dualenc_data::{
    CaptionMode, DataError, Dataset, FeatureColumn, FeatureTable, FeaturesSource, ImageRef, SourceTable, find_integers,
    read_integers,
};
use serde::Deserialize;

use crate::fuzz::mutate;
use crate::limits::attempts;
use crate::support::golden;

#[derive(Deserialize)]
struct Expected {
    rows: u64,
    width: usize,
    values: BTreeMap<String, Vec<f32>>,
}

fn file(name: &str) -> PathBuf {
    golden("features").join(name)
}

fn open(path: &Path) -> Result<FeatureTable, DataError> {
    FeatureTable::open(&[path.to_owned()], FeatureColumn { name: None, parquet: "image_embedding" })
}

fn values(table: &FeatureTable) -> Vec<f32> {
    let mut values = vec![0.0; table.num_rows() as usize * table.width()];
    let mut buffer = Vec::new();
    for (row, out) in (0..).zip(values.chunks_exact_mut(table.width())) {
        table.read(row, out, &mut buffer).unwrap();
    }
    values
}

/// A `.npy` file of version 1 with this dictionary.
fn npy(header: &str, values: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    bytes
}

/// A `.npy` file of `[rows, width]` f32.
fn matrix(width: usize, values: &[f32]) -> Vec<u8> {
    let shape = (values.len() / width, width);
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape:?}, }}\n");
    npy(&header, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

fn safetensors(header: &str, values: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), values].concat()
}

/// A folder with `files`.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
    dir
}

fn source(dir: &Path, toml: &str) -> FeaturesSource {
    let mut source: FeaturesSource = toml::from_str(toml).unwrap();
    source.resolve(dir);
    source
}

fn error(dir: &Path, toml: &str) -> String {
    source(dir, toml).read().unwrap_err().to_string()
}

#[test]
fn runs_of_rows_go_on_in_the_next_file() {
    let numbers: Vec<f32> = (1..=21).map(|number| number as f32).collect();
    let dir = folder(&[("a.npy", &matrix(3, &numbers[..6])), ("b.npy", &matrix(3, &numbers[6..]))]);
    let paths = ["a.npy", "b.npy"].map(|name| dir.path().join(name));
    let table = FeatureTable::open(&paths, FeatureColumn { name: None, parquet: "image_embedding" }).unwrap();
    assert_eq!(values(&table), numbers);
    for (first, rows) in [(0, 7), (1, 2), (1, 5), (3, 4), (6, 1)] {
        let mut found = vec![0.0; rows * 3];
        table.read_run(first as u64, &mut found, &mut Vec::new()).unwrap();
        assert_eq!(found, numbers[first * 3..][..rows * 3], "{rows} rows from {first} on");
    }
}

/// The pairs of an epoch: rows of images and of texts.
fn pairs(dataset: &Dataset) -> Vec<(u64, u64)> {
    let pair = |index| {
        let pair = dataset.pair(CaptionMode::All, index, 0, 0);
        let ImageRef::FeatureRow { row, .. } = dataset.image(pair.image) else { panic!("a file") };
        (row, dataset.caption(pair.caption).features.unwrap().1)
    };
    (0..dataset.num_pairs(CaptionMode::All)).map(pair).collect()
}

#[test]
fn files_hold_what_python_wrote() {
    let expected: Expected = serde_json::from_slice(&fs::read(file("expected.json")).unwrap()).unwrap();
    let mut ids: Vec<Vec<u64>> = Vec::new();
    for (name, written) in &expected.values {
        if name.ends_with("parquet") && !cfg!(feature = "parquet") {
            continue;
        }
        let table = open(&file(name)).unwrap();
        assert_eq!((table.num_rows(), table.width()), (expected.rows, expected.width), "{name}");
        assert_eq!(&values(&table), written, "{name}");
        // Rows alone, in another order.
        for row in (0..expected.rows).rev() {
            let mut out = vec![0.0; expected.width];
            table.read(row, &mut out, &mut Vec::new()).unwrap();
            assert_eq!(out, written[row as usize * expected.width..][..expected.width], "{name}");
        }
        if name.contains("f32") || name.contains("float32") {
            ids.push((0..expected.rows).map(|row| table.id(row)).collect());
        }
    }
    assert!(ids.len() >= 2 && ids.windows(2).all(|two| two[0] == two[1]), "the hash is of the values, not of the file");
}

#[test]
fn foreign_arrays_are_refused() {
    for (name, expected) in [
        ("fortran.npy", "numpy.ascontiguousarray"),
        ("big_endian.npy", "big-endian (`>f4`); save it with `numpy.save(path, array.astype('<f4'))`"),
        ("integers.npy", "holds i64; expected f32"),
        ("objects.npy", "the type `|O`"),
        ("strings.npy", "the type `<U1`"),
        ("records.npy", "records of several fields"),
        ("vector.npy", "the shape [5]; expected [rows, width]"),
        ("cube.npy", "the shape [1, 7, 5]"),
        ("archive.npz", "it is a numpy archive"),
        ("two.safetensors", "has no tensor `features`; its tensors are `a`, `b`"),
        #[cfg(feature = "parquet")]
        ("uneven.parquet", "row 4: `image_embedding` has 4 numbers; expected 5"),
        #[cfg(feature = "parquet")]
        ("gap.parquet", "row 3: `image_embedding` is null"),
        ("expected.json", "expected features as a `.safetensors`"),
    ] {
        let error = open(&file(name)).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(name), "{name}: {error}");
    }
}

#[test]
fn hostile_headers_allocate_nothing() {
    let dict = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let tensor = |entry: &str| safetensors(&format!("{{\"features\":{entry}}}"), &[0; 16]);
    let most = u64::MAX;
    for (bytes, expected) in [
        (npy(&dict("(1000000000000, 1000000)"), &[0; 16]), "is cut off"),
        (npy(&dict(&format!("({most}, {most})")), &[0; 16]), "larger than any file"),
        (npy(&dict("(99999999999999999999999, 2)"), &[0; 16]), "no valid `shape`"),
        (npy(&dict("(-2, 2)"), &[0; 16]), "no valid `shape`"),
        (npy(&dict("(2, 2"), &[0; 16]), "no valid `shape`"),
        (npy(&dict("(0, 2)"), &[]), "the shape [0, 2]"),
        (npy(&dict("(2, 2)"), &[0; 15]), "takes 16 bytes behind the header, but the file has 15; it is cut off"),
        (npy(&dict("(2, 2)"), &[0; 17]), "it has more behind it"),
        (npy("{'descr': '<f4'}", &[]), "has no `fortran_order`"),
        (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "65535 bytes"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(), "expected at most 10000"),
        (b"\x93NUMPY\x09\x00".to_vec(), "its npy version is 9"),
        (b"\x93NUMPY".to_vec(), "is cut off"),
        (safetensors("{", &[]), "not JSON"),
        ([&99_999_999u64.to_le_bytes()[..], b"{\"a\":"].concat(), "header is cut off"),
        ([&u64::MAX.to_le_bytes()[..], b"{"].concat(), "neither safetensors nor npy"),
        (tensor("{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,17]}"), "cut off"),
        (tensor("{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[8,4]}"), "no valid `dtype`"),
        (tensor("{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,12]}"), "takes 16 bytes"),
        (tensor("{\"dtype\":\"F32\",\"shape\":[9223372036854775807,9],\"data_offsets\":[0,16]}"), "larger than any"),
        (tensor("{\"dtype\":\"F8_E4M3\",\"shape\":[2,2],\"data_offsets\":[0,4]}"), "the type `F8_E4M3`"),
        (Vec::new(), "it is empty"),
    ] {
        let dir = folder(&[("x.npy", &bytes)]);
        let error = open(&dir.path().join("x.npy")).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn damaged_files_never_panic() {
    for name in ["float32.npy", "float16.safetensors", "list_f64.parquet"] {
        let (dir, sound) = (tempfile::tempdir().unwrap(), fs::read(file(name)).unwrap());
        attempts(name, 300, 8 << 20, move |seed| {
            let path = dir.path().join(name);
            fs::write(&path, mutate(&sound, seed)).unwrap();
            let opened = open(&path);
            // Any result will do, but each error names the file.
            if let Err(error) = &opened {
                assert!(error.to_string().contains(name), "{error}");
            }
            let _ = find_integers(&path, "image_of");
            opened.is_ok()
        });
    }
}

#[test]
fn texts_find_their_images() {
    let dir = folder(&[
        ("i.npy", &matrix(2, &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0])),
        ("t.npy", &matrix(1, &[1.0, 2.0, 3.0, 4.0])),
        ("three.npy", &matrix(1, &[1.0, 2.0, 3.0])),
        ("of.txt", b"2\n0\n2\n1\n"),
        ("far.txt", b"0\n3\n0\n0\n"),
        ("negative.txt", b"0\n-1\n0\n0\n"),
        ("few.txt", b"0\n1\n"),
    ]);
    let read = |toml: &str| source(dir.path(), toml).read().unwrap();
    assert_eq!(pairs(&read("images = 'i.npy'\ntexts = 'three.npy'")), [(0, 0), (1, 1), (2, 2)]);
    assert_eq!(
        pairs(&read("images = 'i.npy'\ntexts = 't.npy'\nimage_of = 'of.txt'")),
        [(2, 0), (0, 1), (2, 2), (1, 3)]
    );
    let shards = read("images = ['i.npy', 'i.npy']\ntexts = ['three.npy', 'three.npy']");
    assert_eq!(pairs(&shards).last(), Some(&(5, 5)));
    for (toml, expected) in [
        ("images = 'i.npy'\ntexts = 't.npy'", "4 rows of texts for 3 rows of images"),
        ("images = 'i.npy'\ntexts = 't.npy'\nimage_of = 'few.txt'", "has 2 numbers; expected 4"),
        (
            "images = 'i.npy'\ntexts = 't.npy'\nimage_of = 'far.txt'",
            "of row 2 is 3; expected a row of the images from 0 to 2",
        ),
        ("images = 'i.npy'\ntexts = 't.npy'\nimage_of = 'negative.txt'", "of row 2 is -1"),
        ("images = ['i.npy', 't.npy']\ntexts = 't.npy'", "its rows have 1 values; expected 2, as in"),
        ("images = 'i.npy'", "features of images alone"),
        ("texts = 't.npy'", "features of texts alone"),
        ("captions = 'of.txt'", "it has no features"),
        ("path = 'i.npy'\nimages = 'i.npy'", "`path` names files with both sides"),
        ("images = 'i.npy'\ntexts = 'three.npy'\ncaptions = 'few.txt'", "it has 2 lines; expected 3"),
        ("images = 'i.npy'\ntexts = 'three.npy'\nimage_paths = 'few.txt'", "it has 2 paths; expected 3"),
        ("images = 'none.npy'\ntexts = 't.npy'", "cannot read"),
    ] {
        let error = error(dir.path(), toml);
        assert!(error.contains(expected), "{toml}: {error}");
    }
}

#[test]
fn tensors_beside_features_are_read() {
    let toml = "images = 'float32.safetensors'\ntexts = 'float16.safetensors'";
    let dataset = source(&golden("features"), toml).read().unwrap();
    assert_eq!(pairs(&dataset)[..2], [(6, 0), (5, 1)]);
    assert_eq!(read_integers(&file("image_of.npy"), "image_of").unwrap(), [6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(read_integers(&file("float32.safetensors"), "labels").unwrap()[..2], [6, 5], "an i32");
    let error = read_integers(&file("float32.npy"), "labels").unwrap_err().to_string();
    assert!(error.contains("the shape [7, 5]; expected [rows]"), "{error}");
    let error = read_integers(&file("only.safetensors"), "labels").unwrap_err().to_string();
    assert!(error.contains("has no tensor `labels`; its tensors are `embeds`, `n`"), "{error}");
    let named = source(&golden("features"), "images = 'two.safetensors'\nimage_tensor = 'b'\ntexts = 'float32.npy'");
    assert_eq!(named.read().unwrap().num_images(), 7);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_has_both_sides() {
    let read = |toml: &str| source(&golden("features"), toml).read().unwrap();
    let both = read("path = 'list_f32.parquet'");
    assert_eq!((both.image_feature_width(), both.text_feature_width()), (Some(5), Some(5)));
    let npy = source(&golden("features"), "images = 'float32.npy'\ntexts = 'float32.npy'").read().unwrap();
    let id = |dataset: &Dataset| match dataset.image(3) {
        ImageRef::FeatureRow { table, row } => table.id(row),
        _ => 0,
    };
    assert_eq!(id(&both), id(&npy));
    assert_ne!(both.caption_id(3), npy.caption_id(3), "the text column is the negative");
    let swapped = read("path = 'fixed_f32.parquet'\nimage = 'text_embedding'\ntext = 'image_embedding'");
    assert_eq!(swapped.caption_id(3), npy.caption_id(3));
    let error = error(&golden("features"), "path = 'list_f32.parquet'\nimage = 'nope'\ntext = 'text_embedding'");
    assert!(error.contains("no column `nope`"), "{error}");
    let error =
        self::error(&golden("features"), "path = 'list_f32.parquet'\nimage = 'caption'\ntext = 'text_embedding'");
    assert!(error.contains("column `caption` holds Bytes in 0 lists"), "{error}");
}

#[test]
fn bad_rows_are_named() {
    let nan = f32::NAN;
    let dir = folder(&[
        ("i.npy", &matrix(2, &[1.0, 2.0, nan, 1.0, 0.0, -0.0, 1.0, f32::INFINITY, 1.0, 1.0])),
        ("t.npy", &matrix(2, &[1.0, 2.0, 2.0, 1.0, 3.0, 1.0, 4.0, 1.0, 0.0, 0.0])),
    ]);
    let dataset = source(dir.path(), "images = 'i.npy'\ntexts = 't.npy'").read().unwrap();
    // A text that cannot be used takes its pair with it.
    assert_eq!((dataset.num_captions(), dataset.skipped.count), (4, 1));
    let skipped = dataset.skipped.first(1);
    assert!(skipped.contains("t.npy/row 5") && skipped.contains("all values are 0"), "{skipped}");
    // An image that cannot be used is a bad image.
    let reason = |image: usize| match dataset.image(image).read().unwrap_err() {
        DataError::Image { key, source } => (key, source.to_string(), source.cause()),
        other => panic!("{other}"),
    };
    let (key, text, cause) = reason(1);
    assert!(key.ends_with("i.npy/row 2") && text.contains("value 1 is NaN") && cause == "not finite", "{key} {text}");
    assert_eq!(reason(2).2, "all values 0");
    assert!(reason(3).1.contains("value 2 is inf"));
    assert_eq!(
        dataset.image(0).read().unwrap(),
        [1.0f32, 2.0].iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<_>>()
    );
}

#[test]
fn equal_rows_are_equal_texts_and_images() {
    let dir = folder(&[
        ("i.npy", &matrix(1, &[1.0, 2.0, 1.0])),
        ("t.npy", &matrix(1, &[5.0, 5.0, 6.0])),
        ("captions.txt", b"a dog\na cat\na dog.\n"),
        ("paths.txt", b"x/a.jpg\nx/b.jpg\nx/c.jpg\n"),
    ]);
    let plain = source(dir.path(), "images = 'i.npy'\ntexts = 't.npy'").read().unwrap();
    let ids = plain.caption_ids();
    assert!(ids[0] == ids[1] && ids[0] != ids[2]);
    let named = "images = 'i.npy'\ntexts = 't.npy'\ncaptions = 'captions.txt'\nimage_paths = 'paths.txt'";
    let named = source(dir.path(), named).read().unwrap();
    let ids = named.caption_ids();
    assert!(ids[0] == ids[2] && ids[0] != ids[1], "captions tell");
    assert_eq!((named.image(1).key().as_str(), named.caption(1).text), ("x/b.jpg", "a cat"));
    let held_out = |dataset: &Dataset| dataset.split(0.5).1.num_images();
    assert_eq!(held_out(&plain), held_out(&named), "the split depends on the rows alone");
}

#[test]
fn fingerprint_is_of_the_values() {
    let dir = folder(&[
        ("i.npy", &matrix(1, &[1.0, 2.0])),
        ("moved.npy", &matrix(1, &[1.0, 2.0])),
        ("other.npy", &matrix(1, &[1.0, 3.0])),
    ]);
    let of = |images: &str, texts: &str| {
        let source = source(dir.path(), &format!("images = '{images}'\ntexts = '{texts}'"));
        source.read().unwrap().fingerprint().unwrap()
    };
    let first = of("i.npy", "i.npy");
    assert_eq!(first, of("moved.npy", "moved.npy"));
    // Files of the same size.
    assert_ne!(first, of("other.npy", "i.npy"));
    assert_ne!(first, of("i.npy", "other.npy"));
}

#[test]
fn one_side_may_be_real() {
    let dir = folder(&[("i.npy", &matrix(1, &[1.0, 2.0])), ("c.txt", b"a dog\na cat\n"), ("p.txt", b"a.png\nb.png\n")]);
    let images = source(dir.path(), "images = 'i.npy'\ncaptions = 'c.txt'").read().unwrap();
    assert_eq!((images.image_feature_width(), images.text_feature_width()), (Some(1), None));
    assert_eq!(images.caption(1).text, "a cat");
    let texts = source(dir.path(), "texts = 'i.npy'\nimage_paths = 'p.txt'").read().unwrap();
    assert_eq!((texts.image_feature_width(), texts.text_feature_width()), (None, Some(1)));
    assert_eq!(texts.image(1), ImageRef::File(dir.path().join("b.png")));
}

#[test]
fn rows_are_selected_by_number_and_path() {
    let dir = folder(&[
        ("i.npy", &matrix(1, &[1.0, 2.0, 3.0])),
        ("p.txt", b"a.png\nb.png\nc.png\n"),
        ("numbers.txt", b"1\n3\n"),
        ("names.txt", b"c.png\na.png\n"),
    ]);
    for only in ["numbers.txt", "names.txt"] {
        let features = "[features]\nimages = 'i.npy'\ntexts = 'i.npy'\nimage_paths = 'p.txt'";
        let mut table: SourceTable = toml::from_str(&format!("only = '{only}'\n{features}")).unwrap();
        table.resolve(dir.path());
        let dataset = table.read().unwrap();
        assert_eq!(dataset.images().map(|image| image.key()).collect::<Vec<_>>(), ["a.png", "c.png"]);
        assert_eq!(pairs(&dataset), [(0, 0), (2, 2)]);
    }
}
