//! Features of a locked image tower, looked up by an image's content. Images without a feature are read, decoded and
//! processed on worker threads, and run through the tower in chunks.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use dualenc_data::{
    Batch, ContentHash, DataError, FeatureLookup, ImageError, ImageProcessor, ImageRef, ProcessedImages, Skipped,
    decode_view, ordered_map,
};
use dualenc_kernels::upload;
use dualenc_model::{Dropout, ImageTower, Tower, parameters};

use crate::config::{CacheDtype, Precision};
use crate::device::{Compute, cast};
use crate::error::TrainError;
use crate::features::absent::{check_images, image_rows};
use crate::features::cache_counts::CacheCounts;
use crate::features::finite::check_outputs;
use crate::features::image_index::{ImageList, ImageSet, Views};
use crate::features::key::tower_key;
use crate::features::parallel_forward::{forward_chunks, on_single_thread};
use crate::features::pixels::Pixels;
use crate::features::store::FeatureStore;
use crate::features::store::index::{RECORD_BYTES, Row};
use crate::stop_flag::StopFlag;

/// Images of one pass through the tower: enough that weights in a core's cache are used more than once.
const CHUNK_IMAGES: usize = 16;

/// The same on a GPU, which takes about as long for 16 images as for 100: small kernels are bound by their
/// launches. 256 images of 224 x 224 pixels are 154 MB.
const DEVICE_CHUNK_IMAGES: usize = 256;

/// Cached images that a chunk may hold for each one that is computed, so that a chunk can mix both.
const CACHED_PER_COMPUTED: usize = 16;

/// Pooled outputs of a locked image tower.
#[derive(Clone)]
pub struct ImageFeatures {
    tower: Arc<ImageTower>,
    processor: Arc<ImageProcessor>,
    compute: Compute,
    workers: usize,
    store: Arc<FeatureStore>,
    /// Whether the store is on disk: only then does training look features up.
    is_on_disk: bool,
    sets: Arc<Mutex<Vec<ImageSet>>>,
    stop: StopFlag,
}

/// What a worker returns for one image.
enum Loaded {
    /// Its feature is in the store.
    Cached,
    Pixels(ContentHash, Pixels),
    Unusable(Skipped),
}

/// The images of a chunk, and the features of those with pixels: shape `[images with pixels, width]`, flat.
type ChunkResult = Result<(Vec<Loaded>, Vec<f32>), TrainError>;

/// A pass through the tower that the device may still compute.
struct Pass {
    /// `[images, width]`; `None` without images. A single image stands twice.
    pooled: Option<Tensor<2>>,
    images: usize,
}

impl ImageFeatures {
    /// Features of `tower`, which must be outside of the gradient graph. They are stored in memory; those of an absent
    /// tower stay in the files of the data.
    pub fn new(tower: ImageTower, processor: Arc<ImageProcessor>, compute: Compute, workers: usize) -> Self {
        let store = Arc::new(FeatureStore::in_memory(tower.width()));
        let tower = if compute.rounds_factors() { tower.packed() } else { cast(tower, compute.locked_precision) };
        let (sets, stop) = (Arc::default(), StopFlag::default());
        Self { tower: Arc::new(tower), processor, compute, workers, store, is_on_disk: false, sets, stop }
    }

    /// Whether features are in memory: neither on disk nor in the files of the data.
    pub(crate) fn are_in_memory(&self) -> bool {
        !self.is_on_disk && !self.tower.is_absent()
    }

    /// The same, with a store of its own in memory, which goes with it.
    pub(crate) fn with_own_store(&self) -> Self {
        let store = Arc::new(FeatureStore::in_memory(self.tower.width()));
        Self { store, is_on_disk: false, sets: Arc::default(), ..self.clone() }
    }

    /// Stops [`ImageFeatures::fill`] when `stop` is set. Features computed so far stay in the store.
    #[must_use]
    pub fn with_stop_flag(self, stop: &StopFlag) -> Self {
        Self { stop: stop.clone(), ..self }
    }

