//! Shards as people write them, and hostile ones.

use super::*;
use crate::dataset::selection::Selection;

fn entry(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes).unwrap();
}

pub(crate) fn shard(samples: std::ops::Range<usize>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for i in samples {
        entry(&mut tar, &format!("part/{i:04}.jpg"), format!("image {i}").as_bytes());
        if i % 2 == 0 {
            entry(&mut tar, &format!("part/{i:04}.txt"), format!("caption {i}\nsecond {i}\n").as_bytes());
        } else {
            entry(&mut tar, &format!("part/{i:04}.json"), format!("{{\"caption\": \"caption {i}\"}}").as_bytes());
        }
    }
    tar.into_inner().unwrap()
}

#[test]
fn shards_keep_order() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..3 {
        std::fs::write(dir.path().join(format!("s-{number:03}.tar")), shard(number * 4..number * 4 + 4)).unwrap();
    }
    let all = WebdatasetSource::new(dir.path()).read().unwrap();
    assert_eq!((all.num_images(), all.num_captions()), (12, 18));
    for (i, image) in all.images().enumerate() {
        assert_eq!(image.read().unwrap(), format!("image {i}").into_bytes());
    }
    assert_eq!(all.caption(all.captions_of(10)[1] as usize).text, "second 10");
    assert!(all.image(5).key().ends_with("s-001.tar/part/0005.jpg"), "{}", all.image(5).key());
    for (pattern, images) in [("s-*.tar", 12), ("s-{001..002}.tar", 8), ("s-{000,002}.tar", 8), ("s-00?.tar", 12)] {
        let found = WebdatasetSource::new(dir.path().join(pattern)).read().unwrap();
        assert_eq!(found.num_images(), images, "{pattern}");
    }
    let error = WebdatasetSource::new(dir.path().join("s-{000..003}.tar")).read().unwrap_err().to_string();
    assert!(error.contains("s-003.tar`: No such file"), "{error}");
    let error = WebdatasetSource::new(dir.path().join("t-*.tar")).read().unwrap_err().to_string();
    assert!(error.contains("no file that matches the pattern"), "{error}");
}

#[test]
fn truncated_shard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tar");
    let whole = shard(0..4);
    // Four samples of two entries, each a header and a block; the cut is inside the last image.
    std::fs::write(&path, &whole[..6 * 1024 + 512 + 3]).unwrap();
    let error = WebdatasetSource::new(&path).read().unwrap_err().to_string();
    let expected = "damaged at byte 6144: an entry of 7 bytes goes past the end of the file; 3 samples before the \
                    damage are intact (set `strict = false` to use them and continue)";
    assert!(error.contains(expected), "{error}");
    let intact = WebdatasetSource { strict: false, ..WebdatasetSource::new(&path) }.read().unwrap();
    assert_eq!((intact.num_images(), intact.skipped.count), (3, 1));

    let mut broken = whole;
    broken[2 * 1024 + 150] ^= 0x55;
    std::fs::write(&path, &broken).unwrap();
    let error = WebdatasetSource::new(&path).read().unwrap_err().to_string();
    assert!(error.contains("s.tar` is damaged at byte"), "{error}");
}

#[test]
fn skips_hostile_entries() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tar");
    let mut tar = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "evil.jpg", "/etc/passwd").unwrap();
    entry(&mut tar, "evil.txt", b"a link");
    entry(&mut tar, "good.png", b"x");
    entry(&mut tar, "good.txt", b"good");
    entry(&mut tar, "good.txt", b"again");
    entry(&mut tar, "blank.png", b"x");
    entry(&mut tar, "blank.txt", b" \n");
    entry(&mut tar, "odd.png", b"x");
    entry(&mut tar, "odd.json", b"{\"text\": 1}");
    // `append_data` refuses such a name, so the header is written by hand.
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..15].copy_from_slice(b"../../up/up.jpg");
    header.set_size(1);
    header.set_cksum();
    tar.append(&header, &b"x"[..]).unwrap();
    std::fs::write(&path, tar.into_inner().unwrap()).unwrap();

    let dataset = WebdatasetSource::new(&path).read().unwrap();
    assert_eq!(dataset.captions().map(|caption| caption.text).collect::<Vec<_>>(), ["good"]);
    let skipped = dataset.skipped.first(10);
    for part in [
        "`evil.jpg` is a link or device",
        "sample `evil` has no image",
        "`good.txt` is a duplicate entry",
        "sample `blank` has an empty caption",
        "`odd.json` has no caption under `caption`",
        "sample `odd` has no caption",
        "sample `../../up/up` has no caption",
    ] {
        assert!(skipped.contains(part), "{part} is not in:\n{skipped}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was unpacked");
}

