//! Features of the images that a selection is made from, and their scores.

use std::sync::Arc;

use dualenc_data::{ContentId, Dataset, Skipped};
use dualenc_model::parameters;

use crate::config::RunConfig;
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::encoder::Encoder;
use crate::eval::metrics::scores::normalize_rows;
use crate::events::{Event, Observer};
use crate::features::cut_texts::CutTexts;
use crate::features::image_index::{ImageList, Views};
use crate::features::images::ImageFeatures;
use crate::features::locked_towers::{LockedFingerprints, LockedTowers, feature_cache_of};
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

/// Images between two reads of features, and between two reports of progress.
const WINDOW: usize = 4096;

/// The same where all tokens of an image are read: 50 MB of a small vision transformer.
const WINDOW_OF_TOKENS: usize = 128;

/// Features of an image tower, as they are: `[images, width]`.
pub(super) struct Rows {
    /// Of each row, the number of its image in its list.
    pub images: Vec<usize>,
    /// Of each row, the content of its image file.
    pub contents: Vec<ContentId>,
    /// Flat.
    pub values: Vec<f32>,
    pub bad: Vec<Skipped>,
}

/// A model outside of training: its towers, and where their features are cached.
pub(super) struct Towers {
    pub loaded: LoadedModel,
    pub locked: LockedTowers,
    pub width: usize,
}

impl Towers {
    /// Locks all of `loaded`. Features go to the cache of `config`, if it has one.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Read`] or [`TrainError::Write`] when
    /// the cache cannot be opened.
    pub fn new(
        mut loaded: LoadedModel,
        config: &RunConfig,
        compute: &Compute,
        stop: &StopFlag,
    ) -> Result<Self, TrainError> {
        loaded.model = loaded.model.valid();
        let workers = config.data.workers.unwrap_or(compute.threads).max(1);
        let locked = LockedTowers::new(&loaded.model, &loaded.processor, compute, workers, stop)
            .with_cache(feature_cache_of(config), &LockedFingerprints::of(&loaded.model)?)?;
        let width = loaded.model.image_summary_width();
        Ok(Self { loaded, locked, width })
    }

    /// The features of the images of `list` that can be used.
    ///
    /// # Errors
    /// As for [`ImageFeatures::fill`].
    pub fn features(&self, list: Arc<dyn ImageList>, observer: &mut dyn Observer) -> Result<Rows, TrainError> {
        let features = self.image_features()?;
        let set = features.set(list, Views::One);
        let total = set.len();
        let progress = |done| observer.on(Event::Work { name: "features of the image tower", done, total });
        let (_, bad) = features.fill(&set, progress)?;
        let images = set.usable();
        let mut values = Vec::with_capacity(images.len() * self.width);
        let window = if self.loaded.model.image_tokens.is_some() { WINDOW_OF_TOKENS } else { WINDOW };
        for window in images.chunks(window) {
            let selected = self.loaded.model.image_summary(features.select(&set, window, 0)?);
            values.extend(parameters::host(selected)?.values);
        }
        let content = |&image: &usize| {
            let unread = || TrainError::Internal(format!("image `{}` was not read", set.reference(image).key()));
            set.content(image).ok_or_else(unread)
        };
        let contents = images.iter().map(content).collect::<Result<_, _>>()?;
        Ok(Rows { images, contents, values, bad })
    }

    /// Embeddings of the images of `list`, L2-normalised: `[images, dim]`, flat, in the order of the images that can be
    /// used, which come first.
    ///
    /// # Errors
    /// As for [`Encoder::images`].
    pub fn embeds(
        &self,
        list: Arc<dyn ImageList>,
        (compute, stop, batch_size): (&Compute, &StopFlag, usize),
        observer: &mut dyn Observer,
    ) -> Result<(Vec<usize>, Vec<f32>), TrainError> {
        let total = list.num_images();
        let encoder = self.encoder(compute, stop, batch_size);
        let progress = |done| observer.on(Event::Work { name: "image embeddings", done, total });
        let (images, embeds, _) = encoder.images(list, &self.loaded.processor, progress)?;
        Ok((images, embeds.into_normalized()))
    }

