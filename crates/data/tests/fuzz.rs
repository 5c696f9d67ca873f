//! Seeded mutation of every kind of input: the outcome is an error or a result, never a panic, a hang or much memory.
//! `limits.rs` says how to run more of them.

use std::path::{Path, PathBuf};

use dualenc_data::{
    BadRows, CaptionMode, FolderSource, ImageProcessor, Limits, LoaderOptions, PairLoader, RgbImage, Source, Tokenizer,
    UnreadableImages, decode, mix, read_class_names, read_templates, read_text_rows,
};
use image::ImageFormat;
use serde_json::{Value, json};

use crate::limits::{Outcomes, attempts};
use crate::support::{crc32, encoded, golden, options, write_dataset};

const MIB: usize = 1 << 20;

/// Applies one to eight edits: bytes changed; runs removed, doubled or overwritten with extremes; the end cut off.
pub fn mutate(original: &[u8], seed: u64) -> Vec<u8> {
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

/// Corrects the checksums of a PNG's chunks, as far as their lengths lead, so that a mutation gets past them.
fn correct_checksums(png: &mut [u8]) {
    let mut at = 8;
    while let Some(&[a, b, c, d]) = png.get(at..).and_then(|rest| rest.first_chunk()) {
        let end = (at + 8).saturating_add(u32::from_be_bytes([a, b, c, d]) as usize);
        let Some(chunk) = png.get(at + 4..end) else { return };
        let sum = crc32(chunk).to_be_bytes();
        let Some(place) = png.get_mut(end..end + 4) else { return };
        place.copy_from_slice(&sum);
        at = end + 4;
    }
}

/// Mutates bytes, or one value in the tree of a JSON file, so that half of the mutants remain JSON.
fn mutate_json(original: &[u8], seed: u64) -> Vec<u8> {
    if !seed.is_multiple_of(2) {
        return mutate(original, seed);
    }
    let mut tree: Value = serde_json::from_slice(original).unwrap();
    let mut node = &mut tree;
    for depth in 0.. {
        let draw = mix(seed, &[depth]) as usize;
        let len = node.as_object().map_or(0, |map| map.len()) + node.as_array().map_or(0, Vec::len);
        // Stops at a leaf, or sometimes before it.
        if len == 0 || depth > 0 && draw.is_multiple_of(5) {
            break;
        }
        node = match node {
            Value::Object(map) => map.values_mut().nth(draw / 5 % len).unwrap(),
            Value::Array(list) => &mut list[draw / 5 % len],
            _ => unreachable!("a leaf has no length"),
        };
    }
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(1e-308),
        json!(0.5),
        json!(""),
        json!("\u{0}"),
        json!("word ".repeat(100)),
        json!("(a+)+$"),
        json!([]),
        json!([1, 2, 3]),
        json!({}),
        json!({"type": "Sequence"}),
    ];
    // Half of the values have the type of the old one, so that they get past the parser.
    let alike = |value: &&Value| std::mem::discriminant(*value) == std::mem::discriminant(node);
    let values: Vec<&Value> = match mix(seed, &[1, 2]) % 2 {
        0 => values.iter().filter(alike).collect(),
        _ => values.iter().collect(),
    };
    *node = values[mix(seed, &[1, 1]) as usize % values.len()].clone();
    serde_json::to_vec(&tree).unwrap()
}

/// The images here are tiny, so the limits can be too.
const LIMITS: Limits = Limits { max_pixels: 1 << 20 };

fn mutant(original: &[u8], seed: u64, format: ImageFormat) -> Vec<u8> {
    let mut bytes = mutate(original, seed);
    if format == ImageFormat::Png && !mix(seed, &[98]).is_multiple_of(3) {
        correct_checksums(&mut bytes);
    }
    bytes
}

fn fuzz_images(format: ImageFormat, count: u64) {
    let outcomes = fuzz_image(&format!("{format:?}"), encoded(1, 33, 21, format), count);
    assert!(outcomes.bad > count / 10, "{format:?}: {outcomes:?}");
}

