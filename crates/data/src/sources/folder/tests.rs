//! Folders as people write them.

use std::fs::{create_dir_all, write};

use super::*;

#[test]
fn captions_from_sidecars_or_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    create_dir_all(at("sub")).unwrap();
    write(at("b.JPG"), b"").unwrap();
    write(at("b.txt"), "\u{feff}a dog\n\n  two dogs \n").unwrap();
    write(at("red_panda-cub.png"), b"").unwrap();
    write(at("sub/a.webp"), b"").unwrap();
    write(at("sub/empty.gif"), b"").unwrap();
    write(at("sub/empty.txt"), " \n").unwrap();
    write(at("notes.md"), b"").unwrap();
    write(at(".hidden.png"), b"").unwrap();
    let dataset = FolderSource::new(dir.path()).read().unwrap();
    let keys: Vec<_> = dataset.images().map(|image| image.key()).collect();
    let expected = ["b.JPG", "red_panda-cub.png", "sub/a.webp"].map(|name| at(name).display().to_string());
    assert_eq!(keys, expected);
    let captions: Vec<_> = dataset.captions().map(|caption| (caption.image, caption.text)).collect();
    assert_eq!(captions, [(0, "a dog"), (0, "two dogs"), (1, "red panda cub"), (2, "a")]);
    assert_eq!(dataset.skipped.count, 1);
    assert!(dataset.skipped.rows[0].message.contains("empty.gif"), "{:?}", dataset.skipped);
}

#[test]
fn rejects_folder_without_images() {
    let dir = tempfile::tempdir().unwrap();
    let error = FolderSource::new(dir.path()).read().unwrap_err().to_string();
    assert!(error.contains("holds no samples: found no image; expected images, such as jpg"), "{error}");
    let error = FolderSource::new(dir.path().join("none")).read().unwrap_err().to_string();
    assert!(error.contains("none`: No such file"), "{error}");
}

/// A folder with some files, given by their names and contents.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        create_dir_all(path.parent().unwrap()).unwrap();
        write(path, content).unwrap();
    }
    dir
}

/// Reads it; errors have `DIR` in place of its path.
fn read(files: &[(&str, &str)], set: impl FnOnce(&mut FolderSource)) -> Result<Dataset, String> {
    let dir = folder(files);
    let mut source = FolderSource::new(dir.path());
    set(&mut source);
    let shown = dir.path().display().to_string();
    let mut dataset = source.read().map_err(|error| error.to_string().replace(&shown, "DIR"))?;
    for text in dataset.notes.iter_mut().chain(&mut dataset.warnings) {
        *text = text.replace(&shown, "DIR");
    }
    Ok(dataset)
}

/// `image: caption` for each caption, with the slot if it is not 0.
fn pairs(dataset: &Dataset) -> Vec<String> {
    let name = |image: usize| dataset.relative_key(image);
    let slot = |slot: u8| if slot == 0 { String::new() } else { format!(" #{slot}") };
    dataset.captions().map(|it| format!("{}: {}{}", name(it.image), it.text, slot(it.slot))).collect()
}

fn places(places: &[CaptionsFrom]) -> Option<OneOrMany<CaptionsFrom>> {
    Some(OneOrMany(places.to_vec()))
}

const IMAGES: [(&str, &str); 3] = [("b.png", ""), ("a.png", ""), ("sub/c.jpg", "")];

