//! Parquet files. The fixtures and what they hold are from `scripts/parquet_goldens.py`.

use std::collections::BTreeMap;
use std::path::Path;

use dualenc_data::{
    BadRows, CaptionMode, CsvSource, DataError, Dataset, ImageRef, PairLoader, ParquetSource, Source, SourceTable, mix,
};
use serde::Deserialize;

use crate::fuzz::{mutate, replace};
use crate::limits::attempts;
use crate::support::{golden, options};

#[derive(Deserialize)]
struct File {
    image: String,
    captions: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    /// In hexadecimal.
    bytes: Option<String>,
    path: Option<String>,
    captions: Vec<(String, u8)>,
}

fn expected() -> BTreeMap<String, File> {
    serde_json::from_slice(&std::fs::read(golden("parquet/expected.json")).unwrap()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn source(path: impl AsRef<Path>) -> ParquetSource {
    ParquetSource::new(golden("parquet").join(path))
}

/// The message of the error, without the folder.
fn error(source: &ParquetSource) -> String {
    source.read().unwrap_err().to_string().replace(&format!("{}/", golden("parquet").display()), "")
}

#[test]
fn fixtures_equal_python() {
    let (mut files, mut images, mut paths) = (0, 0, 0);
    for (name, file) in expected() {
        let mut source = ParquetSource { image: Some(file.image), ..source(&name) };
        match &file.captions[..] {
            [one] => source.caption = Some(one.clone()),
            several => source.captions = Some(several.to_vec()),
        }
        let dataset = source.read().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (mut captions, mut skipped, mut expected) = (dataset.captions(), 0, Vec::new());
        for row in &file.rows {
            if row.captions.is_empty() || row.bytes.is_none() && row.path.is_none() {
                skipped += 1;
                continue;
            }
            for (text, slot) in &row.captions {
                let caption = captions.next().unwrap();
                assert_eq!((caption.text, caption.slot), (text.as_str(), *slot), "{name}");
                assert_eq!(caption.image, expected.len(), "{name}: {text}");
            }
            expected.push(row);
        }
        assert!(captions.next().is_none(), "{name}");
        assert_eq!((dataset.num_images(), dataset.skipped.count), (expected.len(), skipped), "{name}");
        // In the order of the file, backwards, and at random.
        let len = expected.len();
        let random = (0..3 * len).map(|draw| mix(7, &[draw as u64]) as usize % len);
        for number in (0..len).chain((0..len).rev()).chain(random) {
            let image = dataset.image(number);
            match (&expected[number].bytes, &expected[number].path) {
                (Some(hex), _) => assert_eq!(image.read().unwrap(), bytes(hex), "{name}: {}", image.key()),
                (None, path) => {
                    let path = golden("parquet").join(&name).parent().unwrap().join(path.as_ref().unwrap());
                    assert_eq!(image, ImageRef::File(path), "{name}");
                    paths += 1;
                }
            }
            images += 1;
        }
        files += 1;
    }
    assert!(files >= 25 && images > 3500 && paths > 50, "{files} files, {images} images, {paths} paths");
}

#[test]
fn several_files_are_one_set() {
    let parts = (0..3).map(|part| source(format!("parts/train-0000{part}-of-00003.parquet")).read().unwrap());
    let texts = |dataset: &Dataset| dataset.captions().map(|caption| caption.text.to_owned()).collect::<Vec<_>>();
    let whole: Vec<String> = parts.flat_map(|part| texts(&part)).collect();
    let list = SourceTable {
        parquet: Some(
            toml::from_str(&format!(
                "path = [\"{0}/train-00000-of-00003.parquet\", \"{0}/train-0000[12]*.parquet\"]",
                golden("parquet/parts").display()
            ))
            .unwrap(),
        ),
        ..SourceTable::default()
    };
    let mut fingerprints = Vec::new();
    for dataset in [
        source("parts").read(),
        source("parts/train-*.parquet").read(),
        source("parts/train-{00000..00002}-of-00003.parquet").read(),
        list.read(),
    ] {
        let dataset = dataset.unwrap();
        assert_eq!(texts(&dataset), whole);
        assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
        let note = dataset.notes.join("\n");
        assert!(note.ends_with("parquet, 3 files, 40 rows; images from `image`, captions from `caption`"), "{note}");
        assert_eq!(
            dataset.image(0).key(),
            format!("{}/row 1", golden("parquet/parts/train-00000-of-00003.parquet").display())
        );
        fingerprints.push(dataset.fingerprint().unwrap());
    }
    assert!(fingerprints.iter().all(|it| *it == fingerprints[0]));
    let some = source("parts/train-0000[02]*.parquet").read().unwrap();
    assert!(some.warnings[0].contains("train-*-of-00003.parquet`: 2 of 3 files are there"), "{:?}", some.warnings);
    assert!(error(&source("parts/none-*.parquet")).contains("no file that matches the pattern"));
}

#[test]
fn labels_have_their_names() {
    let labelled = ParquetSource { caption: Some("label".to_owned()), ..source("datasets.parquet") };
    let dataset = labelled.read().unwrap();
    let texts: Vec<_> = dataset.captions().map(|caption| caption.text).collect();
    let names = ["tabby cat", "dog", "red panda"];
    assert_eq!(texts, (0..12).filter(|row| *row != 5).map(|row| names[row % 3]).collect::<Vec<_>>());
    assert_eq!(dataset.skipped.by_cause(), "empty caption (1)", "label -1");
    let dir = tempfile::tempdir().unwrap();
    let list = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        Some(dir.path().join(name))
    };
    let templates = list("templates.txt", "a photo of a {c}\n");
    let prompted = SourceTable { templates, ..Source::Parquet(labelled).into() }.read().unwrap();
    assert_eq!(prompted.text(1, 0, 0), "a photo of a dog");
    let numbered = SourceTable::from(Source::Parquet(source("numbers.parquet")));
    let note = &numbered.read().unwrap().notes[0];
    assert!(note.contains("captions are numbers, which `classnames` replaces"), "{note}");
    let named = SourceTable { classnames: list("names.txt", "zero\none\ntwo\nthree\nfour\n"), ..numbered };
    assert_eq!(named.read().unwrap().caption(3).text, "three");
}

#[test]
fn columns_are_found_by_looking() {
    for (name, found) in [
        ("img2dataset.parquet", "images from `jpg`, captions from `caption`"),
        ("datasets.parquet", "images from `image`, captions from `caption`"),
        ("metadata.parquet", "image paths from `file_name`, captions from `text`"),
        ("parts", "images from `image`, captions from `caption`"),
    ] {
        let path = golden("parquet").join(name);
        let table: SourceTable = toml::from_str(&format!("parquet = {{ path = '{}' }}", path.display())).unwrap();
        assert_eq!(SourceTable::from(Source::from_path(&path).unwrap()), table, "{name}");
        let dataset = table.read().unwrap();
        assert!(dataset.notes[0].contains(found), "{:?}", dataset.notes);
        let others =
            "`captions` looks like a caption too: to use several, set `captions = [\"caption\", \"captions\"]`";
        assert_eq!(dataset.notes[0].contains(others), name == "datasets.parquet", "{:?}", dataset.notes);
    }
    assert!(matches!(Source::from_path(golden("decode")).unwrap(), Source::Folder(_)));
}

#[test]
fn messages_name_the_way_out() {
    assert_eq!(
        error(&ParquetSource { caption: Some("caption".to_owned()), ..source("metadata.parquet") }),
        "`metadata.parquet` has no column `caption`; its columns are `file_name`, `text`; set `caption = \"text\"`?"
    );
    let with = |name: &str, image: &str, caption: &str| ParquetSource {
        image: Some(image.to_owned()),
        caption: Some(caption.to_owned()),
        ..source(name)
    };
    assert!(error(&with("img2dataset.parquet", "image", "caption")).ends_with("; set `image = \"jpg\"`?"));
    let several = ParquetSource {
        image: Some("image".into()),
        captions: Some(vec!["raw".into(), "lang".into()]),
        ..source("columns.parquet")
    };
    assert!(error(&several).ends_with("; write `long` in `captions`?"), "{}", error(&several));
    let both = ParquetSource { captions: Some(vec!["raw".into()]), ..with("columns.parquet", "image", "long") };
    assert!(error(&both).contains("`caption` and `captions` are both set"));
    let download = "download the images first, `img2dataset --url_list links.parquet --input_format parquet --url_col \
                    URL --caption_col TEXT --output_format webdataset --output_folder shards`, and train on the \
                    folder as `webdataset`";
    assert_eq!(
        error(&with("links.parquet", "image", "TEXT")),
        format!("`links.parquet` has no column `image`; its columns are `URL`, `TEXT`; `URL` holds links: {download}")
    );
    assert_eq!(error(&source("links.parquet")), error(&with("links.parquet", "URL", "TEXT")));
    assert_eq!(
        error(&with("links.parquet", "URL", "TEXT")),
        format!(
            "`links.parquet` is malformed: column `URL` holds links, such as `https://example.org/0.jpg`: {download}"
        )
    );
    assert_eq!(
        error(&with("image_lists.parquet", "image", "image")),
        "`image_lists.parquet` is malformed: column `image` holds lists of groups; expected captions: texts, lists of \
         texts, or labels"
    );
    assert!(
        error(&with("image_lists.parquet", "image", "caption"))
            .contains("column `caption` holds double; expected captions")
    );
    assert!(error(&with("columns.parquet", "raw", "long")).contains("holds lists of texts; expected one image a row"));
    assert!(error(&source("none.parquet")).starts_with("cannot read `none.parquet`: No such file"));
}

#[test]
fn damaged_files_are_called_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.parquet");
    let whole = std::fs::read(golden("parquet/datasets.parquet")).unwrap();
    let read = |content: &[u8]| {
        replace(&path, content);
        let error = ParquetSource::new(&path).read().unwrap_err();
        assert!(matches!(error, DataError::Malformed { .. }), "{error}");
        error.to_string()
    };
    for len in [4, 8, 100, whole.len() / 2, whole.len() - 1] {
        let message = read(&whole[..len]);
        assert!(message.contains("incomplete; download or write it again"), "{len}: {message}");
    }
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    assert!(read(pointer).contains("Git LFS pointer, not the file; run `git lfs pull`"));
    assert!(read(b"<!DOCTYPE html>").contains("does not start with `PAR1`, as parquet does, but is HTML or XML"));
    assert!(read(b"").contains("but is an empty file"));
    assert!(read(b"ARROW1\0\0").contains("an Arrow file, not parquet"));
    assert!(read(&[b"PAR1".as_slice(), &[0; 9], b"PARE"].concat()).contains("encrypted"));
    // A footer with a byte too few.
    let short = [&whole[..20], &whole[21..]].concat();
    assert!(read(&short).contains("past the end"), "{}", read(&short));
}

