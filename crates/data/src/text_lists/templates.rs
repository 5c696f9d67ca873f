//! Prompt templates: texts with a placeholder for the class name.

use std::path::Path;

use crate::error::DataError;
use crate::text_lists::builtin_templates::{builtin, builtin_name};
use crate::text_lists::json_list::list_in;
use crate::text_lists::python_list;
use crate::text_lists::text_file::{at_line, empty, lines, read_file_text};

/// The placeholder of a template for the class name. By itself, it is CLIP_benchmark's template without context.
pub const CLASS_PLACEHOLDER: &str = "{c}";

/// The file of templates that CLIP_benchmark's data sets have beside their shards, or beside the folder of them.
pub const TEMPLATES_FILE: &str = "zeroshot_classification_templates.txt";

/// Reads prompt templates, in which `{c}` stands for the class name: one per line; a JSON list of strings, or an object
/// that leads to one such list (CLIP_benchmark); or a Python list of strings or of `lambda c: f"..."` (open_clip). `{}`
/// is read as `{c}`. `builtin:NAME` is a set of this program: see [`crate::TEMPLATE_SETS`].
///
/// # Errors
/// [`DataError::TextList`] if a template has no placeholder, another one or a brace without its partner, or the file is
/// empty or holds several lists; [`DataError::Read`].
pub fn read_templates(path: &Path) -> Result<Vec<String>, DataError> {
    if let Some(name) = builtin_name(path) {
        return builtin(path, name);
    }
    let text = read_file_text(path)?;
    if let Some(list) = list_in(path, &text)? {
        let entries = list.strings()?;
        let template = |(text, number): (&String, usize)| {
            template(text, None).map_err(|problem| list.error(format!("entry {number}: {problem}")))
        };
        return entries.iter().zip(1..).map(template).collect();
    }
    let lines: Vec<&str> = lines(&text).collect();
    let templates: Result<Vec<String>, DataError> = match python_list::entries(path, &lines)? {
        Some(entries) => {
            let of = |entry: &python_list::Entry| template(&entry.text, entry.parameter.as_deref());
            entries.iter().map(|entry| of(entry).map_err(|problem| at_line(path, entry.line, &problem))).collect()
        }
        None => {
            let filled = lines.iter().zip(1..).filter(|(line, _)| !line.is_empty());
            filled.map(|(line, number)| template(line, None).map_err(|e| at_line(path, number, &e))).collect()
        }
    };
    templates.and_then(|found| if found.is_empty() { Err(empty(path, "one template per line")) } else { Ok(found) })
}

/// Reads one prompt template, as a line of [`read_templates`].
///
/// # Errors
/// What is wrong with it.
pub fn parse_template(text: &str) -> Result<String, String> {
    template(text.trim(), None)
}