/// A shard of entries, given by names and contents.
fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    entries.iter().for_each(|(name, content)| entry(&mut tar, name, content.as_bytes()));
    tar.into_inner().unwrap()
}

/// Reads one shard of entries; messages have `DIR` in place of its folder.
pub(crate) fn read(entries: &[(&str, &str)], set: impl FnOnce(&mut WebdatasetSource)) -> Result<Dataset, String> {
    read_with(entries, &[], set)
}

fn read_with(
    entries: &[(&str, &str)],
    classnames: &[&str],
    set: impl FnOnce(&mut WebdatasetSource),
) -> Result<Dataset, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("s.tar"), tar_of(entries)).unwrap();
    let mut source = WebdatasetSource::new(dir.path().join("s.tar"));
    set(&mut source);
    let names: Vec<String> = classnames.iter().map(|&name| name.to_owned()).collect();
    let shown = dir.path().display().to_string();
    let mut dataset = source
        .read_named(None, NumberLabels::Named(&names), None)
        .map_err(|error| error.to_string().replace(&shown, "DIR"))?;
    for text in dataset.notes.iter_mut().chain(&mut dataset.warnings) {
        *text = text.replace(&shown, "DIR");
    }
    Ok(dataset)
}

/// `entry: caption` for each caption, with the slot if it is not 0.
fn pairs(dataset: &Dataset) -> Vec<String> {
    let name = |image: usize| dataset.relative_key(image).trim_start_matches("s.tar/").to_owned();
    let slot = |slot: u8| if slot == 0 { String::new() } else { format!(" #{slot}") };
    dataset.captions().map(|it| format!("{}: {}{}", name(it.image), it.text, slot(it.slot))).collect()
}

fn caption(name: &str) -> impl FnOnce(&mut WebdatasetSource) {
    move |source| source.caption = Some(name.to_owned())
}

const RECAPTIONED: [(&str, &str); 6] = [
    ("0.jpg", ""),
    ("0.txt", "alt text 0"),
    ("0.json", "{\"caption\": \"alt text 0\", \"llava\": \"a cat\", \"meta\": {\"long\": \"a long cat\"}}"),
    ("1.jpg", ""),
    ("1.txt", "alt text 1"),
    ("1.json", "{\"caption\": \"alt text 1\", \"llava\": [\"a dog\", \"two dogs\"], \"meta\": {\"long\": \"\"}}"),
];

#[test]
fn written_caption_wins_over_text() {
    let with = |name: &str| pairs(&read(&RECAPTIONED, caption(name)).unwrap());
    let by_default = read(&RECAPTIONED, |_| {}).unwrap();
    assert_eq!(pairs(&by_default), ["0.jpg: alt text 0", "1.jpg: alt text 1"]);
    assert_eq!(by_default.notes, ["`DIR/s.tar`: 1 shard, 2 samples, captions from `.txt` (2)"]);
    assert_eq!(with("llava"), ["0.jpg: a cat", "1.jpg: a dog", "1.jpg: two dogs"]);
    assert_eq!(with("txt"), ["0.jpg: alt text 0", "1.jpg: alt text 1"]);
    assert_eq!(with(".txt"), ["0.jpg: alt text 0", "1.jpg: alt text 1"]);
    assert_eq!(with("caption"), ["0.jpg: alt text 0", "1.jpg: alt text 1"]);
    let long = read(&RECAPTIONED, caption("meta.long")).unwrap();
    assert_eq!(pairs(&long), ["0.jpg: a long cat"]);
    assert_eq!(long.skipped.by_cause(), "empty caption (1)");
    assert_eq!(long.notes, ["`DIR/s.tar`: 1 shard, 2 samples, captions from `meta.long` in `.json` (1)"]);
    let error = read(&RECAPTIONED, caption("lava")).unwrap_err();
    assert!(error.contains("entries of the extensions `jpg` (2), `json` (2), `txt` (2)"), "{error}");
    assert!(error.contains("sample `0` has no caption: `0.json` has no caption under `lava`"), "{error}");
}

