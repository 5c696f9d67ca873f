//! Tables as people have them: what is found by looking, and what is refused with the way out.

use dualenc_data::{BadRows, CsvSource, Dataset, Source, SourceTable, TextEncoding};

/// Reads a file of this name and content, after `set` has changed its source. Images `a.png`, `b.png` and `sub/c.png`
/// are there.
pub fn read_with(name: &str, content: impl AsRef<[u8]>, set: impl FnOnce(&mut CsvSource)) -> Result<Dataset, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    for image in ["a.png", "b.png", "sub/c.png"] {
        std::fs::write(dir.path().join(image), b"x").unwrap();
    }
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    let shown = |text: String| text.replace(&dir.path().display().to_string(), "DIR");
    let source = match Source::from_path(&path).map_err(|error| shown(error.to_string()))? {
        Source::Csv(mut source) => {
            set(&mut source);
            Source::Csv(source)
        }
        Source::Tsv(mut source) => {
            set(&mut source);
            Source::Tsv(source)
        }
        other => panic!("{other:?}"),
    };
    let mut dataset = source.read().map_err(|error| shown(error.to_string()))?;
    dataset.notes.iter_mut().chain(&mut dataset.warnings).for_each(|text| *text = shown(text.clone()));
    Ok(dataset)
}

pub fn read(name: &str, content: impl AsRef<[u8]>) -> Result<Dataset, String> {
    read_with(name, content, |_| ())
}

/// The name of an image, relative to the folder of the test. The name of that folder begins with `.tmp`.
pub fn relative(key: &str) -> String {
    let below = key.split_once("/.tmp").and_then(|(_, rest)| rest.split_once('/'));
    below.map_or(key, |(_, name)| name).to_owned()
}

/// Image names and captions.
pub fn pairs(dataset: &Dataset) -> Vec<(String, String)> {
    dataset.captions().map(|it| (relative(&dataset.image(it.image).key()), it.text.to_owned())).collect()
}

pub fn expected() -> Vec<(String, String)> {
    [("a.png", "a cat, asleep"), ("sub/c.png", "caf\u{e9}"), ("b.png", "a dog")]
        .map(|(image, caption)| (image.to_owned(), caption.to_owned()))
        .to_vec()
}

/// Warnings, without any healthy set has.
pub fn warnings(dataset: &Dataset) -> String {
    dataset.warnings.join("\n")
}

#[test]
fn rows_become_pairs() {
    let text = "\u{feff}id,image,caption\n1,a.png,\"a cat, asleep\"\n2,b.png,a dog\n3,a.png,a pet\n";
    let dataset = read("d.csv", text).unwrap();
    assert_eq!((dataset.num_images(), dataset.captions_of(0)), (2, &[0, 2][..]));
    let expected = [("a.png", "a cat, asleep"), ("b.png", "a dog"), ("a.png", "a pet")];
    assert_eq!(pairs(&dataset), expected.map(|(image, caption)| (image.to_owned(), caption.to_owned())));
    assert_eq!(
        dataset.notes,
        ["`d.csv`: comma-separated, UTF-8 with byte order mark, header, 3 rows; image from `image`, caption from \
             `caption`"]
    );
    assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
}

#[test]
fn separators_and_encodings_are_found() {
    let rows = [["image", "caption"], ["a.png", "\"a cat, asleep\""], ["sub/c.png", "caf\u{e9}"], ["b.png", "a dog"]];
    for (separator, name) in [(",", "comma"), ("\t", "tab"), (";", "`;`"), ("|", "`|`"), ("| ", "`|`")] {
        for line_end in ["\n", "\r\n", "\r"] {
            let quote = |field: &str| if separator == "| " { field.replace('"', "") } else { field.to_owned() };
            let text: String = rows.iter().map(|[a, b]| format!("{a}{separator}{}{line_end}", quote(b))).collect();
            let wide = |to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<u8>>();
            let marked = |mark: &[u8], bytes: Vec<u8>| [mark, &bytes].concat();
            let files = [
                (text.clone().into_bytes(), "UTF-8"),
                (marked(b"\xef\xbb\xbf", text.clone().into_bytes()), "UTF-8 with byte order mark"),
                (marked(b"\xff\xfe", wide(u16::to_le_bytes)), "UTF-16"),
                (marked(b"\xfe\xff", wide(u16::to_be_bytes)), "UTF-16 big-endian"),
                (wide(u16::to_le_bytes), "UTF-16"),
            ];
            for extension in ["csv", "tsv", "txt"] {
                for (bytes, encoding) in &files {
                    let dataset = read(&format!("d.{extension}"), bytes).unwrap();
                    assert_eq!(pairs(&dataset), expected(), "{separator:?} {line_end:?} {extension} {encoding}");
                    let note = &dataset.notes[0];
                    assert!(note.contains(name) && note.contains(&format!(", {encoding}, header, 3 rows")), "{note}");
                    assert!(dataset.warnings.is_empty());
                }
            }
        }
    }
}

