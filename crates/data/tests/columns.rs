//! Columns of tables: how they are named, and what their cells hold.

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
