//! An index holds what is read into memory, and is refused when it is not what was written.

use std::fs::{self, File, FileTimes};
use std::io::{Result as IoResult, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::dataset::caption_draw::CaptionSlots;
use crate::dataset::{CaptionMode, Dataset};
use crate::error::DataError;
use crate::images::location::ImageRef;
use crate::index::files::{IndexFile, IndexFiles};
use crate::index::index_writer::write_index;
use crate::index::inputs::index_key;
use crate::index::manifest::INDEX_MANIFEST;
use crate::index::open::{FoundIndex, open_index};
use crate::sources::one_or_many::OneOrMany;
use crate::sources::source_table::SourceTable;
use crate::sources::webdataset::WebdatasetSource;
use crate::writing::shard::ShardWriter;

/// Samples of a shard.
const SAMPLES: usize = 6;

#[derive(Debug)]
struct Folder(PathBuf);

impl IndexFiles for Folder {
    fn dir(&self) -> &Path {
        &self.0
    }

    fn create(&self, name: &str) -> IoResult<Box<dyn IndexFile>> {
        Ok(Box::new(Whole(File::create(self.0.join(name))?)))
    }
}

struct Whole(File);

impl Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> IoResult<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> IoResult<()> {
        Ok(())
    }
}

impl IndexFile for Whole {
    fn finish(self: Box<Self>) -> IoResult<()> {
        Ok(())
    }
}

/// Shards of samples with one caption or two, one that says `null`, an empty image, and one without a caption.
fn write_shards(dir: &Path, shards: std::ops::Range<usize>) {
    fs::create_dir_all(dir).unwrap();
    for shard in shards {
        let mut tar = ShardWriter::new(Vec::new());
        for number in shard * SAMPLES..(shard + 1) * SAMPLES {
            let image = format!("image {number}");
            tar.add(&format!("{number:04}.jpg"), if number == 7 { b"" } else { image.as_bytes() }).unwrap();
            let caption = match number {
                8 => "null".to_owned(),
                9 => " ".to_owned(),
                number if number % 3 == 0 => format!("caption {number}\nsecond 犬 {number}"),
                number => format!("caption {number}"),
            };
            tar.add(&format!("{number:04}.txt"), caption.as_bytes()).unwrap();
            tar.add(&format!("{number:04}.json"), format!("{{\"long\": \"long {number}\"}}").as_bytes()).unwrap();
        }
        fs::write(dir.join(format!("s-{shard:03}.tar")), tar.finish().unwrap()).unwrap();
    }
}

fn table(path: &Path) -> SourceTable {
    SourceTable { webdataset: Some(WebdatasetSource::new(path)), ..SourceTable::default() }
}

fn keyed(tables: &[SourceTable]) -> Vec<(String, &SourceTable)> {
    tables.iter().enumerate().map(|(at, table)| (format!("data.train[{at}]"), table)).collect()
}

fn write(tables: &[SourceTable], held_out: f64, dir: &Path) -> Result<(), DataError> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
    let manifest = write_index(&keyed(tables), held_out, &Folder(dir.to_owned()))?;
    fs::write(dir.join(INDEX_MANIFEST), manifest).unwrap();
    Ok(())
}

fn open(tables: &[SourceTable], dir: &Path) -> FoundIndex {
    open_index(dir, &tables.iter().collect::<Vec<_>>()).unwrap()
}

