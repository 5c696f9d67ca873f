//! What determines the outputs of a model beside its weights, as fingerprints: the architecture of its towers, how
//! images are processed, and how texts become tokens.

use dualenc_data::{ImageProcessor, Tokenizer};
use dualenc_model::DualEncoder;
use serde::{Deserialize, Serialize};

/// Hexadecimal digits of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TowerForms {
    image_tower: String,
    text_tower: String,
    image_processing: String,
    tokenizer: String,
}

impl TowerForms {
    /// Those of a model as it was loaded for its config.
    pub(crate) fn of(model: &DualEncoder, tokenizer: &Tokenizer, processor: &ImageProcessor) -> Self {
        let hex = |hash: [u8; 32]| blake3::Hash::from(hash).to_hex().to_string();
        let of_form = |form: String| hex(*blake3::hash(form.as_bytes()).as_bytes());
        Self {
            image_tower: of_form(model.image_tower.form()),
            text_tower: of_form(model.text_tower.form()),
            image_processing: hex(processor.fingerprint()),
            tokenizer: hex(tokenizer.fingerprint()),
        }
    }

    /// The first thing that differs from `other`, with the files that say it; `None`: nothing.
    pub(crate) fn difference(&self, other: &Self) -> Option<&'static str> {
        let pairs = [
            (&self.image_tower, &other.image_tower, "image tower (`config.json`)"),
            (&self.text_tower, &other.text_tower, "text tower (`config.json`)"),
            (&self.image_processing, &other.image_processing, "image processing (`preprocessor_config.json`)"),
            (&self.tokenizer, &other.tokenizer, "tokenizer (`tokenizer.json`, `tokenizer_config.json`)"),
        ];
        pairs.into_iter().find(|(found, expected, _)| found != expected).map(|(_, _, what)| what)
    }
}
