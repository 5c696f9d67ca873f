//! Columns of tables: how they are named, and what their cells hold.

use dualenc_data::SourceTable;

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
            "`DIR/d.csv`, line 3: 2 captions look like lists, such as `{list}`, and are used as written; if the entries \
             are captions, convert the table to JSON lines or Parquet, where a value can be a list, or give each caption \
             a column of its own and name these in `captions`"
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
    let numbers = |source: &mut dualenc_data::CsvSource, captions: &[&str]| {
        source.captions = Some(captions.iter().map(|&name| name.to_owned()).collect());
    };
    let error = read_with("d.csv", table, |source| numbers(source, &["a", "b", "a"])).unwrap_err();
    let expected = "`DIR/d.csv` is malformed: `captions` names column 2 (`a`) twice, so that its captions would count \
                    twice; name it once";
    assert_eq!(error, expected);
    let error = read_with("d.csv", table, |source| numbers(source, &["a", "2"])).unwrap_err();
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
