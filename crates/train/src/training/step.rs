//! Loss and gradients of one step. Nothing changes here.

use burn::module::Param;
use burn::tensor::{FloatDType, Tensor, TensorData};
use dualenc_data::{Batch, ProcessedImages, mix};
use dualenc_kernels::{PendingRead, joined, upload};
use dualenc_model::{DeviceFailure, Dropout, DualEncoder, ModelError, TokenSequences};

use crate::device::Compute;
use crate::error::TrainError;
use crate::features::prefixes::States;
use crate::loss::contrastive::{BatchLoss, PairIds};
use crate::loss::mixup::Mixing;
use crate::loss::terms::{LossInputs, LossTerms, StepLoss};
use crate::optim::gradients::{GradientNorms, ParamGradients, RowsRead, SumsOfSquares};
use crate::ranks::exchange::{Exchange, Patience};
use crate::ranks::gathered::of_all;
use crate::teacher::features::Teacher;
use crate::training::locked_inputs::{LockedFeatures, LockedInputs};
use crate::training::training_data::TrainingData;

/// Keeps the draws of dropout apart from those of the sample order; an argument of [`mix`].
const DROPOUT: u64 = 0xd809;

/// Largest relative difference between the losses of replicas on devices, the products of which may be tuned
/// differently: as of backends against the CPU (`scripts/check_backends.sh`).
const DRIFT: f64 = 1e-3;

/// What a step reads.
#[derive(Clone, Copy)]
pub(crate) struct StepContext<'a> {
    pub model: &'a DualEncoder,
    pub locked: &'a LockedInputs,
    pub data: &'a TrainingData,
    pub terms: &'a LossTerms,
    pub teacher: Option<&'a Teacher>,
    pub compute: &'a Compute,
    pub ranks: &'a dyn Exchange,
    pub seed: u64,
}

/// What a step computes.
pub(crate) struct Computed {
    /// The pairs of the step; without pixels where it was computed in parts.
    pub batch: Batch,
    pub gradients: ParamGradients,
    pub scalars: Scalars,
}

/// The numbers of a step.
pub(crate) struct StepOutcome {
    /// The contrastive loss.
    pub loss: f64,
    /// The structure term without its weight, where the run has one.
    pub structure: Option<f64>,
    /// The divergence from the teacher without its weight, where the run has one.
    pub teacher: Option<f64>,
    /// The value of `logit_scale` that the loss was computed with, a logarithm.
    pub logit_scale: f64,
    /// The loss of a model that cannot tell two pairs apart.
    pub chance_loss: f64,
    /// Spread of image and text embeddings, 0 (all equal) to 1.
    pub spread: [f64; 2],
    pub norms: GradientNorms,
    pub num_duplicates: usize,
    /// Whether the update of the step changes anything. A device does not let numbers that are not finite do so.
    pub changes: bool,
}

/// Un-normalised features `[batch, dim]` of both sides.
pub(crate) struct Features {
    pub image: Tensor<2>,
    pub text: Tensor<2>,
    /// Rows of the word table that the batch reads, where the text tower trains.
    pub words: Option<RowsRead>,
}

/// What the loss of a batch is computed from, besides the features: see [`LossInputs`].
pub(crate) struct Known {
    step: u64,
    pairs: PairIds,
    mixing: Option<Mixing>,
    locked: [Option<Tensor<2>>; 2],
    teacher: Option<[Tensor<2>; 2]>,
    logit_scale: Tensor<1>,
    logit_bias: Option<Tensor<1>>,
}

impl Known {
    /// With un-normalised image and text features, `[rows, dim]`.
    pub(crate) fn with(&self, features: [Tensor<2>; 2]) -> LossInputs<'_> {
        LossInputs {
            step: self.step,
            pairs: &self.pairs,
            mixing: self.mixing.as_ref(),
            locked: self.locked.each_ref().map(Option::as_ref),
            teacher: self.teacher.as_ref(),
            features,
            logit_scale: self.logit_scale.clone(),
            logit_bias: self.logit_bias.clone(),
        }
    }
}

/// Loss and gradients of a whole batch in one pass.
///
/// # Errors
/// Those of the locked towers' feature cache, and [`TrainError::Model`] when the device cannot return its data.
pub(crate) fn forward_backward(context: &StepContext<'_>, mut batch: Batch) -> Result<Computed, TrainError> {
    let locked = context.locked.of_batch(&batch)?.blended(context.mixing(&batch).as_ref());
    if locked.image.is_some() || locked.image_states.is_some() {
        // Nothing reads them any more, and a step needs most memory later.
        batch.pixels = ProcessedImages::default();
    }
    let features = context.features(context.model, &locked, &batch)?;
    let loss = context.loss(&batch, &locked, [features.image, features.text])?;
    let mut all = loss.total.backward();
    let gradients = ParamGradients::take(context.model, &mut all, features.words, context.compute.on_host)?;
    Ok(context.computed(batch, loss, gradients))
}

