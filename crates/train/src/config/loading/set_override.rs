//! Parses a `KEY=VALUE` argument of `--set`.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::spans::shift;

/// Maximum number of parts of a dotted key, two more than the longest key (`data.train.csv.path`). A `--set` argument
/// with thousands of dots is then a short error instead of a deep recursion.
const MAX_KEY_PARTS: usize = 6;

const FORM: &str = "write `--set KEY=VALUE`, such as `--set train.batch_size=64`";

/// A parsed argument. All spans are byte ranges of the argument.
pub(super) struct Override<'i> {
    /// The parts of the dotted key; at least one.
    pub key: Vec<KeyPart<'i>>,
    /// The value, read as TOML or else as a bare string; `None`: the key is removed.
    pub value: Option<Spanned<DeValue<'i>>>,
}

/// One part of a dotted key.
pub(super) struct KeyPart<'i> {
    pub name: &'i str,
    pub span: Range<usize>,
}

/// What is wrong with an argument.
pub(super) struct OverrideError {
    pub message: String,
    pub help: String,
    pub span: Range<usize>,
}

impl<'i> Override<'i> {
    /// Parses `KEY=VALUE`.
    ///
    /// # Errors
    /// There is no `=`, or the key does not consist of at most [`MAX_KEY_PARTS`] bare TOML keys.
    pub fn parse(argument: &'i str) -> Result<Self, OverrideError> {
        let refuse = |message, span| Err(OverrideError { message, help: FORM.to_owned(), span });
        let Some((key, value)) = argument.split_once('=') else {
            return refuse(format!("`{argument}` has no `=`"), 0..argument.len());
        };
        let mut parts = Vec::new();
        let mut start = 0;
        for part in key.split('.') {
            let span = start..start + part.len();
            start = span.end + 1;
            let name = part.trim();
            let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(is_bare) {
                return refuse(format!("`{}` is not a key", key.trim()), 0..key.len());
            }
            parts.push(KeyPart { name, span });
        }
        if parts.len() > MAX_KEY_PARTS {
            let message = format!("the key has {} parts, expected at most {MAX_KEY_PARTS}", parts.len());
            return refuse(message, 0..key.len());
        }
        let start = argument.len() - value.trim_start().len();
        Ok(Self { key: parts, value: parse_value(value.trim_start(), start) })
    }
}

/// The value that starts at byte `start` of the argument. Text that is not TOML keeps the spaces at its end, as prompts
/// need them.
fn parse_value(text: &str, start: usize) -> Option<Spanned<DeValue<'_>>> {
    if text.is_empty() {
        return None;
    }
    match DeValue::parse(text.trim_end()) {
        Ok(parsed) if !matches!(parsed.get_ref(), DeValue::Datetime(_)) => Some(shift(parsed, start)),
        _ => Some(Spanned::new(start..start + text.len(), DeValue::String(Cow::Borrowed(text)))),
    }
}
