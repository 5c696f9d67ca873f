//! What an evaluation says about its data: once, however often it runs.

use std::sync::Once;

use dualenc_data::{Dataset, Skipped, counted};

use crate::eval::encoder::Encoder;
use crate::eval::given_by::GivenBy;
use crate::events::{Event, Observer};

/// What was said so far.
#[derive(Debug)]
pub(crate) struct DataReport {
    rows: Once,
    images: Once,
    texts: Once,
    /// Warnings that are given elsewhere, as by another evaluation of the same data.
    muted: Vec<String>,
}

impl DataReport {
    /// Nothing was said.
    pub fn new() -> Self {
        Self { rows: Once::new(), images: Once::new(), texts: Once::new(), muted: Vec::new() }
    }

    /// Leaves out warnings that were given before.
    pub fn mute(&mut self, told: &[String]) {
        self.muted.extend_from_slice(told);
    }

    /// Those of `warnings` that are not given elsewhere.
    pub fn unmuted(&self, mut warnings: Vec<String>) -> Vec<String> {
        warnings.retain(|warning| !self.muted.contains(warning));
        warnings
    }

    /// Reports what was recognised in the data and which rows they leave out, and `warnings`. `of`: the evaluation.
    pub fn report_data(
        &self,
        of: &str,
        data: &Dataset,
        warnings: impl FnOnce() -> Vec<String>,
        observer: &mut dyn Observer,
    ) {
        self.rows.call_once(|| {
            for note in &data.notes {
                observer.on(Event::Note(format!("{of}: {note}")));
            }
            let skipped = &data.skipped;
            if skipped.count > 0 {
                let (rows, causes) = (counted(skipped.count, "row"), skipped.by_cause());
                let text = format!("{of}: {rows} could not be used: {causes}; such as {}", skipped.first(1));
                observer.on(Event::Warning(text));
            }
            for warning in warnings() {
                observer.on(Event::Warning(warning));
            }
        });
    }

    /// Reports the texts that `encoder` cut for an evaluation: prompts of classes, or captions.
    pub fn report_texts(&self, of: &str, classifies: bool, encoder: &Encoder<'_>, observer: &mut dyn Observer) {
        let (cut, noun) = (encoder.cut.take(), if classifies { "prompt" } else { "caption" });
        if let Some(event) = cut.event(&format!("{of}: "), noun, encoder.tokenizer.max_tokens()) {
            self.texts.call_once(|| observer.on(event));
        }
    }

    /// Reports the images that cannot be used, of `total`. Each is an event each time, their count a note once.
    pub fn report_images(
        &self,
        of: &str,
        (bad, total): (&[Skipped], usize),
        given_by: GivenBy,
        observer: &mut dyn Observer,
    ) {
        for image in bad {
            observer.on(Event::Skipped { image, of, listed_in: None });
        }
        if !bad.is_empty() {
            self.images.call_once(|| {
                let (images, causes) = (counted(bad.len(), "image"), Skipped::by_cause(bad));
                let way_out = match given_by {
                    GivenBy::Config => "; `dualenc check` names each",
                    // `check` needs a config.
                    GivenBy::Flags(_) => "",
                };
                observer.on(Event::Note(format!("{of}: {images} of {total} could not be used: {causes}{way_out}")));
            });
        }
    }
}
