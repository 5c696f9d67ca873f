//! Escaping and tables in Markdown.

/// `text` as plain text on one line of Markdown: marks keep their looks.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '$' | '&' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// `text` as a quoted string, in YAML, JSON and Python.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

/// A table of cells that are Markdown already. The first column is left-aligned, the others as `align` says.
pub(crate) fn table<const N: usize>(titles: [&str; N], align: &str, rows: &[[String; N]]) -> String {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let mut lines = vec![line(&titles.map(str::to_owned))];
    let rules: Vec<String> = (0..N).map(|at| if at == 0 { "---" } else { align }.to_owned()).collect();
    lines.push(line(&rules));
    lines.extend(rows.iter().map(|row| line(row)));
    lines.join("\n")
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
