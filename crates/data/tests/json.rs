//! JSON as people have it: each form is read, or named.

use dualenc_data::{BadRows, CocoSource, Dataset, JsonSource, Source, SourceTable, TextEncoding};

type Pairs = Vec<(String, String)>;

/// Reads a file of this name and content, after `set` has changed its source.
fn read_with(name: &str, content: impl AsRef<[u8]>, set: impl FnOnce(&mut JsonSource)) -> Result<Dataset, String> {
    // A folder of its own around it: images are also looked for beside the folder of the file.
    let around = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir_in(&around).unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    let source = match Source::from_path(&path).unwrap() {
        Source::Json(mut source) => {
            set(&mut source);
            Source::Json(source)
        }
        other => other,
    };
    source.read().map_err(|error| error.to_string().replace(&dir.path().display().to_string(), "DIR"))
}

fn read(name: &str, content: impl AsRef<[u8]>) -> Result<Dataset, String> {
    read_with(name, content, |_| ())
}

/// The name of an image, relative to the folder of the test: its name begins with `.tmp`.
fn relative(key: &str) -> String {
    let below = key.rsplit_once("/.tmp").and_then(|(_, rest)| rest.split_once('/'));
    below.map_or(key, |(_, name)| name).to_owned()
}

fn pairs(dataset: &Dataset) -> Pairs {
    dataset.captions().map(|it| (relative(&dataset.image(it.image).key()), it.text.to_owned())).collect()
}

fn expected() -> Pairs {
    [("a.png", "x"), ("a.png", "y\u{e9}"), ("b.png", "z")].map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec()
}

const ONE: &str = r#"{"image": "a.png", "caption": ["x", "yé"]}"#;
const TWO: &str = r#"{"caption": "z", "image": "b.png", "id": 3}"#;

