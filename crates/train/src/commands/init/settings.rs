//! Batch size, epochs and limits that fit the data.

use dualenc_data::CaptionMode;

use crate::commands::init::look::Found;

/// Largest batch: more needs a GPU, or locked towers.
const LARGEST_BATCH: usize = 256;

/// Steps that a run should have at least, and pairs that it should see at most, when epochs are chosen.
const STEPS: usize = 1000;
const MOST_EPOCHS: usize = 40;

/// Tokens per word: about 1.3 in English with the vocabularies of BERT and CLIP (OpenAI's rule of thumb is 4/3), more
/// in other languages.
const TOKENS_PER_WORD: f64 = 1.6;

/// Special tokens at the start and at the end.
const SPECIAL: usize = 2;

/// Texts of CLIP's length: longer ones are rare, and cost time.
const MOST_TOKENS: usize = 77;

/// Images that a validation split should have at least, and its largest share.
const LEAST_VALIDATION: usize = 8;

/// Values for the config.
#[derive(Debug)]
pub(crate) struct Settings {
    pub captions: CaptionMode,
    /// `None`: there is no split, because evaluation data were found or the data are too few.
    pub validation_fraction: Option<f64>,
    pub max_tokens: usize,
    /// Words of the longest caption.
    pub longest_words: usize,
    pub batch_size: usize,
    pub epochs: usize,
    /// What was chosen, in words.
    pub lines: Vec<String>,
}

impl Settings {
    pub fn for_data(found: &Found) -> Self {
        let all = &found.train.dataset;
        let mut lines = Vec::new();
        let mut per_image: Vec<usize> = (0..all.num_images()).map(|image| all.captions_of(image).len()).collect();
        per_image.sort_unstable();
        let median = per_image.get(per_image.len() / 2).copied().unwrap_or(1);
        let captions = if median > 1 { CaptionMode::One } else { CaptionMode::All };
        if median > 1 {
            lines.push(format!("images have {median} captions (median): each epoch draws one of them"));
        }
        let wants_split = found.validation.is_none() && found.classes.is_none();
        let split = [0.05, 0.1, 0.2].into_iter().filter(|_| wants_split).find_map(|fraction| {
            let (train, held_out) = all.split(fraction);
            let is_enough = held_out.num_images() >= LEAST_VALIDATION && train.num_images() >= 2;
            is_enough.then_some((fraction, train))
        });
        if wants_split && split.is_none() {
            lines.push("too few images to hold some out: there is no evaluation".to_owned());
        }
        let (validation_fraction, train) = match split {
            Some((fraction, train)) => (Some(fraction), train),
            None => (None, all.clone()),
        };
        let pairs = train.num_pairs(captions);
        let mut batch_size = LARGEST_BATCH;
        while batch_size > 2 && batch_size > pairs / 4 {
            batch_size /= 2;
        }
        let steps_per_epoch = (pairs / batch_size).max(1);
        let epochs = STEPS.div_ceil(steps_per_epoch).clamp(1, MOST_EPOCHS);
        let lengths = || all.captions().map(|caption| caption.text);
        let longest_words = lengths().map(|text| text.split_whitespace().count()).max().unwrap_or(0);
        let mut tokens: Vec<usize> = lengths().map(estimated_tokens).collect();
        tokens.sort_unstable();
        // The longest captions are often outliers.
        let wanted = tokens.get(tokens.len() * 99 / 100).copied().unwrap_or(0) + SPECIAL;
        let max_tokens = wanted.next_multiple_of(8).clamp(16, MOST_TOKENS);
        Self { captions, validation_fraction, max_tokens, longest_words, batch_size, epochs, lines }
    }
}

/// Tokens of a text, without special ones. Scripts without spaces have about one token a letter.
fn estimated_tokens(text: &str) -> usize {
    let words = text.split_whitespace().count();
    let wide = text.chars().filter(|letter| *letter >= '\u{2e80}').count();
    (words as f64 * TOKENS_PER_WORD).ceil() as usize + wide
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_estimated_by_script() {
        assert_eq!(estimated_tokens("a red circle on a blue ground"), 12);
        assert_eq!(estimated_tokens("一只黑猫"), 6);
    }
}
