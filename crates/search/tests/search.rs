//! Searches against a brute-force reference in `f64`, and files that are damaged or of another kind.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use dualenc_search::{Index, Neighbour, Part, SearchError};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

/// Uniform numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    header.push_str(&" ".repeat((10 + header.len() + 1).next_multiple_of(64) - 10 - header.len() - 1));
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|row| format!("é/{row}.png")).collect()
}

/// A file as `dualenc embed` writes it.
fn embeds(rows: &[f32], dim: usize) -> Vec<u8> {
    let bytes = bytes_of(rows);
    let view = TensorView::new(Dtype::F32, vec![rows.len() / dim, dim], &bytes).unwrap();
    let list = serde_json::to_string(&names(rows.len() / dim)).unwrap();
    let metadata = Some([("image_paths".to_owned(), list)].into());
    safetensors::serialize([("image_embeds", view)], metadata).unwrap()
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn open(&self, name: &str, bytes: &[u8]) -> Result<Index, SearchError> {
        Index::open(&self.write(name, bytes), Part::Any)
    }

    /// The error of a file, with its name instead of its path.
    #[track_caller]
    fn refused(&self, name: &str, bytes: &[u8]) -> String {
        let error = self.open(name, bytes).unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn written(index: &Index) -> Vec<u8> {
    let mut to = Cursor::new(Vec::new());
    index.write(&mut to).unwrap();
    to.into_inner()
}

/// Cosine similarities of all rows, in `f64`.
fn cosines(rows: &[f32], query: &[f32]) -> Vec<f64> {
    let norm = |values: &[f32]| values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let dot = |row: &[f32]| row.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    rows.chunks(query.len()).map(|row| dot(row) / norm(row) / norm(query)).collect()
}

/// Compares the nearest rows with the reference: scores within `tolerance`, and no row before a nearer one by more.
#[track_caller]
fn assert_nearest(found: &[Neighbour], rows: &[f32], query: &[f32], top: usize, tolerance: f64) {
    let cosines = cosines(rows, query);
    let mut order: Vec<f64> = cosines.clone();
    order.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(found.len(), top.min(cosines.len()));
    for (place, neighbour) in found.iter().enumerate() {
        let score = f64::from(neighbour.score);
        assert!((score - cosines[neighbour.row]).abs() <= tolerance, "{neighbour:?}: {}", cosines[neighbour.row]);
        assert!((score - order[place]).abs() <= tolerance, "place {place}: {score}, expected {}", order[place]);
        if let Some(next) = found.get(place + 1) {
            let is_ordered =
                neighbour.score > next.score || (neighbour.score == next.score && neighbour.row < next.row);
            assert!(is_ordered, "{neighbour:?} before {next:?}");
        }
    }
    let mut different: Vec<usize> = found.iter().map(|neighbour| neighbour.row).collect();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), found.len());
}

#[test]
fn nearest_match_brute_force() {
    let (files, mut random) = (Files::new(), Random(1));
    for (rows, dim, top) in [(1, 1, 10), (1, 513, 1), (7, 3, 10), (4097, 3, 10), (130, 384, 130), (1031, 513, 7)] {
        let values = random.values(rows * dim);
        let queries = random.values(3 * dim);
        let index = files.open("rows.npy", &npy("<f4", &format!("({rows}, {dim})"), &bytes_of(&values))).unwrap();
        let embeds = files.open("embeds.safetensors", &embeds(&values, dim)).unwrap();
        let half = files.open("rows.index", &written(&embeds)).unwrap();
        assert_eq!((index.rows(), index.dim(), index.has_names()), (rows, dim, false));
        assert_eq!((half.rows(), half.dim(), half.has_names()), (rows, dim, true));
        let exact = index.nearest(&queries, dim, top).unwrap();
        assert_eq!(exact, embeds.nearest(&queries, dim, top).unwrap(), "the form of the file does not matter");
        let rounded = half.nearest(&queries, dim, top).unwrap();
        for ((found, rounded), query) in exact.iter().zip(&rounded).zip(queries.chunks(dim)) {
            assert_nearest(found, &values, query, top, 2e-6);
            // Rounding to 11 bits moves a cosine by at most 2^-11.
            assert_nearest(rounded, &values, query, top, 5e-4);
            assert_eq!(index.nearest(query, dim, top).unwrap(), std::slice::from_ref(found), "alone and with others");
        }
    }
}

#[test]
fn half_floats_are_exact() {
    let (files, mut random) = (Files::new(), Random(2));
    let (rows, dim) = (300, 20);
    // Every exponent and both signs, subnormal numbers too; few bits, so that products are exact.
    let bits = |random: &mut Random| (random.next() as u16) & 0b1011_1111_1000_0000;
    let halves: Vec<u16> = (0..rows * dim).map(|_| bits(&mut random) | 0b1000000).collect();
    let values: Vec<f32> = halves.iter().map(|&bits| half::f16::from_bits(bits).to_f32()).collect();
    let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    let index = files.open("rows.npy", &npy("<f2", "(300, 20)", &bytes)).unwrap();
    let query = random.values(dim);
    assert_nearest(&index.nearest(&query, dim, 300).unwrap()[0], &values, &query, 300, 1e-6);
}