#[test]
fn old_default_still_reads_text() {
    // Configs of old runs have `caption = "caption"`, whatever their shards hold.
    let only_text = [("0.jpg", ""), ("0.txt", "x\ny")];
    assert_eq!(pairs(&read(&only_text, caption("caption")).unwrap()), pairs(&read(&only_text, |_| {}).unwrap()));
    let only_json = [("0.jpg", ""), ("0.json", "{\"caption\": \"x\"}")];
    assert_eq!(pairs(&read(&only_json, caption("caption")).unwrap()), pairs(&read(&only_json, |_| {}).unwrap()));
    let both = [("0.jpg", ""), ("0.txt", "text"), ("0.json", "{\"caption\": \"json\"}")];
    assert_eq!(pairs(&read(&both, caption("caption")).unwrap()), ["0.jpg: json"]);
    assert_eq!(pairs(&read(&both, |_| {}).unwrap()), ["0.jpg: text"]);
}

#[test]
fn several_captions_have_slots() {
    let several = |names: &[&str]| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        read(&RECAPTIONED, |source| source.captions = Some(names))
    };
    let dataset = several(&["txt", "llava", "meta.long"]).unwrap();
    let expected = [
        "0.jpg: alt text 0",
        "0.jpg: a cat #1",
        "0.jpg: a long cat #2",
        "1.jpg: alt text 1",
        "1.jpg: a dog #1",
        "1.jpg: two dogs #1",
    ];
    assert_eq!(pairs(&dataset), expected);
    let expected = "captions from `.txt` (2), `llava` in `.json` (2), `meta.long` in `.json` (1)";
    assert!(dataset.notes[0].ends_with(expected), "{:?}", dataset.notes);
    let error = several(&["txt", "lava"]).unwrap_err();
    let expected = "no sample has a caption in `lava`; the extensions are `jpg` (2), `json` (2), `txt` (2), and the \
                    keys of `.json` `caption`, `llava`, `meta`; correct `captions`";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn other_extensions_by_key() {
    let entries = [("0.input.jpg", ""), ("0.outputs.txt", "a cat"), ("1.input.jpg", ""), ("1.outputs.txt", "a dog")];
    let error = read(&entries, |_| {}).unwrap_err();
    let expected = "1 shard with entries of the extensions `input.jpg` (2), `outputs.txt` (2); set \
                    `image = \"input.jpg\"` and `caption = \"outputs.txt\"`?";
    assert!(error.contains(expected), "{error}");
    let dataset = read(&entries, |source| {
        source.image = Some("input.jpg".into());
        source.caption = Some("outputs.txt".to_owned());
    });
    assert_eq!(pairs(&dataset.unwrap()), ["0.input.jpg: a cat", "1.input.jpg: a dog"]);
    let error = read(&[("0.img", ""), ("0.cap", "x")], |_| {}).unwrap_err();
    assert!(error.contains("`cap` (1), `img` (1); set `caption = \"cap\"`?"), "{error}");
    let error = read(&[("0.jpg", ""), ("0.json", "{\"title\": \"x\", \"id\": 3}")], |_| {}).unwrap_err();
    assert!(error.contains("`.json` has the keys `id`, `title`: set `caption` to one of them"), "{error}");
    let error = read(&[], |_| {}).unwrap_err();
    assert!(error.contains("found 1 shard without a named entry"), "{error}");
}

#[test]
fn mixed_extensions_are_a_list() {
    let entries = [("0.input.jpg", ""), ("0.txt", "a cat"), ("1.input.png", ""), ("1.txt", "a dog")];
    let error = read(&entries, |_| {}).unwrap_err();
    assert!(error.contains("set `image = [\"input.jpg\", \"input.png\"]`?"), "{error}");
    let with = |names: &[&str]| {
        let names = OneOrMany(names.iter().map(|&name| name.to_owned()).collect());
        read(&entries, |source| source.image = Some(names)).unwrap()
    };
    let one = with(&["input.png"]);
    assert_eq!((pairs(&one), one.skipped.by_cause().as_str()), (vec!["1.input.png: a dog".to_owned()], "no image (1)"));
    let expected = "`.input.jpg` beside it: to read them too, set `image = [\"input.png\", \"input.jpg\"]`";
    assert!(one.warnings.join("\n").contains(expected), "{:?}", one.warnings);
    let both = with(&["input.png", "input.jpg"]);
    assert_eq!((pairs(&both).len(), both.warnings.len()), (2, 0));
}

