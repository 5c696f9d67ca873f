//! Features of towers, layer by layer. A tower runs once for all layers and poolings.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_data::{
    ContentHash, DataError, ImageProcessor, Limits, Skipped, TokenTable, Tokenizer, counted, decode_view,
};
use dualenc_model::{
    ImageTower, ModelError, Pool, Pooling, TakenLayers, TextTower, TokenSequences, Tower, TowerLock, TowerOptions,
    auto_text_pool, image_tower_from, parameters, text_tower_from,
};

use crate::commands::probe::request::{Layers, ProbeRequest};
use crate::commands::probe::sample::SampledPair;
use crate::config::Precision;
use crate::device::Compute;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::features::cut_texts::CutCounts;
use crate::features::finite::check_outputs;
use crate::features::parallel_forward::forward_chunks;
use crate::models::compatibility::{check_image_size, check_vocabulary};
use crate::models::hub::resolve::resolve;
use crate::models::inputs::image_processor;
use crate::stop_flag::StopFlag;

/// Inputs of one pass through a tower.
const CHUNK: usize = 16;

/// Inputs between two reports of progress, and two looks at the stop flag.
const WINDOW: usize = 128;

/// Features of one tower, layer and pooling.
#[derive(Debug, Clone)]
pub(super) struct Features {
    /// The tower as the user named it.
    pub tower: String,
    /// From 1.
    pub layer: usize,
    /// Number of layers of the tower.
    pub num_layers: usize,
    /// The value of `image_pool` or `text_pool`.
    pub pool: &'static str,
    pub width: usize,
    /// `[pairs, width]`, flat.
    pub values: Vec<f32>,
}

/// What is read once, whichever towers use it.
pub(super) struct Inputs<'a> {
    pub pairs: &'a [SampledPair],
    pub request: &'a ProbeRequest<'a>,
    pub compute: &'a Compute,
    pub stop: &'a StopFlag,
}

/// The images that towers could use.
#[derive(Default)]
pub(super) struct ImagesRead {
    /// Of each image, the hash of its file; `None` if it cannot be used.
    pub contents: Vec<Option<ContentHash>>,
    pub bad: Vec<Skipped>,
}

/// What is pooled of a tower.
struct Plan {
    layers: Vec<usize>,
    num_layers: usize,
    poolings: Vec<Pooling>,
    /// Of each pooling.
    widths: Vec<usize>,
    /// Of each pooling, whether it has weights that were trained for the last layer: no other layer is pooled by them.
    of_last_layer: Vec<bool>,
}

impl Plan {
    fn new(
        tower: &str,
        num_layers: usize,
        (own, supported): (Pooling, &[Pooling]),
        (layers, pools): (&Layers, &[Pool]),
        (width_of, is_of_last_layer): (impl Fn(Pooling) -> usize, impl Fn(Pooling) -> bool),
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let mut poolings = Vec::new();
        for pool in pools {
            let wanted = match pool {
                Pool::Auto | Pool::Sentence => own,
                Pool::Cls => Pooling::Cls,
                Pool::Mean | Pool::PatchMean => Pooling::Mean,
                Pool::ClsMean => Pooling::ClsMean,
                Pool::Last => Pooling::Last,
                Pool::Pooler => Pooling::Pooler,
                Pool::Tokens => Pooling::Tokens,
            };
            if !supported.contains(&wanted) {
                let names: Vec<String> = supported.iter().map(|it| format!("`{}`", it.name())).collect();
                let (wanted, names) = (wanted.name(), names.join(", "));
                observer.on(Event::Warning(format!(
                    "`{tower}` cannot be pooled by `{wanted}`, which is left out; it supports {names}"
                )));
            } else if !poolings.contains(&wanted) {
                poolings.push(wanted);
            }
        }
        if pools.is_empty() {
            poolings = supported.to_vec();
        }
        if poolings.is_empty() {
            return Err(TrainError::Usage(format!(
                "`{tower}` supports none of the poolings of `--pooling`; add `auto`, or leave the tower out"
            )));
        }
        let widths = poolings.iter().map(|&pooling| width_of(pooling)).collect();
        let of_last_layer: Vec<bool> = poolings.iter().map(|&pooling| is_of_last_layer(pooling)).collect();
        let plan = Self { layers: layers.of(num_layers, tower)?, num_layers, poolings, widths, of_last_layer };
        if !plan.layers.contains(&num_layers) && plan.of_last_layer.iter().all(|&it| it) {
            return Err(TrainError::Usage(format!(
                "the pooler of `{tower}` was trained for its last layer; add `-1` to `--layers`, or `mean` to \
                 `--pooling`"
            )));
        }
        Ok(plan)
    }

