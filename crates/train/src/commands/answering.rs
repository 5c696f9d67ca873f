//! A model and an index that answer requests as long as a program runs: what `dualenc serve` does besides HTTP.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dualenc_data::{Encoding, Filter, ImageRef, Limits, RgbImage, decode, encode, repeated_names, resize};
use dualenc_search::{Hit, Index, SearchError};

use crate::commands::classify::{LabelScore, Scorer, class_embeddings, prompt_noun};
use crate::commands::search::check_index;
use crate::commands::with_encoder::with_encoder;
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::encoder::{Embeddings, Encoder};
use crate::events::Event;
use crate::features::cut_texts::CutCounts;
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

/// Images or texts per forward pass, as in `embed`.
const BATCH_SIZE: usize = 64;

/// Longer side of a picture, in pixels: four columns of a wide screen.
const PICTURE_SIDE: u32 = 480;

/// Quality of a picture as JPEG: Pillow's default is 75, which shows on sharp edges.
const PICTURE_QUALITY: u8 = 85;

/// Answers one request at a time.
pub struct Answering {
    loaded: LoadedModel,
    compute: Compute,
    index: Option<Arc<Index>>,
    stop: StopFlag,
    /// Requests often have the labels of the one before.
    classes: Option<Classes>,
    notes: Mutex<Notes>,
}

/// What a person who runs the server should know.
#[derive(Default)]
struct Notes {
    /// That texts are cut: once, however often it happens.
    of_cut: Option<String>,
    is_taken: bool,
}

struct Classes {
    labels: Vec<String>,
    templates: Vec<String>,
    /// `[labels, dim]`, flat, normalised.
    embeddings: Vec<f32>,
}

impl Answering {
    /// # Errors
    /// [`TrainError::Usage`] when the model has another width than the index; [`TrainError::Search`] when it is not the
    /// one that wrote it; [`TrainError::Model`] when the device cannot return its data.
    pub fn new(loaded: LoadedModel, index: Option<Arc<Index>>, compute: Compute) -> Result<Self, TrainError> {
        index.as_ref().map_or(Ok(()), |index| check_index(&loaded, index)).map_err(of_other_width)?;
        Ok(Self { loaded, compute, index, stop: StopFlag::default(), classes: None, notes: Mutex::default() })
    }

    /// Values of an embedding.
    pub fn dim(&self) -> usize {
        self.loaded.model.embed_dim()
    }

    /// The embedding of each text.
    ///
    /// # Errors
    /// As for [`Encoder::texts`](crate::Encoder::texts).
    pub fn texts(&self, texts: &[String]) -> Result<Embeddings, TrainError> {
        let (found, cut) = self.with(|encoder| (encoder.texts(texts, |_| ()), encoder.cut.take()));
        self.note(&cut, "text");
        found
    }

