//! Rows that are left out are counted, whatever their order.

use std::collections::BTreeMap;
use std::sync::Arc;

use dualenc_data::{
    BadRows, ClassesSource, CsvSource, Dataset, FolderSource, JsonlSource, ParquetSource, Source, SourceTable,
    TextEncoding, TokenTable, Tokenizer, WebdatasetSource, mix,
};
use serde_json::json;

use crate::limits::attempts;
use crate::support::{golden, write_vocabulary};

/// Tokens per caption in these tests, two of them special.
const MAX_TOKENS: usize = 6;

/// A row of a random table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Good,
    /// More words than the tokens allow: the caption is cut, and its row counts as any other.
    Long,
    Empty,
    Blank,
    NotUtf8,
    NoImage,
    Malformed,
}

const ROWS: [Row; 7] = [Row::Good, Row::Long, Row::Empty, Row::Blank, Row::NotUtf8, Row::NoImage, Row::Malformed];

impl Row {
    fn caption(self) -> &'static [u8] {
        match self {
            Self::Long => b"a cat a dog a cat a dog",
            Self::Empty => b"",
            Self::Blank => b"  ",
            Self::NotUtf8 => b"caf\xe9",
            _ => b"a cat",
        }
    }

    fn is_used(self) -> bool {
        matches!(self, Self::Good | Self::Long)
    }
}

/// Up to 40 rows; the first is good, because a source without a usable row is an error.
fn rows(seed: u64) -> Vec<Row> {
    let more = (0..mix(seed, &[0]) % 40).map(|at| ROWS[(mix(seed, &[1, at]) % ROWS.len() as u64) as usize]);
    [Row::Good].into_iter().chain(more).collect()
}

/// Checks which rows became pairs, in which order, and the counts of the others and of long captions.
fn check(dataset: &Dataset, rows: &[Row], name: impl Fn(usize) -> String, tokenizer: &Tokenizer) {
    let used: Vec<usize> = (0..rows.len()).filter(|&at| rows[at].is_used()).collect();
    assert_eq!(dataset.num_captions(), used.len(), "{rows:?}");
    for (caption, &at) in dataset.captions().zip(&used) {
        assert!(dataset.image(caption.image).key().ends_with(&name(at)), "row {at} of {rows:?}");
        assert_eq!(caption.text.as_bytes(), rows[at].caption());
    }
    assert_eq!(dataset.skipped.count, rows.len() - used.len(), "{rows:?}, {:?}", dataset.skipped);
    assert_eq!(dataset.skipped.rows.len(), dataset.skipped.count);
    let texts: Vec<&str> = dataset.captions().map(|caption| caption.text).collect();
    let long = rows.iter().filter(|&&row| row == Row::Long).count();
    assert_eq!(TokenTable::build(tokenizer, &texts, 2).unwrap().num_cut(), long);
}

/// A shard of the rows. What has no image lacks it, and what is malformed has JSON that is cut off.
fn shard(rows: &[Row]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (at, row) in rows.iter().enumerate() {
        let mut entry = |extension: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, format!("{at}.{extension}"), content).unwrap();
        };
        match row {
            Row::NoImage => {}
            _ => entry("png", b""),
        }
        match row {
            Row::Malformed => entry("json", b"{\"caption\": "),
            _ => entry("txt", row.caption()),
        }
    }
    tar.into_inner().unwrap()
}

/// The rows as a metadata file of their folder.
fn metadata_of(rows: &[Row], is_csv: bool) -> Vec<u8> {
    let mut lines = if is_csv { b"file_name,text\n".to_vec() } else { Vec::new() };
    for (at, row) in rows.iter().enumerate() {
        let caption = String::from_utf8_lossy(row.caption());
        lines.extend_from_slice(&match is_csv {
            true => format!("{at:02}.png,{caption}\n").into_bytes(),
            false => format!("{{\"file_name\": \"{at:02}.png\", \"text\": \"{caption}\"}}\n").into_bytes(),
        });
    }
    lines
}

