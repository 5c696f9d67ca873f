//! Pooled outputs of an image tower for many images: read, decoded and processed on threads, run through the tower in
//! chunks, and taken from the cache where it has them.

use std::collections::HashSet;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use dualenc_data::{DataError, ImageProcessor, ImageRef, Limits, Skipped, decode, ordered_map};
use dualenc_model::{Dropout, ImageTower, parameters};

use crate::cache::{ContentHash, FeatureStore};
use crate::device::Compute;
use crate::error::TrainError;
use crate::stop::StopFlag;

/// Images of one pass through the tower: enough to fill the caches of a core with weights used more than once.
const CHUNK_IMAGES: usize = 16;

/// Pooled outputs of a list of images.
#[derive(Debug, Clone)]
pub struct PooledImages {
    /// Of one row.
    pub width: usize,
    /// Row of each image; `None` for one that cannot be used.
    pub rows: Vec<Option<usize>>,
    /// Images that cannot be used, in order.
    pub bad: Vec<Skipped>,
    values: Vec<f32>,
}

impl PooledImages {
    /// The rows of `images` as a tensor `[images, width]`.
    ///
    /// # Errors
    /// When one of them has no features.
    pub fn select(&self, images: impl Iterator<Item = usize>, compute: &Compute) -> Result<Tensor<2>, TrainError> {
        let mut values = Vec::new();
        for image in images {
            let row = self.rows.get(image).copied().flatten();
            let row = row.ok_or_else(|| TrainError::Usage(format!("image {image} has no features")))?;
            values.extend_from_slice(&self.values[row * self.width..][..self.width]);
        }
        let count = values.len() / self.width.max(1);
        Ok(Tensor::from_data(TensorData::new(values, [count, self.width]), &compute.device))
    }

    /// The images that have a row.
    pub fn usable(&self) -> Vec<usize> {
        (0..self.rows.len()).filter(|&image| self.rows[image].is_some()).collect()
    }
}

/// Computes pooled outputs of a tower that does not change meanwhile.
pub struct ImageFeatures {
    tower: Arc<ImageTower>,
    processor: Arc<ImageProcessor>,
    compute: Compute,
    workers: usize,
    store: Option<FeatureStore>,
    stop: StopFlag,
}

/// Loaded images of a chunk, and the features `[with pixels, width]`, flat, of those that were not cached.
type ChunkResult = Result<(Vec<Loaded>, Vec<f32>), TrainError>;

/// What a worker made of one image.
enum Loaded {
    Cached(ContentHash),
    Pixels(ContentHash, Vec<f32>),
    Bad(Skipped),
}

impl ImageFeatures {
    /// Features of `tower`, which must be outside of the gradient graph; nothing is kept.
    pub fn new(tower: ImageTower, processor: Arc<ImageProcessor>, compute: Compute, workers: usize) -> Self {
        Self { tower: Arc::new(tower), processor, compute, workers, store: None, stop: StopFlag::default() }
    }

    /// The same, ending early when a signal comes. What is computed by then is kept.
    #[must_use]
    pub fn until(self, stop: &StopFlag) -> Self {
        Self { stop: stop.clone(), ..self }
    }

    /// The same, kept in `dir` from run to run.
    ///
    /// # Errors
    /// When the cache cannot be read or written.
    pub fn cached(self, dir: &std::path::Path) -> Result<Self, TrainError> {
        let mut key = blake3::Hasher::new();
        key.update(parameters::fingerprint(self.tower.as_ref(), parameters::Which::All)?.as_bytes());
        // Two poolings of one tower may have the same parameters; activations and norms have none at all.
        key.update(format!("{:?} {:?}", self.tower.config(), self.tower.pooling()).as_bytes());
        key.update(&self.processor.fingerprint());
        let store = FeatureStore::open(dir, &key.finalize(), self.tower.width())?;
        Ok(Self { store: Some(store), ..self })
    }

