//! Which captions count as equal.

use std::borrow::Cow;

use tokenizers::NormalizedString;

/// Punctuation that is ignored at the end of a caption. NFKC maps the full-width forms to these.
const ENDINGS: [char; 8] = ['.', ',', ';', ':', '!', '?', '。', '、'];

/// An id that equal captions share: the first 8 bytes of the BLAKE3 hash of the normalised text.
pub(crate) fn caption_id(text: &str) -> u64 {
    let hash = blake3::hash(normalised(text).as_bytes());
    hash.as_bytes()[..8].iter().rev().fold(0, |id, &byte| id << 8 | u64::from(byte))
}

/// The text in NFKC and lower case, with single spaces between words and without [`ENDINGS`] at the end. A caption of
/// only `ENDINGS` is not shortened.
fn normalised(text: &str) -> String {
    let mut composed = Cow::Borrowed(text);
    // NFKC leaves ASCII as it is.
    if !text.is_ascii() {
        let mut normalized = NormalizedString::from(text);
        normalized.nfkc();
        composed = Cow::Owned(normalized.get().to_owned());
    }
    let mut joined = String::with_capacity(composed.len());
    for word in composed.split_whitespace() {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(&word.to_lowercase());
    }
    let len = joined.trim_end_matches(|end: char| end == ' ' || ENDINGS.contains(&end)).len();
    if len > 0 {
        joined.truncate(len);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_case_space_and_endings() {
        for (one, other) in [
            ("A dog.", "a  DOG"),
            ("a dog !", "a dog"),
            ("a dog, running...", "a dog, running…"),
            ("caf\u{e9}", "CAFE\u{301}"),
            ("ＤＯＧ！", "dog"),
            ("犬。", "犬"),
            ("a\u{a0}dog", "a dog"),
        ] {
            assert_eq!(caption_id(one), caption_id(other), "{one} {other}");
        }
        for (one, other) in [("a dog", "a, dog"), ("a dog", "a dogs"), ("???", "!!!"), ("(a) dog", "a dog")] {
            assert_ne!(caption_id(one), caption_id(other), "{one} {other}");
        }
        assert_eq!(normalised("  The   Dog?! "), "the dog");
    }
}