fn fuzz_image(name: &str, original: Vec<u8>, count: u64) -> Outcomes {
    let format = image::guess_format(&original).unwrap_or(ImageFormat::Pnm);
    // The decoder's limit, and as much again for the pixels and for their conversion to RGB.
    attempts(name, count, 24 * MIB, move |seed| {
        match decode(&mutant(&original, seed, format), &LIMITS) {
            Ok(image) => {
                assert_eq!(image.data.len(), image.width as usize * image.height as usize * 3);
                true
            }
            Err(error) => {
                // A panic in a decoder is caught and reported as damage.
                assert!(!error.to_string().contains("panicked"), "{error}");
                false
            }
        }
    })
}

/// Mutates each of `files`.
fn fuzz_files(mut files: Vec<PathBuf>) -> Outcomes {
    files.sort();
    let mut all = Outcomes::default();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let outcomes = fuzz_image(&name, std::fs::read(&file).unwrap(), 150);
        all.good += outcomes.good;
        all.bad += outcomes.bad;
    }
    all
}

#[test]
fn mutated_files_of_rare_formats_never_panic() {
    let files = std::fs::read_dir(golden("formats")).unwrap().map(|entry| entry.unwrap().path());
    let is_fuzzed = |path: &PathBuf| {
        let extension = path.extension().unwrap().to_str().unwrap();
        ["bmp", "dib", "tif", "qoi", "pbm", "pgm", "ppm"].contains(&extension)
    };
    let files: Vec<PathBuf> = files.filter(is_fuzzed).collect();
    assert!(files.len() > 65, "{files:?}");
    let all = fuzz_files(files);
    assert!(all.good > 1000 && all.bad > 1000, "{all:?}");
}

#[test]
fn mutated_jpegs_never_panic() {
    let files = std::fs::read_dir(golden("jpeg")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = files.filter(|path| path.extension().unwrap() == "jpg").collect();
    assert!(files.len() >= 25, "{files:?}");
    let all = fuzz_files(files);
    assert!(all.good > 500 && all.bad > 500, "{all:?}");
}

#[test]
fn mutated_images_never_panic() {
    fuzz_images(ImageFormat::Png, 1500);
    fuzz_images(ImageFormat::Jpeg, 1500);
    fuzz_images(ImageFormat::WebP, 1500);
    fuzz_images(ImageFormat::Gif, 1000);
}

/// A mutation of an image that the decoder refuses.
fn damaged(original: &[u8], seed: u64) -> Vec<u8> {
    let mutants = (0..).map(|attempt| mutate(original, mix(seed, &[attempt])));
    mutants.into_iter().find(|bytes| decode(bytes, &Limits::default()).is_err()).unwrap()
}

#[test]
fn exactly_the_bad_images_are_reported() {
    const IMAGES: usize = 120;
    const FORMATS: [ImageFormat; 3] = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), IMAGES as u32, 1, &[]);
    let mut options = options(dir.path(), dataset, CaptionMode::All, 10, true);
    options.num_steps = (IMAGES / options.plan.batch_size) as u64;
    options.unreadable_policy.max_bad_fraction = 0.05;
    let outcomes = attempts("sets with 5 % bad images", 12, 64 * MIB, move |seed| {
        let mut bad: Vec<usize> = Vec::new();
        while bad.len() < IMAGES / 20 {
            let image = (mix(seed, &[bad.len() as u64, 7]) % IMAGES as u64) as usize;
            // A second draw of the same image moves on, so that neighbours are bad too.
            bad.push((image..).map(|image| image % IMAGES).find(|image| !bad.contains(image)).unwrap());
        }
        for image in 0..IMAGES {
            let original = encoded(image as u32, 20, 24, FORMATS[image % 3]);
            let bytes = if bad.contains(&image) { damaged(&original, seed ^ image as u64) } else { original };
            replace(&dir.path().join(format!("{image}.png")), &bytes);
        }
        let options = LoaderOptions { unreadable_images: UnreadableImages::default(), ..options.clone() };
        let (plan, record) = (options.plan, options.unreadable_images.clone());
        let batches: Vec<_> = PairLoader::new(options).unwrap().map(Result::unwrap).collect();
        let images: Vec<usize> = batches.iter().flat_map(|batch| batch.pairs.iter().map(|pair| pair.image)).collect();
        let order = (0..batches.len()).flat_map(|step| plan.batch(0, step));
        let good = |image: usize| (image..).map(|image| image % IMAGES).find(|image| !bad.contains(image)).unwrap();
        assert_eq!(images, order.map(good).collect::<Vec<_>>(), "the order is that of the plan");
        let mut keys: Vec<String> = record.list().into_iter().map(|skipped| skipped.key).collect();
        let mut expected: Vec<String> =
            bad.iter().map(|image| dir.path().join(format!("{image}.png")).display().to_string()).collect();
        keys.sort();
        expected.sort();
        assert_eq!(keys, expected);
        true
    });
    assert_eq!(outcomes.bad, 0);
}

