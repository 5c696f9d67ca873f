//! How long captions are, in tokens.

use dualenc_data::{Dataset, Tokenizer};
use rayon::prelude::*;

use crate::models::named_tower::cached_dir;

/// Captions that are looked at, evenly spread over all.
const MOST_CAPTIONS: usize = 20_000;

/// Length to which nothing is cut: far above that of any text tower.
const NO_LIMIT: usize = 1 << 20;

/// Tokens per word: about 1.3 in English with the vocabularies of BERT and CLIP (OpenAI's rule of thumb is 4/3), more
/// in other languages.
const TOKENS_PER_WORD: f64 = 1.6;

/// Special tokens at the start and at the end.
const SPECIAL: usize = 2;

/// Texts of CLIP's length: longer ones are rare, and cost time.
const MOST_TOKENS: usize = 77;

const LEAST_TOKENS: usize = 16;

/// The limit for the captions of a data set, and where it comes from.
#[derive(Debug)]
pub(crate) struct CaptionLength {
    /// A value of `data.max_tokens`.
    pub max_tokens: usize,
    /// Where it comes from: a line each.
    pub comments: Vec<String>,
}

impl CaptionLength {
    /// By the tokenizer of the text tower, if it is on this machine; else by words.
    pub fn of(dataset: &Dataset, text_tower: &str) -> Self {
        let count = dataset.num_captions();
        let step = count.div_ceil(MOST_CAPTIONS).max(1);
        let sample: Vec<usize> = (0..count).step_by(step).collect();
        let text = |caption: &usize| dataset.caption(*caption).text;
        let counted = cached_dir(text_tower).and_then(|dir| Tokenizer::from_dir(dir, NO_LIMIT).ok());
        let counted: Option<Vec<usize>> = counted.and_then(|tokenizer| {
            let length = |caption: &usize| tokenizer.encode(text(caption)).map(|it| it.ids.len()).ok();
            sample.par_iter().map(length).collect()
        });
        let is_counted = counted.is_some();
        let mut tokens =
            counted.unwrap_or_else(|| sample.iter().map(|it| estimated_tokens(text(it)) + SPECIAL).collect());
        tokens.sort_unstable();
        // The longest captions are often outliers.
        let most = tokens.get(tokens.len() * 99 / 100).copied().unwrap_or(0);
        let max_tokens = most.next_multiple_of(8).clamp(LEAST_TOKENS, MOST_TOKENS);
        let longest = tokens.last().copied().unwrap_or(0);
        let (cut, all) = (tokens.len() - tokens.partition_point(|&it| it <= max_tokens), tokens.len());
        let of_all = if step > 1 { format!("Of {all} captions looked at") } else { format!("Of {all} captions") };
        let longest = if is_counted {
            let cut = if cut == 0 { "none is".to_owned() } else { format!("{cut} are longer than this, and") };
            format!("{of_all}, the longest has {longest} tokens; {cut} cut.")
        } else {
            let words = sample.iter().map(|it| text(it).split_whitespace().count()).max().unwrap_or(0);
            let words = if words == 1 { "1 word".to_owned() } else { format!("{words} words") };
            format!("{of_all}, the longest has {words}, and about {longest} tokens. Longer ones than this are cut.")
        };
        let mut comments = vec![longest];
        if !is_counted {
            comments.push(
                "Estimated from words, because the tokenizer is not on this machine; `dualenc check` counts tokens."
                    .to_owned(),
            );
        }
        Self { max_tokens, comments }
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
