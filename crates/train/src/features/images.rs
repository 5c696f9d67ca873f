//! Pooled outputs of a locked image tower, each computed once: taken from the store where it has them, else read, decoded
//! and processed on threads and run through the tower in chunks.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use dualenc_data::{
    Batch, ContentHash, DataError, ImageProcessor, KeptImages, Skipped, decode_view, load_view, ordered_map,
};
use dualenc_model::{Dropout, ImageTower, parameters};

use crate::config::CacheDtype;
use crate::device::{Compute, cast, dtype};
use crate::error::TrainError;
use crate::features::image_index::{ImageList, ImageSet, Views};
use crate::features::key::{Counts, form_of, tower_key};
use crate::features::parallel_forward::{forward_chunks, one_thread};
use crate::features::store::FeatureStore;
use crate::features::store_index::Row;
use crate::stop_flag::StopFlag;

/// Images of one pass through the tower: enough to fill the caches of a core with weights used more than once.
const CHUNK_IMAGES: usize = 16;

/// Images that are kept already are handed on with those that are not, so many for one of them.
const KEPT_A_CHUNK: usize = 16;

/// Outputs of a locked image tower.
#[derive(Clone)]
pub struct ImageFeatures {
    tower: Arc<ImageTower>,
    processor: Arc<ImageProcessor>,
    compute: Compute,
    workers: usize,
    store: Arc<FeatureStore>,
    /// Whether the store outlives this value: only then does training look into it.
    is_kept: bool,
    sets: Arc<Mutex<Vec<ImageSet>>>,
    stop: StopFlag,
}

/// What a worker made of one image.
enum Loaded {
    Kept,
    Pixels(ContentHash, Vec<f32>),
    Bad(Skipped),
}

/// Loaded images of a chunk, and the features `[with pixels, width]`, flat, of those that were not kept.
type ChunkResult = Result<(Vec<Loaded>, Vec<f32>), TrainError>;

impl ImageFeatures {
    /// Features of `tower`, which must be outside of the gradient graph; they end with this value.
    pub fn new(tower: ImageTower, processor: Arc<ImageProcessor>, compute: Compute, workers: usize) -> Self {
        let store = Arc::new(FeatureStore::in_memory(tower.width()));
        let tower = cast(tower, compute.locked_precision);
        let (sets, stop) = (Arc::default(), StopFlag::default());
        Self { tower: Arc::new(tower), processor, compute, workers, store, is_kept: false, sets, stop }
    }

    /// The same, ending early when a signal comes. What is computed by then is kept.
    #[must_use]
    pub fn until(self, stop: &StopFlag) -> Self {
        Self { stop: stop.clone(), ..self }
    }

    /// The same, kept in `dir` from run to run under the `fingerprint` of the tower's parameters.
    ///
    /// # Errors
    /// When the cache cannot be read or written.
    pub fn kept_in(self, dir: &Path, dtype: CacheDtype, fingerprint: &str) -> Result<Self, TrainError> {
        let tower = self.tower.as_ref();
        let mut key =
            tower_key(fingerprint, &form_of(&format!("{:?} {:?}", tower.config(), tower.pooling()), &self.compute));
        key.update(&self.processor.fingerprint());
        let store = Arc::new(FeatureStore::open(dir, &key.finalize(), tower.width(), dtype)?);
        Ok(Self { store, is_kept: true, ..self })
    }

    /// Bytes of the store's values and where they are, if it has files.
    pub fn size(&self) -> Option<(u64, &Path)> {
        self.store.size()
    }

    /// The set of the images in `list` as they are given in `views`: the same one each time it is asked for.
    pub fn set(&self, list: Arc<dyn ImageList>, views: Views) -> ImageSet {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = sets.iter().find(|set| set.is_of(&list, views)) {
            return set.clone();
        }
        let set = ImageSet::new(list, Arc::clone(&self.store), views);
        sets.push(set.clone());
        set
    }

    /// The set as a loader asks it, where features are kept at all.
    pub fn for_loader(&self, set: &ImageSet) -> Option<Arc<dyn KeptImages>> {
        self.is_kept.then(|| Arc::new(set.clone()) as Arc<dyn KeptImages>)
    }

