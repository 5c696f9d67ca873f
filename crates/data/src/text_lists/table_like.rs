//! Recognises a table or JSON lines where a list of texts was expected. Such lines would be texts with separators,
//! names of columns and paths in them.

use std::path::Path;

use serde_json::Value;

use crate::sources::tables::columns::Holds;

/// Lines that are looked at.
const LOOKED_AT: usize = 20;

/// Extensions of tables, in lower case. In other files only tabs separate cells: commas are part of texts.
const TABLE_EXTENSIONS: [&str; 3] = ["csv", "tsv", "tab"];

/// What the file at `path` with these lines is instead of a list with one text a line, and a command that takes the
/// texts out. `None` if it may be such a list.
pub(crate) fn table_like(path: &Path, lines: &[&str]) -> Option<String> {
    let looked_at: Vec<&str> = lines.iter().copied().filter(|line| !line.is_empty()).take(LOOKED_AT).collect();
    let first = looked_at.first()?;
    let file = path.display();
    if let Some(keys) = objects(&looked_at) {
        let key = keys.iter().find(|key| Holds::Caption.is_named(std::slice::from_ref(key))).or(keys.first());
        let key = key.map_or("KEY", String::as_str);
        return Some(format!(
            "it is JSON lines: line 1 is an object with {}; expected one text per line, or a JSON list of strings. \
             Take the texts out: `jq -s 'map(.[\"{key}\"])' '{file}' > texts.json`",
            quoted(&keys)
        ));
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let is_table_name = TABLE_EXTENSIONS.contains(&extension.as_str());
    let separators: &[char] = if is_table_name { &['\t', ',', ';', '|'] } else { &['\t'] };
    let found = separators.iter().find_map(|&separator| Some((separator, columns(&looked_at, separator)?)));
    let (separator, header) = match found {
        Some(found) => found,
        // A single column has no separator; its header still tells.
        None if is_table_name && looked_at.len() > 1 && named(&cells(first, ',')).is_some() => (',', cells(first, ',')),
        None => return None,
    };
    let (column, has_header) = match named(&header) {
        Some(column) => (column, true),
        None => ((0..header.len()).max_by_key(|&at| header[at].chars().count())?, false),
    };
    let what = match (header.len(), has_header) {
        (1, _) => format!("it is a table: line 1 is the name of its column, {}", quoted(&header)),
        (count, true) => format!("it is a table: line 1 has the names of {count} columns, {}", quoted(&header)),
        (count, false) => {
            format!("it is a table: line 1 and those after it have {count} cells, separated by {}", name(separator))
        }
    };
    let (separator, rest) = (separator.escape_default(), if has_header { "[1:]" } else { "" });
    Some(format!(
        "{what}; expected one text per line, or a JSON list of strings. Take the texts out: `python3 -c 'import csv, \
         json, sys; print(json.dumps([row[{column}] for row in csv.reader(sys.stdin, \
         delimiter=\"{separator}\")]{rest}))' < '{file}' > texts.json` (if each line is one text, name the file `.txt` \
         and replace tabs by spaces)"
    ))
}

/// The keys of the first object, if every line is an object.
fn objects(lines: &[&str]) -> Option<Vec<String>> {
    let object = |line: &&str| match serde_json::from_str(line) {
        // The template `{}`.
        Ok(Value::Object(object)) if !object.is_empty() => Some(object),
        _ => None,
    };
    let objects: Option<Vec<_>> = lines.iter().map(object).collect();
    objects?.first().map(|first| first.keys().cloned().collect())
}

/// The cells of the first line, if there are at least two, and as many in at least one other line and in all of them.
fn columns(lines: &[&str], separator: char) -> Option<Vec<String>> {
    let (first, rest) = lines.split_first()?;
    let first = cells(first, separator);
    let is_table = first.len() > 1 && !rest.is_empty();
    let all_alike = rest.iter().all(|line| cells(line, separator).len() == first.len());
    (is_table && all_alike).then_some(first)
}

/// The cells of a line; a separator within quotes separates nothing.
fn cells(line: &str, separator: char) -> Vec<String> {
    let (mut cells, mut is_quoted) = (vec![String::new()], false);
    for letter in line.chars() {
        let last = cells.len() - 1;
        match letter {
            '"' => is_quoted = !is_quoted,
            other if other == separator && !is_quoted => cells.push(String::new()),
            other => cells[last].push(other),
        }
    }
    cells
}

/// The column with a usual name of captions, in a line that holds names.
fn named(header: &[String]) -> Option<usize> {
    Holds::Caption.alike(header, |_| true).first().copied()
}

fn name(separator: char) -> &'static str {
    match separator {
        '\t' => "tabs",
        ',' => "commas",
        ';' => "semicolons",
        _ => "`|`",
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Option<String> {
        table_like(Path::new(name), &text.lines().collect::<Vec<_>>())
    }

    #[test]
    fn tables_name_the_command_that_takes_texts_out() {
        for (name, text, what, command) in [
            (
                "t.csv",
                "image,caption\na.png,a cat\n",
                "names of 2 columns, `image`, `caption`;",
                "row[1] for row in csv.reader",
            ),
            ("t.csv", "caption\na cat\nb\n", "the name of its column, `caption`;", ")][1:]))' < 't.csv'"),
            ("t.CSV", "a.png,\"a cat, black\"\nb.png,a dog\n", "have 2 cells, separated by commas;", "row[1]"),
            ("t.csv", "a cat;1\n\na dog;2\n", "separated by semicolons;", "row[0]"),
            ("t.tsv", "id\ttitle\tx\n1\ta\tb\n", "names of 3 columns", "delimiter=\"\\t\")][1:]"),
            ("t.txt", "a.jpg#0\tA child .\na.jpg#1\tA girl .\n", "separated by tabs;", "delimiter=\"\\t\")]))"),
            (
                "t.jsonl",
                "{\"id\": 1, \"text\": \"a\"}\n",
                "JSON lines: line 1 is an object with `id`, `text`;",
                ".[\"text\"]",
            ),
            ("t.txt", "{\"q\": 1}\n{\"q\": 2}\n", "JSON lines", ".[\"q\"]"),
        ] {
            let message = found(name, text).unwrap_or_default();
            assert!(message.contains(what) && message.contains(command), "{name}: {message}");
        }
    }

    #[test]
    fn lists_of_texts_are_no_tables() {
        for (name, text) in [
            ("t.txt", "a cat, black\na dog, white\n"),
            ("t.txt", "caption\ntext\n"),
            ("t.csv", "a cat\na dog\n"),
            ("t.csv", "a cat, black\na dog\n"),
            ("t.csv", "a cat, black\n"),
            ("t.txt", "a\tcat\na dog\n"),
            ("t.txt", "{c}\n"),
            ("t.txt", "{}\n"),
            ("t.txt", ""),
        ] {
            assert_eq!(found(name, text), None, "{name}: {text}");
        }
    }
}
