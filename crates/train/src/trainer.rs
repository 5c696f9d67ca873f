//! THE TRAINING LOOP: [`train`]. Everything it calls is in the order in which it happens.

use std::time::Instant;

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use dualenc_data::{Batch, mix};
use dualenc_model::{Dropout, TokenSequences, normalize, parameters};

use crate::config::RunConfig;
use crate::error::TrainError;
use crate::gradients::{ParamGradients, RowsRead};
use crate::loss::contrastive_loss;
use crate::metrics::TrainRecord;
use crate::observer::{Event, Observer};
use crate::run::Run;
use crate::stop::StopFlag;

/// The word of [`mix`] that keeps dropout apart from the order of the samples.
const DROPOUT: u64 = 0xd809;

/// How training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished {
        /// Updates done.
        step: u64,
    },
    /// A signal came; the state is saved.
    Stopped {
        /// Updates done.
        step: u64,
        /// The signal's number.
        signal: usize,
    },
}

/// What one step gave.
struct StepOutcome {
    loss: f64,
    grad_norm: f64,
    num_duplicates: usize,
    gradients: ParamGradients,
}

/// Trains as `config` says, from the start or, with `resume`, from the newest valid checkpoint of `run.dir`.
///
/// A run that was killed anywhere and resumed gives the same bits as one that was not (on a CPU, with the same number of
/// threads): order, caption choice and dropout are functions of (seed, epoch, step), and nothing else is remembered.
///
/// # Errors
/// When configuration, data or towers do not fit, when loss or gradient is not finite, or when the disk fails.
pub fn train(
    config: &RunConfig,
    resume: bool,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    let mut run = Run::open(config, resume, stop, observer)?;
    run.evaluate_where_due(observer)?;
    let mut started = Instant::now();
    for batch in run.batches()? {
        let batch = batch?;
        let learning_rate = run.learning_rate.at(batch.step);
        let logit_scale = run.logit_scale()?;

        let outcome = forward_backward(&run, &batch)?;
        run.guard_finite(&batch, outcome.loss, outcome.grad_norm, learning_rate, logit_scale)?;
        run.update(outcome.gradients, outcome.grad_norm, learning_rate)?;

        let seconds = started.elapsed().as_secs_f64();
        let record = TrainRecord {
            step: run.step,
            epoch: run.step as f64 / run.steps_per_epoch as f64,
            samples_seen: run.samples_seen,
            loss: outcome.loss,
            learning_rate,
            logit_scale: logit_scale.exp(),
            grad_norm: outcome.grad_norm,
            num_duplicates: outcome.num_duplicates,
            pairs_per_sec: batch.pairs.len() as f64 / seconds,
            loader_wait: batch.waited.as_secs_f64() / seconds,
        };
        run.metrics.train(&record)?;
        observer.on(Event::Step(&record));
        batch.skipped.iter().for_each(|skipped| observer.on(Event::Skipped(skipped)));

        // A signal does not wait for an evaluation: what is due then runs when the run goes on.
        match stop.signal().map_or_else(|| run.evaluate_where_due(observer), |_| Ok(())) {
            Ok(()) | Err(TrainError::Stopped { .. }) => {}
            Err(error) => return Err(error),
        }
        if run.checkpoint_is_due() || stop.signal().is_some() {
            run.save(observer)?;
        }
        if let Some(signal) = stop.signal() {
            return Ok(Outcome::Stopped { step: run.step, signal });
        }
        started = Instant::now();
    }
    Ok(Outcome::Finished { step: run.step })
}

/// Loss and gradients of one batch; nothing changes.
fn forward_backward(run: &Run, batch: &Batch) -> Result<StepOutcome, TrainError> {
    let model = &run.model;
    let dropout = Dropout::training(mix(run.seed, &[DROPOUT, batch.step]));
    let image_features = match run.locked.images.as_ref().zip(run.image_set.as_ref()) {
        Some((locked, set)) => model.project_image(locked.of_batch(set, batch)?),
        None => model.image_features(pixels(run, batch), &dropout),
    };
    let (text_features, words) = match &run.locked.texts {
        Some(locked) => (model.project_text(locked.of_tokens(&batch.tokens)?), None),
        None => {
            let tokens = tokens(batch);
            (model.text_features(&tokens, &dropout)?, Some(RowsRead::of_words(&tokens)))
        }
    };
    let ids = run.pair_ids(batch);
    let loss = contrastive_loss(
        run.loss,
        run.duplicates,
        (normalize(image_features), normalize(text_features)),
        model.logit_scale.val(),
        model.logit_bias.as_ref().map(Param::val),
        &ids,
    );
    let mut all = loss.loss.backward();
    let gradients = ParamGradients::take(model, &mut all, words, run.compute.on_host)?;
    let grad_norm = gradients.norm()?;
    let loss_value = parameters::host(loss.loss.without_autodiff())?.values.iter().map(|&value| f64::from(value)).sum();
    Ok(StepOutcome { loss: loss_value, grad_norm, num_duplicates: loss.num_duplicates, gradients })
}

fn tokens(batch: &Batch) -> TokenSequences {
    TokenSequences::new(batch.tokens.ids.clone(), batch.tokens.type_ids.clone())
}

/// `[batch, 3, height, width]`
fn pixels(run: &Run, batch: &Batch) -> Tensor<4> {
    let (height, width) = run.image_size;
    let shape = [batch.pairs.len(), 3, height as usize, width as usize];
    Tensor::from_data(TensorData::new(batch.pixels.clone(), shape), &run.compute.device)
}