#[test]
fn left_out_rows_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    write_vocabulary(dir.path());
    let tokenizer = Arc::new(Tokenizer::from_dir(dir.path(), MAX_TOKENS).unwrap());
    let outcomes = attempts("random rows", 60, 8 << 20, move |seed| {
        let rows = rows(seed);
        let (mut csv, mut jsonl) = (b"image,caption\n".to_vec(), Vec::new());
        for (at, row) in rows.iter().enumerate() {
            let image = if *row == Row::NoImage { String::new() } else { format!("{at}.png") };
            csv.extend([image.as_bytes(), b",", row.caption()].concat());
            csv.extend_from_slice(if *row == Row::Malformed { b",x\n" } else { b"\n" });
            let end: &[u8] = if *row == Row::Malformed { b"\n" } else { b"\"}\n" };
            jsonl.extend([b"{\"image\": \"", image.as_bytes(), b"\", \"caption\": \"", row.caption(), end].concat());
        }
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("d.csv"), csv).unwrap();
        std::fs::write(path("d.jsonl"), jsonl).unwrap();
        let name = |at: usize| format!("/{at}.png");
        let csv = CsvSource { bad_rows: BadRows::Skip, ..CsvSource::new(path("d.csv")) };
        check(&csv.read().unwrap(), &rows, name, &tokenizer);
        let jsonl = JsonlSource { bad_rows: BadRows::Skip, ..JsonlSource::new(path("d.jsonl")) };
        check(&jsonl.read().unwrap(), &rows, name, &tokenizer);
        // In shards, a caption that is not UTF-8 and an image without a name never end the reading.
        std::fs::write(path("d.tar"), shard(&rows)).unwrap();
        check(&WebdatasetSource::new(path("d.tar")).read().unwrap(), &rows, name, &tokenizer);
        // The same bytes in Latin-1 are no damage.
        let latin1 = CsvSource { encoding: Some(TextEncoding::Latin1), ..csv };
        let readable = rows.iter().filter(|row| row.is_used() || **row == Row::NotUtf8).count();
        assert_eq!(latin1.read().unwrap().num_captions(), readable);
        // By default, the first row that is malformed ends the reading. An empty caption or image never does.
        let malformed = rows.iter().position(|row| matches!(row, Row::NotUtf8 | Row::Malformed));
        let strict = CsvSource::new(path("d.csv")).read();
        match malformed {
            Some(at) => {
                let message = strict.unwrap_err().to_string();
                assert!(message.contains(&format!("d.csv`, line {}: ", at + 2)), "{message}");
            }
            None => check(&strict.unwrap(), &rows, name, &tokenizer),
        }
        true
    });
    assert_eq!(outcomes.bad, 0);
}

