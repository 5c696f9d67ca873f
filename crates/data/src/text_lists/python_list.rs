//! A list in Python source, one string or lambda per line: the notebooks of CLIP, and `OPENAI_IMAGENET_TEMPLATES` of
//! open_clip.

use std::path::Path;

use crate::error::DataError;
use crate::text_lists::text_file::at_line;

/// An entry of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its line in the file, from 1.
    pub(crate) line: usize,
    /// The content of the string literal.
    pub(crate) text: String,
    /// The parameter, if it is a `lambda`, which its f-string holds in braces.
    pub(crate) parameter: Option<String>,
}

/// The entries, if the lines are Python: the first ends with an opening bracket, or one is a lambda.
///
/// # Errors
/// [`DataError::TextList`] with the first line that is neither an entry, nor a bracket, nor a comment.
pub(crate) fn entries(path: &Path, lines: &[&str]) -> Result<Option<Vec<Entry>>, DataError> {
    let opens = |line: &str| line.ends_with(['[', '(']) && (line.len() == 1 || line.contains('='));
    let first = lines.iter().find(|line| !line.is_empty() && !line.starts_with('#'));
    if !first.is_some_and(|line| opens(line)) && !lines.iter().any(|line| line.starts_with("lambda ")) {
        return Ok(None);
    }
    let mut entries = Vec::new();
    for (line, number) in lines.iter().zip(1..) {
        if line.is_empty() || line.starts_with('#') || opens(line) || matches!(*line, "]" | ")" | "]," | "),") {
            continue;
        }
        let entry = entry(line, number).ok_or_else(|| {
            at_line(
                path,
                number,
                &format!(
                    "`{line}` is neither a string nor a `lambda c: f\"..\"` of a Python list; write one text per line, \
                     without quotes, or a JSON list of strings"
                ),
            )
        })?;
        entries.push(entry);
    }
    Ok(Some(entries))
}

/// `"text",` or `lambda c: f"text",`.
fn entry(line: &str, number: usize) -> Option<Entry> {
    let line = line.strip_suffix(',').unwrap_or(line).trim_end();
    let Some(rest) = line.strip_prefix("lambda ") else {
        return Some(Entry { line: number, text: literal(line)?, parameter: None });
    };
    let (parameter, body) = rest.split_once(':')?;
    let text = literal(body.trim_start().strip_prefix('f')?)?;
    Some(Entry { line: number, text, parameter: Some(parameter.trim().to_owned()) })
}

/// The content of a string literal on one line, without escapes other than those of quotes.
fn literal(source: &str) -> Option<String> {
    let quote = source.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let inner = source.get(1..)?.strip_suffix(quote)?;
    let (mut text, mut characters) = (String::new(), inner.chars());
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\'' | '\\'))?),
            // The string ended, and another began.
            other if other == quote => return None,
            other => text.push(other),
        }
    }
    Some(text)
}