#[test]
fn excel_separator_line_is_obeyed() {
    for text in ["sep=;\r\nimage;caption\r\na.png;x, y\r\n", "SEP=|\nimage|caption\na.png|x, y\n"] {
        let dataset = read("d.csv", text).unwrap();
        assert_eq!(pairs(&dataset), [("a.png".to_owned(), "x, y".to_owned())]);
    }
    let error = read("d.csv", "sep=;\nimage;caption\na.png;x\nb.png\n").unwrap_err();
    assert_eq!(error, "`DIR/d.csv`, line 4: found 1 field; expected 2, as in the header");
}

#[test]
fn latin1_is_told_and_read() {
    let text = b"image,caption\na.png,x\nsub/c.png,caf\xe9\n";
    assert_eq!(
        read("d.csv", text).unwrap_err(),
        "`DIR/d.csv`, line 3: not UTF-8 at byte 4 of `caption`, 0xE9 in `caf\u{fffd}`; save the file as UTF-8, or set \
         `encoding = \"latin1\"` if it is in Latin-1 or Windows-1252"
    );
    let dataset = read_with("d.csv", text, |source| source.encoding = Some(TextEncoding::Latin1)).unwrap();
    assert_eq!(dataset.caption(1).text, "caf\u{e9}");
    let table: SourceTable = toml::from_str("csv = { path = \"d.csv\", encoding = \"windows-1252\" }").unwrap();
    assert_eq!(table.csv.unwrap().encoding, Some(TextEncoding::Latin1));
}

#[test]
fn tables_without_header_keep_first_row() {
    let pair = |image: &str, caption: &str| (image.to_owned(), caption.to_owned());
    let dataset = read("d.tsv", "a.png\tx\nb.png\ty\n").unwrap();
    assert_eq!(pairs(&dataset), [pair("a.png", "x"), pair("b.png", "y")]);
    assert_eq!(
        dataset.notes[0],
        "`d.tsv`: tab-separated, UTF-8, no header, 2 rows; image from column 1, caption from column 2"
    );
    // Captions first, and Flickr8k's numbers.
    assert_eq!(pairs(&read("d.tsv", "x\ta.png\ny\tb.png\n").unwrap()), [pair("a.png", "x"), pair("b.png", "y")]);
    for name in ["Flickr8k.token.txt", "d.tsv"] {
        let dataset = read(name, "a.png#0\tx .\na.png#1\ty , z .\nmissing.png#0\tz .\n").unwrap();
        assert_eq!(pairs(&dataset), [pair("a.png", "x ."), pair("a.png", "y , z ."), pair("missing.png", "z .")]);
        assert_eq!(dataset.num_images(), 2);
    }
    // A file without the extension of an image, which is there.
    let dataset = read("d.csv", "d.csv,x\n").unwrap();
    assert_eq!(pairs(&dataset), [pair("d.csv", "x")]);
}