/// A form: the name of its file, and what writes (image, caption) rows in it.
type Form = (&'static str, fn(&[(String, String)]) -> Vec<u8>);

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn table(rows: &[(String, String)], separator: &str, line_end: &str) -> String {
    let lines = rows.iter().map(|(image, caption)| format!("{image}{separator}{}{line_end}", quoted(caption)));
    [format!("image{separator}caption{line_end}")].into_iter().chain(lines).collect()
}

fn objects(rows: &[(String, String)]) -> Vec<String> {
    rows.iter().map(|(image, caption)| json!({ "image": image, "caption": caption }).to_string()).collect()
}

fn wide(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn coco(rows: &[(String, String)]) -> Vec<u8> {
    let mut images: Vec<&String> = Vec::new();
    let mut annotations = Vec::new();
    for (image, caption) in rows {
        let at = images.iter().position(|known| *known == image).unwrap_or(images.len());
        if at == images.len() {
            images.push(image);
        }
        annotations.push(json!({ "image_id": at, "caption": caption }));
    }
    let images: Vec<_> = images.iter().enumerate().map(|(id, name)| json!({ "id": id, "file_name": name })).collect();
    json!({ "images": images, "annotations": annotations }).to_string().into_bytes()
}

const FORMS: [Form; 12] = [
    ("comma.csv", |rows| table(rows, ",", "\n").into_bytes()),
    ("semicolon.csv", |rows| table(rows, ";", "\r\n").into_bytes()),
    ("sep.csv", |rows| format!("sep=|\r\n{}", table(rows, "|", "\r\n")).into_bytes()),
    ("tab.tsv", |rows| table(rows, "\t", "\n").into_bytes()),
    ("wide.tsv", |rows| wide(&table(rows, "\t", "\r\n"))),
    ("lines.jsonl", |rows| objects(rows).join("\n").into_bytes()),
    ("wide.jsonl", |rows| wide(&objects(rows).join("\r\n"))),
    ("list.json", |rows| format!("[{}]", objects(rows).join(",")).into_bytes()),
    ("list.jsonl", |rows| format!("[\n{}\n]\n", objects(rows).join(",\n")).into_bytes()),
    ("under.json", |rows| format!("{{\"data\": [{}]}}", objects(rows).join(",")).into_bytes()),
    ("columns.json", |rows| {
        let rows = || rows.iter().enumerate();
        let image: BTreeMap<_, _> = rows().map(|(row, (image, _))| (row.to_string(), image)).collect();
        let caption: BTreeMap<_, _> = rows().map(|(row, (_, caption))| (row.to_string(), caption)).collect();
        json!({ "image": image, "caption": caption }).to_string().into_bytes()
    }),
    ("coco.json", coco),
];

#[test]
fn forms_give_the_same_set() {
    const WORDS: [&str; 8] = ["cat", "\"dog\"", "a,b", "c;d", "e|f", "caf\u{e9}", "\u{8d64}", "it's"];
    let dir = tempfile::tempdir().unwrap();
    let outcomes = attempts("random sets", 40, 8 << 20, move |seed| {
        let rows: Vec<(String, String)> = (0..1 + mix(seed, &[0]) % 12)
            .map(|row| {
                let word = |at: u64| WORDS[mix(seed, &[1, row, at]) as usize % WORDS.len()];
                // Rows of one image follow each other, as COCO's reader orders them.
                (format!("{}.png", row / 2), format!("{} {} {row}", word(0), word(1)))
            })
            .collect();
        let fingerprints: Vec<[u8; 32]> = FORMS
            .iter()
            .map(|(name, write)| {
                // A folder of its own: images are looked for beside the folder too.
                let folder = dir.path().join("data");
                std::fs::create_dir_all(&folder).unwrap();
                let path = folder.join(name);
                std::fs::write(&path, write(&rows)).unwrap();
                let dataset = Source::from_path(&path).unwrap().read().unwrap_or_else(|error| panic!("{error}"));
                let texts: Vec<&str> = dataset.captions().map(|caption| caption.text).collect();
                let expected: Vec<&str> = rows.iter().map(|(_, caption)| caption.as_str()).collect();
                assert_eq!(texts, expected, "{name}");
                assert!(dataset.warnings.is_empty() && dataset.notes.len() == 1, "{:?}", dataset.warnings);
                dataset.fingerprint().unwrap()
            })
            .collect();
        assert!(fingerprints.iter().all(|fingerprint| *fingerprint == fingerprints[0]));
        true
    });
    assert_eq!(outcomes.bad, 0);
}

#[test]
fn only_without_match_names_entries() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let rows = [("a.png".to_owned(), "a cat".to_owned())];
    let mut sources: Vec<Source> = Vec::new();
    for (name, write) in FORMS {
        std::fs::write(path(name), write(&rows)).unwrap();
        sources.push(Source::from_path(path(name)).unwrap());
    }
    std::fs::write(path("d.tar"), shard(&[Row::Good])).unwrap();
    for name in ["images/a_cat.png", "classes/cat/a.png", "classes/dog/a.png"] {
        std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        std::fs::write(path(name), b"").unwrap();
    }
    sources.extend([
        Source::Webdataset(WebdatasetSource::new(path("d.tar"))),
        Source::Folder(FolderSource::new(path("images"))),
        Source::Classes(ClassesSource::new(path("classes"))),
        Source::Parquet(ParquetSource::new(golden("parquet/datasets.parquet"))),
    ]);
    for source in sources {
        for (list, expected) in
            [("x.png\n", "1 of the 1 names in this list: `x.png`"), ("99\n", "numbers in this list: 99")]
        {
            std::fs::write(path("only.txt"), list).unwrap();
            let table = SourceTable { only: Some(path("only.txt")), ..source.clone().into() };
            let error = table.read().unwrap_err().to_string();
            assert!(error.contains("only.txt` is malformed") && error.ends_with(expected), "{source:?}: {error}");
        }
    }
}

#[test]
fn captions_beside_images_are_counted() {
    let root = tempfile::tempdir().unwrap();
    write_vocabulary(root.path());
    let tokenizer = Arc::new(Tokenizer::from_dir(root.path(), MAX_TOKENS).unwrap());
    let outcomes = attempts("random folders", 20, 8 << 20, move |seed| {
        let rows: Vec<Row> =
            rows(seed).into_iter().filter(|row| !matches!(row, Row::NotUtf8 | Row::NoImage | Row::Malformed)).collect();
        let dir = root.path().join(seed.to_string());
        std::fs::create_dir(&dir).unwrap();
        for (at, row) in rows.iter().enumerate() {
            std::fs::write(dir.join(format!("{at:02}.png")), b"").unwrap();
            std::fs::write(dir.join(format!("{at:02}.txt")), row.caption()).unwrap();
        }
        let name = |at: usize| format!("/{at:02}.png");
        let beside = FolderSource::new(&dir).read().unwrap();
        check(&beside, &rows, name, &tokenizer);
        // Metadata goes before the files beside images, which stay there.
        for extension in ["jsonl", "csv"] {
            let metadata = dir.join(format!("metadata.{extension}"));
            std::fs::write(&metadata, metadata_of(&rows, extension == "csv")).unwrap();
            let dataset = FolderSource::new(&dir).read().unwrap();
            check(&dataset, &rows, name, &tokenizer);
            assert_eq!(dataset.fingerprint().unwrap(), beside.fingerprint().unwrap());
            std::fs::remove_file(metadata).unwrap();
        }
        std::fs::write(dir.join("00.txt"), Row::NotUtf8.caption()).unwrap();
        let message = FolderSource::new(&dir).read().unwrap_err().to_string();
        assert!(message.contains("00.txt` is malformed: not UTF-8 at byte 3"), "{message}");
        std::fs::remove_dir_all(dir).unwrap();
        true
    });
    assert_eq!(outcomes.bad, 0);
}