/// Writes a new file: truncating an old one waits for the disk on file systems that guard against torn writes.
pub fn replace(path: &Path, bytes: &[u8]) {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, bytes).unwrap();
}

/// Reads mutations of one file as a source, where what is damaged is refused and where it is skipped. `at_least` of a
/// thousand have to be read, and as many refused.
fn fuzz_source(name: &'static str, original: &[u8], count: u64, at_least: u64) {
    for skips in [false, true] {
        fuzz_source_where(name, original, count, at_least, skips);
    }
}

fn fuzz_source_where(name: &'static str, original: &[u8], count: u64, at_least: u64, skips: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (path, original) = (dir.path().join(name), original.to_vec());
    let outcomes = attempts(name, count, 8 * MIB, move |seed| {
        let is_json = path.extension().is_some_and(|extension| extension == "json") && original.starts_with(b"{")
            || name == "list.json";
        replace(&path, &if is_json { mutate_json(&original, seed) } else { mutate(&original, seed) });
        let source = if skips { skipping(source(&path)) } else { source(&path) };
        match source.read() {
            Ok(dataset) => {
                assert!(dataset.num_captions() > 0);
                assert!(dataset.captions().all(|caption| caption.image < dataset.num_images()));
                true
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(name), "the error does not name the file: {message}");
                false
            }
        }
    });
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [name], "reading wrote files");
    assert!(
        outcomes.good * 1000 >= count * at_least && outcomes.bad * 1000 >= count * at_least,
        "{name}, skips: {skips}: {outcomes:?}"
    );
}

/// The source, with what is damaged skipped.
fn skipping(mut source: Source) -> Source {
    match &mut source {
        Source::Csv(it) | Source::Tsv(it) => it.bad_rows = BadRows::Skip,
        Source::Jsonl(it) => it.bad_rows = BadRows::Skip,
        Source::Json(it) => it.bad_rows = BadRows::Skip,
        Source::Coco(it) => it.bad_rows = BadRows::Skip,
        Source::Webdataset(it) => it.strict = false,
        other => panic!("{other:?}"),
    }
    source
}

fn source(path: &Path) -> Source {
    match path.extension().unwrap().to_str().unwrap() {
        "json" if path.ends_with("d.json") => Source::Coco(dualenc_data::CocoSource::new(path, None)),
        // What a mutant of a text looks like does not matter.
        "txt" => Source::Csv(dualenc_data::CsvSource::new(path)),
        _ => Source::from_path(path).unwrap(),
    }
}