#[test]
fn wider_tables_without_header_are_told() {
    let text = "1,a.png,x\n2,b.png,y\n";
    assert_eq!(
        read("d.csv", text).unwrap_err(),
        "`DIR/d.csv` is malformed: the first line looks like data: `1`, `a.png`, `x`; add a header line, or set \
         `header = false` and name the columns by number, such as `image = \"1\"` and `caption = \"2\"`"
    );
    for header in [Some(false), None] {
        let dataset = read_with("d.csv", text, |source| {
            source.header = header;
            (source.image, source.caption) = (Some("2".to_owned()), Some("3".to_owned()));
        });
        assert_eq!(dataset.unwrap().num_captions(), 2, "{header:?}");
    }
    let error = read_with("d.csv", text, |source| source.header = Some(false)).unwrap_err();
    assert!(error.contains("without a header, name the columns by number") && error.contains("3 columns"), "{error}");
    let error = read_with("d.csv", text, |source| source.header = Some(true)).unwrap_err();
    assert!(error.contains("has no column `image`; its columns are `1`, `a.png`, `x`"), "{error}");
}

#[test]
fn numbered_columns_keep_first_row() {
    let read = |text: &str, header: Option<bool>| {
        let dataset = read_with("d.tsv", text, |source| {
            source.header = header;
            (source.image, source.caption) = (Some("1".to_owned()), Some("2".to_owned()));
        });
        dataset.unwrap()
    };
    // An image without extension that is not there.
    let text = "im/x\ta red thing\na.png\ty\n";
    let dataset = read(text, None);
    assert_eq!(dataset.num_captions(), 2);
    assert!(
        dataset.notes[0].contains("no header (if the first line is one, set `header = true`)"),
        "{:?}",
        dataset.notes
    );
    assert_eq!(pairs(&read(text, Some(true))), [("a.png".to_owned(), "y".to_owned())]);
    // One usual name is enough.
    for header in ["filepath\tx", "x\ttitle"] {
        let dataset = read(&format!("{header}\na.png\ty\n"), None);
        assert_eq!(pairs(&dataset), [("a.png".to_owned(), "y".to_owned())], "{header}");
        assert!(dataset.notes[0].contains(", header, "));
    }
    // What looks like an image is data without a doubt.
    assert!(read("gone.png\tx\na.png\ty\n", None).notes[0].contains(", no header, 2 rows"));
}

#[test]
fn blanks_before_quotes_are_left_off() {
    let text = "image, \"caption\"\na.png, \"c0\"\nb.png, \"two \"\"dogs\"\"\" \nsub/c.png, \"a\" and \"b\"\n";
    let dataset = read("d.csv", text).unwrap();
    let texts: Vec<&str> = dataset.captions().map(|caption| caption.text).collect();
    assert_eq!(texts, ["c0", "two \"dogs\"", "\"a\" and \"b\""]);
    let literally = "if quotes are part of the captions, set `quote = false`";
    let expected = [
        format!(
            "`DIR/d.csv`, line 2: 2 rows have a field in quotes with blanks before them; the quotes are left off; \
             {literally}"
        ),
        "`DIR/d.csv`, line 4: 1 row has a field in quotes with blanks before them; the quotes are part of the text; if \
         they are not, remove the blanks"
            .to_owned(),
    ];
    assert_eq!(dataset.warnings, expected);
    let dataset = read_with("d.csv", "image,caption\na.png, \"c0\"\n", |source| source.quote = Some(false)).unwrap();
    assert!(dataset.caption(0).text == "\"c0\"" && dataset.warnings.is_empty());
    // Blanks around bars are usual, and so are quotes in captions.
    let dataset = read("d.csv", "image| caption\na.png| \"c0\"\n").unwrap();
    assert_eq!(dataset.caption(0).text, "\"c0\"");
    assert!(warnings(&dataset).contains("the quotes are part of the text"), "{:?}", dataset.warnings);
    for text in ["image,caption\na.png, \"a cat, asleep\"\n", "image,caption,x\na.png, \"a cat\nasleep\",y\n"] {
        let error = read("d.csv", text).unwrap_err();
        assert!(error.contains("a field has a blank before its quote") && !error.contains("put it"), "{error}");
    }
}

