//! The worst and the best training pairs by their cosine similarity.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use dualenc_data::{Dataset, ImageProcessor, ImageRef, counted};
use dualenc_report::{PairCard, PairScores};

use crate::commands::report::embedded::{Embedded, dot, sample, shown_path};
use crate::commands::report::thumbnails::Thumbnails;
use crate::error::TrainError;
use crate::eval::encoder::Encoder;
use crate::events::{Event, Observer};

/// Pairs that are scored: enough for the tails, and done in minutes by a large tower on CPU.
const MOST_PAIRS: usize = 2000;

/// Pairs that are shown at each end.
const SHOWN: usize = 8;

/// Sets the draw of pairs apart from other draws of the seed.
const STREAM: u64 = 0x7061_6972;

/// A sample of the training pairs, embedded.
pub(super) struct ScoredPairs {
    pub embedded: Embedded,
    /// Of each pair, its image and its text.
    pairs: Vec<(usize, String)>,
    /// How the pairs were chosen.
    scored: String,
}

/// Embeds up to [`MOST_PAIRS`] training pairs, drawn by `seed`, with the model of `step`.
///
/// # Errors
/// As for [`Encoder::images`] and [`Encoder::texts`].
pub(super) fn score(
    dataset: &Dataset,
    (step, seed): (u64, u64),
    encoder: &Encoder<'_>,
    processor: &Arc<ImageProcessor>,
    observer: &mut dyn Observer,
) -> Result<ScoredPairs, TrainError> {
    let chosen = sample(dataset.num_captions(), MOST_PAIRS, &[seed, STREAM]);
    let mut numbers: Vec<usize> = chosen.iter().map(|&caption| dataset.caption(caption).image).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let images: Vec<ImageRef> = numbers.iter().map(|&image| dataset.image(image)).collect();
    let total = images.len();
    let (usable, image_embeds, bad) = encoder.images(Arc::new(images), processor, |done| {
        observer.on(Event::Work { name: "training pairs: images", done, total });
    })?;
    let row_of: BTreeMap<usize, usize> = usable.iter().enumerate().map(|(row, &at)| (numbers[at], row)).collect();
    let captions: Vec<(usize, usize)> =
        chosen.iter().filter_map(|&caption| Some((caption, *row_of.get(&dataset.caption(caption).image)?))).collect();
    let texts: Vec<Cow<'_, str>> = captions.iter().map(|&(caption, _)| dataset.text(caption, seed, 0)).collect();
    let total = texts.len();
    let progress = |done| observer.on(Event::Work { name: "training pairs: texts", done, total });
    let text_embeds = if dataset.text_feature_width().is_some() {
        encoder.text_rows(total, |at| dataset.caption(captions[at].0).features, progress)?
    } else {
        encoder.texts(&texts, progress)?
    };
    let mut scored = if chosen.len() < dataset.num_captions() {
        format!("A random sample of {} of {} training pairs was scored", chosen.len(), dataset.num_captions())
    } else {
        format!("All {} were scored", counted(chosen.len(), "training pair"))
    };
    scored += &format!(" by the model of step {step}.");
    if !bad.is_empty() {
        scored += &format!(" {} could not be read and are left out.", counted(bad.len(), "image"));
    }
    let dim = image_embeds.dim;
    let embedded = Embedded {
        dim,
        all_pairs: captions.len(),
        image_titles: usable.iter().map(|&at| shown_path(dataset, numbers[at])).collect(),
        text_titles: texts.iter().map(|text| text.clone().into_owned()).collect(),
        text_ids: captions.iter().map(|&(caption, _)| dataset.caption_id(caption)).collect(),
        pairs: captions.iter().enumerate().map(|(text, &(_, image))| [image, text]).collect(),
        images: image_embeds.into_normalized(),
        texts: text_embeds.into_normalized(),
    };
    let pairs =
        captions.iter().zip(texts).map(|(&(caption, _), text)| (dataset.caption(caption).image, text.into_owned()));
    Ok(ScoredPairs { pairs: pairs.collect(), embedded, scored })
}

impl ScoredPairs {
    /// The pairs of the lowest and of the highest similarity.
    pub fn extremes(&self, dataset: &Dataset, thumbnails: &mut Thumbnails) -> PairScores {
        let mut order: Vec<(f32, usize)> =
            self.embedded.pairs.iter().enumerate().map(|(pair, rows)| (self.score(*rows), pair)).collect();
        order.sort_by(|left, right| left.0.total_cmp(&right.0).then(left.1.cmp(&right.1)));
        let mut card = |&(score, pair): &(f32, usize)| {
            let (image, text) = &self.pairs[pair];
            let picture = thumbnails.show(&dataset.image(*image), shown_path(dataset, *image));
            PairCard { picture, caption: text.clone(), score: f64::from(score) }
        };
        let low = SHOWN.min(order.len().div_ceil(2));
        let high = SHOWN.min(order.len() - low);
        PairScores {
            scored: self.scored.clone(),
            worst: order[..low].iter().map(&mut card).collect(),
            best: order.iter().rev().take(high).map(&mut card).collect(),
        }
    }

    fn score(&self, [image, text]: [usize; 2]) -> f32 {
        dot(self.embedded.image(image), self.embedded.text(text))
    }
}