#[test]
fn metadata_is_used_and_noted() {
    let jsonl = "\u{feff}{\"file_name\": \"a.png\", \"text\": \"first\"}\r\n\n\
                 {\"text\": [\"second\", \"third\"], \"file_name\": \"./sub/c.jpg\"}\n\
                 {\"file_name\": \"b.png\", \"text\": null}\n";
    let csv = "\u{feff}text,file_name\nfirst,a.png\nsecond,sub/c.jpg\nthird,sub/c.jpg\n,b.png\n";
    for (name, content) in [("metadata.jsonl", jsonl), ("metadata.csv", csv)] {
        let beside = [(name, content), ("a.txt", "no"), ("b.txt", "no")];
        let dataset = read(&[&IMAGES[..], &beside].concat(), |_| {}).unwrap();
        assert_eq!(pairs(&dataset), ["a.png: first", "sub/c.jpg: second", "sub/c.jpg: third"], "{name}");
        assert_eq!(dataset.skipped.by_cause(), "empty caption (1)");
        assert_eq!(dataset.notes, [format!("`DIR`: folder, 2 images, captions from `text` of `{name}` (2)")]);
        let forced = read(&[&IMAGES[..], &beside].concat(), |it| it.captions_from = places(&[CaptionsFrom::Txt]));
        assert_eq!(pairs(&forced.unwrap()), ["a.png: no", "b.png: no"], "{name}");
    }
}

#[test]
fn nested_metadata_is_for_its_folder() {
    let files = [
        ("metadata.jsonl", "{\"file_name\": \"a.png\", \"caption\": \"root\"}"),
        ("sub/metadata.csv", "file_name,title\nc.jpg,nested\nsecond.jpg,absent\nodd.xyz,other extension\n"),
        ("sub/odd.xyz", ""),
    ];
    let dataset = read(&[&IMAGES[..], &files].concat(), |_| {}).unwrap();
    // A file that is named but absent is a bad sample like any other; the loader reports it.
    let expected = ["a.png: root", "sub/c.jpg: nested", "sub/odd.xyz: other extension", "sub/second.jpg: absent"];
    assert_eq!(pairs(&dataset), expected);
    assert_eq!(dataset.skipped.by_cause(), "not in metadata (1)");
    assert!(dataset.skipped.first(1).contains("b.png` has no row in `"), "{:?}", dataset.skipped);
    assert!(dataset.notes[0].contains("captions from 2 metadata files (4)"), "{:?}", dataset.notes);
}

#[test]
fn columns_of_metadata_are_found() {
    let with = |content: &str, set: fn(&mut FolderSource)| {
        let files = [IMAGES[1], ("metadata.csv", content)];
        read(&files, set).map(|dataset| pairs(&dataset).join(", "))
    };
    assert_eq!(with("file_name,legend\na.png,x\n", |_| {}).unwrap(), "a.png: x");
    assert_eq!(with("file_name,n,text\na.png,1,x\n", |_| {}).unwrap(), "a.png: x");
    let both = |it: &mut FolderSource| it.captions = Some(vec!["raw".to_owned(), "long".to_owned()]);
    assert_eq!(with("file_name,long,raw\na.png,y,x\n", both).unwrap(), "a.png: x, a.png: y #1");
    let error = with("file_name,p,q\na.png,1,x\n", |_| {}).unwrap_err();
    assert!(error.contains("metadata.csv` has no column `caption`; its columns are `file_name`, `p`, `q`"), "{error}");
    assert!(error.contains("; set `caption"), "{error}");
    let error = with("file_name,text\na.png,x\n", |it| it.caption = Some("txet".to_owned())).unwrap_err();
    assert!(error.contains("has no column `txet`") && error.contains("set `caption = \"text\"`?"), "{error}");
    let error = with("name,text\na.png,x\n", |_| {}).unwrap_err();
    assert!(error.contains("has no column `file_name`; its columns are `name`, `text`"), "{error}");
    assert!(error.contains("to ignore the file, set `captions_from` without `metadata`"), "{error}");
    let error = with("file_name,text\na.png,x,y\n", |_| {}).unwrap_err();
    assert!(error.contains("metadata.csv`, line 2: found 3 fields; expected 2"), "{error}");
}

