//! Embeddings of many images or texts, by a model that is not training.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use dualenc_data::{
    ContentId, Dataset, Encoded, FeatureTable, ImageProcessor, ImageRef, Skipped, TokenBatch, TokenTable, Tokenizer,
};
use dualenc_model::{Dropout, DualEncoder, TokenSequences, Tower, parameters};
use serde::{Deserialize, Serialize};

use crate::config::Precision;
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::metrics::scores::normalize_rows;
use crate::events::Observer;
use crate::features::absent::{check_side, text_side};
use crate::features::cut_texts::{CutCounts, CutTexts};
use crate::features::finite::first_not_finite;
use crate::features::image_index::{ImageList, Views};
use crate::features::images::ImageFeatures;
use crate::features::locked_towers::LockedTowers;
use crate::stop_flag::StopFlag;

/// Characters of a text that an error message names.
const NAMED_CHARS: usize = 60;

/// Images with all their tokens in memory at once, where no cache on disk has them: 200 MB of a small vision
/// transformer.
const IMAGES_WITH_TOKENS: usize = 512;

/// Embeddings of images or texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Values per row.
    pub dim: usize,
    /// Projections before normalisation, as the reference's `get_*_features` returns them: shape `[rows, dim]`, flat.
    pub features: Vec<f32>,
}

impl Embeddings {
    /// The rows, each divided by its L2 norm.
    pub fn normalized(&self) -> Vec<f32> {
        self.clone().into_normalized()
    }

    /// As [`Embeddings::normalized`], in the same memory.
    pub fn into_normalized(mut self) -> Vec<f32> {
        normalize_rows(&mut self.features, self.dim);
        self.features
    }
}

/// What is computed of each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ImageRows {
    /// Its projected embedding.
    Embeds,
    /// The feature of the image tower (the summary of its tokens, where the head takes all), and its projected
    /// embedding after it.
    FeaturesAndEmbeds,
}

/// The images that can be used, their rows, their contents, and those that cannot be used.
pub(crate) type ImagesFound = (Vec<usize>, Embeddings, Vec<ContentId>, Vec<Skipped>);

/// The other ranks of a run on several devices, as the first one asks them for embeddings.
#[derive(Clone, Copy)]
pub struct OtherRanks<'a>(pub(crate) &'a dyn Helpers);

