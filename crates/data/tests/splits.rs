//! The column or key `split` chooses rows.

use dualenc_data::{Dataset, JsonlSource, OneOrMany, SourceTable};

use crate::tables::{pairs, read_with};

const TABLE: &str = "image,caption,Split\na.png,x,train\nb.png,y,val\nsub/c.png,z,train\na.png,w,test\n";

/// The captions of a csv with this value of `split`.
fn captions(table: &str, split: &str) -> Result<String, String> {
    let dataset = read_with("d.csv", table, |source| source.split = (!split.is_empty()).then(|| split.into()))?;
    Ok(pairs(&dataset).into_iter().map(|(_, caption)| caption).collect())
}

#[test]
fn column_chooses_rows() {
    assert_eq!(captions(TABLE, "train").unwrap(), "xz");
    assert_eq!(captions(TABLE, "val+test").unwrap(), "yw");
    let list: SourceTable = toml::from_str("csv = { path = \"d.csv\", split = [\"test\", \"val\"] }").unwrap();
    let listed = read_with("d.csv", TABLE, |source| source.split = list.csv.unwrap().split).unwrap();
    assert_eq!(listed.num_captions(), 2);
    assert!(listed.warnings.is_empty(), "{:?}", listed.warnings);
}

#[test]
fn mixed_splits_are_told() {
    let dataset = read_with("d.csv", TABLE, |_| ()).unwrap();
    assert_eq!((dataset.num_images(), dataset.num_captions()), (3, 4));
    assert_eq!(
        dataset.warnings,
        ["`d.csv`: the rows of all splits are used, `test` (1), `train` (2), `val` (1); set `split` to choose"]
    );
    // One split, or another use of the column, is no mix.
    let one = read_with("d.csv", "image,caption,split\na.png,x,train\nb.png,y,train\n", |_| ()).unwrap();
    assert!(one.warnings.is_empty(), "{:?}", one.warnings);
    let caption =
        read_with("d.csv", "image,split\na.png,x\nb.png,y\n", |it| it.caption = Some("split".into())).unwrap();
    assert!(caption.warnings.is_empty() && caption.num_captions() == 2, "{:?}", caption.warnings);
    // Rows are counted as malformed before they are counted as a split.
    let short = read_with("d.csv", "image,caption,split\na.png,x,train\nb.png,val\n", |_| ()).unwrap_err();
    assert!(short.contains("found 2 fields; expected 3"), "{short}");
}

#[test]
fn other_splits_are_counted() {
    let table = "image,caption,split\na.png,x,train\nb.png,y,Train\nb.png,z,TRAIN\na.png,v, train\na.png,w,val\n";
    let note = |dataset: &Dataset| dataset.notes[0].clone();
    let dataset = read_with("d.csv", table, |source| source.split = Some("train".into())).unwrap();
    assert_eq!(dataset.num_captions(), 2, "blanks around a split are left off");
    assert!(note(&dataset).contains("header, 2 rows, 3 rows of other splits left out; image"), "{:?}", dataset.notes);
    assert_eq!(
        dataset.warnings,
        ["`d.csv`: 2 rows are left out, since their split differs from `train` in upper and lower case: `TRAIN` (1), \
          `Train` (1); to read them too, set `split = [\"train\", \"TRAIN\", \"Train\"]`, or correct their split"]
    );
    let all = |split: &[&str]| Some(OneOrMany(split.iter().map(|&it| it.to_owned()).collect()));
    let dataset = read_with("d.csv", table, |source| source.split = all(&["train", "TRAIN", "Train"])).unwrap();
    assert_eq!((dataset.num_captions(), dataset.warnings.len()), (4, 0), "{:?}", dataset.warnings);
    assert!(note(&dataset).contains("4 rows, 1 row of other splits left out;"), "{:?}", dataset.notes);
    let dataset = read_with("d.csv", table, |source| source.split = Some("val".into())).unwrap();
    assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
    let dataset = read_with("d.csv", table, |_| ()).unwrap();
    assert!(note(&dataset).contains("header, 5 rows; image"), "{:?}", dataset.notes);
}

