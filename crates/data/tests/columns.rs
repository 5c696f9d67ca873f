//! Columns of tables: how they are named, and what their cells hold.

use dualenc_data::{CsvSource, SourceTable};

use crate::tables::{pairs, read_with};

#[test]
fn lists_as_text_are_told() {
    let list = r#"["cap 0", "a, cat"]"#;
    let quoted = list.replace('"', "\"\"");
    let table =
        format!("image,caption,note\na.png,x,[1]\nb.png,\"{quoted}\",y\na.png,\" ['b' 'c'] \",z\na.png,[sic] x,w\n");
    let dataset = read_with("d.csv", table, |_| ()).unwrap();
    assert_eq!(dataset.caption(1).text, list);
    assert_eq!(
        dataset.warnings,
        [format!(
            "`DIR/d.csv`, line 3: 2 captions look like lists, such as `{list}`, and are used as written; if the \
             entries are captions, convert the table to JSON lines or Parquet, where a value can be a list, or give \
             each caption a column of its own and name these in `captions`"
        )]
    );
    let dataset = read_with("d.tsv", "image\tcaption\na.png\t['x']\n", |_| ()).unwrap();
    assert!(dataset.warnings[0].contains("1 caption looks like a list, such as `['x']`, and is used"));
    let plain = read_with("d.csv", "image,caption,tags\na.png,[x],['y']\nb.png,[],z\n", |_| ()).unwrap();
    assert!(plain.warnings.is_empty() && pairs(&plain).len() == 2, "{:?}", plain.warnings);
}

#[test]
fn columns_that_are_named_twice_are_refused() {
    let table = "image,a,b\na.png,x,y\n";
    let set = |source: &mut CsvSource, captions: &[&str]| {
        source.captions = Some(captions.iter().map(|&name| name.to_owned()).collect());
    };
    let error = read_with("d.csv", table, |source| set(source, &["a", "b", "a"])).unwrap_err();
    let expected = "`DIR/d.csv` is malformed: `captions` names column 2 (`a`) twice, so that its captions would count \
                    twice; name it once";
    assert_eq!(error, expected);
    let error = read_with("d.csv", table, |source| set(source, &["a", "2"])).unwrap_err();
    assert_eq!(error, expected);

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("d.jsonl"), r#"{"image": "a.png", "a": "x", "b": "y"}"#).unwrap();
    std::fs::create_dir(dir.path().join("f")).unwrap();
    std::fs::write(dir.path().join("f/a.png"), "x").unwrap();
    std::fs::write(dir.path().join("f/metadata.csv"), "file_name,a\na.png,x\n").unwrap();
    std::fs::write(dir.path().join("0.tar"), [0; 1024]).unwrap();
    for (form, name) in [("jsonl", "d.jsonl"), ("json", "d.jsonl"), ("folder", "f"), ("webdataset", "0.tar")] {
        let table = format!("{form} = {{ path = \"{name}\", captions = [\"a\", \"a\"] }}");
        let mut table: SourceTable = toml::from_str(&table).unwrap();
        table.resolve(dir.path());
        let error = table.read().unwrap_err().to_string();
        assert!(
            error.contains("`captions` names `a` twice, so that its captions would count twice"),
            "{form}: {error}"
        );
    }
}

/// Sets `image` and `caption`; an empty name: the default.
fn with(table: &str, image: &str, caption: &str) -> Result<Vec<(String, String)>, String> {
    let dataset = read_with("d.csv", table, |source| {
        source.image = (!image.is_empty()).then(|| image.to_owned());
        source.caption = (!caption.is_empty()).then(|| caption.to_owned());
    });
    dataset.map(|dataset| pairs(&dataset))
}

#[test]
fn numbers_and_names_of_columns_mix() {
    let named = "image,caption\na.png,x\nb.png,y\n";
    let expected = with(named, "", "").unwrap();
    for (image, caption) in [("", "2"), ("1", ""), ("1", "2"), ("image", "2"), ("1", "caption")] {
        assert_eq!(with(named, image, caption).unwrap(), expected, "{image} {caption}");
    }
    let doubled = "image,caption,caption\na.png,w,x\nb.png,w,y\n";
    for (image, caption) in [("", "3"), ("image", "3"), ("1", "3")] {
        assert_eq!(with(doubled, image, caption).unwrap(), expected, "{image} {caption}");
    }
    let error = with(doubled, "", "caption").unwrap_err();
    assert!(error.contains("name the columns by number, such as `image = \"1\"` and `caption = \"2\"`"), "{error}");
    // Without a name, the first line is known by its looks.
    let headless = "a.png,x\nb.png,y\n";
    assert_eq!(with(headless, "1", "2").unwrap(), expected);
    for (image, caption) in [("1", ""), ("", "2")] {
        let error = with(headless, image, caption).unwrap_err();
        assert!(error.contains("name the columns by number, such as `image = \"1\"` and `caption = \"2\"`"), "{error}");
    }
    let unknown = "x,y,z\na,b,c\n";
    let error = with(unknown, "1", "").unwrap_err();
    assert!(error.contains("no column `caption`"), "{error}");
    let error = with(unknown, "", "2").unwrap_err();
    assert!(error.contains("no column `image`"), "{error}");
    let error = with(named, "", "7").unwrap_err();
    assert!(error.contains("no column `7`") && error.contains("there are 2 columns"), "{error}");
}

#[test]
fn numbers_need_quotes() {
    for set in ["image = 1", "caption = 3", "captions = [\"x\", 3]"] {
        let error = toml::from_str::<CsvSource>(&format!("path = \"d.csv\"\n{set}")).unwrap_err().to_string();
        assert!(error.contains("expected a string: the name of a column, or its number in quotes"), "{error}");
    }
    let source: CsvSource = toml::from_str("path = \"d.csv\"\nimage = \"1\"\ncaptions = [\"2\"]").unwrap();
    assert_eq!((source.image.as_deref(), source.captions), (Some("1"), Some(vec!["2".to_owned()])));
}

#[test]
fn quotes_of_captions_are_told_where_paths_lose_theirs() {
    let table = "image,caption\n'a.png','cap 0'\n'b.png',it's\n'a.png','cap 1'\n";
    let dataset = read_with("d.csv", table, |_| ()).unwrap();
    assert_eq!(pairs(&dataset)[0], ("a.png".to_owned(), "'cap 0'".to_owned()));
    assert_eq!(
        dataset.warnings,
        [
            "`DIR/d.csv`, line 2: 2 captions are in quotes as image paths are, such as `'cap 0'`, and used with their \
             quotes, unlike the paths; if these are no part of captions, write the table with `\"` in their place",
            "`d.csv`: 3 image paths are read without the quotes around them, such as `'a.png'`"
        ]
    );
    let plain = read_with("d.csv", "image,caption\na.png,'cap 0'\n", |_| ()).unwrap();
    assert!(plain.warnings.is_empty(), "{:?}", plain.warnings);
}