    /// Stores features in `dir`, where later runs find them. `fingerprint`: of the tower's parameters.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when the cache cannot be opened.
    pub fn with_cache_dir(self, dir: &Path, dtype: CacheDtype, fingerprint: &str) -> Result<Self, TrainError> {
        let tower = self.tower.as_ref();
        if tower.is_absent() {
            return Ok(self);
        }
        let mut key = tower_key(fingerprint, &tower.form(), self.compute.locked_arithmetic());
        key.update(&self.processor.fingerprint());
        let store = Arc::new(FeatureStore::open(dir, &key.finalize(), tower.width(), dtype)?);
        Ok(Self { store, is_on_disk: true, ..self })
    }

    /// Size of the file of values in bytes, and its path; `None` without a cache on disk.
    pub fn size(&self) -> Option<(u64, &Path)> {
        self.store.size()
    }

    /// Bytes of a feature on disk: in the file of values, and its record.
    pub(crate) fn row_bytes(&self) -> [usize; 2] {
        [self.store.row_bytes(), RECORD_BYTES]
    }

    /// The index of the images of `list` in `views`: always the same one for the same arguments.
    pub fn set(&self, list: Arc<dyn ImageList>, views: Views) -> ImageSet {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = sets.iter().find(|set| set.is_of(&list, views)) {
            return set.clone();
        }
        let store = Arc::clone(&self.store);
        let is_absent = self.tower.is_absent();
        let set = if is_absent { ImageSet::of_rows(list, store) } else { ImageSet::new(list, store, views) };
        sets.push(set.clone());
        set
    }

    /// `set` for a loader, which skips images with a feature; `None` without a cache on disk, unless the tower is
    /// absent.
    pub fn for_loader(&self, set: &ImageSet) -> Option<Arc<dyn FeatureLookup>> {
        (self.is_on_disk || self.tower.is_absent()).then(|| Arc::new(set.clone()) as Arc<dyn FeatureLookup>)
    }

    /// Pooled outputs of the images of a batch of `set`: shape `[batch, width]`. Images that the loader decoded are
    /// computed and, with a cache on disk, stored.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the store cannot be written; [`TrainError::Data`] when a stored feature is damaged
    /// and its image cannot be read again; [`TrainError::NotFiniteOutput`] when the tower computes NaN or an infinity.
    pub fn of_batch(&self, set: &ImageSet, batch: &Batch) -> Result<Tensor<2>, TrainError> {
        if self.tower.is_absent() {
            let images: Vec<usize> = batch.pairs.iter().map(|pair| pair.image).collect();
            return self.select(set, &images, batch.view);
        }
        let image_of = |loaded: usize| batch.pairs[batch.loaded[loaded].pair].image;
        let (images, loaded) = (batch.pixels.len(), batch.loaded.len());
        if images != loaded {
            return Err(TrainError::Internal(format!("pixels of {images} images for {loaded} that were loaded")));
        }
        if !self.is_on_disk {
            let every: Vec<usize> = (0..loaded).collect();
            let features = self.forward(&batch.pixels, &every)?;
            self.check(&features, |row| set.reference(image_of(row)).key())?;
            return Ok(self.tensor(features));
        }
        let (mut rows, mut new) = (HashMap::new(), Vec::new());
        // An image that occurs twice in a short time is decoded twice, but computed once.
        for (at, loaded) in batch.loaded.iter().enumerate() {
            let Some(content) = loaded.content else {
                return Err(TrainError::Internal("the loader did not look an image up in the cache".to_owned()));
            };
            if rows.contains_key(&content) {
                continue;
            }
            let row = self.store.find(&content);
            rows.insert(content, row);
            if row.is_none() {
                new.push((content, at));
            }
        }
        if !new.is_empty() {
            let (contents, places): (Vec<ContentHash>, Vec<usize>) = new.into_iter().unzip();
            let features = self.forward(&batch.pixels, &places)?;
            self.check(&features, |row| set.reference(image_of(places[row])).key())?;
            let inserted = self.store.insert(&contents, &features)?;
            rows.extend(contents.into_iter().zip(inserted.into_iter().map(Some)));
        }
        for loaded in &batch.loaded {
            if let Some(row) = loaded.content.and_then(|content| rows.get(&content).copied().flatten()) {
                set.set_row(batch.pairs[loaded.pair].image, batch.view, row);
            }
        }
        let images: Vec<usize> = batch.pairs.iter().map(|pair| pair.image).collect();
        self.select(set, &images, batch.view)
    }

