//! The teacher of a run: a trained model of images and texts, and what it embeds the pairs of a batch to.
//!
//! Its towers are locked, so their features are cached by the same keys as those of the run's own locked towers. The
//! loader knows only the run's image processor and tokenizer: a feature that is missing is computed in the step that
//! needs it first, from the image file and the text, with the teacher's own.
//!
//! - `loaded`: reads the teacher, and what makes it another one.
//! - `features`: the embeddings of a batch.

pub(crate) mod features;
pub(crate) mod loaded;
#[cfg(feature = "flex")]
#[cfg(test)]
mod tests;
