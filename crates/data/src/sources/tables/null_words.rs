//! Captions that programs write for a missing text. They may be meant, so they are used, and told.

use crate::dataset::builder::DatasetBuilder;

/// What pandas reads as missing (its default `na_values`) and SQL exports write, without numbers and empty text.
const NULL_WORDS: [&str; 12] =
    ["NaN", "nan", "NULL", "null", "None", "none", "N/A", "n/a", "NA", "<NA>", "#N/A", "-NaN"];

/// Counts the captions that are such a word.
#[derive(Debug, Default)]
pub(crate) struct NullWords {
    count: u64,
    /// The first one, and its line.
    first: Option<(&'static str, u64)>,
}

impl NullWords {
    pub(crate) fn see(&mut self, caption: &str, line: u64) {
        if caption.len() > 4 {
            return;
        }
        if let Some(word) = NULL_WORDS.iter().find(|word| **word == caption) {
            self.count += 1;
            self.first.get_or_insert((word, line));
        }
    }

    /// Warns if there were any in `file`, where `unit` is what places count.
    pub(crate) fn tell(&self, file: &str, unit: &str, builder: &mut DatasetBuilder) {
        if let Some((word, line)) = self.first {
            let (are, they) = if self.count == 1 { ("caption is", "it is") } else { ("captions are", "they are") };
            builder.warn(format!(
                "`{file}`: {} {are} a word that stands for a missing text, the first `{word}` in {unit} {line}; {they} \
                 used as written: leave the cell empty if the caption is missing",
                self.count
            ));
        }
    }
}
