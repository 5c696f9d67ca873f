//! Texts that a tokenizer does not distinguish: in a script that its vocabulary lacks, in other letter case, or equal
//! up to the limit on tokens. A text tower gives them equal features.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// How many texts have the tokens of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SameTokens {
    /// Distinct texts.
    pub texts: usize,
    /// Those of them that have the tokens of another one.
    pub same: usize,
    /// The numbers of two of these.
    pub example: [usize; 2],
}

impl SameTokens {
    /// Counts among texts with their numbers and tokens; `None`: no two distinct texts have the same.
    pub fn among<'a, K: Eq + Hash>(texts: impl Iterator<Item = (usize, &'a str, K)>) -> Option<Self> {
        let (mut seen, mut groups, mut example) = (HashSet::new(), HashMap::new(), None);
        for (number, text, tokens) in texts {
            if !seen.insert(text) {
                continue;
            }
            let (first, count) = groups.entry(tokens).or_insert((number, 0));
            *count += 1;
            if *count > 1 {
                example = example.or(Some([*first, number]));
            }
        }
        let same = groups.into_values().map(|(_, count)| count).filter(|&count| count > 1).sum();
        example.map(|example| Self { texts: seen.len(), same, example })
    }

    /// The share of the distinct texts.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.same as f64 / self.texts as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_texts_with_equal_tokens_are_counted() {
        let count = |texts: &[(&'static str, u8)]| {
            SameTokens::among(texts.iter().enumerate().map(|(number, &(text, tokens))| (number, text, tokens)))
        };
        assert_eq!(count(&[]), None);
        assert_eq!(count(&[("a", 1), ("b", 2), ("a", 1)]), None, "a repeated text is one");
        let found = count(&[("x", 9), ("a", 1), ("b", 2), ("A", 1), ("a", 1), ("B", 2), ("c", 1)]);
        assert_eq!(found, Some(SameTokens { texts: 6, same: 5, example: [1, 3] }));
    }
}
