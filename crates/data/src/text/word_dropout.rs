//! Word dropout: captions without some of their words, anew in each epoch. Which ones is a pure function of (seed, epoch,
//! caption), so that a resumed run reads what an uninterrupted one does.

use std::borrow::Cow;

use crate::loader::epoch_order::mix;

/// The word of [`mix`] that keeps it apart from the order of the samples, the choice of captions and the views of images.
pub(crate) const WORDS: u64 = 0x3026d;

/// `text` without some of its words, which are what white space parts: each goes with `probability`, by a draw from `key`; at
/// least one stays.
pub(crate) fn drop_words(text: &str, probability: f64, key: u64) -> Cow<'_, str> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let drawn = |place: usize| mix(key, &[place as u64]);
    let stays = |place: &usize| drawn(*place) as f64 >= probability * u64::MAX as f64;
    let kept: Vec<usize> = (0..words.len()).filter(stays).collect();
    match kept.len() {
        all if all == words.len() => Cow::Borrowed(text),
        // The one that was nearest to staying.
        0 => (0..words.len()).max_by_key(|&place| drawn(place)).map_or(text, |place| words[place]).into(),
        _ => kept.into_iter().map(|place| words[place]).collect::<Vec<_>>().join(" ").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_goes_as_often_as_asked_and_one_always_stays() {
        let text = "a small  dog runs";
        let count = |probability: f64| {
            let kept = (0..4000).map(|epoch| {
                let shortened = drop_words(text, probability, mix(epoch, &[WORDS])).into_owned();
                let words: Vec<&str> = shortened.split_whitespace().collect();
                let mut rest = text.split_whitespace();
                assert!(words.iter().all(|word| rest.any(|other| other == *word)), "{shortened}");
                assert!(!words.is_empty());
                words.len()
            });
            kept.sum::<usize>() as f64 / (4.0 * 4000.0)
        };
        assert!((count(0.25) - 0.75).abs() < 0.02);
        // (1 - p) of four words, and one more where none would be left.
        assert!((count(0.75) - (0.25 + 0.75f64.powi(4) / 4.0)).abs() < 0.02);
        assert_eq!(drop_words(text, 0.0, 1), text);
        assert_eq!(drop_words("alone", 0.99, 1), "alone");
    }
}