#[test]
fn other_encodings_and_forms_are_told() {
    let text = "image,caption\na.png,x\n";
    let cjk = format!(
        "{}{}",
        text,
        "b.png,\u{8d64}\u{8272}\u{306e}\u{8eca}\u{304c}\u{9053}\u{306b}\u{3042}\u{308b}\n".repeat(50)
    );
    let long = |text: &str| text.replace("\n", &format!("{}\n", "\u{8d64}".repeat(90)));
    for to_bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        let wide = |text: &str| text.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>();
        let bytes = wide(&cjk.replace("b.png,", &format!("b.png,{}", "\u{8d64}".repeat(40))));
        let error = read("d.csv", &bytes).unwrap_err();
        assert!(error.contains("set `encoding = \"utf-16\"`") && !error.contains("its columns are"), "{error}");
        let set = |source: &mut CsvSource| source.encoding = Some(TextEncoding::Utf16);
        assert_eq!(read_with("d.csv", &bytes, set).unwrap().num_captions(), 51);
        let json = wide(&format!("{{\"image\": \"a.png\", \"caption\": \"{}\"}}\n", long("x\n").trim()).repeat(9));
        for name in ["d.json", "d.jsonl"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(name), &json).unwrap();
            let error = Source::from_path(dir.path().join(name)).unwrap().read().unwrap_err().to_string();
            assert!(error.contains("not JSON: it holds NUL bytes") && error.contains("utf-16"), "{error}");
        }
        // In a table without a header, the first row that is no UTF-8.
        let error = read("d.tsv", wide(&format!("a.png\t{}\n", "\u{ff01}".repeat(90)))).unwrap_err();
        assert!(error.contains("set `encoding = \"utf-16\"`"), "{error}");
    }
    for text in [text, "image,caption\na.png,xy\n"] {
        let error = read_with("d.csv", text, |source| source.encoding = Some(TextEncoding::Utf16)).unwrap_err();
        assert!(error.contains("it was read as UTF-16: if it is not, set `encoding = \"utf-8\"`"), "{error}");
    }
    for text in ["[{\"image\": \"a.png\", \"caption\": \"x\"}]", "[\n  {\n", "{\"image\": \"a.png\"}\n"] {
        let error = read("d.csv", text).unwrap_err();
        assert!(error.contains("it is JSON, not a table: use `json = { path = \"..\" }`"), "{error}");
    }
}

#[test]
fn usual_columns_are_taken() {
    for (header, image, caption) in [
        ("filepath,title", "filepath", "title"),
        ("file_name,text", "file_name", "text"),
        ("Image,Caption", "Image", "Caption"),
        ("image_name,comment", "image_name", "comment"),
    ] {
        let dataset = read("d.csv", format!("{header}\na.png,x\n")).unwrap();
        let origin = format!("image from `{image}`, caption from `{caption}`");
        assert!(dataset.notes[0].ends_with(&origin), "{:?}", dataset.notes);
    }
    let flickr = "image_name| comment_number| comment\na.png| 0| Two men , one dog .\nb.png| 0| x\n";
    assert_eq!(read("results.csv", flickr).unwrap().caption(0).text, "Two men , one dog .");
}

#[test]
fn missing_columns_name_fix() {
    assert_eq!(
        read("d.csv", "image,captoin,n\na.png,x,1\n").unwrap_err(),
        "`DIR/d.csv` has no column `caption`; its columns are `image`, `captoin`, `n`; set `caption = \"captoin\"`?"
    );
    assert_eq!(
        read("d.csv", "image,title,text\na.png,x,y\n").unwrap_err(),
        "`DIR/d.csv` has no column `caption`; its columns are `image`, `title`, `text`; `title` and `text` may hold \
         it: set `caption = \"title\"`, or another, or `captions = [\"title\", \"text\"]` for all"
    );
    assert_eq!(
        read("d.csv", "x,y\n1,2\n").unwrap_err(),
        "`DIR/d.csv` has no column `image`; its columns are `x`, `y`; set `image` to the column that holds it"
    );
    let error = read_with("d.csv", "filepath,title\na.png,x\n", |source| source.image = Some("image".to_owned()));
    assert_eq!(
        error.unwrap_err(),
        "`DIR/d.csv` has no column `image`; its columns are `filepath`, `title`; set `image = \"filepath\"`?"
    );
    let error = read_with("d.csv", "image;caption\na.png;x\n", |source| source.delimiter = Some(',')).unwrap_err();
    assert!(error.contains("another delimiter: set `delimiter = \";\"`"), "{error}");
}