#[test]
fn malformed_metadata_names_its_line() {
    let with = |name: &str, content: &str| read(&[IMAGES[1], (name, content)], |_| {}).unwrap_err();
    let good = "{\"file_name\": \"a.png\", \"text\": \"x\"}\n";
    let error = with("metadata.jsonl", &format!("{good}nothing"));
    assert!(error.contains("metadata.jsonl`, line 2: not a JSON object"), "{error}");
    let error = with("metadata.jsonl", &format!("{good}{{\"file_name\": \"a.png\", \"text\": {{}}}}"));
    assert!(error.contains("line 2: `text` is {}; expected a string or a list of strings"), "{error}");
    let error = with("metadata.jsonl", "{\"image\": \"a.png\", \"text\": \"x\"}");
    assert!(error.contains("line 1: no key `file_name`; its keys are `image`, `text`"), "{error}");
    let error = with("metadata.parquet", "PAR1");
    assert!(error.contains("metadata.parquet` is malformed"), "{error}");
    let two = [IMAGES[1], ("metadata.jsonl", good), ("metadata.csv", "file_name,text\na.png,x\n")];
    let error = read(&two, |_| {}).unwrap_err();
    assert!(error.contains("metadata.jsonl` is malformed: `metadata.csv` is beside it; remove one"), "{error}");
    let error = read(&[IMAGES[1], ("metadata.jsonl", "")], |_| {}).unwrap_err();
    assert!(error.contains("found 1 image without a caption, not in metadata (1)"), "{error}");
}

/// Captions and warnings of a folder with `a.png`, `b.png`, `sub/c.jpg` and this metadata file.
fn metadata(name: &str, content: impl AsRef<[u8]>) -> Result<(String, String), String> {
    let dir = folder(&IMAGES);
    write(dir.path().join(name), content.as_ref()).unwrap();
    let shown = |text: String| text.replace(&dir.path().display().to_string(), "DIR");
    let dataset = FolderSource::new(dir.path()).read().map_err(|error| shown(error.to_string()))?;
    Ok((pairs(&dataset).join(", "), shown(dataset.notes.iter().chain(&dataset.warnings).cloned().collect::<String>())))
}

#[test]
fn metadata_has_the_guards_of_tables() {
    let all = "a.png: x, b.png: y, sub/c.jpg: z";
    let read = |name: &str, text: &str| metadata(name, text).unwrap();
    assert_eq!(read("metadata.csv", "file_name;text\na.png;x\nb.png;y\nsub/c.jpg;z\n").0, all);
    let (found, told) = read("metadata.csv", "file_name,text,text\na.png,x,1\nb.png,y,1\nsub/c.jpg,z,1\n");
    assert!(found == all && told.contains("several columns are named `text`; the first is used"), "{told}");
    let (found, told) = read("metadata.csv", "file_name,text\na.png,\"x\nb.png,y\nsub/c.jpg,z\"\n");
    assert!(found.starts_with("a.png: x\nb.png,y"), "{found}");
    assert!(told.contains("a quoted field runs over several lines (3 here)"), "{told}");
    assert!(told.contains("set `quote = false` (other keys than"), "{told}");
    assert!(told.contains("those of `csv = { path = \"DIR/metadata.csv\" }`, which reads it in place"), "{told}");
    let json = |names: [&str; 3]| {
        let line = |(name, text): (&&str, &str)| format!("{}\n", serde_json::json!({"file_name": name, "text": text}));
        names.iter().zip(["x", "y", "z"]).map(line).collect::<String>()
    };
    let wide: Vec<u8> = json(["a.png", "b.png", "sub/c.jpg"]).encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(metadata("metadata.jsonl", wide).unwrap().0, all);
    let missing = json(["a.png", "b.png", "sub/c.jpg"]).replace("\"x\"", "\"NaN\"");
    assert!(read("metadata.jsonl", &missing).0.starts_with("a.png: NaN"));
    for error in [
        metadata("metadata.csv", "file_name,title,text\na.png,x,y\n").unwrap_err(),
        metadata("metadata.jsonl", "{\"file_name\": \"a.png\", \"title\": \"x\", \"text\": \"y\"}").unwrap_err(),
    ] {
        assert!(error.contains("may hold it: set `caption = \"") && error.contains("or `captions = ["), "{error}");
    }
    let error = metadata("metadata.csv", b"file_name,text\na.png,caf\xe9\n").unwrap_err();
    assert!(error.contains("line 2") && error.contains("set `encoding = \"latin1\"`"), "{error}");
    let error = metadata("metadata.csv", "file_name,text\nhttp://x/a.png,x\nhttp://x/b.png,y\n").unwrap_err();
    assert!(error.contains("line 2: the image is a URL") && error.contains("(2 rows have such images)"), "{error}");
    let (_, told) = read("metadata.csv", "file_name,caption,long_caption\na.png,x,y\n");
    assert!(told.contains("set `captions = [\"caption\", \"long_caption\"]`"), "{told}");
}