/// The template with `{c}` as its placeholder. `parameter`: the name that stands for the class in its braces, if its
/// source says so.
///
/// # Errors
/// What is wrong with it.
fn template(text: &str, parameter: Option<&str>) -> Result<String, String> {
    let wrong = |problem: &str| format!("the template `{text}` {problem}");
    let (mut rest, mut placeholders) = (text, Vec::new());
    while let Some(at) = rest.find(['{', '}']) {
        let inner = rest[at..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let Some((name, after)) = inner.filter(|(name, _)| !name.contains('{')) else {
            return Err(wrong("has a brace without its partner; `{c}` stands for the class name"));
        };
        placeholders.push(name);
        rest = after;
    }
    let expected = parameter.unwrap_or("c");
    if let Some(other) = placeholders.iter().find(|name| **name != expected && !name.is_empty()) {
        return Err(wrong(&format!("has the placeholder `{{{other}}}`; write `{{c}}` where the class name goes")));
    }
    let anonymous = placeholders.iter().filter(|name| name.is_empty()).count();
    match (placeholders.len(), anonymous) {
        (0, _) if text.contains("%s") => Err(wrong("has no `{c}` where the class name goes; write it for `%s`")),
        (0, _) => Err(wrong("has no `{c}` where the class name goes")),
        (_, 0) => Ok(text.replace(&format!("{{{expected}}}"), CLASS_PLACEHOLDER)),
        (1, 1) if parameter.is_none() => Ok(text.replace("{}", CLASS_PLACEHOLDER)),
        _ => Err(wrong("has `{}` beside other placeholders; write `{c}` where the class name goes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_templates(&path).map_err(|error| error.to_string().replace(&path.display().to_string(), name))
    }

    #[test]
    fn common_forms_read_alike() {
        let expected = ["a photo of a {c}.", "a {c}'s {c}"];
        for (name, text) in [
            ("t.txt", "a photo of a {c}.\na {c}'s {c}\n"),
            ("t.txt", "\u{feff}a photo of a {}.\r\n\r\na {c}'s {c}\r\n"),
            ("t.json", r#"["a photo of a {c}.", "a {c}'s {c}"]"#),
            ("t.json", "[\n    \"a photo of a {}.\",\n    \"a {c}'s {c}\"\n]\n"),
            ("t.txt", r#"{"imagenet1k": ["a photo of a {c}.", "a {c}'s {c}"]}"#),
            ("t.json", r#"{"en": {"imagenet1k": ["a photo of a {c}.", "a {c}'s {c}"]}}"#),
            ("t.py", "TEMPLATES = (\n    lambda c: f'a photo of a {c}.',\n    lambda c: f\"a {c}'s {c}\",\n)\n"),
            ("t.txt", "lambda name: f'a photo of a {name}.',\nlambda x: f'a {x}\\'s {x}',"),
            ("t.py", "# from the notebook\ntemplates = [\n  'a photo of a {}.',\n  \"a {c}'s {c}\",\n]"),
        ] {
            assert_eq!(read(name, text).as_deref(), Ok(&expected.map(str::to_owned)[..]), "{text}");
        }
        assert_eq!(read("t.txt", "{c}").unwrap(), ["{c}"]);
        assert_eq!(read("t.txt", "{}").unwrap(), ["{c}"]);
    }

    #[test]
    fn ambiguous_templates_are_refused() {
        for (name, text, expected) in [
            ("t.txt", "", "it is empty; expected one template per line"),
            ("t.txt", "{c}\na photo", "line 2: the template `a photo` has no `{c}` where the class name goes"),
            ("t.txt", "a photo of a %s", "line 1: the template `a photo of a %s` has no `{c}`"),
            ("t.txt", "a {cls}", "line 1: the template `a {cls}` has the placeholder `{cls}`; write `{c}`"),
            ("t.txt", "a {c} {d}", "line 1: the template `a {c} {d}` has the placeholder `{d}`"),
            ("t.txt", "a {c", "line 1: the template `a {c` has a brace without its partner"),
            ("t.txt", "a {c}}", "line 1: the template `a {c}}` has a brace without its partner"),
            ("t.txt", "a {{c}}", "line 1: the template `a {{c}}` has a brace without its partner"),
            ("t.txt", "a {} {}", "line 1: the template `a {} {}` has `{}` beside other placeholders"),
            ("t.txt", "lambda c: f'a {d}'", "line 1: the template `a {d}` has the placeholder `{d}`"),
            ("t.txt", "lambda c: 'a ' + c", "line 1: `lambda c: 'a ' + c` is neither a string nor"),
            ("t.txt", "lambda c: f'a {c}'\na {c}", "line 2: `a {c}` is neither a string nor"),
            ("t.json", "[\"a {c}\"", "not JSON: EOF"),
            ("t.json", "[\"a {c}\", 3]", "entry 2 of the list is `3`; expected a string"),
            ("t.json", "[\"a {c}\", \"a\"]", "entry 2: the template `a` has no `{c}`"),
            ("t.json", "[]", "its list is empty"),
            (
                "t.json",
                "{\"en\": {\"cifar10\": [\"{c}\"], \"imagenet1k\": [\"{c}\"]}}",
                "it is a JSON object with the keys `cifar10`, `imagenet1k`; expected a list of strings, or an object \
                 with one list. Take one out: `jq '.[\"en\"][\"cifar10\"]' t.json > list.json`",
            ),
        ] {
            let error = read(name, text).unwrap_err();
            assert!(error.starts_with(&format!("`{name}`: {expected}")), "{error}");
        }
    }
}