#[test]
fn ties_are_in_row_order() {
    let files = Files::new();
    // In different tiles and tasks; both zeros are equal.
    let mut values = [0.6f32, 0.8].repeat(9000);
    values[2 * 4500..][..2].copy_from_slice(&[1.0, 0.0]);
    let index = files.open("rows.npy", &npy("<f4", "(9000, 2)", &bytes_of(&values))).unwrap();
    let found = &index.nearest(&[1.0, 0.0], 2, 9000).unwrap()[0];
    let rows: Vec<usize> = found.iter().map(|neighbour| neighbour.row).collect();
    let expected: Vec<usize> = std::iter::once(4500).chain((0..9000).filter(|&row| row != 4500)).collect();
    assert_eq!(rows, expected);
    let index = files.open("rows.npy", &npy("<f4", "(3, 2)", &bytes_of(&[-0.0, 1.0, 0.0, 1.0, -0.0, 1.0]))).unwrap();
    let found = &index.nearest(&[1.0, -0.0], 2, 2).unwrap()[0];
    assert_eq!(found.iter().map(|neighbour| neighbour.row).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn threads_do_not_matter() {
    let (files, mut random) = (Files::new(), Random(3));
    let values = random.values(20_000 * 5);
    let index = files.open("rows.npy", &npy("<f4", "(20000, 5)", &bytes_of(&values))).unwrap();
    let queries = random.values(5 * 5);
    let search = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| index.nearest(&queries, 5, 50).unwrap())
    };
    assert_eq!(search(1), search(4));
}