    pub fn encoder<'a>(&'a self, compute: &'a Compute, stop: &'a StopFlag, batch_size: usize) -> Encoder<'a> {
        Encoder {
            model: &self.loaded.model,
            tokenizer: &self.loaded.tokenizer,
            locked: &self.locked,
            compute,
            workers: compute.threads,
            stop,
            batch_size,
            others: None,
            cut: CutTexts::default(),
        }
    }

    fn image_features(&self) -> Result<&ImageFeatures, TrainError> {
        let none = || TrainError::Internal("a locked model has no locked image tower".to_owned());
        self.locked.images.as_ref().ok_or_else(none)
    }
}

/// Subtracts `mean` from rows of its width, and normalises them. Towers that were not trained to compare cosines give
/// all images a large common part, next to which every two of them look alike.
pub(super) fn centre(values: &mut [f32], mean: &[f32]) {
    for row in values.chunks_exact_mut(mean.len().max(1)) {
        row.iter_mut().zip(mean).for_each(|(value, mean)| *value -= mean);
    }
    normalize_rows(values, mean.len());
}

/// The mean of rows of this width.
pub(super) fn mean(values: &[f32], width: usize) -> Vec<f32> {
    let rows = values.chunks_exact(width.max(1));
    let count = rows.len().max(1) as f64;
    let mut sums = vec![0.0; width];
    rows.for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value)));
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// Of each row of `embeds`, the highest cosine with a caption of its image: a bad caption beside a good one does not
/// matter. `images`: of each row, the image in `dataset`.
///
/// # Errors
/// As for [`Encoder::texts`].
pub(super) fn caption_scores(
    dataset: &Dataset,
    (images, embeds): (&[usize], &[f32]),
    encoder: &Encoder<'_>,
    observer: &mut dyn Observer,
) -> Result<Vec<f32>, TrainError> {
    let dim = encoder.model.embed_dim();
    let mut scores = Vec::with_capacity(images.len());
    for (window, rows) in images.chunks(WINDOW).zip(embeds.chunks(WINDOW * dim)) {
        let captions: Vec<usize> =
            window.iter().flat_map(|&image| dataset.captions_of(image)).map(|&caption| caption as usize).collect();
        let texts = if dataset.has_templates() {
            // The drawn template of an epoch is as good as another one's.
            let texts: Vec<_> = captions.iter().map(|&caption| dataset.text(caption, 0, 0)).collect();
            encoder.texts(&texts, |_| {})?
        } else {
            encoder.captions(dataset, &captions, |_| {})?
        };
        let texts = texts.into_normalized();
        let mut texts = texts.chunks_exact(dim);
        for (&image, row) in window.iter().zip(rows.chunks_exact(dim)) {
            let of_image = texts.by_ref().take(dataset.captions_of(image).len());
            let cosine = |text: &[f32]| row.iter().zip(text).map(|(a, b)| a * b).sum::<f32>();
            scores.push(of_image.map(cosine).fold(f32::NEG_INFINITY, f32::max));
        }
        observer.on(Event::Work { name: "scores of captions", done: scores.len(), total: images.len() });
    }
    encoder.report_cut("caption", observer);
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centred_rows_are_unit() {
        let mut values = vec![3.0, 1.0, 5.0, 1.0, 3.0, 4.0];
        let mean = mean(&values, 2);
        assert_eq!(mean, [11.0 / 3.0, 2.0]);
        centre(&mut values, &mean);
        for row in values.chunks_exact(2) {
            assert!((row[0].hypot(row[1]) - 1.0).abs() < 1e-6, "{row:?}");
        }
        assert!(values[0] < 0.0 && values[2] > 0.0 && values[5] > 0.9, "{values:?}");
    }
}
