//! Captions that programs write for a missing text. They may be meant, so they are used, with a warning.

use crate::dataset::Dataset;

/// What pandas reads as missing (its default `na_values`), SQL exports and JavaScript write, and single signs, without
/// numbers and empty text; in lower case.
const NULL_WORDS: [&str; 14] =
    ["#n/a", "#na", "-nan", "<na>", "n/a", "na", "nan", "nil", "none", "null", "undefined", "nat", "-", "?"];

/// Bytes of the longest of them.
const MAX_LEN: usize = 9;

/// Whether a caption is a word that stands for a missing text, such as `NaN`, in any case.
#[must_use]
pub fn is_null_word(caption: &str) -> bool {
    let caption = caption.trim();
    caption.len() <= MAX_LEN && NULL_WORDS.iter().any(|word| word.eq_ignore_ascii_case(caption))
}

impl Dataset {
    /// A warning about the captions that stand for a missing text, whatever the form of the data; `None`: there are
    /// none.
    #[must_use]
    pub fn null_words(&self) -> Option<String> {
        let (count, first) = self.known.as_ref().map_or_else(|| self.count_null_words(), |known| known.null_words);
        let first = self.caption(first? as usize);
        let total = self.num_captions();
        let (are, they) = if count == 1 { ("is", "it is") } else { ("are", "they are") };
        Some(format!(
            "{count} of {total} captions {are} a word that stands for a missing text, the first `{}` of `{}`; {they} \
             used as written: {}",
            first.text,
            self.image(first.image).key(),
            NULL_WORD_ADVICE
        ))
    }

    /// How many captions stand for a missing text, and the number of the first of them.
    pub(crate) fn count_null_words(&self) -> (usize, Option<u32>) {
        let mut words = (0..self.num_captions()).filter(|&number| is_null_word(self.caption(number).text));
        let first = words.next();
        (usize::from(first.is_some()) + words.count(), first.map(|first| first as u32))
    }
}

/// What to do with such captions.
pub const NULL_WORD_ADVICE: &str = "leave the caption empty if it is missing, and its row is left out (pandas: \
                                    `to_csv` without `na_rep`, `dropna(subset=[..])`)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::builder::DatasetBuilder;
    use crate::images::location::ImageRef;

    #[test]
    fn null_words_are_whole_captions() {
        for caption in ["NaN", " null ", "N/A", "<NA>", "None", "?", "undefined"] {
            assert!(is_null_word(caption), "{caption}");
        }
        for caption in ["", "a", "nan bread", "none of them", "null and void"] {
            assert!(!is_null_word(caption), "{caption}");
        }
    }

    #[test]
    fn null_words_are_counted() {
        let dataset = |captions: &[&str]| {
            let mut builder = DatasetBuilder::new("/data");
            for (number, caption) in captions.iter().enumerate() {
                builder.push(ImageRef::File(format!("/data/{number}.png").into()), caption);
            }
            builder.build()
        };
        assert_eq!(dataset(&["a cat", "a dog"]).null_words(), None);
        let text = dataset(&["a cat", "NaN", "null", "a dog"]).null_words().unwrap();
        assert!(text.starts_with("2 of 4 captions are a word") && text.contains("`NaN` of `/data/1.png`"), "{text}");
    }
}