#[test]
fn doubled_columns_are_told() {
    let dataset = read("d.csv", "image,caption,caption\na.png,x,y\n").unwrap();
    assert!(dataset.caption(0).text == "x" && warnings(&dataset).contains("named `caption`"), "{:?}", dataset.warnings);
    assert!(!dataset.notes.join("\n").contains("captions = "), "{:?}", dataset.notes);
}

#[test]
fn open_quotes_name_line() {
    let text = "image\tcaption\na.png\tx\nb.png\t\"Best\" dog\nb.png\t\"said nobody\nsub/c.png\ty\na.png\tz\n";
    assert_eq!(
        read("d.tsv", text).unwrap_err(),
        "`DIR/d.tsv`, line 4: the quote that opens a field here is never closed, in 3 lines to the end; close it, or \
         set `quote = false` to read quotes literally"
    );
    assert!(read("d.csv", "\"image,caption\na.png,x\n").unwrap_err().contains("line 1: the quote that opens"));
    let skip = read_with("d.tsv", text, |source| source.bad_rows = BadRows::Skip);
    assert!(skip.unwrap_err().contains("line 4"), "rows would be lost");
    let dataset = read_with("d.tsv", text, |source| source.quote = Some(false)).unwrap();
    let texts: Vec<&str> = dataset.captions().map(|caption| caption.text).collect();
    assert_eq!(texts, ["x", "\"Best\" dog", "\"said nobody", "y", "z"]);
}

#[test]
fn swallowed_rows_are_told() {
    // Two stray quotes, the second of which closes the first.
    let text = "image\tcaption\na.png\t\"x\nb.png\ty\nsub/c.png\t\"z\n";
    let error = read("d.tsv", text).unwrap_err();
    assert!(error.contains("line 2: a quoted field opens in line 2 and runs over 3 lines"), "{error}");
    assert!(error.contains("quote = false"), "{error}");
    let text = "image,caption\na.png,\"x\nb.png,y\nsub/c.png,z\"\n";
    let dataset = read("d.csv", text).unwrap();
    assert!(
        warnings(&dataset).contains("line 2: a quoted field runs over several lines (3 here)"),
        "{:?}",
        dataset.warnings
    );
    let dataset = read("d.csv", "image,caption\na.png,\"two\nlines, and more\"\n").unwrap();
    assert!(dataset.warnings.is_empty() && dataset.caption(0).text.contains('\n'), "{:?}", dataset.warnings);
    let dataset = read("d.csv", "image,caption\na.png,\"Best\" cat\n").unwrap();
    assert!(warnings(&dataset).contains("line 2: 1 row has a field with text after its closing quote"));
}

#[test]
fn malformed_rows_name_line() {
    assert_eq!(
        read("d.csv", "image,caption\na.png,x\nb.png,y,z\n").unwrap_err(),
        "`DIR/d.csv`, line 3: found 3 fields; expected 2, as in the header; if a caption holds an unquoted `,`, put it \
         in quotes or separate the columns by tabs"
    );
    let skip = |source: &mut CsvSource| source.bad_rows = BadRows::Skip;
    let dataset = read_with("d.csv", "image,caption\na.png\nb.png,y\n", skip).unwrap();
    assert_eq!((dataset.num_captions(), dataset.skipped.count), (1, 1));
    assert!(dataset.skipped.rows[0].message.contains("line 2: found 1 field;"));
}

#[test]
fn remote_images_are_counted_once() {
    let text = "image,caption\nhttp://x/a.png,x\nhttp://x/b.png,y\na.png,z\n";
    assert_eq!(
        read("d.csv", text).unwrap_err(),
        "`DIR/d.csv`, line 2: the image is a URL, `http://x/a.png`; expected a local file: download the images first, \
         for example with `img2dataset`, and use the shards or the files that it writes (2 rows have such images)"
    );
    // CC3M: captions, then URLs, no header.
    let error = read("Train_GCC-training.tsv", "a cat\thttp://x/a.png\na dog\thttp://x/b\n").unwrap_err();
    assert!(error.contains("line 1: the image is a URL") && error.contains("img2dataset"), "{error}");
    let dataset = read_with("d.csv", text, |source| source.bad_rows = BadRows::Skip).unwrap();
    assert_eq!((dataset.num_captions(), dataset.skipped.count), (1, 2));
}