#[test]
fn names_in_metadata_mean_files() {
    for (names, told) in [
        (["./a.png", "sub/../b.png", "sub\\c.jpg"], "`\\` is read as `/`"),
        (["a.png", "none/../b.png", "./sub//c.jpg"], "a folder with `..` behind it is left off"),
        (["a.png", "none\\..\\b.png", "sub/./c.jpg"], "`\\` is read as `/`"),
    ] {
        let rows: String = names.iter().zip(["x", "y", "z"]).map(|(name, text)| format!("{name},{text}\n")).collect();
        let (found, notes) = metadata("metadata.csv", format!("file_name,text\n{rows}")).unwrap();
        assert_eq!(found, "a.png: x, b.png: y, sub/c.jpg: z");
        assert!(notes.contains(told), "{notes}");
    }
    let files = [("caf\u{e9}.png", ""), ("metadata.csv", "file_name,text\ncafe\u{301}.png,x\n")];
    let dataset = read(&files, |_| {}).unwrap();
    assert_eq!(pairs(&dataset), ["caf\u{e9}.png: x"]);
    assert!(dataset.warnings[0].contains("another Unicode form"), "{dataset:?}");
    // Images beside the folder of the metadata, by a relative and by an absolute path.
    let dir = folder(&[("images/a.png", ""), ("images/b.png", ""), ("texts/metadata.csv", ""), ("texts/c.png", "")]);
    let absolute = dir.path().join("images/b.png");
    let rows = format!("file_name,text\n../images/a.png,x\n{},y\n../texts/c.png,z\n", absolute.display());
    write(dir.path().join("texts/metadata.csv"), rows).unwrap();
    let dataset = FolderSource::new(dir.path()).read().unwrap();
    assert_eq!(pairs(&dataset), ["images/a.png: x", "images/b.png: y", "texts/c.png: z"]);
    assert_eq!(dataset.skipped.count, 0);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_metadata_has_captions() {
    let dir = tempfile::tempdir().unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/parquet/metadata.parquet");
    std::fs::copy(golden, dir.path().join("metadata.parquet")).unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    for name in ["a.png", "sub/b.png", "sub/c.png"] {
        write(dir.path().join(name), b"").unwrap();
    }
    let dataset = FolderSource::new(dir.path()).read().unwrap();
    let texts: Vec<&str> = dataset.captions().map(|caption| caption.text).collect();
    assert_eq!(texts, ["a cat", "a dog"]);
    assert!(dataset.image(1).key().ends_with("/sub/b.png"));
    assert_eq!(dataset.skipped.by_cause(), "not in metadata (1)");
    assert!(dataset.notes[0].contains("`text` of `metadata.parquet` (2)"), "{:?}", dataset.notes);
    let other = FolderSource { caption: Some("txet".to_owned()), ..FolderSource::new(dir.path()) };
    let error = other.read().unwrap_err().to_string();
    assert!(error.contains("has no column `txet`") && error.contains("set `caption = \"text\"`?"), "{error}");
}

#[test]
fn json_beside_fills_in_for_text() {
    let files = [
        ("0/000.jpg", ""),
        ("0/000.txt", "text"),
        ("0/000.json", "{\"caption\": \"json\"}"),
        ("0/001.jpg", ""),
        ("0/001.json", "{\"caption\": \"json\", \"status\": \"success\"}"),
        ("0/002.jpg", ""),
        ("0/002.txt", " \n"),
        ("0/002.json", "\u{feff}{\"caption\": \"behind an empty text\"}"),
        ("0/003.jpg", ""),
        ("0/003.json", "{\"caption\": null}"),
        ("0/004.jpg", ""),
        ("0/004.json", "{\"boxes\": []}"),
        ("0_stats.json", "{}"),
    ];
    let dataset = read(&files, |_| {}).unwrap();
    assert_eq!(pairs(&dataset), ["0/000.jpg: text", "0/001.jpg: json", "0/002.jpg: behind an empty text"]);
    assert_eq!(dataset.skipped.by_cause(), "empty caption (1), no caption (1)");
    assert_eq!(dataset.notes, ["`DIR`: folder, 3 images, captions from `.txt` (1), `.json` (2)"]);
    let warnings = dataset.warnings.join("\n");
    assert!(warnings.contains("1 image with an empty caption file: another file beside is used"), "{warnings}");
    assert!(warnings.contains("1 `.json` file beside images without the usual keys"), "{warnings}");
    let error = read(&[("a.png", ""), ("a.json", "{")], |_| {}).unwrap_err();
    assert!(error.contains("a.json` is malformed: not JSON"), "{error}");
    let keyed = [("a.png", ""), ("a.json", "{\"caption\": \"x\", \"long\": [\"y\", \"z\"]}"), ("b.png", "")];
    let long = |it: &mut FolderSource| {
        it.captions_from = places(&[CaptionsFrom::Json]);
        it.captions = Some(vec!["caption".to_owned(), "long".to_owned()]);
    };
    let dataset = read(&keyed, long).unwrap();
    assert_eq!(pairs(&dataset), ["a.png: x", "a.png: y #1", "a.png: z #1"]);
    assert!(dataset.skipped.first(1).contains("b.png` has no `.json`"), "{:?}", dataset.skipped);
}

#[test]
fn names_are_told_or_refused() {
    let mixed = [("a_dog.png", ""), ("b.png", ""), ("b.txt", "text")];
    let dataset = read(&mixed, |_| {}).unwrap();
    assert_eq!(pairs(&dataset), ["a_dog.png: a dog", "b.png: text"]);
    let expected = "`DIR`: 1 of 2 images have no `.txt` or other file of captions: their file names are the captions, \
                    such as `a dog` (to leave such images out, set `captions_from = \"txt\"`)";
    assert_eq!(dataset.warnings, [expected]);
    let dataset = read(&mixed, |it| it.captions_from = places(&[CaptionsFrom::Txt])).unwrap();
    assert_eq!((pairs(&dataset).len(), dataset.skipped.by_cause().as_str()), (1, "no caption (1)"));
    assert_eq!(dataset.warnings, [""; 0]);
    let numbers = [("000000001.jpg", ""), ("3f2504e0-4f89-11d3-9a0c-0305e82c3301.jpg", "")];
    let error = read(&numbers, |_| {}).unwrap_err();
    let expected = "found 2 images without a caption, no caption (2), such as `DIR/000000001.jpg` has no caption \
                    beside it, and its name is a number; are the captions in a file for `[data.train.csv]`";
    assert!(error.contains(expected), "{error}");
    let error = read(&[("cat/1.jpg", ""), ("dog/1.jpg", "")], |_| {}).unwrap_err();
    assert!(error.contains("if each folder is a class, use `[data.train.classes]`"), "{error}");
    let named = |it: &mut FolderSource| it.captions_from = places(&[CaptionsFrom::Name]);
    assert_eq!(pairs(&read(&numbers, named).unwrap())[0], "000000001.jpg: 000000001");
    let dataset = read(&[("IMG_0001.jpg", ""), ("IMG_0002.jpg", "")], |_| {}).unwrap();
    assert!(dataset.warnings[0].contains("differ only in their numbers, such as `IMG 0001`"), "{dataset:?}");
    assert_eq!(read(&[("cat.jpg", ""), ("dog.jpg", "")], |_| {}).unwrap().warnings, [""; 0]);
}

#[test]
fn other_names_of_text_files() {
    let files = [
        ("a.jpg", ""),
        ("a.TXT", "upper case"),
        ("b.jpg", ""),
        ("b.jpg.txt", "behind the whole name"),
        ("c.jpg", ""),
        ("c.caption", "of kohya's scripts"),
    ];
    let expected = ["a.jpg: upper case", "b.jpg: behind the whole name", "c.jpg: of kohya's scripts"];
    assert_eq!(pairs(&read(&files, |_| {}).unwrap()), expected);
}

#[test]
fn text_files_by_line_or_whole() {
    let files = [("a.jpg", ""), ("a.txt", "a dog\nin Paris\n"), ("b.jpg", ""), ("b.txt", "a cat")];
    let dataset = read(&files, |_| {}).unwrap();
    assert_eq!(pairs(&dataset), ["a.jpg: a dog", "a.jpg: in Paris", "b.jpg: a cat"]);
    let expected = "`DIR`: several lines in 1 text file: every line is a caption (`txt = \"whole\"`: one caption)";
    assert_eq!(dataset.notes[1], expected);
    let dataset = read(&files, |it| it.txt = TextCaptions::Whole).unwrap();
    assert_eq!(pairs(&dataset), ["a.jpg: a dog in Paris", "b.jpg: a cat"]);
}

#[test]
fn splits_are_told() {
    let dataset = read(&[("train/cat.jpg", ""), ("test/dog.jpg", "")], |_| {}).unwrap();
    assert_eq!(dataset.num_images(), 2);
    assert_eq!(dataset.warnings, ["`DIR` holds `test`, `train`: all are read as one set; name one in `path`"]);
}

#[test]
fn config_names_places() {
    let source = |text: &str| toml::from_str::<FolderSource>(&format!("path = \"d\"\n{text}"));
    assert_eq!(source("captions_from = \"json\"").unwrap().captions_from, places(&[CaptionsFrom::Json]));
    let many = source("captions_from = [\"txt\", \"name\"]\ntxt = \"whole\"").unwrap();
    assert_eq!(many.captions_from, places(&[CaptionsFrom::Txt, CaptionsFrom::Name]));
    assert_eq!(toml::from_str::<FolderSource>(&toml::to_string(&many).unwrap()).unwrap(), many);
    assert_eq!(toml::to_string(&FolderSource::new("d")).unwrap(), "path = \"d\"\n");
    let error = source("captions_from = \"text\"").unwrap_err().to_string();
    assert!(error.contains("unknown variant `text`, expected one of `metadata`, `txt`"), "{error}");
    let both = FolderSource { caption: Some("a".into()), captions: Some(vec!["b".into()]), ..FolderSource::new("d") };
    assert!(both.read().unwrap_err().to_string().contains("both `caption` and `captions` are set"));
}

#[test]
fn captions_without_image_are_counted() {
    let files = [
        ("0.jpg", ""),
        ("0.txt", "zero"),
        ("0.json", "{}"),
        ("1.txt", "one"),
        ("1.json", "{}"),
        ("2.heic", ""),
        ("2.txt", "two"),
        ("3.png", ""),
        ("3.png.txt", "three"),
        ("README.txt", "about"),
        ("_stats.json", "{}"),
        ("4.caption", "no image has such a file"),
    ];
    let dataset = read(&files, |_| {}).unwrap();
    assert_eq!(pairs(&dataset), ["0.jpg: zero", "3.png: three"]);
    assert_eq!(dataset.skipped.by_cause(), "no image (1)");
    let row = &dataset.skipped.rows[0];
    assert!(row.message.contains("has no image beside it") && row.message.contains("/1."), "{row:?}");
    let json = read(&[&files[..], &[("0.json", "{\"caption\": \"zero\"}")]].concat(), |it| {
        it.captions_from = places(&[CaptionsFrom::Json]);
    });
    let skipped = json.unwrap().skipped;
    assert!(skipped.rows.iter().any(|row| row.message.contains("/1.json` has no image")), "{skipped:?}");
}