#[test]
fn preferred_image_of_several() {
    let entries = [("0.png", ""), ("0.jpg", ""), ("0.txt", "x"), ("1.jpg", ""), ("1.png", ""), ("1.txt", "y")];
    let first = read(&entries, |_| {}).unwrap();
    assert_eq!(pairs(&first), ["0.png: x", "1.jpg: y"]);
    assert_eq!(first.skipped.by_cause(), "duplicate entry (2)");
    let images = |names: &[&str]| {
        let names = OneOrMany(names.iter().map(|&name| name.to_owned()).collect());
        read(&entries, |source| source.image = Some(names)).unwrap()
    };
    let preferred = images(&["jpg", "png"]);
    assert_eq!(pairs(&preferred), ["0.jpg: x", "1.jpg: y"]);
    assert_eq!(preferred.skipped.count, 0);
    assert_eq!(pairs(&images(&[".png"])), ["0.png: x", "1.png: y"]);
}

#[test]
fn empty_text_falls_back_to_json() {
    let entries = [
        ("0.jpg", ""),
        ("0.txt", " \n"),
        ("0.json", "{\"caption\": \"x\"}"),
        ("1.jpg", ""),
        ("1.txt", "y"),
        ("1.json", "{\"caption\": null}"),
        ("2.jpg", ""),
        ("2.json", "{\"caption\": null}"),
        ("3.json", "{\"caption\": \"z\", \"status\": \"failed_to_download\"}"),
        ("4.jpg", ""),
        ("4.txt", "w"),
        ("4.json", "{"),
    ];
    let dataset = read(&entries, |_| {}).unwrap();
    assert_eq!(pairs(&dataset), ["0.jpg: x", "1.jpg: y", "4.jpg: w"]);
    assert_eq!(dataset.skipped.by_cause(), "empty caption (1), no image (1)");
    assert!(dataset.skipped.first(2).contains("`3` has no image: its status is `failed_to_download`"));
    let warnings = dataset.warnings.join("\n");
    assert!(warnings.contains("1 sample with an empty caption entry: another entry is used"), "{warnings}");
    assert!(warnings.contains("1 sample with a malformed caption entry: another entry is used"), "{warnings}");
    assert!(warnings.contains("`4.json` is not JSON"), "{warnings}");
}

#[test]
fn labels_become_class_names() {
    let labels = [("0.cls", "1"), ("0.jpg", ""), ("1.cls", "0\n"), ("1.jpg", "")];
    let error = read(&labels, |_| {}).unwrap_err();
    let expected = "`DIR/s.tar` is malformed: sample `0` has the class number `1` as its caption; name a file of class \
                    names, one per line, with `classnames`";
    assert_eq!(error, expected);
    let dataset = read_with(&labels, &["cat", "dog"], |_| {}).unwrap();
    assert_eq!(pairs(&dataset), ["0.jpg: dog", "1.jpg: cat"]);
    assert!(dataset.notes[0].ends_with("captions from `.cls` (2)"), "{:?}", dataset.notes);
    let error = read_with(&labels, &["cat"], |_| {}).unwrap_err();
    assert!(error.contains("sample `0` has the label `1`; expected a number from 0 to 0, or one of the 1"), "{error}");
    let texts = [("0.cls", "red panda"), ("0.jpg", ""), ("1.jpg", ""), ("1.txt", "a cat"), ("1.cls", "x")];
    assert_eq!(pairs(&read(&texts, |_| {}).unwrap()), ["0.jpg: red panda", "1.jpg: a cat"]);
    assert_eq!(pairs(&read(&texts, caption("cls")).unwrap()), ["0.jpg: red panda", "1.jpg: x"]);
    let in_json = [("0.jpg", ""), ("0.json", "{\"label\": 1}")];
    assert_eq!(pairs(&read_with(&in_json, &["cat", "dog"], caption("label")).unwrap()), ["0.jpg: dog"]);
}

#[test]
fn labels_that_may_be_names_are_refused() {
    let labels = [("0.cls", "2"), ("0.jpg", ""), ("1.cls", "1"), ("1.jpg", "")];
    let error = read_with(&labels, &["1", "2", "3"], |_| {}).unwrap_err();
    let expected = "samples have the label `2`; as a number, counted from 0, it is the class `3`, and as a name it is \
                    that of class 1; to mean numbers";
    assert!(error.contains(expected), "{error}");
    let from_zero = [&labels[..], &[("2.cls", "0"), ("2.jpg", "")]].concat();
    let dataset = read_with(&from_zero, &["1", "2", "3"], |_| {}).unwrap();
    assert_eq!(pairs(&dataset), ["0.jpg: 3", "1.jpg: 2", "2.jpg: 1"]);
}