#[test]
fn mutated_tables_never_panic() {
    let csv = "image,caption\na.png,\"a cat, asleep\"\nb.png,\"two \"\"dogs\"\"\"\nc.png,caf\u{e9}\n";
    let jsonl =
        "{\"image\": \"a.png\", \"caption\": [\"x\", \"y\\u00e9\"]}\n{\"image\": \"b.png\", \"caption\": \"z\"}\n";
    let coco = r#"{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 0, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 1, "caption": "x"}, {"image_id": 0, "caption": "y"}]}"#;
    for (name, original) in [("d.csv", csv), ("d.tsv", &csv.replace(',', "\t")), ("d.jsonl", jsonl), ("d.json", coco)] {
        fuzz_source(name, original.as_bytes(), 1000, 5);
    }
    let plain = "a.png\ta cat, asleep\nb.png#1\t\"Best\" dog\nsub\\c.png\tfile:///x\n";
    let list = r#"[{"image": "a.png", "caption": ["x", 1]}, {"image": "b.png", "caption": "z", "split": "train"}]"#;
    let columns = r#"{"image": {"0": "a.png", "1": "b.png"}, "caption": {"0": "x", "1": null}}"#;
    let by_image = r#"{"a.png": "x", "b.png": ["y", "z"]}"#;
    let karpathy = r#"{"images": [{"filepath": "v", "filename": "a.png", "split": "train", "imgid": 0,
        "sentences": [{"raw": "x", "tokens": ["x"]}]},
        {"filepath": "v", "filename": "b.png", "split": "val", "sentences": []}]}"#;
    let separated = "sep=;\r\nfilepath;title\r\na.png;\"two\r\nlines\"\r\nb.png;y\r\n";
    for (name, original) in [
        ("plain.txt", plain),
        ("list.json", list),
        ("list.jsonl", list),
        ("columns.json", columns),
        ("by_image.json", by_image),
        ("karpathy.json", karpathy),
        ("separated.csv", separated),
    ] {
        fuzz_source(name, original.as_bytes(), 400, 5);
    }
    for (name, original) in [("wide.csv", csv), ("wide.jsonl", jsonl), ("wide.json", list)] {
        let wide: Vec<u8> = format!("\u{feff}{original}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        fuzz_source(name, &wide, 400, 5);
    }
}

/// Reads a folder of three images with mutations of one file in it. `at_least` of a thousand have to be read.
fn fuzz_folder(name: &'static str, original: &[u8], count: u64, at_least: u64) {
    let dir = tempfile::tempdir().unwrap();
    for image in ["a.jpg", "b.jpg", "sub/c.jpg"] {
        let path = dir.path().join(image);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }
    let (root, original) = (dir.path().to_owned(), original.to_vec());
    let outcomes = attempts(name, count, 8 * MIB, move |seed| {
        let is_json = name.ends_with(".json");
        replace(&root.join(name), &if is_json { mutate_json(&original, seed) } else { mutate(&original, seed) });
        match FolderSource::new(&root).read() {
            Ok(dataset) => {
                assert!(dataset.num_captions() > 0);
                assert!(dataset.captions().all(|caption| caption.image < dataset.num_images()));
                true
            }
            Err(error) => {
                let message = error.to_string();
                // A file that names none of the images leaves the folder without captions.
                let names_place = message.contains(name) || message.contains("images without a caption");
                assert!(names_place, "the error names no file: {message}");
                false
            }
        }
    });
    assert!(outcomes.good * 1000 >= count * at_least, "{name}: {outcomes:?}");
}