#[track_caller]
fn whole(found: FoundIndex) -> (Dataset, Option<Dataset>) {
    match found {
        FoundIndex::Whole(train, validation) => (*train, validation.map(|it| *it)),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn why_unusable(found: FoundIndex) -> String {
    match found {
        FoundIndex::Unusable(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn in_memory(tables: &[SourceTable]) -> Dataset {
    let mut sources: Vec<Dataset> = tables.iter().map(|table| table.read().unwrap()).collect();
    if sources.len() == 1 { sources.remove(0) } else { Dataset::concat(sources) }
}

#[track_caller]
fn assert_same(found: &Dataset, expected: &Dataset) {
    assert!(found.known.is_some() && expected.known.is_none());
    assert_eq!(found.images().collect::<Vec<_>>(), expected.images().collect::<Vec<_>>());
    assert_eq!(found.captions().collect::<Vec<_>>(), expected.captions().collect::<Vec<_>>());
    for image in 0..expected.num_images() {
        assert_eq!(found.captions_of(image), expected.captions_of(image));
        assert_eq!(found.root_of(image), expected.root_of(image));
    }
    assert_eq!(found.parts(), expected.parts());
    assert_eq!(found.survey().unwrap(), expected.survey().unwrap());
    assert_eq!(found.fingerprint().unwrap(), expected.fingerprint().unwrap());
    assert_eq!(found.null_words(), expected.null_words());
    assert_eq!(found.skipped, expected.skipped);
    assert_eq!((&found.notes, &found.warnings), (&expected.notes, &expected.warnings));
    for (mode, slots) in [(CaptionMode::All, 1), (CaptionMode::One, 1), (CaptionMode::Slots, 2)] {
        let slots = CaptionSlots { count: slots, pin_first: false };
        assert_eq!(found.num_pairs(mode), expected.num_pairs(mode));
        for index in 0..expected.num_pairs(mode) {
            assert_eq!(found.sample(mode, slots, index, 5, 2), expected.sample(mode, slots, index, 5, 2));
        }
    }
}

/// Sources of 20 shards, of which two are read after others in memory were dropped.
fn sources(dir: &Path) -> Vec<SourceTable> {
    write_shards(&dir.join("a"), 0..17);
    write_shards(&dir.join("b"), 17..20);
    fs::write(dir.join("only.txt"), "key\n0102\n0104\n0113\n").unwrap();
    let several = WebdatasetSource {
        captions: Some(vec!["txt".to_owned(), "long".to_owned()]),
        ..WebdatasetSource::new(dir.join("a"))
    };
    let first = SourceTable { webdataset: Some(several), caption_weights: Some(vec![1.0, 3.0]), ..table(dir) };
    let second = SourceTable { only: Some(dir.join("only.txt")), weight: Some(1.5), ..table(&dir.join("b")) };
    vec![first, second]
}

#[test]
fn index_is_the_data_set() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let sources = sources(dir.path());
    for tables in [&sources[..], &sources[..1], &sources[1..]] {
        write(tables, 0.0, &index).unwrap();
        let (train, validation) = whole(open(tables, &index));
        assert_same(&train, &in_memory(tables));
        assert!(validation.is_none());
    }
}

#[test]
fn held_out_images_are_those_of_split() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let sources = sources(dir.path());
    for held_out in [0.3, 1e-9] {
        write(&sources, held_out, &index).unwrap();
        let (train, validation) = whole(open(&sources, &index));
        let (rest, share) = in_memory(&sources).split(held_out);
        assert_same(&train, &rest);
        assert_same(&validation.unwrap(), &share);
        assert_eq!(share.num_images() > 10, held_out == 0.3);
    }
}

#[test]
fn lists_of_images_select_in_segments() {
    let dir = tempfile::tempdir().unwrap();
    write_shards(&dir.path().join("a"), 0..17);
    let list = |more: &str| {
        fs::write(dir.path().join("only.txt"), format!("image\ns-000.tar/0002.jpg\ns-016.tar/0097.jpg\n{more}"))
            .unwrap();
        vec![SourceTable { only: Some(dir.path().join("only.txt")), ..table(&dir.path().join("a")) }]
    };
    let (index, tables) = (dir.path().join("index"), list(""));
    write(&tables, 0.0, &index).unwrap();
    let (train, _) = whole(open(&tables, &index));
    assert_eq!(train.num_images(), 2);
    assert_same(&train, &in_memory(&tables));
    let tables = list("s-001.tar/none.jpg\n");
    let error = write(&tables, 0.0, &index).unwrap_err().to_string();
    assert!(error.contains("lacks 1 of the 3 names in this list: `s-001.tar/none.jpg`"), "{error}");
}

#[test]
fn numbers_as_captions_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = ShardWriter::new(Vec::new());
    for number in 0..4 {
        tar.add(&format!("{number}.jpg"), b"x").unwrap();
        tar.add(&format!("{number}.txt"), number.to_string().as_bytes()).unwrap();
    }
    fs::write(dir.path().join("s.tar"), tar.finish().unwrap()).unwrap();
    let (index, tables) = (dir.path().join("index"), vec![table(&dir.path().join("s.tar"))]);
    write(&tables, 0.0, &index).unwrap();
    let (train, _) = whole(open(&tables, &index));
    assert!(train.warnings[0].contains("all 4 captions are numbers, such as `0`"), "{:?}", train.warnings);
    assert_same(&train, &in_memory(&tables));
}

#[test]
fn use_of_pairs_is_not_in_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let mut tables = sources(dir.path());
    write(&tables, 0.0, &index).unwrap();
    let key = |tables: &[SourceTable], held_out| index_key(&tables.iter().collect::<Vec<_>>(), held_out).unwrap();
    let before = (key(&tables, 0.0), in_memory(&tables).fingerprint().unwrap());
    assert_ne!(key(&tables, 0.1), before.0);
    assert_ne!(key(&tables[..1], 0.0), before.0);
    fs::write(dir.path().join("templates.txt"), "a photo of {c}\n").unwrap();
    tables[0].templates = Some(dir.path().join("templates.txt"));
    tables[1].weight = Some(2.0);
    assert_eq!(key(&tables, 0.0), before.0);
    let (train, _) = whole(open(&tables, &index));
    assert_same(&train, &in_memory(&tables));
    assert_ne!(train.fingerprint().unwrap(), before.1);
    tables[1].only = None;
    assert_ne!(key(&tables, 0.0), before.0);
}

#[test]
fn damaged_index_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (index, tables) = (dir.path().join("index"), sources(dir.path()));
    assert!(matches!(open(&tables, &index), FoundIndex::Absent));
    write(&tables, 0.2, &index).unwrap();
    let files: Vec<PathBuf> = fs::read_dir(&index).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 2 * 9 + 1);
    for file in files {
        let intact = fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(!intact.is_empty(), "{name}");
        let mut damages = vec![intact[..intact.len() - 1].to_vec(), [&intact[..], b"\n"].concat(), Vec::new()];
        for at in [0, intact.len() / 2, intact.len() - 1] {
            let mut flipped = intact.clone();
            flipped[at] ^= 1;
            damages.push(flipped);
        }
        for damaged in damages {
            fs::write(&file, damaged).unwrap();
            let reason = why_unusable(open(&tables, &index));
            assert!(reason.contains(name), "{name}: {reason}");
        }
        fs::remove_file(&file).unwrap();
        let reason = why_unusable(open(&tables, &index));
        assert!(reason.contains(name), "{name}: {reason}");
        fs::write(&file, intact).unwrap();
        whole(open(&tables, &index));
    }
}

