//! Seeded mutation of every kind of input: the outcome is an error or a result, never a panic or a hang.

use std::path::Path;

use dualenc_data::{Limits, Source, Tokenizer, decode, mix};
use image::ImageFormat;

use crate::support::{encoded, golden};

/// Applies one to eight edits: bytes changed; runs removed, doubled or overwritten with extremes; the end cut off.
fn mutate(original: &[u8], seed: u64) -> Vec<u8> {
    let mut bytes = original.to_vec();
    // Half of the mutants have a single edit, so that many remain readable.
    let edits = if seed.is_multiple_of(2) { 1 } else { 1 + mix(seed, &[99]) % 8 };
    let draw = |edit: u64, what: u64, below: usize| (mix(seed, &[edit, what]) % below.max(1) as u64) as usize;
    for edit in 0..edits {
        if bytes.is_empty() {
            break;
        }
        let at = draw(edit, 1, bytes.len());
        let end = bytes.len().min(at + 1 + draw(edit, 2, 24));
        match draw(edit, 3, 6) {
            0 => bytes[at] ^= 1 << draw(edit, 4, 8),
            1 => bytes[at] = draw(edit, 4, 256) as u8,
            2 => bytes[at..end].fill(if draw(edit, 4, 2) == 0 { 0 } else { 255 }),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let run = bytes[at..end].to_vec();
                bytes.splice(at..at, run);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// The images here are tiny, so the limits can be too.
const LIMITS: Limits = Limits { max_side_px: 4096, max_pixels: 1 << 20, max_alloc_bytes: 8 << 20 };

fn fuzz_images(format: ImageFormat, count: u64) {
    let original = encoded(1, 33, 21, format);
    let (mut good, mut bad) = (0, 0);
    for seed in 0..count {
        match decode(&mutate(&original, seed), &LIMITS) {
            Ok(image) => {
                assert_eq!(image.data.len(), image.width as usize * image.height as usize * 3);
                good += 1;
            }
            Err(error) => {
                // A panic in a decoder is caught and reported as damage.
                assert!(!error.to_string().contains("panicked"), "{error}");
                bad += 1;
            }
        }
    }
    assert!(bad > count / 10, "{format:?}: only {bad} of {} were found bad", good + bad);
}

#[test]
fn mutated_images_never_panic() {
    fuzz_images(ImageFormat::Png, 1500);
    fuzz_images(ImageFormat::Jpeg, 1500);
    fuzz_images(ImageFormat::WebP, 1500);
    fuzz_images(ImageFormat::Gif, 1000);
}

/// Writes a new file: truncating an old one waits for the disk on file systems that guard against torn writes.
fn replace(path: &Path, bytes: &[u8]) {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, bytes).unwrap();
}

/// Reads mutations of one file as a source; returns the numbers of files read and refused.
fn fuzz_source(name: &str, original: &[u8], count: u64) -> (usize, usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let (mut good, mut bad) = (0, 0);
    for seed in 0..count {
        replace(&path, &mutate(original, seed));
        match source(&path).read() {
            Ok(dataset) => {
                assert!(!dataset.captions.is_empty());
                assert!(dataset.captions.iter().all(|caption| caption.image < dataset.images.len()));
                good += 1;
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(name), "the error does not name the file: {message}");
                bad += 1;
            }
        }
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [name], "reading wrote files");
    (good, bad)
}

fn source(path: &Path) -> Source {
    match path.extension().unwrap().to_str().unwrap() {
        "json" => Source::Coco(dualenc_data::CocoSource::new(path, None)),
        _ => Source::from_path(path).unwrap(),
    }
}

#[test]
fn mutated_tables_never_panic() {
    let csv = "image,caption\na.png,\"a cat, asleep\"\nb.png,\"two \"\"dogs\"\"\"\nc.png,caf\u{e9}\n";
    let jsonl =
        "{\"image\": \"a.png\", \"caption\": [\"x\", \"y\\u00e9\"]}\n{\"image\": \"b.png\", \"caption\": \"z\"}\n";
    let coco = r#"{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "x"}]}"#;
    for (name, original) in [("d.csv", csv), ("d.tsv", &csv.replace(',', "\t")), ("d.jsonl", jsonl), ("d.json", coco)] {
        let (good, bad) = fuzz_source(name, original.as_bytes(), 1000);
        assert!(good > 5 && bad > 50, "{name}: {good} read, {bad} refused");
    }
}

#[test]
fn mutated_shards_never_panic_or_unpack() {
    let mut tar = tar::Builder::new(Vec::new());
    for i in 0..3 {
        for (name, content) in [("jpg", "not really"), ("txt", "a caption"), ("json", "{\"caption\": \"x\"}")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            // Long names exercise the extension headers.
            let key = format!("{}{i}.{name}", "long/".repeat(if i == 1 { 40 } else { 1 }));
            tar.append_data(&mut header, key, content.as_bytes()).unwrap();
        }
    }
    let (good, bad) = fuzz_source("s.tar", &tar.into_inner().unwrap(), 1500);
    assert!(good > 50 && bad > 50, "{good} read, {bad} refused");
}

#[test]
fn mutated_tokenizers_never_panic() {
    let original = std::fs::read(golden("tokens/bert/tokenizer.json")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let (mut good, mut bad) = (0, 0);
    for seed in 0..300 {
        replace(&path, &mutate(&original, seed));
        match Tokenizer::from_dir(dir.path(), 12) {
            Ok(tokenizer) => {
                // A text may be refused with an error, for example if the unknown-token is gone.
                let _ = tokenizer.encode("A Red CIRCLE, unpronounceable 赤");
                good += 1;
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains("tokenizer.json") && !message.contains("panicked"), "{message}");
                bad += 1;
            }
        }
    }
    assert!(good > 3 && bad > 10, "{good} read, {bad} refused");
}