    /// Pooled outputs `[batch, width]` of the images of a batch of `set`: the loaded ones are computed, and kept if any are.
    ///
    /// # Errors
    /// When the store cannot be written, or a feature was lost and its image cannot be read any more.
    pub fn of_batch(&self, set: &ImageSet, batch: &Batch) -> Result<Tensor<2>, TrainError> {
        if !self.is_kept {
            return Ok(self.tensor(self.forward(&batch.pixels)?));
        }
        let image_values = batch.pixels.len() / batch.loaded.len().max(1);
        let (mut contents, mut pixels, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        // An image that comes twice in a short time was decoded twice, and is computed once.
        for (loaded, image) in batch.loaded.iter().zip(batch.pixels.chunks_exact(image_values.max(1))) {
            let Some(content) = loaded.content.filter(|content| seen.insert(*content)) else { continue };
            if self.store.find(&content).is_none() {
                contents.push(content);
                pixels.extend_from_slice(image);
            }
        }
        if !contents.is_empty() {
            self.store.insert(&contents, &self.forward(&pixels)?)?;
        }
        for loaded in &batch.loaded {
            if let Some(row) = loaded.content.and_then(|content| self.store.find(&content)) {
                set.set_row(batch.pairs[loaded.pair].image, batch.view, row);
            }
        }
        let images: Vec<usize> = batch.pairs.iter().map(|pair| pair.image).collect();
        self.select(set, &images, batch.view)
    }

    /// Pooled outputs `[images, width]` of images of `set` that are kept, in one view.
    ///
    /// # Errors
    /// When one has no feature, or lost it and cannot be read any more.
    pub fn select(&self, set: &ImageSet, images: &[usize], view: u64) -> Result<Tensor<2>, TrainError> {
        let row = |&image: &usize| {
            set.row(image, view).ok_or_else(|| TrainError::Usage(format!("image {image} has no features")))
        };
        let rows = images.iter().map(row).collect::<Result<Vec<Row>, TrainError>>()?;
        let width = self.store.width();
        let mut values = vec![0.0; images.len() * width];
        for lost in self.store.read(&rows, &mut values) {
            let row = self.restore(set, images[lost], view)?;
            if !self.store.read(&[row], &mut values[lost * width..][..width]).is_empty() {
                return Err(TrainError::Usage("the feature cache was cut while it was read; run again".to_owned()));
            }
        }
        Ok(self.tensor(values))
    }

    /// Makes sure that every view of every image of `set` that can be used has its feature in the store; gives how many were computed and
    /// the images that cannot be used. `on_progress` hears how many are done.
    ///
    /// # Errors
    /// When a file cannot be read for another reason than its content, the store cannot be written, or a signal came.
    pub fn fill(
        &self,
        set: &ImageSet,
        mut on_progress: impl FnMut(usize),
    ) -> Result<(Counts, Vec<Skipped>), TrainError> {
        let (mut counts, mut bad, mut next) = (Counts::default(), Vec::new(), 0);
        for chunk in self.chunks(set) {
            let (loaded, features) = chunk??;
            let (mut contents, mut images) = (Vec::new(), Vec::new());
            for item in loaded {
                match item {
                    Loaded::Bad(skipped) if next < set.len() => bad.push(skipped),
                    // In another view it is as bad.
                    Loaded::Bad(_) => {}
                    Loaded::Kept => counts.kept += 1,
                    Loaded::Pixels(content, _) => {
                        contents.push(content);
                        images.push(next);
                    }
                }
                next += 1;
            }
            if !contents.is_empty() {
                counts.computed += contents.len();
                let rows = self.store.insert(&contents, &features)?;
                images.into_iter().zip(rows).for_each(|(at, row)| {
                    set.set_row(at % set.len(), (at / set.len()) as u64, row);
                });
            }
            on_progress(next);
            if let Some(signal) = self.stop.signal() {
                return Err(TrainError::Stopped { signal });
            }
        }
        Ok((counts, bad))
    }

    /// Chunks of loaded images with the features of those that were not kept.
    fn chunks(&self, set: &ImageSet) -> impl Iterator<Item = Result<ChunkResult, DataError>> + use<> {
        let (processor, worker_set) = (Arc::clone(&self.processor), set.clone());
        let images = set.len();
        let jobs = (0..set.views().count() as u64).flat_map(move |view| (0..images).map(move |image| (image, view)));
        let mut loaded = ordered_map(jobs, self.workers, CHUNK_IMAGES * 2, move |(image, view)| {
            load(image, view, &worker_set, &processor)
        });
        let batches = std::iter::from_fn(move || {
            let mut batch: Vec<Result<Loaded, DataError>> = Vec::new();
            let mut pixels = 0;
            while pixels < CHUNK_IMAGES && batch.len() < CHUNK_IMAGES * KEPT_A_CHUNK {
                let Some(item) = loaded.next() else { break };
                let item = item.and_then(|item| item);
                pixels += usize::from(matches!(item, Ok(Loaded::Pixels(..))));
                batch.push(item);
            }
            (!batch.is_empty()).then_some(batch)
        });
        let features = self.clone();
        let parallel = if self.compute.on_host { self.compute.threads } else { 1 };
        ordered_map(batches, parallel, parallel, move |batch: Vec<Result<Loaded, DataError>>| {
            let mut loaded = batch.into_iter().collect::<Result<Vec<Loaded>, DataError>>()?;
            let mut pixels = Vec::new();
            for item in &mut loaded {
                if let Loaded::Pixels(_, values) = item {
                    pixels.append(values);
                }
            }
            let forward = || features.forward_chunk(pixels);
            let features = match features.compute.on_host {
                true => one_thread(forward)?,
                false => forward()?,
            };
            Ok((loaded, features))
        })
    }

    /// Computes the feature of an image again.
    fn restore(&self, set: &ImageSet, image: usize, view: u64) -> Result<Row, TrainError> {
        let reference = set.reference(image);
        let content = set.views().content(image, view, &reference.read()?);
        let features = self.forward(&load_view(reference, &self.processor, set.views().of(image, view))?)?;
        let rows = self.store.insert(&[content], &features)?;
        set.set_row(image, view, rows[0]);
        Ok(rows[0])
    }

    /// `[images, width]`, flat, of pixels `[images, 3, height, width]`, flat.
    fn forward(&self, pixels: &[f32]) -> Result<Vec<f32>, TrainError> {
        let image = self.image_values();
        let images = pixels.len() / image;
        // Fewer than a full chunk on every core are spread evenly.
        let size = images.div_ceil(self.compute.threads.max(1)).clamp(1, CHUNK_IMAGES);
        let chunks: Vec<_> = (0..images).step_by(size).map(|start| start..(start + size).min(images)).collect();
        forward_chunks(&chunks, self.tower.width(), &self.compute, |chunk| {
            self.forward_chunk(pixels[chunk.start * image..chunk.end * image].to_vec())
        })
    }

    fn forward_chunk(&self, mut pixels: Vec<f32>) -> Result<Vec<f32>, TrainError> {
        if pixels.is_empty() {
            return Ok(Vec::new());
        }
        // A product with one row is another kernel, which rounds otherwise.
        let is_alone = pixels.len() == self.image_values();
        if is_alone {
            pixels.extend_from_within(..);
        }
        let (height, width) = self.processor.output_size();
        let shape = [pixels.len() / self.image_values(), 3, height as usize, width as usize];
        let pixels = Tensor::<4>::from_data(TensorData::new(pixels, shape), &self.compute.device);
        let pixels = pixels.cast(dtype(self.compute.locked_precision));
        let mut features = parameters::host(self.tower.forward(pixels, &Dropout::off()).pooled)?.values;
        if is_alone {
            features.truncate(self.tower.width());
        }
        Ok(features)
    }

    /// Values of one image's pixels.
    fn image_values(&self) -> usize {
        let (height, width) = self.processor.output_size();
        3 * height as usize * width as usize
    }

    fn tensor(&self, values: Vec<f32>) -> Tensor<2> {
        let width = self.tower.width();
        let rows = values.len() / width.max(1);
        Tensor::from_data(TensorData::new(values, [rows, width]), &self.compute.device)
    }
}

fn load(image: usize, view: u64, set: &ImageSet, processor: &ImageProcessor) -> Result<Loaded, DataError> {
    if set.knows(image, view) {
        return Ok(Loaded::Kept);
    }
    let reference = set.reference(image);
    let bad = |reason: String| Ok(Loaded::Bad(Skipped { image, key: reference.key(), reason }));
    let bytes = match reference.read() {
        Ok(bytes) => bytes,
        Err(DataError::Image { source, .. }) => return bad(source.to_string()),
        Err(error) => return Err(error),
    };
    let Err(content) = set.find(image, view, &bytes) else { return Ok(Loaded::Kept) };
    match decode_view(&bytes, reference, processor, set.views().of(image, view)) {
        Ok(pixels) => Ok(Loaded::Pixels(content, pixels)),
        Err(DataError::Image { source, .. }) => bad(source.to_string()),
        Err(error) => Err(error),
    }
}
