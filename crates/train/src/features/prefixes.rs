//! The locked layers before the first one that trains, in towers that train only in part: what they compute is a
//! function of the input, so it is computed once and cached. Whether a run does so depends on its config, its data and
//! the architecture, never on the disk: resumed runs compute the same bits.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Tensor;
use dualenc_data::{Batch, Dataset, ImageProcessor, Tokenizer, counted};
use dualenc_model::{DualEncoder, ImageTower, TextTower, Tower, Training, parameters};
use parameters::ParamFilter;

use crate::config::RunConfig;
use crate::device::Compute;
use crate::error::TrainError;
use crate::features::image_index::{ImageSet, Views, prefix_views};
use crate::features::images::ImageFeatures;
use crate::features::locked_towers::feature_cache_of;
use crate::features::text_states::{TextStates, row_tokens};
use crate::stop_flag::StopFlag;

/// The size up to which states are cached without being asked for, in bytes: those of 13,000 images, or of
/// 200,000 captions, of small towers.
const UNASKED_BYTES: u64 = 4_000_000_000;

/// Number of captions with lengths that stand for those of all.
const SAMPLED_CAPTIONS: usize = 1000;

/// The towers of a stage that train in part and have locked layers that are cached.
#[derive(Clone, Default)]
pub(crate) struct Prefixes {
    pub images: Option<ImagePrefix>,
    pub texts: Option<TextPrefix>,
    /// What is cached and what is not, in words.
    pub notes: Vec<String>,
}

/// The locked layers of an image tower.
#[derive(Clone)]
pub(crate) struct ImagePrefix {
    /// How many, from the first.
    pub layers: usize,
    /// All tokens of an image, as these layers compute them.
    pub states: ImageFeatures,
    /// The training images.
    pub set: ImageSet,
}

/// The locked layers of a text tower.
#[derive(Clone)]
pub(crate) struct TextPrefix {
    /// How many, from the first.
    pub layers: usize,
    /// All tokens of a caption, as these layers compute them.
    pub states: TextStates,
    /// Tokens of the rows of some captions, which stand for all.
    row_tokens: Arc<[usize]>,
    /// Bytes of the states of all captions, about.
    pub bytes: u64,
}

/// What the first `layers` layers of a tower compute for a batch.
#[derive(Clone)]
pub(crate) struct States {
    pub layers: usize,
    /// Images: `[batch, tokens * width]`. Captions: `[tokens of all, width]`.
    pub values: Tensor<2>,
}

/// What the inputs of the towers are made from.
pub(crate) struct Inputs<'a> {
    pub dataset: &'a Arc<Dataset>,
    pub processor: &'a Arc<ImageProcessor>,
    pub tokenizer: &'a Tokenizer,
    /// Threads that read images.
    pub workers: usize,
}

impl Prefixes {
    /// The prefixes that a stage of `config` caches, which trains what `training` says of `model`.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when the cache cannot be opened; [`TrainError::Data`] when a
    /// caption cannot be tokenized; [`TrainError::Model`] when the device cannot return its data.
    pub fn of(
        model: &DualEncoder,
        config: &RunConfig,
        training: &Training,
        inputs: &Inputs<'_>,
        compute: &Compute,
        stop: &StopFlag,
    ) -> Result<Self, TrainError> {
        let mut prefixes = Self::default();
        if config.caches_prefix(Tower::Image, training) {
            prefixes.images = prefixes.of_images(&model.image_tower, config, inputs, compute, stop)?;
        } else if config.augments_states(training) && model.image_tower.locked_layers() > 0 {
            prefixes.is_off(
                Tower::Image,
                "each epoch augments images anew; set `cache.views = k` and `cache.prefix = true` to cache k views of \
                 each",
            );
        }
        if config.caches_prefix(Tower::Text, training) {
            prefixes.texts = prefixes.of_texts(&model.text_tower, config, inputs, compute)?;
        }
        Ok(prefixes)
    }