impl StepOutcome {
    /// The same outcome on all ranks. On the CPU it is the same already, and must be; other devices may choose other
    /// kernels for the same work, so there the numbers are those of the first rank.
    ///
    /// # Errors
    /// Those of the exchange; [`TrainError::Internal`] when the replicas have drifted apart: on the CPU by a bit.
    pub(crate) fn of_all_ranks(mut self, step: u64, ranks: &dyn Exchange, on_host: bool) -> Result<Self, TrainError> {
        if ranks.is_alone() {
            return Ok(self);
        }
        let own = [self.loss, self.norms.all];
        let all = of_all(ranks, own.map(f64::to_bits), Patience::Deadline)?;
        let first = all.first().map_or(own, |first| first.map(f64::from_bits));
        let is_same = |(own, first): (f64, f64)| match on_host {
            true => own.to_bits() == first.to_bits() || own.is_nan() && first.is_nan(),
            // NaN ends the run by itself.
            false => own.is_nan() || first.is_nan() || (own - first).abs() <= DRIFT * own.abs().max(first.abs()),
        };
        if !own.into_iter().zip(first).all(is_same) {
            return Err(TrainError::Internal(format!(
                "the replicas have drifted apart at step {}: loss and gradient norm are {own:?}, those of rank 0 are \
                 {first:?}",
                step + 1
            )));
        }
        [self.loss, self.norms.all] = first;
        Ok(self)
    }

    /// What the terms add to the contrastive loss, without their weights; 0 without any.
    pub(crate) fn loss_of_terms(&self) -> f64 {
        self.structure.unwrap_or_default() + self.teacher.unwrap_or_default()
    }
}

/// The numbers of a step where they were computed.
pub(crate) struct Scalars {
    /// The losses, `logit_scale`, both spreads, and the sums of squares of gradients that are on a device, in `f32`.
    pub values: Tensor<1>,
    /// Whether there is a structure term, and a divergence from a teacher.
    has_terms: [bool; 2],
    squares: SumsOfSquares,
    chance_loss: f64,
    num_duplicates: usize,
}

impl Scalars {
    /// Losses, which come first.
    pub fn num_losses(&self) -> usize {
        1 + self.has_terms.into_iter().map(usize::from).sum::<usize>()
    }

    /// The first sum of squares, which come last.
    pub fn first_sum(&self) -> usize {
        self.num_losses() + 3
    }

    /// Queues a copy to the host. `control`: of the update, where a device decides whether it changes anything.
    pub fn queue_read(self, control: Option<Tensor<1>>) -> PendingOutcome {
        let read = PendingRead::start([self.values.clone()].into_iter().chain(control).collect());
        PendingOutcome { read, scalars: self }
    }
}

/// The numbers of a step on their way to the host.
pub(crate) struct PendingOutcome {
    read: PendingRead,
    scalars: Scalars,
}

impl PendingOutcome {
    /// Waits for the device: the only time in a step that the host does.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data.
    pub fn wait(self) -> Result<StepOutcome, TrainError> {
        let Scalars { has_terms, ref squares, chance_loss, num_duplicates, .. } = self.scalars;
        let (num_losses, first_sum) = (self.scalars.num_losses(), self.scalars.first_sum());
        let read = self.read.wait().map_err(|problem| ModelError::Device(DeviceFailure::new(&problem)))?;
        let changes = read.get(1).is_none_or(|control| control.get(1) == Some(&1.0));
        let Some((losses, others, sums)) = read.first().and_then(|values| {
            let (losses, rest) = values.split_at_checked(num_losses)?;
            let (others, sums) = rest.split_at_checked(first_sum - num_losses)?;
            Some((losses, others, sums))
        }) else {
            return Err(TrainError::Internal("the scalars of a step were not read".to_owned()));
        };
        let ([loss, terms @ ..], [logit_scale, image, text]) = (losses, others) else {
            return Err(TrainError::Internal(format!("{losses:?} and {others:?} are not the scalars of a step")));
        };
        let [loss, logit_scale, image, text] = [loss, logit_scale, image, text].map(|&value| f64::from(value));
        let mut terms = terms.iter().map(|&value| f64::from(value));
        let [structure, teacher] = has_terms.map(|has_term| if has_term { terms.next() } else { None });
        let (norms, spread) = (squares.norms(sums)?, [image, text]);
        Ok(StepOutcome { loss, structure, teacher, logit_scale, chance_loss, spread, norms, num_duplicates, changes })
    }
}