    /// A note that texts of a request were cut to the limit of the model. It is returned once.
    pub fn note_of_cut(&self) -> Option<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).of_cut.take()
    }

    fn note(&self, cut: &CutCounts, noun: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let event = cut.event("", noun, self.loaded.tokenizer.max_tokens()).filter(|_| !notes.is_taken);
        if let Some(Event::Note(text) | Event::Warning(text)) = event {
            let once = "later requests with such texts are not mentioned";
            *notes = Notes { of_cut: Some(format!("in a request, {text}; {once}")), is_taken: true };
        }
    }

    /// The embedding of each image, an encoded file.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when one cannot be used, with its number from 1; [`TrainError::Write`] when the temporary
    /// folder cannot be written; [`TrainError::Model`]; [`TrainError::NotFiniteOutput`].
    pub fn images(&self, images: &[Vec<u8>]) -> Result<Embeddings, TrainError> {
        // As files, so that they take the path of all other images.
        let dir = tempfile::tempdir().map_err(TrainError::write(&std::env::temp_dir()))?;
        let paths: Vec<PathBuf> = (1..=images.len()).map(|number| dir.path().join(format!("image-{number}"))).collect();
        for (path, image) in paths.iter().zip(images) {
            fs::write(path, image).map_err(TrainError::write(path))?;
        }
        let refs: Arc<Vec<ImageRef>> = Arc::new(paths.into_iter().map(ImageRef::File).collect());
        let (_, embeddings, bad) = self.with(|encoder| encoder.images(refs, &self.loaded.processor, |_| ()))?;
        if bad.is_empty() {
            return Ok(embeddings);
        }
        let problems = bad.iter().map(|bad| format!("image {} cannot be used: {}", bad.image + 1, bad.reason));
        Err(TrainError::Usage(problems.collect::<Vec<_>>().join("; ")))
    }

    /// The `top` most similar labels of each image, as `dualenc classify` finds them.
    ///
    /// # Errors
    /// As for [`Answering::images`]; [`TrainError::Usage`] when there is no label, one is empty or appears twice.
    pub fn classify(
        &mut self,
        images: &[Vec<u8>],
        labels: &[String],
        templates: &[String],
        top: usize,
    ) -> Result<Vec<Vec<LabelScore>>, TrainError> {
        if labels.is_empty() || labels.iter().any(|label| label.trim().is_empty()) {
            return Err(TrainError::Usage("there is no label, or one is empty; give each a name".to_owned()));
        }
        if let Some(repeated) = repeated_names(labels).first() {
            return Err(TrainError::Usage(format!("`{repeated}` is a label more than once; give each label once")));
        }
        let images = self.images(images)?;
        let known = self.classes.take().filter(|known| known.labels == labels && known.templates == templates);
        let known = match known {
            Some(known) => known,
            None => {
                let (embeddings, cut) =
                    class_embeddings(&self.loaded, labels, templates, BATCH_SIZE, &self.compute, &self.stop)?;
                self.note(&cut, prompt_noun(templates));
                Classes { labels: labels.to_vec(), templates: templates.to_vec(), embeddings }
            }
        };
        let known = self.classes.insert(known);
        let scorer = Scorer::of(&self.loaded, labels, &known.embeddings)?;
        let dim = self.loaded.model.embed_dim();
        let scores = |image| {
            let mut scores = scorer.labels(image);
            scores.truncate(top);
            scores
        };
        Ok(images.into_normalized().chunks_exact(dim).map(scores).collect())
    }

    /// The `top` nearest rows of the index to an embedding, as `dualenc search` finds them.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when there is no index; [`TrainError::Search`] when nothing is similar to the query.
    pub fn nearest(&self, query: &Embeddings, top: usize) -> Result<Vec<Hit>, TrainError> {
        let Some(index) = &self.index else {
            return Err(TrainError::Usage("there is no index to search; start with `--index FILE`".to_owned()));
        };
        Ok(index.search(&query.features, query.dim, top)?.into_iter().flatten().collect())
    }

    fn with<R>(&self, run: impl FnOnce(&Encoder<'_>) -> R) -> R {
        with_encoder(&self.loaded, &self.compute, &self.stop, BATCH_SIZE, run)
    }
}

/// The error for an index of another width than the model. It does not name a query: there is none yet.
fn of_other_width(error: TrainError) -> TrainError {
    match error {
        TrainError::Search(SearchError::Width { path, rows, query }) => TrainError::Usage(format!(
            "`{}` has embeddings of {rows} values, but those of the model have {query}; serve the model that wrote \
             them, or embed again with this one",
            path.display()
        )),
        error => error,
    }
}

/// A small JPEG of the image in a file, upright.
///
/// # Errors
/// [`TrainError::Data`] when it cannot be read or decoded; [`TrainError::Usage`] when it cannot be encoded.
pub fn small_picture(path: &Path, limits: &Limits) -> Result<Vec<u8>, TrainError> {
    let image = decode(&ImageRef::File(path.to_owned()).read()?, limits)
        .map_err(|error| TrainError::Usage(format!("`{}`: {error}", path.display())))?;
    let longer = image.width.max(image.height);
    let small = if longer <= PICTURE_SIDE { image } else { reduced(&image, longer) };
    encode(&small, Encoding::Jpeg(PICTURE_QUALITY)).map_err(TrainError::Usage)
}

fn reduced(image: &RgbImage, longer: u32) -> RgbImage {
    // Both sides are at most `longer`, so the results are at most PICTURE_SIDE.
    let side = |length: u32| (u64::from(length) * u64::from(PICTURE_SIDE) / u64::from(longer)).max(1) as u32;
    resize(image, side(image.width), side(image.height), Filter::Bicubic)
}