    /// Pooled outputs of `images`; `on_progress` hears how many are done.
    ///
    /// # Errors
    /// When a file cannot be read for another reason than its content, the cache cannot be written, or a signal came.
    pub fn pooled(
        &mut self,
        images: &[ImageRef],
        mut on_progress: impl FnMut(usize),
    ) -> Result<PooledImages, TrainError> {
        let width = self.tower.width();
        let mut pooled = PooledImages { width, rows: vec![None; images.len()], bad: Vec::new(), values: Vec::new() };
        let mut next = 0;
        for chunk in self.chunks(images.to_vec()) {
            let (loaded, features) = chunk??;
            let mut fresh = Vec::new();
            let mut computed = features.chunks_exact(width);
            for item in loaded {
                let image = next;
                next += 1;
                let values = match item {
                    Loaded::Bad(skipped) => {
                        pooled.bad.push(skipped);
                        continue;
                    }
                    Loaded::Cached(hash) => self.store.as_ref().and_then(|store| store.get(&hash)).map(<[f32]>::to_vec),
                    Loaded::Pixels(hash, _) => {
                        let values = computed.next().map(<[f32]>::to_vec);
                        fresh.extend(values.clone().map(|values| (hash, values)));
                        values
                    }
                };
                if let Some(values) = values {
                    pooled.rows[image] = Some(pooled.values.len() / width);
                    pooled.values.extend(values);
                }
            }
            if let Some(store) = self.store.as_mut().filter(|_| !fresh.is_empty()) {
                store.insert(&fresh)?;
            }
            on_progress(next);
            if let Some(signal) = self.stop.signal() {
                return Err(TrainError::Stopped { signal });
            }
        }
        Ok(pooled)
    }

    /// Chunks of loaded images with the features of those that were not cached, `[pixels in chunk, width]` flat.
    fn chunks(&self, images: Vec<ImageRef>) -> impl Iterator<Item = Result<ChunkResult, DataError>> + use<> {
        let known: HashSet<ContentHash> = self.store.iter().flat_map(FeatureStore::hashes).copied().collect();
        let processor = Arc::clone(&self.processor);
        let (known, queue) = (Arc::new(known), CHUNK_IMAGES * 2);
        let mut loaded = ordered_map(images.into_iter().enumerate(), self.workers, queue, move |(index, image)| {
            load(index, &image, &processor, &known)
        });
        let batches = std::iter::from_fn(move || {
            let mut batch: Vec<Result<Loaded, DataError>> = Vec::new();
            let mut pixels = 0;
            while pixels < CHUNK_IMAGES && batch.len() < CHUNK_IMAGES * 16 {
                let Some(item) = loaded.next() else { break };
                let item = item.and_then(|item| item);
                pixels += usize::from(matches!(item, Ok(Loaded::Pixels(..))));
                batch.push(item);
            }
            (!batch.is_empty()).then_some(batch)
        });
        let (tower, compute, size) = (Arc::clone(&self.tower), self.compute.clone(), self.processor.output_size());
        // On a CPU each chunk runs on one thread, several at once: attention and norms then use all cores too.
        let parallel = if compute.on_host { compute.threads } else { 1 };
        ordered_map(batches, parallel, parallel, move |batch: Vec<Result<Loaded, DataError>>| {
            let loaded = batch.into_iter().collect::<Result<Vec<Loaded>, DataError>>()?;
            let forward = || forward(&tower, &loaded, size, &compute);
            let features = match compute.on_host {
                true => one_thread(forward)?,
                false => forward()?,
            };
            let without_pixels = loaded.into_iter().map(|item| match item {
                Loaded::Pixels(hash, _) => Loaded::Pixels(hash, Vec::new()),
                other => other,
            });
            Ok((without_pixels.collect(), features))
        })
    }
}

/// Runs `work` so that the parallel loops inside it stay on one thread.
///
/// # Errors
/// Those of `work`.
pub fn one_thread<R: Send>(work: impl FnOnce() -> Result<R, TrainError> + Send) -> Result<R, TrainError> {
    match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    }
}

fn load(
    index: usize,
    image: &ImageRef,
    processor: &ImageProcessor,
    known: &HashSet<ContentHash>,
) -> Result<Loaded, DataError> {
    let bad = |reason: String| Ok(Loaded::Bad(Skipped { image: index, key: image.key(), reason }));
    let bytes = match image.read() {
        Ok(bytes) => bytes,
        Err(DataError::Image { source, .. }) => return bad(source.to_string()),
        Err(error) => return Err(error),
    };
    let hash = *blake3::hash(&bytes).as_bytes();
    if known.contains(&hash) {
        return Ok(Loaded::Cached(hash));
    }
    match decode(&bytes, &Limits::default()) {
        Ok(decoded) => Ok(Loaded::Pixels(hash, processor.process(&decoded))),
        Err(error) => bad(error.to_string()),
    }
}

fn forward(tower: &ImageTower, loaded: &[Loaded], size: (u32, u32), compute: &Compute) -> Result<Vec<f32>, TrainError> {
    let mut pixels = Vec::new();
    let mut count = 0;
    for item in loaded {
        if let Loaded::Pixels(_, values) = item {
            pixels.extend_from_slice(values);
            count += 1;
        }
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let shape = [count, 3, size.0 as usize, size.1 as usize];
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels, shape), &compute.device);
    Ok(parameters::host(tower.forward(pixels, &Dropout::off()).pooled)?.values)
}