    /// Number of views of each training image, if the layers of the image tower limit it.
    pub fn views(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.images.as_ref()?.set.views().count() as u64)
    }

    fn of_images(
        &mut self,
        tower: &ImageTower,
        config: &RunConfig,
        inputs: &Inputs<'_>,
        compute: &Compute,
        stop: &StopFlag,
    ) -> Result<Option<ImagePrefix>, TrainError> {
        let Some((dir, dtype)) = feature_cache_of(config) else { return Ok(None) };
        let layers = tower.locked_layers();
        let Some(prefix) = tower.ending_after(layers) else {
            self.is_off(Tower::Image, "an architecture of several stages cannot be cut between blocks");
            return Ok(None);
        };
        if layers == 0 {
            self.all_trains(Tower::Image, config);
            return Ok(None);
        }
        let Some(views) = prefix_views(config) else {
            self.is_off(Tower::Image, "each epoch augments images anew; set `cache.views` to cache as many views");
            return Ok(None);
        };
        let (height, width) = inputs.processor.output_size();
        let prefix = prefix.for_images(height as usize, width as usize);
        let bytes = inputs.dataset.num_images() as u64 * views.count() as u64 * (prefix.width() * dtype.bytes()) as u64;
        let images = counted(inputs.dataset.num_images(), "image");
        let what = match views {
            Views::One => images,
            Views::Augmented { count, .. } => format!("{images} in {}", counted(count.get() as usize, "view")),
        };
        if !self.fits(Tower::Image, [layers, tower.num_layers()], &what, bytes, config) {
            return Ok(None);
        }
        let fingerprint = parameters::fingerprint(&prefix, ParamFilter::All)?;
        let states = ImageFeatures::new(prefix, Arc::clone(inputs.processor), compute.clone(), inputs.workers)
            .with_stop_flag(stop)
            .with_cache_dir(&dir, dtype, &fingerprint)?;
        let set = states.set(inputs.dataset.clone(), views);
        Ok(Some(ImagePrefix { layers, states, set }))
    }

    fn of_texts(
        &mut self,
        tower: &TextTower,
        config: &RunConfig,
        inputs: &Inputs<'_>,
        compute: &Compute,
    ) -> Result<Option<TextPrefix>, TrainError> {
        let Some((dir, dtype)) = feature_cache_of(config) else { return Ok(None) };
        let layers = tower.locked_layers();
        if layers == 0 {
            self.all_trains(Tower::Text, config);
            return Ok(None);
        }
        if config.data.word_dropout > 0.0 {
            self.is_off(Tower::Text, "`data.word_dropout` leaves out other words in every epoch");
            return Ok(None);
        }
        let (row_tokens, texts) = sampled_rows(inputs.dataset, inputs.tokenizer)?;
        let mean = row_tokens.iter().sum::<usize>() as f64 / row_tokens.len().max(1) as f64;
        let row_bytes = mean * (tower.config().encoder.width * dtype.bytes()) as f64;
        let bytes = (row_bytes * texts as f64) as u64;
        let what = counted(texts, "distinct caption");
        if !self.fits(Tower::Text, [layers, tower.num_layers()], &what, bytes, config) {
            return Ok(None);
        }
        let prefix = tower.ending_after(layers);
        let fingerprint = parameters::fingerprint(&prefix, ParamFilter::All)?;
        let states = TextStates::new(prefix, compute, (&dir, dtype), &fingerprint);
        Ok(Some(TextPrefix { layers, states, row_tokens: row_tokens.into(), bytes }))
    }

    /// Whether states of this size are cached, with a note.
    fn fits(&mut self, tower: Tower, [layers, of]: [usize; 2], what: &str, bytes: u64, config: &RunConfig) -> bool {
        let (unit, name) = if bytes < 1_000_000_000 { (1e6, "MB") } else { (1e9, "GB") };
        let size = format!("about {:.1} {name}", bytes as f64 / unit);
        let locked = format!("{layers} of {of} layers of the {tower} are locked");
        let is_asked = config.cache.prefix == Some(true);
        let not_cached = format!("{locked}, but what the last of them computes for {what} is not cached");
        let (is_cached, note) = if !is_asked && config.rounds_states() {
            let why = "the cache would round it (`cache.dtype`, `run.precision` or `run.locked_precision`)";
            (false, format!("{not_cached}, since {why}; set `cache.prefix = true` to cache it ({size})"))
        } else if !is_asked && bytes > UNASKED_BYTES {
            let ask = "set `cache.prefix = true` to cache it, and `cache.dtype = \"f16\"` to halve it";
            (false, format!("{not_cached}, since it takes {size}; {ask}"))
        } else {
            (true, format!("{locked}: what the last of them computes for {what} is cached ({size})"))
        };
        self.notes.push(note);
        is_cached
    }

    fn is_off(&mut self, tower: Tower, why: &str) {
        self.notes.push(format!("the locked layers of the {tower} run in every step: {why}"));
    }

    /// Adapters in every block are common: a note would only disturb.
    fn all_trains(&mut self, tower: Tower, config: &RunConfig) {
        if config.cache.prefix == Some(true) {
            let note = format!("`cache.prefix` has no effect on the {tower}: its first block trains");
            self.notes.push(note);
        }
    }
}