#[test]
fn mutated_captions_of_folders_never_panic() {
    let csv = "file_name,text\na.jpg,\"a cat, asleep\"\nb.jpg,\"two \"\"dogs\"\"\"\nsub/c.jpg,caf\u{e9}\n";
    let jsonl = "{\"file_name\": \"a.jpg\", \"text\": [\"x\", \"y\\u00e9\"]}\n\
                 {\"file_name\": \"sub/c.jpg\", \"text\": \"z\"}\n";
    let json = r#"{"caption": ["x", "y"], "status": "success", "key": "0", "exif": {"a": 1}}"#;
    for (name, original, at_least) in [
        ("metadata.csv", csv, 5),
        ("metadata.jsonl", jsonl, 5),
        ("a.json", json, 100),
        ("a.txt", "\u{feff}a cat\r\n\u{e9}\r\n", 100),
    ] {
        fuzz_folder(name, original.as_bytes(), 500, at_least);
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
    fuzz_source("s.tar", &tar.into_inner().unwrap(), 1500, 30);
}

#[test]
fn mutated_tokenizers_never_panic() {
    for kind in ["tokens/bert", "tokens/roberta", "ids/clip", "ids/siglip", "ids/xlm_roberta", "ids/albert"] {
        let original = std::fs::read(golden(kind).join("tokenizer.json")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let outcomes = attempts(&format!("tokenizer.json of {kind}"), 120, 64 * MIB, move |seed| {
            replace(&dir.path().join("tokenizer.json"), &mutate_json(&original, seed));
            match Tokenizer::from_dir(dir.path(), 12) {
                Ok(tokenizer) => {
                    // A text may be refused with an error, for example if the unknown-token is gone.
                    let _ = tokenizer.encode("A Red CIRCLE, unpronounceable 赤");
                    true
                }
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains("tokenizer.json"), "{message}");
                    // The tokenizers crate may panic on a file that is JSON. That is caught, and an error here.
                    false
                }
            }
        });
        assert!(outcomes.good > 3 && outcomes.bad > 10, "{kind}: {outcomes:?}");
    }
}

#[test]
fn mutated_text_lists_never_panic() {
    let lines = "\u{feff}a photo of a {c}.\r\nmany {}\r\n";
    let python = "T = [\n    lambda c: f'a {c}\\'s',\n    \"a {}\",\n]\n";
    let object = r#"{"en": {"imagenet1k": ["a {c}", "b {}"]}}"#;
    for (name, original) in [("t.txt", lines), ("t.py", python), ("t.json", object)] {
        let (dir, original) = (tempfile::tempdir().unwrap(), original.as_bytes().to_vec());
        let outcomes = attempts(name, 1000, 32 * MIB, move |seed| {
            let path = dir.path().join(name);
            replace(&path, &mutate(&original, seed));
            for read in [read_class_names, read_text_rows, read_templates] {
                if let Err(error) = read(&path) {
                    assert!(error.to_string().contains(name), "{error}");
                }
            }
            let Ok(templates) = read_templates(&path) else { return false };
            assert!(!templates.is_empty() && templates.iter().all(|text| text.contains("{c}")), "{templates:?}");
            true
        });
        assert!(outcomes.good > 20 && outcomes.bad > 20, "{name}: {outcomes:?}");
    }
}

#[test]
fn mutated_processors_never_panic() {
    for kind in ["clip", "convnext", "efficientnet_offset", "crop_larger"] {
        let source: PathBuf = golden("pixels").join(kind).join("preprocessor_config.json");
        let original = std::fs::read(source).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let outcomes = attempts(&format!("preprocessor_config.json of {kind}"), 500, 32 * MIB, move |seed| {
            replace(&dir.path().join("preprocessor_config.json"), &mutate_json(&original, seed));
            match ImageProcessor::from_dir(dir.path()) {
                Ok(processor) => {
                    let (height, width) = processor.output_size();
                    // A mutated size may be as large as a config may ask for.
                    if height.max(width) <= 512 {
                        let image = RgbImage { width: 3, height: 2, data: vec![9; 18] };
                        assert_eq!(processor.process(&image).len(), 3 * height as usize * width as usize);
                    }
                    true
                }
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains("preprocessor_config.json"), "{message}");
                    false
                }
            }
        });
        assert!(outcomes.good > 5 && outcomes.bad > 50, "{kind}: {outcomes:?}");
    }
}
