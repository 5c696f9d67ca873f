//! Texts that are longer than a text tower reads: counted where they are tokenized, and reported.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dualenc_data::{TokenTable, counted};
use serde::{Deserialize, Serialize};

use crate::events::{Event, Observer};

/// What to do about texts that a model cuts.
const ADVICE: &str = "shorten them, or use a model that was trained with a larger `data.max_tokens`";

/// What to do about texts that a config cuts.
pub(crate) const ADVICE_OF_CONFIG: &str =
    "shorten them, or raise `data.max_tokens`, up to the maximum of the text tower";

/// Characters of a text in a message.
const NAMED_CHARS: usize = 40;

/// How many texts were tokenized, and how many of them were cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CutCounts {
    pub texts: usize,
    pub cut: usize,
    /// Texts with the tokens of another text, which are different only behind the cut.
    pub alike: usize,
    /// The first of them, and that other text.
    pub such_as: Option<[String; 2]>,
}

impl CutCounts {
    /// Counts `texts`, of which `table` has the tokens.
    pub fn of<T: AsRef<str>>(table: &TokenTable, texts: &[T]) -> Self {
        let mut counts = Self { texts: table.len(), cut: table.num_cut(), ..Self::default() };
        if counts.cut == 0 {
            return counts;
        }
        let mut first_with: HashMap<&[u32], usize> = HashMap::new();
        for (number, text) in texts.iter().enumerate() {
            match first_with.entry(table.get(number).0) {
                Entry::Vacant(place) => {
                    place.insert(number);
                }
                Entry::Occupied(place) => {
                    let (other, text) = (texts[*place.get()].as_ref(), text.as_ref());
                    if other != text && (table.is_cut(number) || table.is_cut(*place.get())) {
                        counts.alike += 1;
                        counts.such_as.get_or_insert_with(|| [other, text].map(start_of));
                    }
                }
            }
        }
        counts
    }

    pub fn add(&mut self, other: Self) {
        self.texts += other.texts;
        self.cut += other.cut;
        self.alike += other.alike;
        self.such_as = self.such_as.take().or(other.such_as);
    }

    /// The event about texts that were cut to `limit` tokens, if there are any. `place` begins the message, such as
    /// ``evaluation `x`: ``; `noun`: what one of the texts is.
    pub fn event(&self, place: &str, noun: &str, limit: usize) -> Option<Event<'static>> {
        if self.cut == 0 {
            return None;
        }
        let text = place.to_owned() + &cut_note(self.cut, &counted(self.texts, noun), limit, ADVICE);
        let Some([one, other]) = &self.such_as else { return Some(Event::Note(text)) };
        let alike = match self.alike {
            1 => format!("1 {noun} is then the same to the model as another one"),
            count => format!("{count} {noun}s are then the same to the model as another one"),
        };
        Some(Event::Warning(format!("{text}; {alike}, such as `{other}` as `{one}`")))
    }

    /// Reports [`CutCounts::event`].
    pub fn report(&self, place: &str, noun: &str, limit: usize, observer: &mut dyn Observer) {
        self.event(place, noun, limit).into_iter().for_each(|event| observer.on(event));
    }
}

/// Says that `cut` texts, of those that `of` counts, are cut to `limit` tokens, and what to do.
pub(crate) fn cut_note(cut: usize, of: &str, limit: usize, advice: &str) -> String {
    let are = if cut == 1 { "is" } else { "are" };
    format!("{cut} of {of} {are} longer than {limit} tokens and {are} cut; {advice}")
}

/// Counts what an encoder cuts. Copies count together.
#[derive(Debug, Clone, Default)]
pub struct CutTexts(Arc<Mutex<CutCounts>>);

impl CutTexts {
    pub(crate) fn add(&self, counts: CutCounts) {
        self.counts().add(counts);
    }

    /// What was counted since the last call.
    pub(crate) fn take(&self) -> CutCounts {
        take(&mut *self.counts())
    }

    fn counts(&self) -> MutexGuard<'_, CutCounts> {
        // A panic while they were locked leaves numbers that can be read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The start of a text, for a message. Long texts that are cut often begin alike, so the end is shown too.
fn start_of(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= 2 * NAMED_CHARS {
        return text.to_owned();
    }
    let part = |letters: &[char]| letters.iter().collect::<String>();
    format!("{} .. {}", part(&letters[..NAMED_CHARS]), part(&letters[letters.len() - NAMED_CHARS..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_texts_are_counted_and_named() {
        let counts = CutCounts { texts: 8, cut: 3, alike: 0, such_as: None };
        let Some(Event::Note(text)) = counts.event("evaluation `x`: ", "caption", 16) else { panic!("{counts:?}") };
        assert!(text.starts_with("evaluation `x`: 3 of 8 captions are longer than 16 tokens and are cut; "), "{text}");
        let alike = CutCounts { texts: 2, cut: 1, alike: 1, such_as: Some(["a".to_owned(), "b".to_owned()]) };
        let Some(Event::Warning(text)) = alike.event("", "label", 16) else { panic!("{alike:?}") };
        assert!(text.starts_with("1 of 2 labels is longer than 16 tokens and is cut; "), "{text}");
        assert!(text.ends_with("1 label is then the same to the model as another one, such as `b` as `a`"), "{text}");
        assert!(CutCounts { texts: 8, ..CutCounts::default() }.event("", "text", 16).is_none());
        let all = CutTexts::default();
        [counts, alike].into_iter().for_each(|counts| all.clone().add(counts));
        let found = all.take();
        assert_eq!((found.texts, found.cut, found.alike), (10, 4, 1));
        assert_eq!(all.take(), CutCounts::default());
    }
}