    /// Values of an input in all layers and poolings.
    fn total(&self) -> usize {
        self.layers.len() * self.widths.iter().sum::<usize>()
    }

    /// Joins the features of some inputs: shape `[inputs, total]`, flat.
    fn join(&self, layers: Vec<Vec<Tensor<2>>>) -> Result<Vec<f32>, TrainError> {
        let all: Vec<Tensor<2>> = layers.into_iter().flatten().collect();
        if all.len() != self.layers.len() * self.poolings.len() {
            return Err(TrainError::Internal(format!("a tower returned {} pooled outputs", all.len())));
        }
        Ok(parameters::host(Tensor::cat(all, 1))?.values)
    }

    /// Splits rows of all layers and poolings. Of those with the same values, such as the class token and a pooler that
    /// is the class token, the first remains.
    fn split(&self, tower: &str, values: &[f32]) -> Vec<Features> {
        let mut start = 0;
        let mut all: Vec<Features> = Vec::new();
        for &layer in &self.layers {
            for ((pooling, &width), of_last_layer) in self.poolings.iter().zip(&self.widths).zip(&self.of_last_layer) {
                if *of_last_layer && layer != self.num_layers {
                    start += width;
                    continue;
                }
                let rows = values.chunks_exact(self.total().max(1)).flat_map(|row| &row[start..start + width]);
                let values: Vec<f32> = rows.copied().collect();
                start += width;
                if !all.iter().any(|other| other.layer == layer && other.values == values) {
                    let (tower, num_layers, pool) = (tower.to_owned(), self.num_layers, pooling.name());
                    all.push(Features { tower, layer, num_layers, pool, width, values });
                }
            }
        }
        all
    }
}