#[test]
fn damaged_pages_are_bad_images() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.parquet");
    let whole = std::fs::read(golden("parquet/datasets.parquet")).unwrap();
    // The row groups have 5, 5 and 2 images: the last has little enough to lose.
    let ends: Vec<usize> = (0..whole.len()).filter(|&at| whole[at..].starts_with(b"IEND")).collect();
    let damaged = (ends[9] + 8..ends[10]).find_map(|at| {
        let mut bytes = whole.clone();
        bytes[at..at + 4].fill(0xff);
        replace(&path, &bytes);
        let dataset = ParquetSource::new(&path).read().ok()?;
        let bad: Vec<String> =
            dataset.images().filter_map(|image| image.read().err().map(|error| error.to_string())).collect();
        (dataset.num_images() == 12 && bad.len() == 2).then_some((dataset, bad))
    });
    let (dataset, bad) = damaged.unwrap();
    for (error, row) in bad.iter().zip([11, 12]) {
        assert!(error.contains(&format!("d.parquet/row {row}`: damaged parquet page: ")), "{error}");
    }
    let mut options = options(dir.path(), dataset, CaptionMode::All, 4, false);
    options.num_steps = 3;
    let batches: Vec<_> = PairLoader::new(options).unwrap().map(Result::unwrap).collect();
    let skipped: Vec<_> = batches.iter().flat_map(|batch| &batch.skipped).collect();
    assert_eq!(
        skipped.iter().map(|it| (it.image, it.cause.as_str())).collect::<Vec<_>>(),
        [(10, "damaged"), (11, "damaged")]
    );
}