impl ImagePrefix {
    /// The states of the images of a batch.
    ///
    /// # Errors
    /// As for [`ImageFeatures::of_batch`].
    pub fn of_batch(&self, batch: &Batch) -> Result<States, TrainError> {
        Ok(States { layers: self.layers, values: self.states.of_batch(&self.set, batch)? })
    }

    /// The same for a batch for which this was done before. It needs no pixels.
    ///
    /// # Errors
    /// As for [`ImageFeatures::select`].
    pub fn of_batch_again(&self, batch: &Batch) -> Result<States, TrainError> {
        let images: Vec<usize> = batch.pairs.iter().map(|pair| pair.image).collect();
        Ok(States { layers: self.layers, values: self.states.select(&self.set, &images, batch.view)? })
    }
}

impl TextPrefix {
    /// The states of the captions of a batch.
    ///
    /// # Errors
    /// As for [`TextStates::of_tokens`].
    pub fn of_batch(&self, batch: &Batch) -> Result<States, TrainError> {
        Ok(States { layers: self.layers, values: self.states.of_tokens(&batch.tokens)? })
    }

    /// Number of captions with states in the files of `dir`, about: those of lengths that are sampled.
    ///
    /// # Errors
    /// As for [`TextStates::rows_in`].
    pub fn rows_in(&self, dir: &Path) -> Result<u64, TrainError> {
        let lengths: BTreeSet<usize> = self.row_tokens.iter().copied().collect();
        lengths.into_iter().map(|row_tokens| self.states.rows_in(dir, row_tokens)).sum()
    }
}

/// Tokens of the rows of some texts of `dataset`, evenly spread, and the number of all texts; equal captions count
/// once.
fn sampled_rows(dataset: &Dataset, tokenizer: &Tokenizer) -> Result<(Vec<usize>, usize), TrainError> {
    let mut known = HashSet::new();
    let captions: Vec<usize> =
        (0..).zip(dataset.caption_ids()).filter_map(|(at, id)| known.insert(id).then_some(at)).collect();
    let sampled = captions.len().min(SAMPLED_CAPTIONS);
    let mut rows = Vec::new();
    for place in 0..sampled {
        for text in dataset.texts(captions[place * captions.len() / sampled]) {
            rows.push(row_tokens(tokenizer.encode(Cow::as_ref(&text))?.ids.len()));
        }
    }
    let all = rows.len() as f64 * captions.len() as f64 / sampled.max(1) as f64;
    Ok((rows, all.round() as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_states_are_cached_where_asked() {
        let text = "run = { dir = \"r\" }\nmodel = { image_tower = \"./vit\", text_tower = \"./bert\" }\n\
                    data = { train = { folder = { path = \"pairs\" } } }\n\
                    train = { epochs = 1, batch_size = 8, learning_rate = 1e-3 }";
        let fits = |bytes: u64, sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            let config = RunConfig::from_bytes(text.as_bytes(), Path::new("run.toml"), Path::new("/p"), &sets).unwrap();
            let mut prefixes = Prefixes::default();
            let fits = prefixes.fits(Tower::Text, [4, 6], "9 captions", bytes, &config);
            (fits, prefixes.notes.concat())
        };
        let (is_cached, note) = fits(UNASKED_BYTES, &[]);
        assert!(is_cached, "{note}");
        assert_eq!(
            note,
            "4 of 6 layers of the text tower are locked: what the last of them computes for 9 captions is cached \
             (about 4.0 GB)"
        );
        let (is_cached, note) = fits(UNASKED_BYTES + 1, &[]);
        assert!(!is_cached && note.contains("is not cached, since it takes about 4.0 GB; set"), "{note}");
        let (is_cached, note) = fits(1 << 40, &["cache.prefix=true"]);
        assert!(is_cached && note.ends_with("(about 1099.5 GB)"), "{note}");
        assert!(fits(2_500_000, &[]).1.ends_with("(about 2.5 MB)"));
        // Unasked, losses stay as they were without a cache.
        for set in ["cache.dtype=f16", "run.precision=bf16", "run.locked_precision=bf16"] {
            let (is_cached, note) = fits(9, &[set]);
            assert!(!is_cached && note.contains("since the cache would round it"), "{note}");
            assert!(fits(9, &[set, "cache.prefix=true"]).0);
        }
        // On the CPU, attention in bf16 is for locked towers only.
        let bf16 = ["run.precision=bf16", "run.locked_precision=bf16"];
        assert!(!fits(9, &bf16).0);
        assert!(fits(9, &[&bf16[..], &["run.device=cuda"]].concat()).0);
    }
}