impl Inputs<'_> {
    /// Features of an image tower. Rows of images that cannot be used, which `read` names, are zeros.
    ///
    /// # Errors
    /// [`TrainError::Hub`], [`TrainError::Model`] or [`TrainError::Data`] when the tower cannot be loaded;
    /// [`TrainError::NotFiniteOutput`] when it computes NaN or an infinity; [`TrainError::Stopped`] when the stop flag
    /// is set.
    pub fn images(
        &self,
        tower: &str,
        read: &mut ImagesRead,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Features>, TrainError> {
        let dir = resolve(tower)?;
        let (model, processor) = self.image_tower(&dir, observer)?;
        let (layers, pools) = (&self.request.layers, self.request.pools);
        let own = (model.pooling(), &model.poolings()[..]);
        let config = model.config();
        let of = (|it| config.pooled_width(it), |it| config.pools_by_last_layer(it));
        let plan = Plan::new(tower, model.num_layers(), own, (layers, pools), of, observer)?;
        read.contents.resize(self.pairs.len(), None);
        let found: Mutex<Vec<(usize, Result<ContentHash, Skipped>)>> = Mutex::default();
        let (height, width) = processor.output_size();
        let (height, width) = (height as usize, width as usize);
        let values = self.windows(&format!("image tower {tower}"), plan.total(), observer, |range| {
            let mut pixels = Vec::new();
            let mut usable = Vec::new();
            for number in range.clone() {
                let outcome = load(number, &self.pairs[number], &processor)?;
                let outcome = outcome.map(|(content, values)| {
                    usable.push(number - range.start);
                    pixels.extend(values);
                    content
                });
                found.lock().unwrap_or_else(PoisonError::into_inner).push((number, outcome));
            }
            let mut rows = vec![0.0; range.len() * plan.total()];
            if usable.is_empty() {
                return Ok(rows);
            }
            let shape = [usable.len(), 3, height, width];
            let pixels = Tensor::<4>::from_data(TensorData::new(pixels, shape), &self.compute.device);
            let layers = model.forward_layers(pixels, &plan.poolings, |layer| plan.layers.contains(&layer));
            let features = plan.join(layers)?;
            for (features, &row) in features.chunks_exact(plan.total()).zip(&usable) {
                rows[row * plan.total()..][..plan.total()].copy_from_slice(features);
            }
            Ok(rows)
        })?;
        check_outputs(Tower::Image, Precision::F32, &values, plan.total(), |row| {
            format!("image `{}`", self.pairs[row].image.key())
        })?;
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(number, _)| *number);
        for (number, outcome) in found {
            match outcome {
                Ok(content) => read.contents[number] = Some(content),
                Err(skipped) if !read.bad.iter().any(|other| other.image == number) => read.bad.push(skipped),
                Err(_) => {}
            }
        }
        Ok(plan.split(tower, &values))
    }

    /// Features of a text tower.
    ///
    /// # Errors
    /// As for [`Inputs::images`].
    pub fn texts(&self, tower: &str, observer: &mut dyn Observer) -> Result<Vec<Features>, TrainError> {
        let dir = resolve(tower)?;
        let (model, tokenizer) = self.text_tower(&dir)?;
        let (layers, pools) = (&self.request.layers, self.request.pools);
        let (own, dense) = own_text_pooling(&dir, model.pooling(), &self.compute.device)?;
        if dense > 0 {
            observer.on(Event::Warning(format!(
                "`{tower}` has {} after its pooling, which are left out here; `text_pool = \"auto\"` applies them",
                counted(dense, "`Dense` layer")
            )));
        }
        let own = (own, &model.poolings()[..]);
        let of = (|it| model.config().pooled_width(it), |it| model.config().pools_by_last_layer(it));
        let plan = Plan::new(tower, model.num_layers(), own, (layers, pools), of, observer)?;
        let captions: Vec<&str> = self.pairs.iter().map(|pair| pair.caption.as_str()).collect();
        let table = TokenTable::build(&tokenizer, &captions, self.compute.threads)?;
        let place = format!("text tower `{tower}`: ");
        CutCounts::of(&table, &captions).report(&place, "caption", tokenizer.max_tokens(), observer);
        // Batches hold captions of similar length; each row goes to the position of its caption.
        let mut order: Vec<usize> = (0..captions.len()).collect();
        order.sort_by_key(|&caption| table.get(caption).0.len());
        let sorted = self.windows(&format!("text tower {tower}"), plan.total(), observer, |range| {
            let tokens = order[range].iter().map(|&caption| {
                let (ids, types) = table.get(caption);
                (ids.to_vec(), types.to_vec())
            });
            let tokens: TokenSequences = tokens.collect();
            plan.join(model.forward_layers(&tokens, &plan.poolings, |layer| plan.layers.contains(&layer))?)
        })?;
        let mut values = vec![0.0; sorted.len()];
        for (row, &caption) in sorted.chunks_exact(plan.total()).zip(&order) {
            values[caption * plan.total()..][..plan.total()].copy_from_slice(row);
        }
        check_outputs(Tower::Text, Precision::F32, &values, plan.total(), |row| format!("text `{}`", captions[row]))?;
        Ok(plan.split(tower, &values))
    }

    /// Runs `forward` over all inputs, several chunks at once: shape `[inputs, width]`, flat.
    fn windows(
        &self,
        name: &str,
        width: usize,
        observer: &mut dyn Observer,
        forward: impl Fn(std::ops::Range<usize>) -> Result<Vec<f32>, TrainError> + Sync,
    ) -> Result<Vec<f32>, TrainError> {
        let total = self.pairs.len();
        let mut values = Vec::with_capacity(total * width);
        for start in (0..total).step_by(WINDOW) {
            let end = (start + WINDOW).min(total);
            let chunks: Vec<_> = (0..end - start).step_by(CHUNK).map(|at| at..(at + CHUNK).min(end - start)).collect();
            let shifted = |chunk: std::ops::Range<usize>| forward(start + chunk.start..start + chunk.end);
            values.extend(forward_chunks(&chunks, width, self.compute, shifted)?);
            observer.on(Event::Work { name, done: end, total });
            if let Some(signal) = self.stop.signal() {
                return Err(TrainError::Stopped { signal });
            }
        }
        Ok(values)
    }

    fn image_tower(
        &self,
        dir: &Path,
        observer: &mut dyn Observer,
    ) -> Result<(ImageTower, Arc<ImageProcessor>), TrainError> {
        let load = |options| image_tower_from(dir, TowerLock::Locked, options, &self.compute.device);
        let (tower, _) = or_without_pooler(load)?;
        let mut processor = image_processor(dir, observer)?;
        if let Some(max_pixels) = self.request.max_pixels {
            processor = processor.with_limits(Limits { max_pixels });
        }
        check_image_size(&processor, &tower)?;
        Ok((tower, Arc::new(processor)))
    }

    fn text_tower(&self, dir: &Path) -> Result<(TextTower, Tokenizer), TrainError> {
        let load = |options| text_tower_from(dir, TowerLock::Locked, options, &self.compute.device);
        let (tower, _) = or_without_pooler(load)?;
        let tokenizer = Tokenizer::from_dir(dir, tower.config().max_tokens())?;
        let tokenizer = match tower.config().pad_to {
            Some(len) => tokenizer.with_padding_to(len)?,
            None => tokenizer,
        };
        check_vocabulary(&tokenizer, &tower, dir)?;
        Ok((tower, tokenizer))
    }
}