/// Ranks that encode together what one of them asks for.
pub(crate) trait Helpers {
    /// As [`Encoder::images_with_contents`], for the images of the evaluation `name`.
    fn images(
        &self,
        encoder: &Encoder<'_>,
        name: &str,
        images: Arc<dyn ImageList>,
        processor: &Arc<ImageProcessor>,
        rows: ImageRows,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<ImagesFound, TrainError>;

    /// As [`Encoder::texts`].
    fn texts(
        &self,
        encoder: &Encoder<'_>,
        texts: Vec<String>,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Embeddings, TrainError>;
}

/// What is found out about images.
#[derive(Default)]
struct EncodedImages {
    /// Values of a row.
    dim: usize,
    /// Images that can be used.
    usable: Vec<usize>,
    /// Of each, its row, flat.
    values: Vec<f32>,
    /// Of each, its content.
    contents: Vec<ContentId>,
    bad: Vec<Skipped>,
}

/// A model for inference, with everything that prepares its inputs.
pub struct Encoder<'a> {
    /// The model, without gradients.
    pub model: &'a DualEncoder,
    /// The text tower's tokenizer.
    pub tokenizer: &'a Arc<Tokenizer>,
    /// Its locked towers, with their cached features.
    pub locked: &'a LockedTowers,
    /// The device.
    pub compute: &'a Compute,
    /// Threads that read images and tokenize texts.
    pub workers: usize,
    /// Ends work early when it is set.
    pub stop: &'a StopFlag,
    /// Images or texts per pass through the projections and the text tower.
    pub batch_size: usize,
    /// Other ranks, which encode a share of the images and texts of an evaluation; `None`: there is none.
    pub others: Option<OtherRanks<'a>>,
    /// Counts texts that are longer than the text tower reads.
    pub cut: CutTexts,
}

impl Encoder<'_> {
    /// The same with another size of batches. What both cut is counted together.
    pub(crate) fn with_batch_size(&self, batch_size: usize) -> Encoder<'_> {
        Encoder { batch_size, cut: self.cut.clone(), ..*self }
    }

    /// Reports the texts that were cut since the last report; `noun`: what one of them is.
    pub(crate) fn report_cut(&self, noun: &str, observer: &mut dyn Observer) {
        self.cut.take().report("", noun, self.tokenizer.max_tokens(), observer);
    }

    /// Features of the image tower: cached ones if it is locked, else those of its current weights.
    fn image_features(&self, processor: &Arc<ImageProcessor>) -> ImageFeatures {
        self.locked.images.clone().unwrap_or_else(|| {
            let tower = self.model.image_tower.clone();
            let compute = Compute { locked_precision: Precision::F32, ..self.compute.clone() };
            ImageFeatures::new(tower, Arc::clone(processor), compute, self.workers).with_stop_flag(self.stop)
        })
    }

    /// Embeds images. Returns the numbers of the images that can be used, their embeddings row by row, and the images
    /// that cannot be used. `on_progress` receives the number of images done.
    ///
    /// # Errors
    /// As for [`ImageFeatures::fill`]; [`TrainError::Model`] when the device cannot return its data;
    /// [`TrainError::NotFiniteOutput`] when an embedding holds NaN or an infinity.
    pub(crate) fn images(
        &self,
        images: Arc<dyn ImageList>,
        processor: &Arc<ImageProcessor>,
        on_progress: impl FnMut(usize),
    ) -> Result<(Vec<usize>, Embeddings, Vec<Skipped>), TrainError> {
        let (usable, embeddings, _, bad) =
            self.images_with_contents(images, processor, ImageRows::Embeds, on_progress)?;
        Ok((usable, embeddings, bad))
    }

    /// As [`Encoder::images_with_contents`], for the images of the evaluation `name`, with the other ranks.
    ///
    /// # Errors
    /// As for [`Encoder::images`]; those of other ranks.
    pub(crate) fn images_of(
        &self,
        name: &str,
        images: Arc<dyn ImageList>,
        processor: &Arc<ImageProcessor>,
        rows: ImageRows,
        mut on_progress: impl FnMut(usize),
    ) -> Result<ImagesFound, TrainError> {
        match self.others {
            Some(OtherRanks(others)) => others.images(self, name, images, processor, rows, &mut on_progress),
            None => self.images_with_contents(images, processor, rows, on_progress),
        }
    }

    /// As [`Encoder::images`], with the content of each image that can be used before those that cannot be used.
    /// `rows`: what is returned of each image.
    ///
    /// # Errors
    /// As for [`Encoder::images`].
    pub(crate) fn images_with_contents(
        &self,
        images: Arc<dyn ImageList>,
        processor: &Arc<ImageProcessor>,
        rows: ImageRows,
        mut on_progress: impl FnMut(usize),
    ) -> Result<ImagesFound, TrainError> {
        let dim = self.row_width(rows);
        let features = self.image_features(processor);
        let mut found = EncodedImages { dim, ..EncodedImages::default() };
        if self.model.image_tokens.is_none() || !features.are_in_memory() {
            self.add_images(&features, images, (rows, 0), &mut found, on_progress)?;
        } else {
            // The tokens of all images may not fit in memory.
            for first in (0..images.num_images()).step_by(IMAGES_WITH_TOKENS) {
                let part = first..images.num_images().min(first + IMAGES_WITH_TOKENS);
                let list: Vec<ImageRef> = part.map(|image| images.image(image)).collect();
                let passing = features.with_own_store();
                self.add_images(&passing, Arc::new(list), (rows, first), &mut found, |done| on_progress(first + done))?;
            }
        }
        let EncodedImages { usable, values, contents, bad, .. } = found;
        Ok((usable, Embeddings { dim, features: values }, contents, bad))
    }

    /// Values that are returned of each image.
    pub(crate) fn row_width(&self, rows: ImageRows) -> usize {
        match rows {
            ImageRows::Embeds => self.model.embed_dim(),
            ImageRows::FeaturesAndEmbeds => self.model.image_summary_width() + self.model.embed_dim(),
        }
    }

    /// Adds images to `found`, where the first of them has the number `first`.
    fn add_images(
        &self,
        features: &ImageFeatures,
        images: Arc<dyn ImageList>,
        (rows, first): (ImageRows, usize),
        found: &mut EncodedImages,
        on_progress: impl FnMut(usize),
    ) -> Result<(), TrainError> {
        let dim = found.dim;
        let set = features.set(images, Views::One);
        let (_, bad) = features.fill(&set, on_progress)?;
        let usable = set.usable();
        found.values.reserve(usable.len() * dim);
        for batch in usable.chunks(self.batch_size.max(1)) {
            let selected = features.select(&set, batch, 0)?;
            let projected = self.model.project_image(selected.clone(), &Dropout::off());
            let batch_rows = match rows {
                ImageRows::Embeds => projected,
                ImageRows::FeaturesAndEmbeds => Tensor::cat(vec![self.model.image_summary(selected), projected], 1),
            };
            let batch_rows = parameters::host(batch_rows)?.values;
            check_embeddings(&batch_rows, batch.len(), dim, |row| {
                format!("image `{}`", set.reference(batch[row]).key())
            })?;
            found.values.extend(batch_rows);
        }
        for &image in &usable {
            let unread = || TrainError::Internal(format!("image `{}` was not read", set.reference(image).key()));
            found.contents.push(set.content(image).ok_or_else(unread)?);
        }
        found.usable.extend(usable.into_iter().map(|image| first + image));
        found.bad.extend(bad.into_iter().map(|skipped| Skipped { image: first + skipped.image, ..skipped }));
        Ok(())
    }

    /// Projects rows of features that stand in place of texts: of row `index`, the table and the number of its row.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when the model has a text tower, or the features have another width;
    /// [`TrainError::Data`] when a file cannot be read; [`TrainError::Model`] when the device cannot return its data;
    /// [`TrainError::NotFiniteOutput`] when an embedding holds NaN or an infinity; [`TrainError::Stopped`] when the
    /// stop flag is set.
    pub(crate) fn text_rows<'t>(
        &self,
        count: usize,
        row_of: impl Fn(usize) -> Option<(&'t Arc<FeatureTable>, u64)>,
        mut on_progress: impl FnMut(usize),
    ) -> Result<Embeddings, TrainError> {
        let (dim, side) = (self.model.embed_dim(), text_side(self.model));
        let mut features = Vec::with_capacity(count * dim);
        let mut buffer = Vec::new();
        for first in (0..count).step_by(self.batch_size.max(1)) {
            let rows = first..count.min(first + self.batch_size.max(1));
            let mut values = vec![0.0; rows.len() * side.1];
            for (row, out) in rows.clone().zip(values.chunks_exact_mut(side.1.max(1))) {
                let found = row_of(row);
                let what = || found.map_or_else(|| "a text".to_owned(), |(table, row)| format!("`{}`", table.key(row)));
                check_side(Tower::Text, side, found.map(|(table, _)| table.width()), &what())?;
                if let Some((table, row)) = found {
                    table.read(row, out, &mut buffer)?;
                }
            }
            let values = TensorData::new(values, [rows.len(), side.1]);
            let projected = self.model.project_text(Tensor::from_data(values, &self.compute.device), &Dropout::off());
            let projected = parameters::host(projected)?.values;
            let key = |at: usize| row_of(rows.start + at).map(|(table, row)| table.key(row)).unwrap_or_default();
            check_embeddings(&projected, rows.len(), dim, |at| format!("text `{}`", key(at)))?;
            features.extend(projected);
            on_progress(rows.end);
            if let Some(signal) = self.stop.signal() {
                return Err(TrainError::Stopped { signal });
            }
        }
        Ok(Embeddings { dim, features })
    }

    /// Embeds captions of `dataset`, row by row: their texts, or the features in their place.
    ///
    /// # Errors
    /// As for [`Encoder::texts`] and [`Encoder::text_rows`].
    pub(crate) fn captions(
        &self,
        dataset: &Dataset,
        captions: &[usize],
        on_progress: impl FnMut(usize),
    ) -> Result<Embeddings, TrainError> {
        if dataset.text_feature_width().is_some() {
            return self.text_rows(captions.len(), |at| dataset.caption(captions[at]).features, on_progress);
        }
        let texts: Vec<&str> = captions.iter().map(|&caption| dataset.caption(caption).text).collect();
        self.texts(&texts, on_progress)
    }

    /// Embeds texts, row by row. `on_progress` receives the number of texts done.
    ///
    /// # Errors
    /// [`TrainError::Data`] when a text cannot be tokenized; [`TrainError::Model`] when the text tower rejects the
    /// tokens or the device cannot return its data; [`TrainError::Write`] when the feature cache cannot be written;
    /// [`TrainError::NotFiniteOutput`] when an embedding holds NaN or an infinity; [`TrainError::Stopped`] when the
    /// stop flag is set.
    pub fn texts<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        mut on_progress: impl FnMut(usize),
    ) -> Result<Embeddings, TrainError> {
        match self.others {
            Some(OtherRanks(others)) => {
                let texts = texts.iter().map(|text| text.as_ref().to_owned()).collect();
                others.texts(self, texts, &mut on_progress)
            }
            None => self.own_texts(texts, on_progress),
        }
    }

    /// As [`Encoder::texts`], on this rank.
    pub(crate) fn own_texts<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        on_progress: impl FnMut(usize),
    ) -> Result<Embeddings, TrainError> {
        let dim = self.model.embed_dim();
        let mut features = vec![0.0; texts.len() * dim];
        self.texts_into(texts, on_progress, |text, row| {
            features[text * dim..][..dim].copy_from_slice(row);
            Ok(())
        })?;
        Ok(Embeddings { dim, features })
    }

    /// Embeds texts, and passes each row to `sink` with the number of its text, in any order.
    ///
    /// # Errors
    /// As for [`Encoder::texts`]; [`TrainError::Stopped`] when the stop flag is set; and those of `sink`.
    pub(crate) fn texts_into<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        mut on_progress: impl FnMut(usize),
        mut sink: impl FnMut(usize, &[f32]) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let table = TokenTable::build(self.tokenizer, texts, self.workers)?;
        self.cut.add(CutCounts::of(&table, texts));
        let dim = self.model.embed_dim();
        // Batches hold texts of similar length; each row goes to the position of its text.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| table.get(text).0.len());
        let mut done = 0;
        for batch in order.chunks(self.batch_size.max(1)) {
            let mut tokens = TokenBatch::default();
            for &text in batch {
                let (ids, types) = table.get(text);
                tokens.push(Encoded { ids: ids.to_vec(), type_ids: types.to_vec(), cut: false });
            }
            let features = match &self.locked.texts {
                Some(texts) => self.model.project_text(texts.of_tokens(&tokens)?, &Dropout::off()),
                None => {
                    let tokens = TokenSequences::new(tokens.ids, tokens.type_ids);
                    self.model.text_features(&tokens, &Dropout::off())?
                }
            };
            let rows = parameters::host(features)?.values;
            check_embeddings(&rows, batch.len(), dim, |row| {
                format!("text `{}`", start_of(texts[batch[row]].as_ref()))
            })?;
            for (text, row) in batch.iter().zip(rows.chunks_exact(dim)) {
                sink(*text, row)?;
            }
            done += batch.len();
            on_progress(done);
            if let Some(signal) = self.stop.signal() {
                return Err(TrainError::Stopped { signal });
            }
        }
        Ok(())
    }
}

/// Refuses embeddings, flat, unless they have the shape `[rows, dim]` and are finite. `input` names the input of a row.
fn check_embeddings(
    values: &[f32],
    rows: usize,
    dim: usize,
    input: impl FnOnce(usize) -> String,
) -> Result<(), TrainError> {
    if values.len() != rows * dim {
        let found = values.len();
        return Err(TrainError::Internal(format!("{found} values for {rows} embeddings of width {dim}")));
    }
    let Some((row, value)) = first_not_finite(values, dim) else { return Ok(()) };
    Err(TrainError::NotFiniteOutput {
        what: format!("the embedding of {}", input(row)),
        value: value.into(),
        advice: "the weights of the model are damaged or too large: use an earlier checkpoint or another model"
            .to_owned(),
    })
}

/// The start of a text, for a message.
fn start_of(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(NAMED_CHARS).collect();
    if chars.next().is_some() { format!("{start}...") } else { start }
}
