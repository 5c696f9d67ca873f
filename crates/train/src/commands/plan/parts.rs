//! The parts of a step, one by one. The graph is cut at the towers' pooled outputs, as `training::gradient_cache` cuts
//! it at the features, so that each part's backward pass runs alone.

use burn::tensor::{FloatDType, Tensor, TensorData};
use dualenc_data::Batch;
use dualenc_model::{TokenSequences, Tower, parameters};

use crate::commands::plan::budget::Laps;
use crate::error::TrainError;
use crate::optim::gradients::{ParamGradients, RowsRead};
use crate::training::locked_inputs::LockedFeatures;
use crate::training::step::StepContext;

/// Seconds of each part of a step. A tower is either locked or trains; the other entry is 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parts {
    pub locked_image: f64,
    pub locked_text: f64,
    /// Forward and backward.
    pub image: f64,
    pub text: f64,
    /// Projections, normalisation and loss, forward and backward.
    pub head: f64,
    /// Of `image` and `text`, the forward passes.
    pub forward: [f64; 2],
}

impl Parts {
    /// Seconds of a whole step, without the optimiser.
    pub fn sum(&self) -> f64 {
        self.locked_image + self.locked_text + self.image + self.text + self.head
    }

    /// The same where the layers before the first that trains are cached: `shares` of those of the image and the text
    /// tower, which run forward only.
    pub fn without_locked_layers(self, shares: [f64; 2]) -> Self {
        let [image, text] = std::array::from_fn(|tower| self.forward[tower] * shares[tower]);
        let forward = [self.forward[0] - image, self.forward[1] - text];
        Self { image: self.image - image, text: self.text - text, forward, ..self }
    }

    /// The same for a step in parts, where each tower that trains runs forward twice.
    pub fn with_second_forward(self) -> Self {
        let [image, text] = self.forward;
        Self { image: self.image + image, text: self.text + text, ..self }
    }
}

/// Pooled outputs `[batch, width]` at which the graph is cut.
struct Cut {
    /// With the graph of the tower; `None`: the tower is locked.
    output: Option<Tensor<2>>,
    /// The same values, where the graph of the head begins.
    leaf: Tensor<2>,
}

impl Cut {
    fn locked(pooled: Tensor<2>) -> Self {
        Self { output: None, leaf: pooled }
    }

    /// The values, if the tower is locked.
    fn if_locked(&self) -> Option<Tensor<2>> {
        self.output.is_none().then(|| self.leaf.clone())
    }

    /// Waits for the device.
    fn trained(pooled: Tensor<2>, context: &StepContext<'_>) -> Result<Self, TrainError> {
        let pooled = pooled.cast(FloatDType::F32);
        let shape = pooled.dims();
        let values = parameters::host(pooled.clone().without_autodiff())?.values;
        let leaf = Tensor::<2>::from_data(TensorData::new(values, shape), &context.compute.device);
        Ok(Self { output: Some(pooled), leaf: leaf.autodiff().require_grad() })
    }
}

/// Measures the parts of a step on `batch`, which holds the pixels of all its pairs. Changes nothing.
///
/// # Errors
/// Those of [`forward_backward`](crate::training::step::forward_backward).
pub(super) fn measure(context: &StepContext<'_>, batch: &Batch) -> Result<Parts, TrainError> {
    let (compute, dropout) = (context.compute, context.dropout(batch));
    let model = &compute.as_trained(context.model);
    let mut parts = Parts::default();
    let mut laps = Laps::start();

    let locked = context.locked.towers.images.as_ref().zip(context.locked.images.as_ref());
    let image = match locked {
        Some((locked, set)) => Cut::locked(locked.of_batch(set, batch)?),
        None => {
            let pixels = context.pixels(batch).cast(compute.trained_dtype());
            let forward = || model.image_tower.forward(pixels, &dropout.part(Tower::Image.kind()));
            Cut::trained(compute.training(forward).pooled, context)?
        }
    };
    match image.output {
        None => parts.locked_image = laps.lap(),
        Some(_) => parts.forward[0] = laps.lap(),
    }
    let tokens = TokenSequences::new(batch.tokens.ids.clone(), batch.tokens.type_ids.clone());
    let text = match context.locked.texts_of_batch(batch)? {
        Some(locked) => Cut::locked(locked),
        None => {
            let forward = || model.text_tower.forward(&tokens, &dropout.part(Tower::Text.kind()));
            Cut::trained(compute.training(forward)?.pooled, context)?
        }
    };
    match text.output {
        None => parts.locked_text = laps.lap(),
        Some(_) => parts.forward[1] = laps.lap(),
    }

    let narrow = |pooled: &Tensor<2>| pooled.clone().cast(compute.trained_dtype());
    let [image_features, text_features] = compute.training(|| {
        let image = model.project_image(narrow(&image.leaf), &dropout);
        [image, model.project_text(narrow(&text.leaf), &dropout)].map(|features| features.cast(FloatDType::F32))
    });
    let locked = LockedFeatures { image: image.if_locked(), text: text.if_locked(), ..LockedFeatures::default() };
    let loss = context.loss(batch, &locked, [image_features, text_features])?;
    let mut all = loss.total.backward();
    // The norms wait for the device.
    ParamGradients::take(context.model, &mut all, None, compute.on_host)?.norms()?;
    parts.head = laps.lap();

    let mut backward = |cut: Cut, words: Option<RowsRead>| -> Result<(), TrainError> {
        let Some((output, gradient)) = cut.output.zip(cut.leaf.grad_remove(&mut all)) else { return Ok(()) };
        let mut gradients = (output * gradient).sum().backward();
        ParamGradients::take(context.model, &mut gradients, words, compute.on_host)?.norms()?;
        Ok(())
    };
    let image_trains = image.output.is_some();
    backward(image, None)?;
    parts.image = if image_trains { parts.forward[0] + laps.lap() } else { 0.0 };
    laps = Laps::start();
    let text_trains = text.output.is_some();
    backward(text, Some(RowsRead::of_words(&tokens)))?;
    parts.text = if text_trains { parts.forward[1] + laps.lap() } else { 0.0 };
    Ok(parts)
}