#[test]
fn only_and_bad_rows() {
    let dir = tempfile::tempdir().unwrap();
    let only = dir.path().join("rows.txt");
    let read = |source: ParquetSource, list: &str| {
        std::fs::write(&only, list).unwrap();
        let table = SourceTable { only: Some(only.clone()), ..SourceTable::from(Source::Parquet(source)) };
        let dataset = table.read().map_err(|error| error.to_string())?;
        Ok::<_, String>(
            dataset.images().map(|image| image.key().rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>(),
        )
    };
    assert_eq!(read(source("parts"), "1\n12\n40\n").unwrap(), ["row 1", "row 2", "row 30"]);
    assert_eq!(read(source("datasets.parquet"), "3.png\n0.png\n").unwrap(), ["row 1", "row 4"]);
    let jpg = source("img2dataset.parquet");
    assert_eq!(read(jpg, "000000004\nx\n").unwrap_err().rsplit(':').next().unwrap(), " `x`");
    let skipping = ParquetSource {
        bad_rows: BadRows::Skip,
        image: Some("caption".into()),
        caption: Some("caption".into()),
        ..source("plain_none_1.parquet")
    };
    assert_eq!(skipping.read().unwrap().skipped.by_cause(), "empty caption (4)");
    let latin = ParquetSource { caption: Some("image".into()), ..source("plain_none_1.parquet") };
    assert!(error(&latin).contains("`plain_none_1.parquet`, row "), "{}", error(&latin));
    assert!(error(&latin).ends_with("the caption is not UTF-8"));
}

#[test]
fn table_and_parquet_are_equal() {
    let dir = tempfile::tempdir().unwrap();
    let parquet = source("datasets.parquet").read().unwrap();
    let mut table = "image,caption\n".to_owned();
    for (number, caption) in parquet.captions().enumerate() {
        std::fs::write(dir.path().join(format!("{number}.png")), parquet.image(caption.image).read().unwrap()).unwrap();
        table += &format!("{number}.png,{}\n", caption.text);
    }
    std::fs::write(dir.path().join("d.csv"), table).unwrap();
    let csv = CsvSource::new(dir.path().join("d.csv")).read().unwrap();
    let load = |dataset: Dataset| {
        let mut options = options(dir.path(), dataset, CaptionMode::All, 5, true);
        options.num_steps = 8;
        PairLoader::new(options).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    let (one, other) = (load(parquet), load(csv));
    assert_eq!((one.len(), other.len()), (8, 8));
    for (a, b) in one.iter().zip(&other) {
        assert!(a.skipped.is_empty() && !a.pixels.is_empty());
        assert_eq!((&a.pairs, &a.pixels, &a.tokens), (&b.pairs, &b.pixels, &b.tokens));
    }
}

#[test]
fn paths_mean_what_they_mean_in_tables() {
    let original = std::fs::read(golden("parquet/metadata.parquet")).unwrap();
    for (written, told) in [
        ("sub/b.png", ""),
        ("sub\\b.png", "`\\` is read as `/` in 1 image path, such as `sub\\b.png`"),
        ("s3://b/b.", "the image is a URL, `s3://b/b.`; expected a local file: copy the bucket first"),
        ("ftp://b/b", "the image is a URL, `ftp://b/b`; expected a local file"),
        ("C:\\bb.png", "the image is a path with a Windows drive"),
        ("pic/b.png", "`pic/b.png` is not there; `b.png` is there below `DIR/sub`"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let is_other = written.starts_with("pic");
        for name in ["sub/b.png", "a.png"].iter().take(if is_other { 1 } else { 2 }) {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let mut bytes = original.clone();
        while let Some(at) = bytes.windows(9).position(|it| it == b"sub/b.png" && written != "sub/b.png") {
            bytes[at..at + 9].copy_from_slice(written.as_bytes());
        }
        std::fs::write(dir.path().join("d.parquet"), bytes).unwrap();
        let first = if is_other { written } else { "a.png" };
        std::fs::write(dir.path().join("d.csv"), format!("file_name,text\n{first},a cat\n{written},a dog\n")).unwrap();
        let read = |name: &str| {
            let shown = |text: &str| {
                let text = text.replace(&dir.path().display().to_string(), "DIR").replace(name, "d");
                text.replace("row 2", "line 3")
            };
            let dataset =
                Source::from_path(dir.path().join(name)).unwrap().read().map_err(|it| shown(&it.to_string()))?;
            let last = dataset.image(dataset.num_images() - 1).key();
            Ok::<_, String>((shown(&last), shown(&dataset.warnings.join("\n"))))
        };
        let parquet = read("d.parquet");
        assert!(format!("{parquet:?}").replace("\\\\", "\\").contains(told), "{parquet:?}");
        if !is_other {
            assert_eq!(parquet, read("d.csv"), "{written}");
        }
    }
}

#[test]
fn fingerprint_knows_rows_and_length() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let read = |dir: &tempfile::TempDir| ParquetSource::new(dir.path().join("d.parquet")).read().unwrap();
    for dir in [&one, &two] {
        std::fs::copy(golden("parquet/datasets.parquet"), dir.path().join("d.parquet")).unwrap();
    }
    let first = read(&one).fingerprint().unwrap();
    assert_eq!(first, read(&two).fingerprint().unwrap(), "moved");
    assert_ne!(first, read(&one).filter(|image| image != 3).fingerprint().unwrap());
    let (rest, held_out) = read(&one).split(0.4);
    assert_eq!(rest.num_images() + held_out.num_images(), 12);
    assert!(held_out.num_images() > 0 && held_out.image(0).read().is_ok());
    std::fs::copy(golden("parquet/nulls.parquet"), two.path().join("d.parquet")).unwrap();
    assert_ne!(first, read(&two).fingerprint().unwrap());
}

/// Reads mutations of a fixture, and some of its images.
fn fuzz(name: &'static str, count: u64) {
    let dir = tempfile::tempdir().unwrap();
    let (path, original) = (dir.path().join("m.parquet"), std::fs::read(golden("parquet").join(name)).unwrap());
    let outcomes = attempts(name, count, 8 << 20, move |seed| {
        replace(&path, &mutate(&original, seed));
        let check = |error: &DataError| {
            let message = error.to_string();
            let is_path = message.contains("cannot be read: ");
            assert!(is_path || message.contains("m.parquet"), "the error does not name the file: {message}");
            assert!(!message.contains("panicked") && !message.contains(".rs:"), "{message}");
        };
        match ParquetSource::new(&path).read() {
            Ok(dataset) => {
                assert!(dataset.captions().all(|caption| caption.image < dataset.num_images()));
                for image in dataset.images() {
                    image.read().err().iter().for_each(check);
                }
                true
            }
            Err(error) => {
                check(&error);
                false
            }
        }
    });
    assert!(outcomes.good * 50 >= count && outcomes.bad * 50 >= count, "{name}: {outcomes:?}");
}

#[test]
fn mutated_files_never_panic() {
    for name in [
        "plain_none_1.parquet",
        "plain_snappy_1.parquet",
        "plain_zstd_2.parquet",
        "plain_gzip_2.parquet",
        "plain_lz4_1.parquet",
        "delta_byte_array.parquet",
        "lists_1.parquet",
        "lists_2.parquet",
        "nulls.parquet",
        "nulls_unknown.parquet",
        "datasets.parquet",
    ] {
        fuzz(name, 100);
    }
}

/// Row 4 has no split.
#[test]
fn split_column_chooses_rows() {
    let read = |split: &str, bad_rows: BadRows| {
        let split = (!split.is_empty()).then(|| split.into());
        ParquetSource { split, bad_rows, ..source("splits.parquet") }.read().map_err(|error| error.to_string())
    };
    let all = read("", BadRows::Error).unwrap();
    assert_eq!((all.num_images(), all.warnings.len()), (5, 2), "{:?}", all.warnings);
    assert!(
        all.warnings[0].contains("`test` (1), `train` (2), `val` (1); set `split` to choose"),
        "{}",
        all.warnings[0]
    );
    let refused = read("train", BadRows::Error).unwrap_err();
    assert!(refused.contains("row 4: no `split`, and `split` is set"), "{refused}");
    let train = read("train", BadRows::Skip).unwrap();
    assert_eq!((train.num_images(), train.skipped.count), (2, 1));
    let images: Vec<String> = train.images().map(|image| image.key()).collect();
    assert!(images[0].ends_with("images/0.png") && images[1].ends_with("images/2.png"), "{images:?}");
    let absent = read("dev", BadRows::Skip).unwrap_err();
    assert!(absent.contains("no row has the split `dev`"), "{absent}");
    let twice = ParquetSource { captions: Some(vec!["a".to_owned(); 2]), ..source("paths.parquet") };
    assert!(error(&twice).contains("`captions` names `a` twice"), "{}", error(&twice));
    let none = ParquetSource { split: Some("train".into()), ..source("paths.parquet") };
    assert!(error(&none).contains("`split` is set, and there is no column `split`"), "{}", error(&none));
}