#[test]
fn class_names_beside_the_shards() {
    let dir = tempfile::tempdir().unwrap();
    let test = dir.path().join("test");
    std::fs::create_dir(&test).unwrap();
    std::fs::write(test.join("0.tar"), tar_of(&[("0.cls", "1"), ("0.webp", "")])).unwrap();
    std::fs::write(dir.path().join("classnames.txt"), "\u{feff}cat\r\ndog\r\n").unwrap();
    let dataset = WebdatasetSource::new(&test).read().unwrap();
    assert_eq!(dataset.caption(0).text, "dog");
    assert!(dataset.notes[1].contains("class names from") && dataset.notes[1].contains("classnames.txt"));
}

#[test]
fn text_entries_by_line_or_whole() {
    let entries = [("0.jpg", ""), ("0.txt", "a cat\nin Paris")];
    let lines = read(&entries, |_| {}).unwrap();
    assert_eq!(pairs(&lines), ["0.jpg: a cat", "0.jpg: in Paris"]);
    assert!(lines.notes[1].contains("several lines in text entries (1): every line is a caption"), "{lines:?}");
    let whole = read(&entries, |source| source.txt = TextCaptions::Whole).unwrap();
    assert_eq!(pairs(&whole), ["0.jpg: a cat in Paris"]);
}

#[test]
fn compressed_shards_name_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let with = |name: &str, first: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, [first, &[0; 100]].concat()).unwrap();
        let lax = WebdatasetSource { strict: false, ..WebdatasetSource::new(&path) }.read().unwrap_err().to_string();
        let error = WebdatasetSource::new(&path).read().unwrap_err().to_string();
        assert_eq!(lax, error);
        std::fs::remove_file(&path).unwrap();
        error.replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(
        with("s.tar.gz", b"\x1f\x8b\x08"),
        "`DIR/s.tar.gz` is malformed: it is gzip-compressed; images are read by position, which needs a plain tar \
         file: unpack each shard with `gzip -dc DIR/s.tar.gz > DIR/s.unpacked.tar`"
    );
    assert!(with("s.tar", b"\x1f\x8b\x08").contains("`gzip -dc DIR/s.tar > DIR/s.unpacked.tar`"));
    assert!(with("s.tgz", b"\x1f\x8b\x08").contains("`gzip -dc DIR/s.tgz > DIR/s.unpacked.tar`"));
    assert!(with("s.tar", b"\x28\xb5\x2f\xfd").contains("it is zstd-compressed"));
    assert!(with("s.tar", b"version https://git-lfs.github.com/spec/v1\n").contains("`git lfs pull`"));
    assert!(with("s.tar", b"<!DOCTYPE html>").contains("it is an HTML page"));
    std::fs::write(dir.path().join("a.tar.gz"), b"").unwrap();
    let error = WebdatasetSource::new(dir.path()).read().unwrap_err().to_string();
    assert!(error.contains("found no `.tar` file, but 1 compressed shard; unpack each"), "{error}");
}