#[test]
fn every_form_gives_the_same_pairs() {
    let coco = r#"{"info": {}, "images": [{"id": 0, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}],
        "annotations": [{"image_id": 0, "caption": "x"}, {"image_id": 1, "caption": "z"},
                        {"image_id": 0, "caption": "yé"}]}"#;
    let karpathy = r#"{"dataset": "flickr30k", "images": [
        {"filename": "a.png", "sentences": [{"raw": "x", "tokens": ["x"]}, {"raw": "yé"}], "split": "train"},
        {"filename": "b.png", "sentences": [{"raw": "z"}], "split": "train"}]}"#;
    let over_lines = |object: &str| object.replace("{\"", "{\n  \"").replace(", \"", ",\n  \"");
    let forms = [
        ("lines.jsonl", format!("{ONE}\n\n{TWO}\n")),
        ("crlf.ndjson", format!("{ONE}\r\n{TWO}\r\n")),
        ("lines.json", format!("{ONE}\n{TWO}")),
        ("list.json", format!("[{ONE}, {TWO}]")),
        ("list.jsonl", format!("[{ONE}, {TWO}]")),
        ("pretty.jsonl", format!("[\n  {},\n  {}\n]\n", over_lines(ONE), over_lines(TWO))),
        ("sequence.json", format!("{}\n{}", over_lines(ONE), over_lines(TWO))),
        ("sequence.jsonl", format!("{}\n{}", over_lines(ONE), over_lines(TWO))),
        ("under.json", format!("{{\"version\": 1, \"data\": [{ONE}, {TWO}]}}")),
        ("split.json", format!("{{\"train\": [{ONE}, {TWO}]}}")),
        ("columns.json", r#"{"id": [1, 2], "image": ["a.png", "b.png"], "caption": [["x", "yé"], "z"]}"#.to_owned()),
        (
            "pandas.json",
            r#"{"image": {"2": "a.png", "10": "b.png"}, "caption": {"2": ["x", "yé"], "10": "z"}}"#.to_owned(),
        ),
        ("by_image.json", r#"{"a.png": ["x", "yé"], "b.png": "z"}"#.to_owned()),
        ("coco.json", coco.to_owned()),
        ("dataset_flickr30k.json", karpathy.to_owned()),
    ];
    for (name, text) in &forms {
        let wide: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked = format!("\u{feff}{text}").into_bytes();
        for (bytes, encoding) in
            [(text.clone().into_bytes(), "UTF-8"), (marked, "UTF-8 with byte order mark"), (wide, "UTF-16")]
        {
            let dataset = read(name, bytes).unwrap_or_else(|error| panic!("{name}, {encoding}: {error}"));
            let mut found = pairs(&dataset);
            found.sort();
            assert_eq!(found, expected(), "{name}, {encoding}");
            assert_eq!(dataset.num_images(), 2, "{name}");
            let note = &dataset.notes[0];
            assert!(note.starts_with(&format!("`{name}`: ")) && note.contains(&format!(", {encoding}, ")), "{note}");
            assert!(dataset.warnings.is_empty(), "{name}: {:?}", dataset.warnings);
        }
    }
}

#[test]
fn one_object_is_one_row() {
    for name in ["d.json", "d.jsonl"] {
        assert_eq!(pairs(&read(name, TWO).unwrap()), [("b.png".to_owned(), "z".to_owned())], "{name}");
    }
}

#[test]
fn usual_keys_are_taken() {
    let dataset = read("d.jsonl", "{\"file_name\": \"a.png\", \"text\": \"x\"}\n").unwrap();
    assert!(
        dataset.notes[0].ends_with("JSON lines, UTF-8, 1 row; image from `file_name`, caption from `text`"),
        "{:?}",
        dataset.notes
    );
    let error = read("d.jsonl", "{\"image\": \"a\", \"title\": \"x\", \"text\": \"y\"}\n{}").unwrap_err();
    assert!(error.contains("`text` and `title` may hold it: set `caption = \"text\"`, or another"), "{error}");
}

#[test]
fn malformed_lines_name_line() {
    let good = "{\"image\": \"a.png\", \"caption\": \"x\"}\n";
    for (line, reason) in [
        ("{\"image\": 3, \"caption\": \"x\"}", "`image` is 3; expected a path"),
        ("{\"image\": \"a\", \"captions\": \"x\"}", "no key `caption`; its keys are `captions`, `image`"),
        ("{\"image\": \"a\", \"caption\": [true]}", "`caption` is [true]; expected a string or a list of strings"),
        ("not json", "not a JSON object: expected"),
        (
            "{\"image\": {\"bytes\": \"/9j/\", \"path\": null}, \"caption\": \"x\"}",
            "`image` holds the bytes of the image",
        ),
    ] {
        let error = read("d.jsonl", format!("{good}{line}\n")).unwrap_err();
        assert!(error.starts_with(&format!("`DIR/d.jsonl`, line 2: {reason}")), "{error}");
    }
    let cut = read("d.jsonl", format!("{good}{{\"image\": \"a.png\", \"caption\": \"a c\n")).unwrap_err();
    assert_eq!(cut, "`DIR/d.jsonl`, line 2: not a JSON object: EOF while parsing a string at column 34");
    let latin1 = b"{\"image\": \"a\", \"caption\": \"x\"}\n{\"image\": \"a\", \"caption\": \"caf\xe9\"}";
    let error = read("d.jsonl", latin1).unwrap_err();
    assert!(error.contains("line 2: not UTF-8 at byte 31 of the line, 0xE9") && error.contains("latin1"), "{error}");
    let dataset = read_with("d.json", latin1, |source| source.encoding = Some(TextEncoding::Latin1)).unwrap();
    assert_eq!(dataset.caption(1).text, "caf\u{e9}");
    assert!(read("d.jsonl", "\n").unwrap_err().contains("holds no samples"));
}

#[test]
fn null_captions_are_empty() {
    let text = "{\"image\": \"a.png\", \"caption\": \"x\"}\n{\"image\": \"a.png\", \"caption\": null}\n\
                {\"image\": null, \"caption\": \"x\"}\n{\"image\": \"b.png\", \"caption\": []}\n";
    let dataset = read("d.jsonl", text).unwrap();
    assert_eq!((dataset.num_captions(), dataset.skipped.by_cause().as_str()), (1, "empty caption (2), no image (1)"));
    let error = read("d.jsonl", "{\"image\": \"a.png\", \"caption\": \"x\"}\n{\"image\": \"a.png\"}\n").unwrap_err();
    assert!(error.contains("line 2: no key `caption`; its keys are `image`"), "{error}");
}

#[test]
fn numbers_are_captions() {
    let dataset = read("d.json", r#"[{"image": "a.png", "label": 7}, {"image": "b.png", "label": [1, "x"]}]"#).unwrap();
    let texts: Vec<&str> = dataset.captions().map(|caption| caption.text).collect();
    assert_eq!(texts, ["7", "1", "x"]);
}

#[test]
fn several_keys_have_slots() {
    let text = r#"[{"image": "a.png", "raw": "x", "long": ["y", "z"]}, {"image": "b.png", "raw": null, "long": "w"}]"#;
    let dataset =
        read_with("d.json", text, |source| source.captions = Some(vec!["raw".to_owned(), "long".to_owned()])).unwrap();
    let captions: Vec<_> = dataset.captions().map(|caption| (caption.image, caption.text, caption.slot)).collect();
    assert_eq!(captions, [(0, "x", 0), (0, "y", 1), (0, "z", 1), (1, "w", 1)]);
    assert_eq!(dataset.skipped.count, 0, "the row with a null has another caption");
}

#[test]
fn karpathy_splits_are_chosen() {
    let image = |name: &str, split: &str| {
        format!(r#"{{"filepath": "val2014", "filename": "{name}", "split": "{split}", "sentences": [{{"raw": "x"}}]}}"#)
    };
    let images = [image("a", "train"), image("b", "restval"), image("c", "test"), image("d", "train")].join(",");
    let text = format!(r#"{{"images": [{images}], "dataset": "coco"}}"#);
    let names = |split: &str| {
        let dataset = read_with("d.json", &text, |source| source.split = Some(split.into()))?;
        assert!(dataset.warnings.is_empty());
        Ok::<_, String>(pairs(&dataset).into_iter().map(|(image, _)| image).collect::<Vec<_>>())
    };
    assert_eq!(names("train").unwrap(), ["val2014/a", "val2014/d"]);
    assert_eq!(names("train+restval").unwrap(), ["val2014/a", "val2014/b", "val2014/d"]);
    let list: SourceTable = toml::from_str("json = { path = \"d.json\", split = [\"train\", \"restval\"] }").unwrap();
    let listed = read_with("d.json", &text, |source| source.split = list.json.unwrap().split).unwrap();
    assert_eq!(listed.num_images(), 3);
    let error = names("val").unwrap_err();
    assert!(
        error.contains("no row has the split `val`; its splits are `restval` (1), `test` (1), `train` (2)"),
        "{error}"
    );
    let dataset = read("d.json", &text).unwrap();
    assert!(
        dataset.num_images() == 4 && dataset.warnings[0].contains("set `split` to choose"),
        "{:?}",
        dataset.warnings
    );
}

#[test]
fn lists_by_split_are_chosen() {
    let text = format!("{{\"train\": [{ONE}], \"test\": [{TWO}]}}");
    let error = read("d.json", &text).unwrap_err();
    assert!(
        error.contains("an object with the splits `train`, `test`; set `split`, such as `split = \"train\"`"),
        "{error}"
    );
    let dataset = read_with("d.json", &text, |source| source.split = Some("test".into())).unwrap();
    assert_eq!(pairs(&dataset), [("b.png".to_owned(), "z".to_owned())]);
}

#[test]
fn absent_splits_are_refused() {
    let text = format!("{{\"train\": [{ONE}], \"val\": [{TWO}], \"extra\": [{TWO}]}}");
    let read = |split: &str| read_with("d.json", &text, |source| source.split = Some(split.into()));
    let error = read("train+vall").unwrap_err();
    assert!(error.contains("without the split `vall`; its splits are `train`, `val`, `extra`"), "{error}");
    assert_eq!(read("train + val").unwrap().num_images(), 2);
    let dataset = read("val+extra").unwrap();
    assert_eq!((dataset.num_captions(), dataset.warnings.len()), (2, 0), "{:?}", dataset.warnings);
    for split in ["", "train+"] {
        assert!(read(split).unwrap_err().contains("`split` has an empty name; expected names of splits"));
    }
}

#[test]
fn columns_obey_split() {
    let text = r#"{"image": ["a", "b", "c"], "caption": ["x", "y", "z"], "split": ["train", "val", "train"]}"#;
    let read = |text: &str, split: &str| read_with("d.json", text, |source| source.split = Some(split.into()));
    let names: Vec<String> = pairs(&read(text, "train").unwrap()).into_iter().map(|(image, _)| image).collect();
    assert_eq!(names, ["a", "c"]);
    let error = read(text, "test").unwrap_err();
    assert!(error.contains("no row has the split `test`; its splits are `train` (2), `val` (1)"), "{error}");
    let error = read(r#"{"image": ["a"], "caption": ["x"]}"#, "train").unwrap_err();
    assert!(error.contains("`split` is set, and there is no column `split`"), "{error}");
    let dataset = read_with("d.json", text, |_| ()).unwrap();
    assert!(dataset.num_images() == 3 && dataset.warnings[0].contains("set `split` to choose"));
}

#[test]
fn keys_without_meaning_are_refused() {
    type Set = fn(&mut JsonSource);
    let sets: [(&str, Set); 4] = [
        ("`split`", |source| source.split = Some("train".into())),
        ("`image`", |source| source.image = Some("img".to_owned())),
        ("`caption`", |source| source.caption = Some("text".to_owned())),
        ("`captions`", |source| source.captions = Some(vec!["text".to_owned()])),
    ];
    for (key, set) in sets {
        let error = read_with("d.json", r#"{"a.png": "x", "b.png": ["y"]}"#, set).unwrap_err();
        assert!(error.contains(&format!("where {key} has no meaning")), "{error}");
    }
}

#[test]
fn unread_lists_are_told() {
    for (key, other) in [("data", "more"), ("train", "extra")] {
        let text = format!("{{\"{other}\": [{TWO}, {TWO}], \"licenses\": [{{}}], \"{key}\": [{ONE}]}}");
        let dataset = read("d.json", &text).unwrap();
        assert_eq!(dataset.num_images(), 1);
        let told = format!("only the list `{key}` is read; lists of objects that are not: `{other}` (2)");
        assert!(dataset.warnings.len() == 1 && dataset.warnings[0].contains(&told), "{:?}", dataset.warnings);
        let both =
            read_with("d.json", &text, |source| source.split = Some(format!("{key}+{other}").as_str().into())).unwrap();
        assert!(both.num_images() == 2 && both.warnings.is_empty());
    }
}

#[test]
fn coco_takes_any_id() {
    for (id, other) in [("7", "7"), ("\"000007\"", "\"000007\""), ("7.0", "7"), ("\"7\"", "7")] {
        let text = format!(
            r#"{{"annotations": [{{"image_id": {other}, "caption": "x"}}, {{"image_id": {other}, "caption": null}}],
                "images": [{{"id": {id}, "coco_url": "http://images.cocodataset.org/val2017/a.png"}}]}}"#
        );
        for dataset in [read("d.json", &text), coco(&text)] {
            let dataset = dataset.unwrap();
            assert_eq!(pairs(&dataset), [("a.png".to_owned(), "x".to_owned())], "{id}");
            assert_eq!(dataset.skipped.by_cause(), "empty caption (1)");
        }
    }
    let twice =
        r#"{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": [{"image_id": 1}]}"#;
    let error = coco(twice).unwrap_err();
    assert_eq!(error, "`DIR/d.json`, image 2: the id 1 is that of an earlier image");
}

#[test]
fn doubled_coco_ids_swap_no_captions() {
    let image = |id: u32, name: &str| format!(r#"{{"id": {id}, "file_name": "{name}"}}"#);
    let text = |images: &[String]| {
        format!(
            r#"{{"images": [{}], "annotations": [{{"image_id": 1, "caption": "one"}},
                {{"image_id": 2, "caption": "two"}}]}}"#,
            images.join(", ")
        )
    };
    let expected = [("a", "one"), ("c", "two")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    // The doubled image comes before another one, and last.
    for order in [[1, 1, 2], [1, 2, 1]] {
        let mut names = ["a", "b"].into_iter();
        let images = order.map(|id| image(id, if id == 2 { "c" } else { names.next().unwrap() }));
        let dataset = read_with("d.json", text(&images), |source| source.bad_rows = BadRows::Skip).unwrap();
        assert_eq!(pairs(&dataset), expected, "{order:?}");
        assert_eq!(dataset.skipped.count, 1);
    }
}

#[test]
fn large_coco_ids_stay_apart() {
    for (one, two) in [
        ("9223372036854775808", "9223372036854775809"),
        ("18446744073709551615", "18446744073709551614"),
        ("\"9223372036854775808\"", "9223372036854775809"),
        ("-9223372036854775808", "9223372036854775808"),
    ] {
        let text = format!(
            r#"{{"images": [{{"id": {one}, "file_name": "a"}}, {{"id": {two}, "file_name": "b"}}],
                "annotations": [{{"image_id": {two}, "caption": "y"}}, {{"image_id": {one}, "caption": "x"}}]}}"#
        );
        let expected = [("a", "x"), ("b", "y")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(pairs(&coco(&text).unwrap()), expected, "{one}");
    }
    for id in ["9007199254740993.0", "1e300", "1.5"] {
        let text = format!(r#"{{"images": [{{"id": {id}, "file_name": "a"}}], "annotations": [{{"image_id": 1}}]}}"#);
        let error = coco(&text).unwrap_err();
        assert!(error.contains("image 1: the `id` ") && error.contains("expected a whole number"), "{error}");
    }
}

fn coco(text: &str) -> Result<Dataset, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.json");
    std::fs::write(&path, text).unwrap();
    let dataset = CocoSource::new(path, None).read();
    dataset.map_err(|error| error.to_string().replace(&dir.path().display().to_string(), "DIR"))
}

#[test]
fn other_forms_are_named() {
    let blip = r#"[{"image": "a.png", "caption": "x", "image_id": 0}]"#;
    let error = coco(blip).unwrap_err();
    assert!(
        error.contains("it is a list of objects with the keys `image`, `caption`, `image_id`; `json = {"),
        "{error}"
    );
    let error = coco(r#"{"images": [{"sentences": [], "split": "test"}], "dataset": "x"}"#).unwrap_err();
    assert!(
        error.contains("it is a Karpathy split, which `json = { path = \"..\", split = \"train\" }` reads"),
        "{error}"
    );
    let llava = r#"[{"id": "1", "image": "a.png", "conversations": [{"from": "human", "value": "x"}]}]"#;
    let error = read("d.json", llava).unwrap_err();
    assert!(error.contains("item 1: `conversations` is LLaVA's form of dialogues"), "{error}");
    for (text, what) in [
        ("[\"a.png\", \"x\"]", "item 1: \"a.png\" is no object"),
        ("{\"x\": 1, \"y\": {}}", "it is an object with the keys `x`, `y`; expected a list of objects"),
        ("[]", "holds no samples: found JSON list, UTF-8, and no usable row"),
        ("x,y\n", "not JSON: it starts with `x,y`"),
        ("", "holds no samples: found an empty file"),
        ("[{\"image\": \"a.png\", \"caption\": \"x\"},", "not JSON: EOF while parsing"),
    ] {
        let error = read("d.json", text).unwrap_err();
        assert!(error.contains(what), "{text}: {error}");
    }
}

#[test]
fn malformed_items_are_skipped_if_asked() {
    let text = format!("[{ONE}, 3, {{\"image\": \"c.png\"}}, {TWO}]");
    let error = read("d.json", &text).unwrap_err();
    assert!(error.contains("item 2: 3 is no object"), "{error}");
    let dataset = read_with("d.json", &text, |source| source.bad_rows = BadRows::Skip).unwrap();
    assert_eq!((pairs(&dataset), dataset.skipped.count), (expected(), 2));
}

#[test]
fn null_words_are_told() {
    let dataset = read("d.jsonl", "{\"image\": \"a.png\", \"caption\": \"NaN\"}\n").unwrap();
    let warning = dataset.null_words().unwrap();
    assert!(dataset.num_captions() == 1 && warning.contains("the first `NaN` of `"), "{warning}");
}