#[test]
fn paths_are_found_as_meant() {
    let dataset = read("d.csv", "image,caption\na.png,x\nsub\\c.png,y\n./b.png,z\n").unwrap();
    let names: Vec<String> = pairs(&dataset).into_iter().map(|(image, _)| image).collect();
    assert_eq!(names, ["a.png", "sub/c.png", "b.png"]);
    assert_eq!(dataset.warnings, ["`d.csv`: `\\` is read as `/` in 1 image path, such as `sub\\c.png`"]);
}

#[test]
fn empty_and_null_captions_are_counted() {
    let dataset =
        read("d.csv", "image,caption\na.png,x\nb.png,  \n,y\nb.png,NaN\nb.png,null\na.png,\"None\"\n").unwrap();
    assert_eq!((dataset.num_captions(), dataset.skipped.count), (4, 2));
    assert!(dataset.skipped.rows[0].message.ends_with("d.csv`, line 3: empty caption"), "{:?}", dataset.skipped);
    assert!(dataset.skipped.rows[1].message.ends_with("line 4: no image"));
    let warning = dataset.null_words().unwrap();
    assert!(warning.starts_with("3 of 4 captions are a word that stands for a missing text, the first `NaN` of `"));
}

#[test]
fn several_caption_columns() {
    let columns = |source: &mut CsvSource| source.captions = Some(vec!["raw".to_owned(), "long".to_owned()]);
    let dataset = read_with("d.csv", "image,raw,long\na.png,x,xx\nb.png,,yy\n", columns).unwrap();
    let captions: Vec<_> = dataset.captions().map(|caption| (caption.image, caption.text, caption.slot)).collect();
    assert_eq!(captions, [(0, "x", 0), (0, "xx", 1), (1, "yy", 1)]);
    assert_eq!(dataset.skipped.count, 0, "the other caption of the row is used");
    assert!(dataset.notes[0].ends_with("caption from `raw` and `long`"), "{:?}", dataset.notes);
    assert_eq!(dataset.notes[1], "1 empty caption of rows that have another caption, such as in `DIR/d.csv`, line 3");
    let none = read_with("d.csv", "image,raw,long\na.png,x,\nb.png,, \n", columns).unwrap();
    assert_eq!((none.num_captions(), none.skipped.by_cause().as_str()), (1, "empty caption (1)"));
    let both = read_with("d.csv", "image,raw\na.png,x\n", |source| {
        (source.caption, source.captions) = (Some("raw".to_owned()), Some(vec!["raw".to_owned()]));
    });
    assert!(both.unwrap_err().contains("`caption` and `captions` are both set"));
}

#[test]
fn labels_take_class_names() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let classnames = dir.path().join("names.txt");
        std::fs::write(&classnames, "cat\ndog\n").unwrap();
        let source = Source::from_path(path).unwrap();
        let dataset = SourceTable { classnames: Some(classnames), ..source.into() }.read().unwrap();
        dataset.captions().map(|caption| caption.text.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(read("d.csv", "image,label\na.png,1\nb.png,0\n"), ["dog", "cat"]);
    assert_eq!(
        read("d.jsonl", "{\"image\": \"a.png\", \"label\": 1}\n{\"image\": \"b.png\", \"label\": 0}\n"),
        ["dog", "cat"]
    );
}

