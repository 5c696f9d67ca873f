//! Loss and gradients of one step; nothing changes here. A batch goes through the towers whole, or in parts
//! (`gradient_cache.rs`).

use burn::module::Param;
use burn::tensor::{FloatDType, Tensor, TensorData};
use dualenc_data::{Batch, DataError, mix};
use dualenc_model::{Dropout, DualEncoder, TokenSequences, normalize, parameters};

use crate::device::dtype;
use crate::error::TrainError;
use crate::gradient_cache;
use crate::gradients::{GradientNorms, ParamGradients, RowsRead};
use crate::loss::{BatchLoss, contrastive_loss};
use crate::run::Run;

/// The word of [`mix`] that keeps dropout apart from the order of the samples.
const DROPOUT: u64 = 0xd809;

/// What one step gave.
pub(crate) struct StepOutcome {
    /// All its pairs; of those that came in parts without their pixels.
    pub batch: Batch,
    pub loss: f64,
    pub chance_loss: f64,
    /// Of image and text embeddings.
    pub spread: [f64; 2],
    pub norms: GradientNorms,
    pub num_duplicates: usize,
    pub gradients: ParamGradients,
}

/// Loss and gradients of the step that `first` begins; the rest of its parts are taken from `more`.
pub(crate) fn forward_backward(
    run: &Run,
    first: Batch,
    more: &mut impl Iterator<Item = Result<Batch, DataError>>,
) -> Result<StepOutcome, TrainError> {
    if !first.ends_pass {
        return gradient_cache::forward_backward(run, first, more);
    }
    let features = LockedOutputs::of(run, &first)?.features(run, &run.model, &first)?;
    let loss = loss(run, &first, features.image, features.text);
    let mut all = loss.loss.backward();
    let gradients = ParamGradients::take(&run.model, &mut all, features.words, run.compute.on_host)?;
    StepOutcome::new(first, loss, gradients)
}

impl StepOutcome {
    pub(crate) fn new(batch: Batch, loss: BatchLoss, gradients: ParamGradients) -> Result<Self, TrainError> {
        let (norms, spread) = (gradients.norms()?, loss.spread()?);
        let BatchLoss { loss, num_duplicates, chance: chance_loss, .. } = loss;
        let values = parameters::host(loss.without_autodiff())?.values;
        let loss = values.iter().map(|&value| f64::from(value)).sum();
        Ok(Self { batch, loss, chance_loss, spread, norms, num_duplicates, gradients })
    }
}

/// What the locked towers give for a batch: it is the same however often the batch runs.
pub(crate) struct LockedOutputs {
    /// Pooled outputs `[batch, width]` of a locked image tower.
    image: Option<Tensor<2>>,
    /// The same of a locked text tower.
    text: Option<Tensor<2>>,
}

/// Un-normalised `[batch, dim]` of both sides, and the words that were looked up for it.
pub(crate) struct Features {
    pub image: Tensor<2>,
    pub text: Tensor<2>,
    pub words: Option<RowsRead>,
}

impl LockedOutputs {
    /// Runs the locked towers over `batch`, or takes what is kept of them.
    pub(crate) fn of(run: &Run, batch: &Batch) -> Result<Self, TrainError> {
        let images = run.locked.images.as_ref().zip(run.image_set.as_ref());
        Ok(Self {
            image: images.map(|(locked, set)| locked.of_batch(set, batch)).transpose()?,
            text: run.locked.texts.as_ref().map(|locked| locked.of_tokens(&batch.tokens)).transpose()?,
        })
    }

    /// Runs what trains over the rest of the way; `model` is the run's, with a graph or without.
    pub(crate) fn features(&self, run: &Run, model: &DualEncoder, batch: &Batch) -> Result<Features, TrainError> {
        let (compute, dropout) = (&run.compute, &dropout(run, batch));
        let model = &compute.as_trained(model);
        let narrow = |pooled: &Tensor<2>| pooled.clone().cast(dtype(compute.precision));
        let image = match &self.image {
            Some(pooled) => model.project_image(narrow(pooled)),
            None => model.image_features(pixels(run, batch).cast(dtype(compute.precision)), dropout),
        };
        let (text, words) = match &self.text {
            Some(pooled) => (model.project_text(narrow(pooled)), None),
            None => {
                let tokens = TokenSequences::new(batch.tokens.ids.clone(), batch.tokens.type_ids.clone());
                (model.text_features(&tokens, dropout)?, Some(RowsRead::of_words(&tokens)))
            }
        };
        Ok(Features { image: image.cast(FloatDType::F32), text: text.cast(FloatDType::F32), words })
    }
}

/// The loss of un-normalised features `[batch, dim]` of the pairs of `batch`.
pub(crate) fn loss(run: &Run, batch: &Batch, image: Tensor<2>, text: Tensor<2>) -> BatchLoss {
    let model = &run.model;
    contrastive_loss(
        run.objective,
        (normalize(image), normalize(text)),
        model.logit_scale.val(),
        model.logit_bias.as_ref().map(Param::val),
        &run.pair_ids(batch),
    )
}

/// The dropout of a step, or of a part of it: the same each time it is asked for.
fn dropout(run: &Run, batch: &Batch) -> Dropout {
    let place = [DROPOUT, batch.step, batch.part as u64];
    Dropout::training(mix(run.seed, if batch.part == 0 { &place[..2] } else { &place }))
}

/// `[batch, 3, height, width]`
fn pixels(run: &Run, batch: &Batch) -> Tensor<4> {
    let (height, width) = run.image_size;
    let shape = [batch.pairs.len(), 3, height as usize, width as usize];
    Tensor::from_data(TensorData::new(batch.pixels.clone(), shape), &run.compute.device)
}