    /// Stored features of images of `set` in one view: shape `[images, width]`.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when an image has no feature; [`TrainError::Data`] when its feature is damaged and the
    /// image cannot be read again.
    pub fn select(&self, set: &ImageSet, images: &[usize], view: u64) -> Result<Tensor<2>, TrainError> {
        if self.tower.is_absent() {
            return Ok(self.tensor(image_rows(set, images, self.tower.width())?));
        }
        let row = |&image: &usize| {
            let missing = || TrainError::Internal(format!("image `{}` has no feature", set.reference(image).key()));
            set.row(image, view).ok_or_else(missing)
        };
        let rows = images.iter().map(row).collect::<Result<Vec<Row>, TrainError>>()?;
        let width = self.store.width();
        let mut values = vec![0.0; images.len() * width];
        for lost in self.store.read(&rows, &mut values) {
            let row = self.recompute(set, images[lost], view)?;
            if !self.store.read(&[row], &mut values[lost * width..][..width]).is_empty() {
                return Err(self.store.lost_while_read());
            }
        }
        Ok(self.tensor(values))
    }

    /// Computes the features that the store lacks, for every view of every image of `set`. Returns the counts and the
    /// images that cannot be used. `on_progress` receives the number of images done.
    ///
    /// # Errors
    /// [`TrainError::Data`] when a file cannot be read for another reason than its content; [`TrainError::Write`] when
    /// the store cannot be written; [`TrainError::NotFiniteOutput`] when the tower computes NaN or an infinity;
    /// [`TrainError::Usage`] for images where the tower is absent, and features where it is not;
    /// [`TrainError::Stopped`] when the stop flag is set.
    pub fn fill(
        &self,
        set: &ImageSet,
        mut on_progress: impl FnMut(usize),
    ) -> Result<(CacheCounts, Vec<Skipped>), TrainError> {
        check_images(set, (self.tower.is_absent(), self.tower.width()))?;
        let (mut counts, mut bad, mut next) = (CacheCounts::default(), Vec::new(), 0);
        if self.tower.is_absent() {
            // Every row was read when its table was opened, and those that cannot be used are known.
            for image in 0..set.len() {
                match load(image, 0, set, &self.processor, self.pixel_format())? {
                    Loaded::Unusable(skipped) => bad.push(skipped),
                    Loaded::Cached | Loaded::Pixels(..) => counts.kept += 1,
                }
            }
            on_progress(set.len());
            return Ok((counts, bad));
        }
        for chunk in self.chunks(set) {
            let (loaded, features) = chunk??;
            let (mut contents, mut images) = (Vec::new(), Vec::new());
            for item in loaded {
                match item {
                    Loaded::Unusable(skipped) if next < set.len() => bad.push(skipped),
                    // Already reported in its first view.
                    Loaded::Unusable(_) => {}
                    Loaded::Cached => counts.kept += 1,
                    Loaded::Pixels(content, _) => {
                        contents.push(content);
                        images.push(next);
                    }
                }
                next += 1;
            }
            if !contents.is_empty() {
                counts.computed += contents.len();
                self.check(&features, |row| set.reference(images[row] % set.len()).key())?;
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

    /// As [`ImageFeatures::fill`], for some images of `set` in the first view, each of which can be used.
    ///
    /// # Errors
    /// As for [`ImageFeatures::fill`]; [`TrainError::Data`] also when one cannot be used.
    pub(crate) fn fill_some(&self, set: &ImageSet, images: &[usize]) -> Result<CacheCounts, TrainError> {
        let missing: BTreeSet<usize> = images.iter().copied().filter(|&image| set.row(image, 0).is_none()).collect();
        if missing.is_empty() {
            return Ok(CacheCounts::default());
        }
        let list: Vec<ImageRef> = missing.iter().map(|&image| set.reference(image)).collect();
        let part = ImageSet::new(Arc::new(list), Arc::clone(&self.store), Views::One);
        let (counts, bad) = self.fill(&part, |_| {})?;
        if let Some(Skipped { key, reason, .. }) = bad.first() {
            let reason = format!(
                "the image `{key}` can no longer be used ({reason}), though its features are cached or a loader has \
                 read it; restore the file or, if it has too many pixels, raise `data.max_pixels` again"
            );
            return Err(DataError::Loader { reason }.into());
        }
        for (at, &image) in missing.iter().enumerate() {
            if let Some(row) = part.row(at, 0) {
                set.set_row(image, 0, row);
            }
        }
        Ok(counts)
    }

    /// Chunks of loaded images, with the features of those that had none.
    fn chunks(&self, set: &ImageSet) -> Box<dyn Iterator<Item = Result<ChunkResult, DataError>> + Send> {
        let (processor, worker_set) = (Arc::clone(&self.processor), set.clone());
        let (images, chunk) = (set.len(), self.chunk_images());
        let jobs = (0..set.views().count() as u64).flat_map(move |view| (0..images).map(move |image| (image, view)));
        let format = self.pixel_format();
        let mut loaded = ordered_map(jobs, self.workers, chunk * 2, move |(image, view)| {
            load(image, view, &worker_set, &processor, format)
        });
        let mut batches = std::iter::from_fn(move || {
            let mut batch: Vec<Result<Loaded, DataError>> = Vec::new();
            let mut pixels = 0;
            while pixels < chunk && batch.len() < chunk * CACHED_PER_COMPUTED {
                let Some(item) = loaded.next() else { break };
                let item = item.and_then(|item| item);
                pixels += usize::from(matches!(item, Ok(Loaded::Pixels(..))));
                batch.push(item);
            }
            (!batch.is_empty()).then_some(batch)
        });
        let features = self.clone();
        if self.compute.on_host {
            let threads = self.compute.threads;
            return Box::new(ordered_map(batches, threads, threads, move |batch| {
                let (loaded, pixels) = take_pixels(batch)?;
                let values = on_single_thread(|| features.start(pixels).read(&features))??;
                Ok((loaded, values))
            }));
        }
        let mut next_pass = move || {
            batches.next().map(|batch| -> Result<_, TrainError> {
                let (loaded, pixels) = take_pixels(batch)?;
                Ok((loaded, features.start(pixels), features.clone()))
            })
        };
        let mut ahead = None;
        // The next pass is queued before the results of this one are waited for.
        let passes = std::iter::from_fn(move || {
            let pass = ahead.take().or_else(&mut next_pass)?;
            ahead = next_pass();
            Some(pass.and_then(|(loaded, pass, features)| Ok((loaded, pass.read(&features)?))))
        });
        // On a thread of its own, which turns a panic into an error.
        Box::new(ordered_map(passes, 1, 1, |result| result))
    }

    /// Images of one pass through the tower.
    fn chunk_images(&self) -> usize {
        if self.compute.on_host { CHUNK_IMAGES } else { DEVICE_CHUNK_IMAGES }
    }

    /// Computes the feature of an image again, after its row was damaged.
    fn recompute(&self, set: &ImageSet, image: usize, view: u64) -> Result<Row, TrainError> {
        let reference = set.reference(image);
        let bytes = reference.read()?;
        let name = set.views().stored_as(image, view, blake3::hash(&bytes).as_bytes());
        let pixels = decode_view(&bytes, &reference, &self.processor, set.views().of(image, view))?;
        let features = self.forward(&pixels, &[0])?;
        self.check(&features, |_| reference.key())?;
        let rows = self.store.insert(&[name], &features)?;
        set.set_row(image, view, rows[0]);
        Ok(rows[0])
    }

    /// Refuses features that are not finite. `key` names the image of a row.
    fn check(&self, features: &[f32], key: impl FnOnce(usize) -> String) -> Result<(), TrainError> {
        let input = |row| format!("image `{}`", key(row));
        check_outputs(Tower::Image, self.compute.locked_precision, features, self.tower.width(), input)
    }

    /// Pooled outputs of the images of `pixels` with these numbers, shape `[images, width]`, flat.
    fn forward(&self, pixels: &ProcessedImages, numbers: &[usize]) -> Result<Vec<f32>, TrainError> {
        let images = numbers.len();
        // Too few images for a full chunk on every core are spread evenly.
        let even = if self.compute.on_host { images.div_ceil(self.compute.threads.max(1)) } else { images };
        let size = even.clamp(1, self.chunk_images());
        let chunks: Vec<_> = (0..images).step_by(size).map(|start| start..(start + size).min(images)).collect();
        forward_chunks(&chunks, self.tower.width(), &self.compute, |chunk| {
            let block = Pixels::new(pixels.values_of(numbers[chunk].iter().copied()), self.pixel_format());
            self.start(vec![block]).read(self)
        })
    }

    /// The numbers in which pixels reach the tower.
    fn pixel_format(&self) -> Precision {
        // The host casts where it computes, so that its features stay the same to the bit.
        if self.compute.on_host { Precision::F32 } else { self.compute.locked_precision }
    }

    /// Starts a pass of images with these pixels: blocks of shape `[images, 3, height, width]`, flat.
    fn start(&self, mut blocks: Vec<Pixels>) -> Pass {
        let images = blocks.iter().map(Pixels::len).sum::<usize>() / self.image_values();
        // A matrix product with one row takes another kernel, which rounds differently.
        if images == 1 {
            blocks.iter_mut().for_each(Pixels::double);
        }
        let (height, width) = self.processor.output_size();
        let tensor = |block: Pixels| {
            let shape = [block.len() / self.image_values(), 3, height as usize, width as usize];
            let pixels = block.into_tensor(shape, &self.compute.device);
            pixels.cast(self.compute.locked_dtype())
        };
        let mut tensors: Vec<Tensor<4>> = blocks.into_iter().map(tensor).collect();
        let pixels = if tensors.len() > 1 { Some(Tensor::cat(tensors, 0)) } else { tensors.pop() };
        Pass { pooled: pixels.map(|pixels| self.tower.forward(pixels, &Dropout::off()).pooled), images }
    }

    /// Number of values of one image.
    fn image_values(&self) -> usize {
        let (height, width) = self.processor.output_size();
        3 * height as usize * width as usize
    }

    fn tensor(&self, values: Vec<f32>) -> Tensor<2> {
        let width = self.tower.width();
        let rows = values.len() / width.max(1);
        upload(TensorData::new(values, [rows, width]), &self.compute.device)
    }
}

impl Pass {
    /// Waits for the features, shape `[images, width]`, flat.
    fn read(self, of: &ImageFeatures) -> Result<Vec<f32>, TrainError> {
        let Some(pooled) = self.pooled else { return Ok(Vec::new()) };
        let mut features = parameters::host(pooled)?.values;
        features.truncate(self.images * of.tower.width());
        Ok(features)
    }
}

/// The images of a chunk, and the pixels of those that have some, in blocks of [`CHUNK_IMAGES`]: the allocator uses the
/// memory of larger ones only once.
fn take_pixels(batch: Vec<Result<Loaded, DataError>>) -> Result<(Vec<Loaded>, Vec<Pixels>), DataError> {
    let mut loaded = batch.into_iter().collect::<Result<Vec<Loaded>, DataError>>()?;
    let with_pixels = loaded.iter_mut().filter_map(|item| match item {
        Loaded::Pixels(_, values) => Some(values.take()),
        Loaded::Cached | Loaded::Unusable(_) => None,
    });
    let images: Vec<Pixels> = with_pixels.collect();
    Ok((loaded, images.chunks(CHUNK_IMAGES).map(Pixels::concat).collect()))
}

fn load(
    image: usize,
    view: u64,
    set: &ImageSet,
    processor: &ImageProcessor,
    format: Precision,
) -> Result<Loaded, DataError> {
    if set.known(image, view).is_some() {
        return Ok(Loaded::Cached);
    }
    let reference = set.reference(image);
    let bad = |error: &ImageError| Ok(Loaded::Unusable(Skipped::new(image, reference.key(), error)));
    let bytes = match reference.read() {
        Ok(bytes) => bytes,
        Err(DataError::Image { source, .. }) => return bad(&source),
        Err(error) => return Err(error),
    };
    let Err(content) = set.find(image, view, blake3::hash(&bytes).as_bytes()) else { return Ok(Loaded::Cached) };
    match decode_view(&bytes, &reference, processor, set.views().of(image, view)) {
        Ok(pixels) => Ok(Loaded::Pixels(content, Pixels::new(pixels.into_values(), format))),
        Err(DataError::Image { source, .. }) => bad(&source),
        Err(error) => Err(error),
    }
}
