//! The replica of a rank that is not the first: it starts from the state that the first one opened, and writes nothing.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, RunConfig};
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::evaluation::Evaluation;
use crate::eval::shared::ImageShares;
use crate::events::Silent;
use crate::features::locked_towers::{LockedFingerprints, feature_cache_of};
use crate::loss::terms::LossTerms;
use crate::models::load::LoadedModel;
use crate::optim::lr_schedule::LrSchedule;
use crate::pairs::Pairs;
use crate::ranks::exchange::{Exchange, Patience};
use crate::run_dir::checkpoint::Tensors;
use crate::run_dir::checkpoint::manifest::Progress;
use crate::run_dir::checkpoint::tensors::{deserialize, serialize};
use crate::stop_flag::StopFlag;
use crate::teacher::features::Teacher;
use crate::teacher::loaded::LoadedTeacher;
use crate::training::learner::{Learner, LearnerState};
use crate::training::locked_inputs::LockedInputs;
use crate::training::position::Position;
use crate::training::run::{Run, Saved};
use crate::training::stages::Stages;
use crate::training::training_data::{TrainingData, loader_threads};

/// What is given before the tensors of a state: those of model and optimiser, and of averages if there are any.
#[derive(Serialize, Deserialize)]
struct Header {
    progress: Progress,
    config: String,
    has_averages: bool,
    /// What each evaluation measures: see [`Evaluation::fingerprint`].
    evaluations: Vec<String>,
}

impl Run {
    /// Gives the other ranks what they start from: config, position, and the tensors of a checkpoint. So they need not
    /// read the run directory, or fit heads again.
    ///
    /// # Errors
    /// [`TrainError::OfRank`] when another rank has failed; [`TrainError::Model`] when the device cannot return its
    /// data.
    pub(crate) fn share_state(&self) -> Result<(), TrainError> {
        let Some(records) = self.records.as_ref().filter(|_| !self.ranks.is_alone()) else { return Ok(()) };
        let dir = records.dir.root();
        let Tensors { model, optimizer, ema } = self.learner.tensors()?;
        let (progress, config) = (self.progress(Saved::Training), records.config_toml.clone());
        let evaluations = fingerprints(&self.evaluations)?;
        let header = Header { progress, config, has_averages: ema.is_some(), evaluations };
        // One after the other, so that no more than one of them is in memory twice.
        let give = |bytes| self.ranks.gather_bytes(bytes, Patience::AsLongAsItTakes).map(drop);
        give(serde_json::to_vec(&header).map_err(damaged)?)?;
        give(serialize(model, dir)?)?;
        give(serialize(optimizer, dir)?)?;
        ema.map_or(Ok(()), |ema| give(serialize(ema, dir)?))
    }