#[test]
fn wrong_splits_are_refused() {
    let error = captions(TABLE, "dev").unwrap_err();
    assert!(error.contains("no row has the split `dev`; its splits are `test` (1), `train` (2), `val` (1)"), "{error}");
    let error = captions("image,caption\na.png,x\n", "train").unwrap_err();
    assert!(error.contains("`split` is set, and there is no column `split`; its columns are `image`"), "{error}");
    let error = captions(TABLE, "train+").unwrap_err();
    assert!(error.contains("`split` has an empty name"), "{error}");
    let error = captions("image,caption,split\na.png,x,train\nb.png,y,\n", "train").unwrap_err();
    assert!(error.contains("line 3: no `split`, and `split` is set"), "{error}");
    let skipping = read_with("d.csv", "image,caption,split\na.png,x,train\nb.png,y,\n", |source| {
        (source.split, source.bad_rows) = (Some("train".into()), dualenc_data::BadRows::Skip);
    });
    assert_eq!(skipping.unwrap().skipped.by_cause(), "no split (1)");
    let many: String = (0..12).map(|row| format!("a.png,x,fold{row:02}\n")).collect();
    let dataset = read_with("d.csv", format!("image,caption,split\n{many}"), |_| ()).unwrap();
    assert!(dataset.warnings[0].contains("`fold09` (1), 2 more; set `split`"), "{:?}", dataset.warnings);
}

#[test]
fn several_columns_of_splits_are_told() {
    let table = "image,caption,split,split\na.png,x,train,val\nb.png,y,val,train\n";
    let dataset = read_with("d.csv", table, |source| source.split = Some("train".into())).unwrap();
    assert_eq!(pairs(&dataset), [("a.png".to_owned(), "x".to_owned())]);
    let several = "several columns are named `split`; the first is used; to use another, give it a name of its own";
    assert_eq!(dataset.warnings, [format!("`DIR/d.csv`: {several}")]);
    let dataset = read_with("d.csv", table.replace("split,split", "Split,split"), |_| ()).unwrap();
    assert!(dataset.warnings[0].contains("several columns are named `Split`"), "{:?}", dataset.warnings);
}

/// A row number of `only` counts the rows of every split.
#[test]
fn rows_are_numbered_before_the_split() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("d.csv"), TABLE).unwrap();
    std::fs::write(dir.path().join("only.txt"), "3\n").unwrap();
    let mut table: SourceTable =
        toml::from_str("only = \"only.txt\"\ncsv = { path = \"d.csv\", split = \"train\" }").unwrap();
    table.resolve(dir.path());
    let dataset = table.read().unwrap();
    assert_eq!(pairs(&dataset), [("sub/c.png".to_owned(), "z".to_owned())]);
}

#[test]
fn json_lines_have_splits_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.jsonl");
    let row = |image: &str, split: &str| format!(r#"{{"image": "{image}", "caption": "x", "split": "{split}"}}"#);
    std::fs::write(&path, [row("a.png", "train"), row("b.png", "val")].join("\n")).unwrap();
    let mut source = JsonlSource::new(&path);
    assert!(source.read().unwrap().warnings[0].contains("`train` (1), `val` (1); set `split` to choose"));
    source.split = Some(OneOrMany(vec!["val".to_owned()]));
    let dataset = source.read().unwrap();
    assert_eq!(dataset.num_images(), 1);
    assert!(dataset.image(0).key().ends_with("b.png"));
    assert!(dataset.notes[0].contains("1 row, 1 row of other splits left out;"), "{:?}", dataset.notes);
    // As in tables, blanks around a split are left off, and a blank is no split.
    std::fs::write(&path, [row("a.png", "val "), row("b.png", "VAL"), row("b.png", "val")].join("\n")).unwrap();
    let dataset = source.read().unwrap();
    assert_eq!(dataset.num_captions(), 2);
    assert!(dataset.warnings[0].contains("case: `VAL` (1); to read them"), "{:?}", dataset.warnings);
    std::fs::write(&path, [row("a.png", "val"), row("b.png", " ")].join("\n")).unwrap();
    assert!(source.read().unwrap_err().to_string().contains("line 2: no `split`, and `split` is set"));
}
