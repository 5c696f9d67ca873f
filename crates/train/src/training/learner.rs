//! What changes with an update: the model, its optimiser and the averages of its weights; and the schedules that an
//! update follows.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use dualenc_kernels::{StepLimits, first_control, step_control};
use dualenc_model::parameters::{self, ParamFilter, ParamUpdate};
use dualenc_model::{DualEncoder, HostTensor, Training};

use crate::config::RunConfig;
use crate::device::read_scalar;
use crate::error::TrainError;
use crate::optim::clip::{CLIP_EPSILON, Clip};
use crate::optim::ema::Ema;
use crate::optim::gradients::ParamGradients;
use crate::optim::lr_schedule::LrSchedule;
use crate::optim::optimizer::Optimizer;
use crate::optim::param_groups::LearningRate;
use crate::optim::state_tensor::StateTensor;
use crate::run_dir::checkpoint::finite::check_finite;
use crate::run_dir::checkpoint::{Checkpoint, Tensors};
use crate::training::stages::Stages;
use crate::training::step::{Scalars, StepOutcome};
use crate::training::unfinished::Numbers;

/// The model with everything that updates it.
pub(crate) struct Learner {
    pub model: DualEncoder,
    pub stages: Stages,
    optimizer: Optimizer,
    ema: Option<Ema>,
    lr_schedule: LrSchedule,
    /// What any stage trains: the parameters of a checkpoint.
    ever_trains: Training,
    /// Upper limit of `logit_scale`, a logarithm.
    logit_scale_max: f64,
    /// False during an update, and after one that failed.
    is_whole: bool,
    /// That of the last update of which a device decided whether it changes anything.
    control: Option<Tensor<1>>,
    /// Left in `model` while the optimiser owns the real one.
    placeholder: DualEncoder,
}

/// What a learner goes on from: the tensors of a checkpoint, by path.
pub(crate) struct LearnerState {
    pub model: BTreeMap<String, HostTensor>,
    pub optimizer: BTreeMap<String, HostTensor>,
    pub ema: Option<BTreeMap<String, HostTensor>>,
}

impl LearnerState {
    /// That of `checkpoint`.
    ///
    /// # Errors
    /// Those of [`Checkpoint::optimizer`].
    pub fn of(checkpoint: Checkpoint) -> Result<Self, TrainError> {
        let optimizer = checkpoint.optimizer()?;
        let Checkpoint { model, ema, .. } = checkpoint;
        Ok(Self { model, optimizer, ema })
    }
}

impl Learner {
    /// A learner before its first step. `on_host`: optimiser state and averages are in host memory.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when a `[[train.group]]` matches no parameter.
    pub fn new(
        config: &RunConfig,
        model: DualEncoder,
        stages: Stages,
        lr_schedule: LrSchedule,
        on_host: bool,
    ) -> Result<Self, TrainError> {
        Ok(Self {
            optimizer: Optimizer::new(&config.train, &model, on_host)?,
            ema: config.train.ema_decay.map(|decay| Ema::new(decay, on_host)),
            ever_trains: config.ever_trains(),
            logit_scale_max: config.train.logit_scale_max,
            is_whole: true,
            control: None,
            placeholder: parameters::placeholder(&model),
            model,
            stages,
            lr_schedule,
        })
    }

    /// The optimiser, for its parameter groups.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// Puts the parameters, averages and optimiser state after `step` updates in place.
    ///
    /// # Errors
    /// [`TrainError::Model`] when a tensor is missing, left over or of another shape.
    pub fn restore(&mut self, step: u64, state: LearnerState) -> Result<(), TrainError> {
        let LearnerState { model, optimizer, ema: averages } = state;
        let trained = self.stages.trained_before(step);
        let trained = trained.map(|trained| trained.of(self.model.clone())).transpose()?;
        if let Some(ema) = &mut self.ema {
            // Without a file there are no averages, which is right only before the first update.
            ema.restore(averages.unwrap_or_default(), &self.model, trained.as_ref())?;
        }
        self.model = parameters::restore(self.model.clone(), ParamFilter::Trainable, model)?;
        match &trained {
            Some(trained) => self.optimizer.restore(trained, optimizer)?,
            None => self.optimizer.restore(&parameters::lock(self.model.clone()), optimizer)?,
        }
        Ok(())
    }

    /// Whether every update that was begun is complete.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Looks for a trainable parameter that the last update made NaN or infinite. `step`: updates done.
    ///
    /// # Errors
    /// [`TrainError::SpoiledWeights`]; [`TrainError::Model`] when the device cannot return its data.
    pub fn check_finite(&self, step: u64) -> Result<(), TrainError> {
        weights(&self.model).iter().try_for_each(|(name, tensor)| check_finite(step, name, &tensor.values()?))
    }

    /// Locks and unlocks what the stage of `step` asks for; returns what trains from here on.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the stage unlocks more blocks than a tower has.
    pub fn enter_stage(&mut self, step: u64) -> Result<Training, TrainError> {
        let training = self.stages.at(step).training;
        self.model = training.of(self.model.clone())?;
        self.placeholder = parameters::placeholder(&self.model);
        Ok(training)
    }

    /// Starts averaging what trains in this stage, in a run that averages its weights.
    pub fn begin_averages(&mut self) -> Result<(), TrainError> {
        if let Some(ema) = &mut self.ema {
            ema.begin(&self.model)?;
        }
        Ok(())
    }

    /// The learning rate of the 0-based `step`, for parameters without a rate of their own.
    pub fn learning_rate(&self, step: u64) -> LearningRate {
        self.stages.learning_rate(step, &self.lr_schedule)
    }