    /// Opens the replica of a rank that is not the first on its `device`, when the first has opened the run. `own`: the
    /// config of this process, of which the keys of its machine count (`run.threads`, `data.workers`).
    ///
    /// # Errors
    /// Those of loading data and model; [`TrainError::Usage`] when they are not those of the first rank;
    /// [`TrainError::OfRank`] when another rank has failed.
    pub(crate) fn follow(
        ranks: Arc<dyn Exchange>,
        device: &str,
        own: &RunConfig,
        stop: &StopFlag,
    ) -> Result<Self, TrainError> {
        // The first rank reports the same.
        let observer = &mut Silent;
        let (Header { progress, config, evaluations: expected, .. }, state) = receive(&*ranks)?;
        let mut config = read_config(&config)?;
        (config.run.threads, config.data.workers) = (own.run.threads, own.data.workers);
        let compute = Compute::select(device, config.run.threads)?.computing_as(&config.run)?;
        let workers = loader_threads(&config, compute.threads, ranks.ranks_of_process());

        let Pairs { train: dataset, validation } = Pairs::read(&config)?;
        let loaded = LoadedModel::from_config(&config, &compute, observer)?;
        let tower_forms = loaded.tower_forms();
        let LoadedModel { model, tokenizer, processor, .. } = loaded;
        let teacher = LoadedTeacher::of(&config, &compute, observer)?;
        let terms =
            LossTerms::new(&config, model.embed_dim())?.with_teacher(teacher.as_ref().map(|teacher| teacher.term));
        let data = TrainingData::new(&config, dataset, tokenizer, processor, workers, ranks.share())?;
        let locked_fingerprints = LockedFingerprints::of(&model)?;
        let other_towers = progress.towers.as_ref().and_then(|towers| tower_forms.difference(towers));
        let others = [
            (data.fingerprint != progress.data).then_some("training data"),
            other_towers,
            (locked_fingerprints.all != progress.locked).then_some("locked weights"),
        ];
        if let Some(what) = others.into_iter().flatten().next() {
            return Err(TrainError::Usage(format!(
                "it reads other {what} than rank 0: all must read the same, and they must not change while a run starts"
            )));
        }

        let evaluations = Evaluation::open_all(&config, validation.as_ref())?;
        let found = fingerprints(&evaluations)?;
        if let Some(at) = (0..found.len()).find(|&at| expected.get(at) != found.get(at)) {
            return Err(TrainError::Usage(format!(
                "evaluation `{}` has other data than on rank 0, or files of other lengths: all must read the same",
                evaluations[at].name
            )));
        }

        let steps_per_epoch = data.steps_per_epoch();
        let total_steps = config.total_steps(steps_per_epoch);
        let lr_schedule = LrSchedule::new(&config.train, total_steps)?;
        let mut stages = Stages::new(&config, &model, steps_per_epoch, total_steps)?;
        progress.skipped_steps.iter().for_each(|range| stages.skip(*range));
        let mut learner = Learner::new(&config, model, stages, lr_schedule, compute.on_host)?;
        learner.restore(progress.step, state)?;
        data.unreadable_images.restore(progress.bad_images, &data.dataset)?;
        data.leave_absent_out()?;
        let teacher = match teacher {
            Some(teacher) => {
                let cache = feature_cache_of(&config);
                Some(Teacher::open(teacher, &config, &data.dataset, &compute, workers, cache)?)
            }
            None => None,
        };
        let start = Position::start(steps_per_epoch, total_steps);
        let mut run = Self {
            position: Position { step: progress.step, samples_seen: progress.samples_seen, ..start },
            learner,
            locked: LockedInputs::none(Arc::clone(&data.dataset)),
            data,
            terms,
            teacher,
            records: None,
            evaluations,
            image_shares: ImageShares::default(),
            locked_fingerprints,
            tower_forms,
            compute,
            ranks,
            stop: stop.clone(),
            cut_captions_reported: false,
            unfinished: None,
            is_uncounted: false,
            last_step: std::time::Instant::now(),
            fitted: None,
            config,
        };
        run.enter_stage(observer)?;
        run.learner.begin_averages()?;
        Ok(run)
    }
}

/// Header and tensors of the state that [`Run::share_state`] gives.
fn receive(ranks: &dyn Exchange) -> Result<(Header, LearnerState), TrainError> {
    let next = || {
        let given = ranks.gather_bytes(Vec::new(), Patience::AsLongAsItTakes)?;
        given.into_iter().next().ok_or_else(|| damaged("there is no rank 0"))
    };
    let tensors = || deserialize(&next()?).map_err(damaged);
    let header: Header = serde_json::from_slice(&next()?).map_err(damaged)?;
    let (model, optimizer) = (tensors()?, tensors()?);
    let ema = header.has_averages.then(tensors).transpose()?;
    Ok((header, LearnerState { model, optimizer, ema }))
}

fn fingerprints(evaluations: &[Evaluation]) -> Result<Vec<String>, TrainError> {
    evaluations.iter().map(Evaluation::fingerprint).collect()
}

fn read_config(config: &str) -> Result<RunConfig, TrainError> {
    let path = Path::new("the config of rank 0");
    let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
    Ok(RunConfig::from_bytes(config.as_bytes(), path, Path::new("."), &[]).map_err(invalid)?)
}

fn damaged(problem: impl std::fmt::Display) -> TrainError {
    TrainError::Internal(format!("the state that rank 0 gives: {problem}"))
}