#[test]
fn index_of_other_shards_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (index, tables) = (dir.path().join("index"), sources(dir.path()));
    write(&tables, 0.0, &index).unwrap();
    let shard = dir.path().join("a/s-003.tar");
    let (bytes, time) = (fs::read(&shard).unwrap(), fs::metadata(&shard).unwrap().modified().unwrap());
    let write_at = |bytes: &[u8], time: SystemTime| {
        fs::write(&shard, bytes).unwrap();
        File::options().append(true).open(&shard).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    let reason = || why_unusable(open(&tables, &index)).replace(dir.path().to_str().unwrap(), "DIR");

    write_at(&[&bytes[..], &[0; 512]].concat(), time);
    assert_eq!(reason(), "`DIR/a/s-003.tar` has changed");
    write_at(&bytes, time + std::time::Duration::from_nanos(1));
    assert_eq!(reason(), "`DIR/a/s-003.tar` has changed");
    write_at(&bytes, time);
    whole(open(&tables, &index));

    fs::rename(&shard, dir.path().join("s.tar")).unwrap();
    assert_eq!(reason(), "`DIR/a/s-003.tar` is gone");
    fs::rename(dir.path().join("s.tar"), &shard).unwrap();
    fs::copy(&shard, dir.path().join("a/s-017.tar")).unwrap();
    assert_eq!(reason(), "`DIR/a/s-017.tar` is new");
    fs::remove_file(dir.path().join("a/s-017.tar")).unwrap();
    whole(open(&tables, &index));

    fs::write(dir.path().join("classnames.txt"), "cat\n").unwrap();
    assert_eq!(reason(), "`DIR/classnames.txt` is new");
    fs::remove_file(dir.path().join("classnames.txt")).unwrap();
    fs::write(dir.path().join("only.txt"), "key\n0102\n").unwrap();
    assert_eq!(reason(), "`DIR/only.txt` has changed");
}

#[test]
fn other_order_of_shards_is_another_index() {
    let dir = tempfile::tempdir().unwrap();
    write_shards(&dir.path().join("a"), 0..3);
    let shards = |order: [usize; 3]| {
        let paths = order.map(|number| dir.path().join(format!("a/s-{number:03}.tar"))).to_vec();
        let source = WebdatasetSource { path: OneOrMany(paths), ..WebdatasetSource::new("") };
        vec![SourceTable { webdataset: Some(source), ..SourceTable::default() }]
    };
    let index = dir.path().join("index");
    write(&shards([0, 1, 2]), 0.0, &index).unwrap();
    assert_eq!(why_unusable(open(&shards([0, 2, 1]), &index)), "the shards are in another order");
    let (train, _) = whole(open(&shards([0, 1, 2]), &index));
    assert!(matches!(train.image(0), ImageRef::TarEntry { len: 7, .. }));
}

#[test]
fn full_disk_names_the_file() {
    #[derive(Debug)]
    struct Full(PathBuf);
    impl IndexFiles for Full {
        fn dir(&self) -> &Path {
            &self.0
        }

        fn create(&self, name: &str) -> IoResult<Box<dyn IndexFile>> {
            let is_full = name.ends_with(".texts");
            Ok(Box::new(Whole(if is_full {
                File::options().write(true).open("/dev/full")?
            } else {
                tempfile::tempfile()?
            })))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let tables = sources(dir.path());
    let error = write_index(&keyed(&tables), 0.0, &Full("index".into())).unwrap_err().to_string();
    assert!(error.starts_with("cannot write `index/train.texts`: No space left on device"), "{error}");
}