    /// The value of `logit_scale`, a logarithm. Waits for the device.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return it.
    pub fn logit_scale(&self) -> Result<f64, TrainError> {
        read_scalar(self.model.logit_scale.val())
    }

    /// How the update of a step with these `scalars` clips, and their way to the host. `None`: they are not finite, and
    /// there must not be an update. A device decides that by itself, so that the host need not wait for it.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the host waits for the numbers and does not get them.
    pub fn clip(&mut self, scalars: Scalars) -> Result<(Option<Clip>, Numbers), TrainError> {
        if self.optimizer.on_host() {
            let outcome = scalars.queue_read(None).wait()?;
            return Ok((self.clip_of(&outcome), Numbers::Known(Box::new(outcome))));
        }
        let (num_checked, first_sum) = (scalars.num_losses(), scalars.first_sum());
        let max_norm = self.optimizer.max_norm();
        let limits = StepLimits { num_checked, first_sum, max_norm, epsilon: CLIP_EPSILON };
        let before = self.control.take().unwrap_or_else(|| first_control(&scalars.values.device()));
        let control = step_control(&scalars.values, &before, limits);
        self.control = Some(control.clone());
        let numbers = Numbers::OnTheirWay(Box::new(scalars.queue_read(Some(control.clone()))));
        Ok((Some(Clip::OnDevice(Box::new(control))), numbers))
    }

    /// How the update of a step with these numbers clips, if they are finite.
    fn clip_of(&self, outcome: &StepOutcome) -> Option<Clip> {
        let is_finite = outcome.norms.all.is_finite() && (outcome.loss + outcome.loss_of_terms()).is_finite();
        is_finite.then(|| Clip::of_norm(outcome.norms.all, self.optimizer.max_norm()))
    }

    /// Forgets what an update that changed nothing began, after `step` updates.
    pub fn forget_after(&mut self, step: u64) {
        let stages = &self.stages;
        self.optimizer.retain(|path| stages.updates_before(path, step) > 0);
    }

    /// Makes the update of the 0-based `step`: clips, updates, limits `logit_scale`, averages.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when model, gradients, optimiser state and averages do not fit each other. The learner
    /// is then of no further use: part of the update is made.
    pub fn update(
        &mut self,
        step: u64,
        gradients: ParamGradients,
        clip: Clip,
        rate: LearningRate,
    ) -> Result<(), TrainError> {
        let control = if let Clip::OnDevice(control) = &clip { Some(control.as_ref().clone()) } else { None };
        self.is_whole = false;
        // The optimiser works in place only where nothing else shares the values.
        let model = std::mem::replace(&mut self.model, self.placeholder.clone());
        let before = |path: &str| self.stages.updates_before(path, step);
        let model = self.optimizer.step(model, gradients, clip, rate, &before)?;
        let after = |path: &str| self.stages.updates_before(path, step + 1);
        let (logit_scale_max, ema) = (self.logit_scale_max, self.ema.as_mut());
        let mut finish = FinishUpdate { logit_scale_max, ema, updates: &after, control, failure: None };
        self.model = parameters::update(model, &mut finish);
        if let Some(failure) = finish.failure {
            return Err(failure);
        }
        self.is_whole = true;
        Ok(())
    }

    /// The model for evaluation, without gradients: averaged in a run that averages its weights.
    pub fn evaluation_model(&self) -> DualEncoder {
        let model = self.model.valid();
        match &self.ema {
            Some(ema) => ema.averaged(model),
            None => model,
        }
    }

    /// What differs between the [evaluation model](Self::evaluation_model) and `model` after `step` updates; `None`:
    /// nothing.
    pub fn averaged_parts(&self, step: u64) -> Option<Training> {
        self.ema.as_ref().and_then(|_| self.stages.trained_before(step))
    }

    /// The tensors of a checkpoint, those that trained in another stage included. They share the memory of the learner.
    ///
    /// # Errors
    /// [`TrainError::Model`] when a stage unlocks more blocks than a tower has.
    pub fn tensors(&self) -> Result<Tensors<'_>, TrainError> {
        let model = self.ever_trains.of(self.model.clone())?;
        Ok(Tensors {
            model: weights(&model),
            optimizer: self.optimizer.state(),
            ema: self.ema.as_ref().map(Ema::state),
        })
    }
}

/// The parameters of `model` that train, by path.
fn weights(model: &DualEncoder) -> BTreeMap<String, StateTensor<'static>> {
    let readers = parameters::readers(model, ParamFilter::Trainable);
    readers.into_iter().map(|(path, reader)| (path, reader.into())).collect()
}

/// What follows the optimiser's update of a parameter.
struct FinishUpdate<'a> {
    /// Keeps the softmax from becoming arbitrarily sharp (CLIP, arXiv:2103.00020, sec. 2.5).
    logit_scale_max: f64,
    ema: Option<&'a mut Ema>,
    /// Updates of a parameter so far, this one included.
    updates: &'a dyn Fn(&str) -> u64,
    /// That of an update of which the device decides whether it changes anything.
    control: Option<Tensor<1>>,
    failure: Option<TrainError>,
}

impl ParamUpdate for FinishUpdate<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        let value = if path == "logit_scale" { value.clamp_max(self.logit_scale_max) } else { value };
        let Some(ema) = &mut self.ema else { return value };
        let device = value.device();
        ema.take(path, value, (self.updates)(path), self.control.as_ref()).unwrap_or_else(|error| {
            self.failure.get_or_insert(error);
            Tensor::from_data(TensorData::new(Vec::<f32>::new(), [0; D]), &device)
        })
    }
}