#[test]
fn hits_have_names() {
    let (files, mut random) = (Files::new(), Random(4));
    let values = random.values(40 * 8);
    let embeds = files.open("embeds.safetensors", &embeds(&values, 8)).unwrap();
    for index in [files.open("a.index", &written(&embeds)).unwrap(), embeds] {
        let hits = &index.search(&values[8 * 7..][..8], 8, 3).unwrap()[0];
        assert_eq!(hits.iter().map(|hit| hit.rank).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((hits[0].row, hits[0].path.as_deref(), &hits[0].text), (7, Some("é/7.png"), &None));
        assert!((hits[0].score - 1.0).abs() < 1e-3);
    }
    let bytes = bytes_of(&values);
    let view = || TensorView::new(Dtype::F32, vec![40, 8], &bytes).unwrap();
    let list = serde_json::to_string(&names(40)).unwrap();
    let metadata = Some([("texts".to_owned(), list)].into());
    let both = safetensors::serialize([("image_embeds", view()), ("text_embeds", view())], metadata).unwrap();
    let path = files.write("both.safetensors", &both);
    let texts = Index::open(&path, Part::Texts).unwrap();
    assert_eq!(texts.search(&values[..8], 8, 1).unwrap()[0][0].text.as_deref(), Some("é/0.png"));
    assert!(!Index::open(&path, Part::Any).unwrap().has_names(), "images first");
    let stored = files.write("texts.index", &written(&texts));
    assert!(Index::open(&stored, Part::Any).is_ok());
    let error = Index::open(&stored, Part::Images).unwrap_err().to_string();
    assert!(error.contains("it holds embeddings of texts, not of images"), "{error}");
}

#[test]
fn bad_rows_and_queries_are_refused() {
    let files = Files::new();
    for (value, expected) in [(f32::NAN, "holds NaN"), (f32::INFINITY, "holds inf"), (-f32::INFINITY, "holds -inf")] {
        let mut values = vec![1.0; 5000 * 3];
        (values[4200 * 3 + 1], values[4900 * 3]) = (value, f32::NAN);
        let error = files.refused("a.safetensors", &embeds(&values, 3));
        assert!(error.starts_with(&format!("`a.safetensors`: row 4200 (`é/4200.png`) {expected}")), "{error}");
    }
    for (value, expected) in [(0.0, "is all zeros"), (1e-30, "has the norm 1e-30"), (1e30, "has the norm 1e30")] {
        let error = files.refused("a.npy", &npy("<f4", "(2, 1)", &bytes_of(&[1.0, value])));
        assert!(error.starts_with(&format!("`a.npy`: row 1 {expected}")), "{error}");
    }
    let index = files.open("a.npy", &npy("<f4", "(1, 2)", &bytes_of(&[1.0, 2.0]))).unwrap();
    let error = |queries: &[f32], dim| index.nearest(queries, dim, 1).unwrap_err().to_string();
    assert!(error(&[1.0; 3], 3).contains("has embeddings of 2 values, but the query has 3"));
    assert!(error(&[1.0; 3], 2).contains("but the query has 1"));
    assert_eq!(error(&[1.0, 1.0, f32::NAN, 0.0], 2), "query 2 holds NaN");
    assert_eq!(error(&[0.0, 0.0], 2), "query 1 is all zeros");
    assert_eq!(index.nearest(&[], 2, 1).unwrap(), Vec::<Vec<Neighbour>>::new());
    assert_eq!(index.nearest(&[1.0, 1.0], 2, 0).unwrap(), [Vec::new()]);
}

#[test]
fn other_files_are_refused() {
    let files = Files::new();
    let cases: [(&[u8], &str); 14] = [
        (b"", "it is empty"),
        (b"PK\x03\x04xyz", "it is a zip archive, as numpy's `.npz`"),
        (b"IxFI    ", "it is probably an index of faiss"),
        (b"version https://git-lfs.github.com/spec/v1", "it is a Git LFS pointer"),
        (b"image,caption\na.png,b\n", "it is of an unknown kind"),
        (b"DUALENCI", "it is damaged: it ends before its header"),
        (b"\x08\0\0\0\0\0\0\0{\"a\":1", "its header as a safetensors file is damaged"),
        (&safetensors::serialize::<&str, TensorView, _>([], None).unwrap(), "no tensor at all"),
        (&npy("<f8", "(1, 2)", &[0; 16]), "its values are '<f8'"),
        (&npy("<f4", "(2,)", &[0; 8]), "its shape is (2,)"),
        (&npy("<f4", "(2, 2)", &[0; 12]), "its shape (2, 2) does not fit the 12 bytes"),
        (&npy("<f4", "(9223372036854775807, 9)", &[0; 12]), "does not fit the 12 bytes"),
        (&npy("<f4", "(0, 2)", &[]), "it has no embeddings: its shape is [0, 2]"),
        (b"\x93NUMPY\x01\x00\xff\xff{'descr'", "its header is damaged or cut off"),
    ];
    for (bytes, expected) in cases {
        let error = files.refused("a", bytes);
        assert!(error.starts_with("`a`: ") && error.contains(expected), "{error}");
    }
    let other = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    let other = safetensors::serialize([("weight", other)], None).unwrap();
    let error = files.refused("a", &other);
    assert!(error.contains("it has no tensor `image_embeds` or `text_embeds`, but `weight`"), "{error}");
    assert!(Index::open(files.0.path(), Part::Any).unwrap_err().to_string().contains("it is a folder"));
    assert!(matches!(Index::open(Path::new("none"), Part::Any), Err(SearchError::Read { .. })));
}

#[test]
fn newer_formats_are_refused() {
    let files = Files::new();
    let index = files.open("a.npy", &npy("<f4", "(1, 2)", &bytes_of(&[1.0, 2.0]))).unwrap();
    let mut bytes = written(&index);
    let at = bytes.windows(10).position(|part| part == b"\"format\":1").unwrap();
    bytes[at + 9] = b'2';
    let hash = blake3::Hasher::new().update(&bytes[8..16]).update(blake3::hash(&bytes[48..]).as_bytes()).finalize();
    bytes[16..48].copy_from_slice(hash.as_bytes());
    let error = files.refused("a.index", &bytes);
    assert!(error.contains("it has format 2, but this program reads up to 1; update the program"), "{error}");
}

/// A change of a few bytes, or another length.
fn mutated(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    // Half of the changes are in the first bytes, where the form is.
    let end = if random.next().is_multiple_of(2) { bytes.len().min(200) } else { bytes.len() };
    let at = random.next() as usize % end;
    match random.next() % 5 {
        0 => bytes.truncate(at),
        1 => _ = bytes.remove(at),
        2 => bytes.insert(at, random.next() as u8),
        3 => bytes[at] ^= 1 << (random.next() % 8),
        _ => {
            let count = (random.next() as usize % 16).min(bytes.len() - at);
            bytes[at..at + count].iter_mut().for_each(|byte| *byte = random.next() as u8);
        }
    }
    bytes
}

#[test]
fn damaged_files_are_no_wrong_answers() {
    let (files, mut random) = (Files::new(), Random(5));
    let (count, dim) = (50, 8);
    let values = random.values(count * dim);
    let query = random.values(dim);
    let array = npy("<f4", "(50, 8)", &bytes_of(&values));
    let safetensors = embeds(&values, dim);
    let index = written(&files.open("a.safetensors", &safetensors).unwrap());
    let right = files.open("a.index", &index).unwrap().search(&query, dim, 10).unwrap();
    let mut refused = [0; 3];
    for _ in 0..200 {
        for (form, bytes) in [&index, &safetensors, &array].into_iter().enumerate() {
            let damaged = mutated(bytes, &mut random);
            match files.open("damaged", &damaged) {
                Err(error) => {
                    assert!(error.to_string().contains("damaged"), "{error}");
                    refused[form] += 1;
                }
                // An index has a checksum. Of other files, only the form can be known: a changed value is a value.
                Ok(opened) if form == 0 => {
                    assert!(damaged == *bytes);
                    assert_eq!(opened.search(&query, dim, 10).unwrap(), right);
                }
                Ok(opened) => {
                    assert!(opened.rows() * opened.dim() <= damaged.len() / 2);
                    if opened.dim() == dim {
                        let hits = opened.search(&query, dim, 10).unwrap();
                        assert!(hits[0].iter().all(|hit| hit.score.abs() < 1.001), "{hits:?}");
                    }
                }
            }
        }
    }
    assert!(refused[0] >= 190 && refused[1] > 50 && refused[2] > 50, "{refused:?}");
}
