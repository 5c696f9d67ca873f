//! Word dropout: training captions lose random words, others in each epoch. Which ones is a pure function of a key, so
//! a resumed run reads what an uninterrupted one does.

use std::borrow::Cow;

use crate::random::mix;

/// `text` without some of its words (which white space separates). Each is dropped with `probability`, drawn from
/// `key`; at least one stays.
pub(crate) fn drop_words(text: &str, probability: f64, key: u64) -> Cow<'_, str> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let draw = |word: usize| mix(key, &[word as u64]);
    let stays = |word: &usize| draw(*word) as f64 >= probability * u64::MAX as f64;
    let remaining: Vec<usize> = (0..words.len()).filter(stays).collect();
    if remaining.len() == words.len() {
        Cow::Borrowed(text)
    } else if remaining.is_empty() {
        // The word with the draw closest to staying.
        (0..words.len()).max_by_key(|&word| draw(word)).map_or(text, |word| words[word]).into()
    } else {
        remaining.into_iter().map(|word| words[word]).collect::<Vec<_>>().join(" ").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::WORD_STREAM;

    #[test]
    fn drops_words_at_rate() {
        let text = "a small  dog runs";
        let remaining_fraction = |probability: f64| {
            let counts = (0..4000).map(|epoch| {
                let shortened = drop_words(text, probability, mix(epoch, &[WORD_STREAM])).into_owned();
                let words: Vec<&str> = shortened.split_whitespace().collect();
                let mut rest = text.split_whitespace();
                assert!(words.iter().all(|word| rest.any(|other| other == *word)), "{shortened}");
                assert!(!words.is_empty());
                words.len()
            });
            counts.sum::<usize>() as f64 / (4.0 * 4000.0)
        };
        assert!((remaining_fraction(0.25) - 0.75).abs() < 0.02);
        // (1 - p) of four words, and one word where all would be dropped.
        assert!((remaining_fraction(0.75) - (0.25 + 0.75f64.powi(4) / 4.0)).abs() < 0.02);
        assert_eq!(drop_words(text, 0.0, 1), text);
        assert_eq!(drop_words("alone", 0.99, 1), "alone");
    }
}