/// The pooling that `text_pool = "auto"` selects in a new run for the tower in `dir`, and the number of `Dense` layers
/// that follow. `reference`: what the reference pools by.
fn own_text_pooling(dir: &Path, reference: Pooling, device: &Device) -> Result<(Pooling, usize), TrainError> {
    if auto_text_pool(dir, &TakenLayers::default()) != Pool::Sentence {
        return Ok((reference, 0));
    }
    let options = TowerOptions { pool: Pool::Sentence, ..TowerOptions::default() };
    let (tower, _) = text_tower_from(dir, TowerLock::Locked, options, device)?;
    Ok((tower.pooling(), tower.dense_layers().len()))
}

/// Loads a tower as a run does, or without its pooler if the weights lack it.
fn or_without_pooler<T>(load: impl Fn(TowerOptions) -> Result<T, ModelError>) -> Result<T, ModelError> {
    match load(TowerOptions::default()) {
        Err(ModelError::LockedRandom { .. }) => load(TowerOptions { pool: Pool::Mean, ..TowerOptions::default() }),
        other => other,
    }
}

/// The hash and the pixels of an image, or why it cannot be used.
fn load(
    number: usize,
    pair: &SampledPair,
    processor: &ImageProcessor,
) -> Result<Result<(ContentHash, Vec<f32>), Skipped>, TrainError> {
    let read = || {
        let bytes = pair.image.read()?;
        let pixels = decode_view(&bytes, &pair.image, processor, None)?.into_values();
        Ok((*blake3::hash(&bytes).as_bytes(), pixels))
    };
    match read() {
        Ok(found) => Ok(Ok(found)),
        Err(DataError::Image { source, .. }) => Ok(Err(Skipped::new(number, pair.image.key(), &source))),
        Err(error) => Err(error.into()),
    }
}