#[test]
fn only_takes_rows_and_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let row = |name: &str| format!("{{\"image\": \"{name}.png\", \"caption\": \"{name}\"}}");
    let all = ["a", "b", "c"].map(row);
    std::fs::write(at("d.csv"), "image,caption\na.png,a\nb.png,b\nc.png,c\n").unwrap();
    std::fs::write(at("plain.tsv"), "a.png\ta\nb.png\tb\nc.png\tc\n").unwrap();
    std::fs::write(at("d.jsonl"), all.join("\n")).unwrap();
    std::fs::write(at("list.json"), format!("[{}]", all.join(","))).unwrap();
    std::fs::write(at("under.json"), format!("{{\"data\": [{}]}}", all.join(","))).unwrap();
    std::fs::write(at("columns.json"), r#"{"image": ["a.png", "b.png", "c.png"], "caption": ["a", "b", "c"]}"#)
        .unwrap();
    std::fs::write(at("by_image.json"), r#"{"a.png": "a", "b.png": ["b"], "c.png": "c"}"#).unwrap();
    for (list, expected) in [("3\n1\n", &["a", "c"][..]), ("b.png\n", &["b"])] {
        std::fs::write(at("rows.txt"), list).unwrap();
        for name in ["d.csv", "plain.tsv", "d.jsonl", "list.json", "under.json", "columns.json", "by_image.json"] {
            let mut table = SourceTable::from(Source::from_path(at(name)).unwrap());
            table.only = Some(at("rows.txt"));
            let dataset = table.read().unwrap();
            let texts: Vec<&str> = dataset.captions().map(|caption| caption.text).collect();
            assert_eq!(texts, expected, "{name}");
        }
    }
}

#[test]
fn images_are_found_by_values() {
    let dataset = read("d.csv", "Nr;Bild;text\n1;a.png;x\n2;sub\\c.png;y\n").unwrap();
    assert_eq!(pairs(&dataset)[1], ("sub/c.png".to_owned(), "y".to_owned()));
    let expected = "image from `Bild` (its values are names of images that are there), caption from `text`";
    assert!(dataset.notes[0].contains(expected), "{:?}", dataset.notes);
    let dataset = read("d.csv", "Beschreibung,Bild\nx,a.png\ny,b.png\n").unwrap();
    assert_eq!(pairs(&dataset)[1], ("b.png".to_owned(), "y".to_owned()));
    let dataset = read("d.csv", "image_id,caption\na.png,x\n").unwrap();
    assert_eq!(pairs(&dataset), [("a.png".to_owned(), "x".to_owned())]);
    // Those that are not there are not taken, but named.
    let error = read("d.csv", "Bild,text\n1.png,x\n2.png,y\n").unwrap_err();
    assert!(error.contains("the values of `Bild` are names of images: set `image = \"Bild\"`"), "{error}");
    for table in ["image_id,caption\n17,x\n18,y\n", "Bild,Maske,text\na.png,b.png,x\n", "Bild,text\na.png,x\n17,y\n"] {
        let error = read("d.csv", table).unwrap_err();
        assert!(error.contains("has no column `image`") && !error.contains("the values of"), "{error}");
    }
}

#[test]
fn near_captions_are_asked_for_or_told() {
    let dataset = read("d.csv", "image,caption,short_caption,caption_id\na.png,x,y,1\n").unwrap();
    assert_eq!(pairs(&dataset)[0].1, "x");
    let expected = "caption from `caption` (`short_caption` looks like a caption too: to use several, set `captions = \
                    [\"caption\", \"short_caption\"]`)";
    assert!(dataset.notes[0].contains(expected), "{:?}", dataset.notes);
    assert_eq!(pairs(&read("d.csv", "image,id,caption_en\na.png,1,x\n").unwrap())[0].1, "x");
    let error = read("d.csv", "image,caption_0,caption_1\na.png,x,y\n").unwrap_err();
    assert!(
        error.contains("set `caption = \"caption_0\"`") && error.contains("or `captions = [\"caption_0\", "),
        "{error}"
    );
    // The other one of two columns, unless it is about the image.
    assert_eq!(pairs(&read("d.csv", "image,legend\na.png,x\n").unwrap())[0].1, "x");
    assert!(read("d.csv", "image,image_id\na.png,1\n").unwrap_err().contains("has no column `caption`"));
    // A line of words is no header.
    let numbered = |source: &mut CsvSource| {
        (source.image, source.caption) = (Some("1".to_owned()), Some("2".to_owned()));
    };
    let dataset = read_with("d.csv", "000001,a photo of text\n000002,y\n", numbered).unwrap();
    assert_eq!(dataset.num_captions(), 2);
}