#[test]
fn shards_by_list_and_nested_folder() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, key) in [("a/0.tar", "0"), ("a/1.tar", "1"), ("b/c/2.tar", "2")] {
        std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        let image = format!("{key}.jpg");
        std::fs::write(at(name), tar_of(&[(&image, ""), (&format!("{key}.txt"), key)])).unwrap();
    }
    let read = |paths: &[&str]| {
        let path = OneOrMany(paths.iter().map(|path| at(path)).collect());
        WebdatasetSource { path, ..WebdatasetSource::new("") }.read().map_err(|error| error.to_string())
    };
    let keys = |dataset: &Dataset| dataset.captions().map(|it| it.text.to_owned()).collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&read(&[""]).unwrap()), "0 1 2");
    assert_eq!(keys(&read(&["b"]).unwrap()), "2");
    assert_eq!(keys(&read(&["b/c/2.tar", "a/{0..1}.tar"]).unwrap()), "2 0 1");
    let twice = read(&["a/*.tar", "a/0.tar"]).unwrap();
    assert_eq!(keys(&twice), "0 1");
    assert_eq!(twice.warnings, ["`path` names 1 shard twice: each is read once"]);
    // The fingerprint does not depend on where the set is.
    let names = |dataset: &Dataset| (0..dataset.num_images()).map(|it| dataset.relative_key(it)).collect::<Vec<_>>();
    assert_eq!(names(&read(&["b/c/2.tar", "a/0.tar"]).unwrap()), ["b/c/2.tar/2.jpg", "a/0.tar/0.jpg"]);
    assert_eq!(names(&read(&["{a/0,b/c/2}.tar"]).unwrap()), ["a/0.tar/0.jpg", "b/c/2.tar/2.jpg"]);
    assert_eq!(names(&read(&["?/*.tar"]).unwrap()), ["a/0.tar/0.jpg", "a/1.tar/1.jpg"]);
    for plain in ["a", "a/0.tar", "a/{0..1}.tar", "a/*.tar"] {
        assert_eq!(names(&read(&[plain]).unwrap())[0], "0.tar/0.jpg", "{plain}");
    }
    std::fs::write(at("top.tar"), tar_of(&[("t.jpg", ""), ("t.txt", "t")])).unwrap();
    let top = read(&[""]).unwrap();
    assert_eq!(keys(&top), "t");
    assert!(top.warnings[0].contains("3 shards in folders below are not read"), "{:?}", top.warnings);
    std::fs::remove_file(at("top.tar")).unwrap();
    std::fs::rename(at("a"), at("train")).unwrap();
    std::fs::rename(at("b"), at("test")).unwrap();
    let error = read(&[""]).unwrap_err();
    assert!(error.contains("it has the splits `test`, `train`; name one of them in `path`"), "{error}");
    let error = read(&["a.tar::b.tar"]).unwrap_err();
    assert!(error.contains("several patterns are written as a list"), "{error}");
    for url in ["s3://bucket/0.tar", "pipe:cat 0.tar"] {
        let error = read(&[url]).unwrap_err();
        assert!(error.contains("shards are read from disk"), "{error}");
    }
}

#[test]
fn many_shards_come_in_waves() {
    let dir = tempfile::tempdir().unwrap();
    let shards = 2 * WAVE + 3;
    for number in 0..shards {
        std::fs::write(dir.path().join(format!("{number:03}.tar")), shard(number * 2..number * 2 + 2)).unwrap();
    }
    let dataset = WebdatasetSource::new(dir.path()).read().unwrap();
    assert_eq!(dataset.num_images(), 2 * shards);
    for (number, image) in dataset.images().enumerate() {
        assert!(image.key().ends_with(&format!("part/{number:04}.jpg")), "{}", image.key());
    }
}

#[test]
fn only_takes_keys() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let entries =
        [("./0.jpg", ""), ("./0.txt", "x"), ("./1.jpg", ""), ("./1.txt", ""), ("b/2.jpg", ""), ("b/2.txt", "z")];
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        // `append_data` removes `./`, so the header is written by hand.
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    std::fs::write(at("s.tar"), tar.into_inner().unwrap()).unwrap();
    for (list, captions, skipped) in [("0\nb/2\n./1", "x z", 1), ("b/2", "z", 0), ("3", "z", 0), ("1\n2", "x", 1)] {
        std::fs::write(at("only.txt"), list).unwrap();
        let selection = Selection::read(&at("only.txt")).unwrap();
        let dataset =
            WebdatasetSource::new(at("s.tar")).read_named(Some(selection), NumberLabels::Named(&[]), None).unwrap();
        let found: Vec<_> = dataset.captions().map(|it| it.text).collect();
        assert_eq!((found.join(" ").as_str(), dataset.skipped.count), (captions, skipped), "{list}");
    }
}

#[test]
fn config_of_shards() {
    let text = "path = [\"a.tar\", \"b\"]\nimage = \"input.jpg\"\ncaptions = [\"txt\", \"long\"]\nstrict = false\n";
    let mut source: WebdatasetSource = toml::from_str(text).unwrap();
    assert_eq!(toml::to_string(&source).unwrap(), text);
    source.resolve(Path::new("/config"));
    assert_eq!(source.path.0, [Path::new("/config/a.tar"), Path::new("/config/b")]);
    assert_eq!(toml::to_string(&WebdatasetSource::new("a.tar")).unwrap(), "path = \"a.tar\"\nstrict = true\n");
}
