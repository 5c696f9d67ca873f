//! Batch size, epochs and limits that fit the data.

use std::collections::HashSet;

use dualenc_data::{CaptionMode, Dataset};

use crate::commands::init::caption_length::CaptionLength;
use crate::commands::init::found::Found;
use crate::commands::init::held_out::HeldOut;
use dualenc_data::counted;

/// Largest batch: more needs a GPU, or locked towers.
pub(crate) const LARGEST_BATCH: usize = 256;

/// Smallest batch, if there are that many pairs: the other pairs of a batch are the negatives.
const SMALLEST_BATCH: usize = 8;

/// Batches that an epoch should have at least.
const BATCHES: usize = 4;

/// Widest shared space, and the narrowest, in which random heads still keep names of many kinds apart.
const WIDEST: usize = 256;
const NARROWEST: usize = 64;

/// Steps that a run should have at least, and pairs that it should see at most, when epochs are chosen.
const STEPS: usize = 1000;
const MOST_EPOCHS: usize = 40;

/// Pairs up to which training after the closed form gains nothing (docs/ALIGNMENT.md, "Which recipe").
const FEW_PAIRS: usize = 5000;

/// Values for the config.
#[derive(Debug)]
pub(crate) struct Settings {
    pub captions: CaptionMode,
    /// The share that is held out, and what it is of these data, in words. `None`: there is no split, because
    /// evaluation data were found or the data are too few.
    pub validation: Option<(f64, String)>,
    pub caption_length: CaptionLength,
    /// Pairs that an epoch trains on.
    pub pairs: usize,
    pub batch_size: usize,
    /// Directions that a closed form determines from the training data, at most.
    pub directions: usize,
    pub embed_dim: usize,
    pub epochs: usize,
    /// What was chosen, in words.
    pub lines: Vec<String>,
}

impl Settings {
    /// `text_tower`: a directory or a hub id.
    pub fn for_data(found: &Found, text_tower: &str) -> Self {
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
        let held_out = wants_split.then(|| HeldOut::of(all, found.train.has_classes)).flatten();
        let mut held_out_images = String::new();
        match &held_out {
            Some(HeldOut { fraction, num_images, classes, train: _ }) => {
                let total = counted(all.num_images(), "image");
                let classes = classes.map(|[held, all]| format!(", of {held} of {}", counted_classes(all)));
                let images = format!("{num_images} of {total}{}", classes.unwrap_or_else(String::new));
                lines.push(format!("held out for validation: {images} (`validation_fraction = {fraction}`)"));
                held_out_images = images;
            }
            None if wants_split => lines.push("too few images to hold some out: there is no evaluation".to_owned()),
            None => {}
        }
        let train = held_out.as_ref().map_or(all, |held_out| &held_out.train);
        let (pairs, directions) = (train.num_pairs(captions), directions(train));
        let batch_size = batch_size(pairs);
        let steps_per_epoch = (pairs / batch_size.max(1)).max(1);
        let epochs = STEPS.div_ceil(steps_per_epoch).clamp(1, MOST_EPOCHS);
        let caption_length = CaptionLength::of(all, text_tower);
        let validation = held_out.map(|held_out| (held_out.fraction, held_out_images));
        // The limit is that of a fit, which is what few pairs are for.
        let embed_dim = if pairs > FEW_PAIRS { WIDEST } else { embed_dim(directions) };
        Self { captions, validation, caption_length, pairs, batch_size, directions, embed_dim, epochs, lines }
    }

    /// Whether the closed form alone is the better model.
    pub fn has_few_pairs(&self) -> bool {
        self.pairs <= FEW_PAIRS
    }
}

fn counted_classes(count: usize) -> String {
    if count == 1 { "1 class".to_owned() } else { format!("{count} classes") }
}

/// The largest power of two that leaves [`BATCHES`] batches, from [`SMALLEST_BATCH`] to [`LARGEST_BATCH`]; all pairs if
/// there are fewer, and never less than the loss takes.
fn batch_size(pairs: usize) -> usize {
    let most = (pairs / BATCHES).clamp(SMALLEST_BATCH, LARGEST_BATCH);
    (1 << most.ilog2()).min(pairs).max(2)
}

/// One less than there are distinct images or captions, as in `closed_form::span`.
fn directions(train: &Dataset) -> usize {
    let captions: HashSet<u64> = (0..train.num_captions()).map(|caption| train.caption_id(caption)).collect();
    train.num_images().min(captions.len()).saturating_sub(1)
}

/// The largest power of two that a closed form fills, from [`NARROWEST`] to [`WIDEST`].
fn embed_dim(directions: usize) -> usize {
    1 << directions.clamp(NARROWEST, WIDEST).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_negatives() {
        let pairs = [1, 5, 8, 20, 63, 64, 65, 1023, 1024, 1_000_000];
        assert_eq!(pairs.map(batch_size), [2, 5, 8, 8, 8, 16, 16, 128, 256, 256]);
    }

    #[test]
    fn embeds_are_no_wider_than_a_fit_fills() {
        assert_eq!([0, 9, 64, 222, 255, 256, 1_000_000].map(embed_dim), [64, 64, 64, 128, 128, 256, 256]);
    }
}
