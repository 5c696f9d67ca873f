//! When two captions count as the same.

use std::borrow::Cow;

use tokenizers::NormalizedString;

/// What may end a caption without changing what it says; NFKC has turned the full-width forms into these.
const ENDINGS: [char; 8] = ['.', ',', ';', ':', '!', '?', '。', '、'];

/// A number that equal captions share: the first 8 bytes of the BLAKE3 of the normalised text.
pub(crate) fn caption_id(text: &str) -> u64 {
    let hash = blake3::hash(normalised(text).as_bytes());
    hash.as_bytes()[..8].iter().rev().fold(0, |id, &byte| id << 8 | u64::from(byte))
}

/// Unicode's NFKC in lower case, its words parted by single spaces, without [`ENDINGS`]; a caption of nothing else keeps them.
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
    let said = joined.trim_end_matches(|end: char| end == ' ' || ENDINGS.contains(&end)).len();
    if said > 0 {
        joined.truncate(said);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_form_space_and_endings_do_not_count_and_all_else_does() {
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