impl StepContext<'_> {
    /// Runs what trains, after the locked towers. `model` is the run's, with a gradient graph or without.
    pub(crate) fn features(
        &self,
        model: &DualEncoder,
        locked: &LockedFeatures,
        batch: &Batch,
    ) -> Result<Features, TrainError> {
        self.compute.training(|| self.features_as_trained(&self.compute.as_trained(model), locked, batch))
    }

    fn features_as_trained(
        &self,
        model: &DualEncoder,
        locked: &LockedFeatures,
        batch: &Batch,
    ) -> Result<Features, TrainError> {
        let (precision, dropout) = (self.compute.trained_dtype(), &self.dropout(batch));
        let narrow = |pooled: &Tensor<2>| pooled.clone().cast(precision);
        let image = match (&locked.image, &locked.image_states) {
            (Some(pooled), _) => model.project_image(narrow(pooled), dropout),
            (None, Some(States { layers, values })) => {
                model.image_features_after(*layers, narrow(values), self.image_size(), dropout)?
            }
            (None, None) => model.image_features(self.pixels(batch).cast(precision), dropout),
        };
        let tokens = || TokenSequences::new(batch.tokens.ids.clone(), batch.tokens.type_ids.clone());
        let (text, words) = match (&locked.text, &locked.text_states) {
            (Some(pooled), _) => (model.project_text(narrow(pooled), dropout), None),
            (None, Some(States { layers, values })) => {
                (model.text_features_after(*layers, narrow(values), &tokens(), dropout)?, None)
            }
            (None, None) => {
                let tokens = tokens();
                (model.text_features(&tokens, dropout)?, Some(RowsRead::of_words(&tokens)))
            }
        };
        Ok(Features { image: image.cast(FloatDType::F32), text: text.cast(FloatDType::F32), words })
    }

    /// How the pairs of a whole batch are blended; `None`: they are not.
    pub(crate) fn mixing(&self, batch: &Batch) -> Option<Mixing> {
        let alpha = self.terms.mixup_alpha?;
        Some(Mixing::draw(alpha, self.seed, batch.step, batch.pairs.len()))
    }

    /// The loss of un-normalised image and text features, `[batch, dim]`, of the pairs of a whole batch. `locked`: what
    /// they were computed from.
    ///
    /// # Errors
    /// Those of [`Teacher::embeds`].
    pub(crate) fn loss(
        &self,
        batch: &Batch,
        locked: &LockedFeatures,
        features: [Tensor<2>; 2],
    ) -> Result<StepLoss, TrainError> {
        Ok(self.terms.loss(self.known(batch, locked)?.with(features)))
    }

    /// What the loss of a whole batch is computed from, besides the features.
    ///
    /// # Errors
    /// Those of [`Teacher::embeds`].
    pub(crate) fn known(&self, batch: &Batch, locked: &LockedFeatures) -> Result<Known, TrainError> {
        let image = locked.image.clone().map(|pooled| self.model.image_summary(pooled));
        Ok(Known {
            step: batch.step,
            pairs: self.data.pair_ids(batch),
            mixing: self.mixing(batch),
            locked: [image, locked.text.clone()],
            teacher: self.teacher.map(|teacher| teacher.embeds(batch)).transpose()?,
            logit_scale: self.model.logit_scale.val(),
            logit_bias: self.model.logit_bias.as_ref().map(Param::val),
        })
    }

    pub(crate) fn computed(
        &self,
        batch: Batch,
        StepLoss { total: _, contrastive, structure, teacher }: StepLoss,
        gradients: ParamGradients,
    ) -> Computed {
        let BatchLoss { loss, num_duplicates, chance: chance_loss, spread } = contrastive;
        let mut squares = gradients.squares();
        let has_terms = [structure.is_some(), teacher.is_some()];
        let losses = [loss].into_iter().chain(structure).chain(teacher);
        let others = [self.model.logit_scale.val(), spread];
        let all: Vec<Tensor<1>> = losses.chain(others).chain(std::mem::take(&mut squares.on_device)).collect();
        let scalars = Scalars { values: joined(&all), has_terms, squares, chance_loss, num_duplicates };
        Computed { batch, gradients, scalars }
    }

    /// The dropout of a step, or of a part of one: the same each time it is asked for.
    pub(crate) fn dropout(&self, batch: &Batch) -> Dropout {
        let place = [DROPOUT, batch.step, batch.part as u64];
        Dropout::training(mix(self.seed, if batch.part == 0 { &place[..2] } else { &place }))
    }

    /// Height and width of images, in pixels.
    pub(crate) fn image_size(&self) -> [usize; 2] {
        let (height, width) = self.data.processor.output_size();
        [height as usize, width as usize]
    }

    /// `[batch, 3, height, width]`
    pub(crate) fn pixels(&self, batch: &Batch) -> Tensor<4> {
        let [height, width] = self.image_size();
        let shape = [batch.pairs.len(), 3, height, width];
        upload(TensorData::new(batch.pixels.to_values(), shape), &self.compute.device)
    }
}
