//! A run in progress: its parts, and the verbs that need more than one of them. How it is opened is in `open.rs`.

use std::sync::Arc;
use std::time::Instant;

use dualenc_data::{Batch, CutCaptions, PairLoader, counted};
use dualenc_model::DualEncoder;
use serde::{Deserialize, Serialize};

use crate::closed_form::fit_report::FitReport;
use crate::config::RunConfig;
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::encoder::{Encoder, OtherRanks};
use crate::eval::evaluation::Evaluation;
use crate::eval::shared::{ImageShares, Together};
use crate::events::{Event, Observer};
use crate::features::cut_texts::{ADVICE_OF_CONFIG, CutTexts, cut_note};
use crate::features::image_index::training_views;
use crate::features::locked_towers::{LockedFingerprints, LockedTowers, feature_cache_of};
use crate::features::prefixes::{Inputs, Prefixes};
use crate::loss::terms::LossTerms;
use crate::ranks::exchange::{Exchange, Patience};
use crate::ranks::gathered::of_all;
use crate::run_dir::checkpoint::manifest::Progress;
use crate::run_dir::checkpoint::tower_forms::TowerForms;
use crate::run_dir::metrics_log::{TrainRecord, WarningRecord};
use crate::stop_flag::StopFlag;
use crate::teacher::features::Teacher;
use crate::training::learner::Learner;
use crate::training::locked_inputs::LockedInputs;
use crate::training::position::Position;
use crate::training::records::{Records, StepNumbers};
use crate::training::step::StepContext;
use crate::training::training_data::TrainingData;
use crate::training::unfinished::Unfinished;

/// A run in progress.
pub(crate) struct Run {
    pub config: RunConfig,
    /// Counters: changes with every update.
    pub position: Position,
    /// Model, optimiser, averages: changes with every update.
    pub learner: Learner,
    /// Pairs and loader: never changes, but for the images found unreadable.
    pub data: TrainingData,
    /// What a step minimises: never changes.
    pub terms: LossTerms,
    /// The model of which the run imitates the similarities: never changes, but for its features.
    pub teacher: Option<Teacher>,
    /// Locked towers and their features: changes with every stage.
    pub locked: LockedInputs,
    /// Metrics and checkpoints: what is written. `None`: the first rank writes.
    pub records: Option<Records>,
    /// All ranks have them, since all encode; the first measures.
    pub evaluations: Vec<Evaluation>,
    pub image_shares: ImageShares,
    pub locked_fingerprints: LockedFingerprints,
    pub tower_forms: TowerForms,
    pub compute: Compute,
    /// The other replicas of this run.
    pub ranks: Arc<dyn Exchange>,
    pub stop: StopFlag,
    /// Whether the log says how many captions are cut.
    pub cut_captions_reported: bool,
    /// The step that a device computes while the next one is queued.
    pub unfinished: Option<Unfinished>,
    /// Whether an update is made or queued that `position` does not count, with numbers that were not read.
    pub is_uncounted: bool,
    /// When the last step was finished.
    pub last_step: Instant,
    /// The heads that were fitted before the first step, if this process did so.
    pub fitted: Option<FitReport>,
}

/// What a checkpoint is saved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saved {
    /// To go on from.
    Training,
    /// The same, after a failure.
    Rescue,
    /// As the result of a fit.
    Fit,
}

/// Why a run ends before its last step, the same on all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ending {
    /// The signal that arrived.
    pub signal: Option<usize>,
    /// Whether there is nothing to gain.
    pub is_early: bool,
}

impl Run {
    /// The batches from here to the end of the stage.
    ///
    /// # Errors
    /// [`TrainError::Data`] when the loader cannot start.
    pub fn batches(&self) -> Result<PairLoader, TrainError> {
        let (step, stages) = (self.position.step, &self.learner.stages);
        self.data.batches(&self.config, &stages.at(step).training, &self.locked, step..stages.end(step))
    }

    /// Reports how many captions are cut, once: when all are tokenized, else as far as it is known when `is_due`.
    pub fn report_cut_captions(&mut self, is_due: bool, observer: &mut dyn Observer) {
        let Some(CutCaptions { seen, cut, all }) = self.data.cut_captions() else { return };
        let are_all_seen = all == Some(seen);
        if self.cut_captions_reported || !(is_due || are_all_seen) {
            return;
        }
        // Of texts that are drawn anew, later ones may be longer.
        self.cut_captions_reported = cut > 0 || all.is_some();
        if cut > 0 {
            let seen_so_far = || format!("the {} seen so far", counted(seen, "caption"));
            let of = if are_all_seen { counted(seen, "caption") } else { seen_so_far() };
            let limit = self.data.tokenizer.max_tokens();
            observer.on(Event::Note(cut_note(cut, &of, limit, ADVICE_OF_CONFIG)));
        }
    }

    /// Reports that training starts, on a rank that is not the first: that one has reported it when it was opened.
    pub fn report_start_of_replica(&self, observer: &mut dyn Observer) {
        if self.records.is_none() {
            let Position { step, total_steps, steps_per_epoch, .. } = self.position;
            observer.on(Event::Start { step, total_steps, steps_per_epoch });
        }
    }

    /// Reports what is known when training ends.
    pub fn report_end(&mut self, observer: &mut dyn Observer) {
        self.report_cut_captions(true, observer);
        let Some(records) = &mut self.records else { return };
        let TrainingData { dataset, unreadable_images, .. } = &self.data;
        records.report_bad_samples(self.position.step, dataset, unreadable_images, observer);
    }

    /// Logs and reports a step, and the images of its `batch` that cannot be used.
    ///
    /// # Errors
    /// Those of [`Records::log_step`].
    pub fn log_step(
        &mut self,
        record: &TrainRecord,
        batch: &Batch,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let Some(records) = &mut self.records else { return Ok(()) };
        records.log_step(record, observer)?;
        records.log_skipped(&batch.skipped, &self.data.dataset, observer);
        self.report_cut_captions(self.position.step.is_multiple_of(self.position.steps_per_epoch), observer);
        Ok(())
    }

    /// What a step reads.
    pub fn step_context(&self) -> StepContext<'_> {
        StepContext {
            model: &self.learner.model,
            locked: &self.locked,
            data: &self.data,
            terms: &self.terms,
            teacher: self.teacher.as_ref(),
            compute: &self.compute,
            ranks: &*self.ranks,
            seed: self.config.run.seed,
        }
    }

    /// Goes on to the stage that begins at this step. Returns false when the run is over.
    ///
    /// # Errors
    /// Those of [`Run::enter_stage`].
    pub fn next_stage(&mut self, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        if self.position.is_at_end() {
            return Ok(false);
        }
        let stages = &self.learner.stages;
        let number = stages.number(self.position.step);
        observer.on(Event::Note(format!("step {}  {}", self.position.step, stages.describe(number))));
        self.enter_stage(observer)?;
        self.learner.begin_averages()?;
        Ok(true)
    }

    /// Locks and unlocks what the stage of this step asks for, and opens the feature cache of its locked towers.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when the cache cannot be opened; those of [`Prefixes::of`].
    pub fn enter_stage(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let training = self.learner.enter_stage(self.position.step)?;
        let model = &self.learner.model;
        let fingerprints = if training == self.config.ever_trains() {
            self.locked_fingerprints.clone()
        } else {
            LockedFingerprints::of(model)?
        };
        let towers = LockedTowers::new(model, &self.data.processor, &self.compute, self.data.workers, &self.stop)
            .with_cache(feature_cache_of(&self.config), &fingerprints)?;
        let views = training_views(&self.config, &training);
        let TrainingData { dataset, tokenizer, processor, workers, .. } = &self.data;
        let inputs = Inputs { dataset, processor, tokenizer, workers: *workers };
        let prefixes = Prefixes::of(model, &self.config, &training, &inputs, &self.compute, &self.stop)?;
        prefixes.notes.iter().for_each(|note| observer.on(Event::Note(note.clone())));
        self.locked = LockedInputs::new(towers, Arc::clone(dataset), views).with_prefixes(prefixes);
        Ok(())
    }

    /// Whether the run ends here, the same on all ranks: a signal reached one, or the first has nothing to gain.
    ///
    /// # Errors
    /// [`TrainError::OfRank`] when another rank has failed.
    pub fn agree_on_end(&self, signal: Option<usize>) -> Result<Ending, TrainError> {
        let own = Ending { signal, is_early: self.stops_early() };
        let mut all = of_all(&*self.ranks, own, Patience::AsLongAsItTakes)?.into_iter();
        // The first rank is the one that knows the evaluations.
        let first = all.next().unwrap_or(own);
        Ok(Ending { signal: first.signal.or_else(|| all.find_map(|ending| ending.signal)), ..first })
    }

    /// Whether the run ends before its last step, since there is nothing to gain.
    fn stops_early(&self) -> bool {
        self.records.as_ref().is_some_and(|records| records.stops_early(&self.position))
    }

    /// Reports why the run ends early.
    pub fn report_early_stop(&self, observer: &mut dyn Observer) {
        if let Some(records) = &self.records {
            records.report_early_stop(&self.position, observer);
        }
    }

    /// As [`Run::evaluate_if_due`]; returns the signal that stopped an evaluation. It runs when the run is resumed.
    ///
    /// # Errors
    /// As for [`Run::evaluate_if_due`].
    pub fn evaluate_or_stop(&mut self, observer: &mut dyn Observer) -> Result<Option<usize>, TrainError> {
        match self.evaluate_if_due(observer) {
            Ok(()) => Ok(None),
            Err(TrainError::Stopped { signal }) => Ok(Some(signal)),
            Err(error) => Err(error),
        }
    }

    /// Runs every evaluation that is due at this step and not in the log yet. The first rank decides and measures; the
    /// others encode with it.
    ///
    /// # Errors
    /// Those of [`Evaluation::run`].
    fn evaluate_if_due(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        if self.evaluations.is_empty() {
            return Ok(());
        }
        if self.records.is_none() {
            return self.help_evaluate();
        }
        let evaluated = match self.stop.signal() {
            // A signal does not wait for an evaluation. The first rank decides, or others would wait for it.
            Some(signal) => Err(TrainError::Stopped { signal }),
            None => self.evaluate_what_is_due(observer),
        };
        match (Together::of(&*self.ranks, &self.image_shares), &evaluated) {
            // Any other error ends all ranks.
            (Some(ranks), Ok(()) | Err(TrainError::Stopped { .. })) => ranks.dismiss().and(evaluated),
            _ => evaluated,
        }
    }

    /// Encodes what the first rank asks for, as long as it evaluates.
    fn help_evaluate(&self) -> Result<(), TrainError> {
        let Some(ranks) = Together::of(&*self.ranks, &self.image_shares) else { return Ok(()) };
        let images = |name: &str| self.evaluations.iter().find(|it| it.name == name).map(Evaluation::images);
        ranks.serve(&self.data.processor, images, |work| {
            let (model, locked) = (self.learner.evaluation_model(), self.evaluated_towers());
            work(&self.encoder(&model, &locked))
        })
    }

    /// What encodes with `model`, alone and input by input.
    fn encoder<'a>(&'a self, model: &'a DualEncoder, locked: &'a LockedTowers) -> Encoder<'a> {
        Encoder {
            model,
            tokenizer: &self.data.tokenizer,
            locked,
            compute: &self.compute,
            workers: self.data.workers,
            stop: &self.stop,
            batch_size: 1,
            others: None,
            cut: CutTexts::default(),
        }
    }

    /// The towers that are locked for an evaluation at this step. A tower that trained before and is locked now has
    /// other features with its averaged weights.
    fn evaluated_towers(&self) -> LockedTowers {
        let towers = self.locked.towers.clone();
        match self.learner.averaged_parts(self.position.step) {
            Some(averaged) => towers.restricted_to(&averaged),
            None => towers,
        }
    }

    fn evaluate_what_is_due(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.evaluate_with_last_step(self.position.total_steps, observer)?;
        if self.stops_early() {
            // The evaluations that run when training ends.
            self.evaluate_with_last_step(self.position.step, observer)?;
        }
        Ok(())
    }

    fn evaluate_with_last_step(&mut self, last_step: u64, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let Position { step, steps_per_epoch, .. } = self.position;
        self.evaluate_where(|evaluation| evaluation.is_due(step, steps_per_epoch, last_step), observer)
    }

    /// Runs the evaluations for which `due` is true, unless they are in the log at this step.
    ///
    /// # Errors
    /// Those of [`Evaluation::run`].
    pub fn evaluate_where(
        &mut self,
        due: impl Fn(&Evaluation) -> bool,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let step = self.position.step;
        if !self.evaluations.iter().any(&due) {
            return Ok(());
        }
        let Some(records) = &self.records else { return Ok(()) };
        let done = records.metrics.evals_at(step).to_vec();
        self.learner.check_finite(step)?;
        let (model, locked) = (self.learner.evaluation_model(), self.evaluated_towers());
        let ranks = Together::of(&*self.ranks, &self.image_shares);
        let others = ranks.as_ref().map(|ranks| OtherRanks(ranks));
        for evaluation in self
            .evaluations
            .iter()
            .filter(|evaluation| due(evaluation))
            .filter(|evaluation| !done.contains(&evaluation.name))
        {
            let batch_size = evaluation.batch_size;
            let encoder = Encoder { batch_size, others, ..self.encoder(&model, &locked) };
            let record = evaluation.record(step, &encoder, &self.data.processor, observer)?;
            if let Some(records) = &mut self.records {
                records.log_eval(&record, observer)?;
            }
        }
        Ok(())
    }

    /// Saves the state if a checkpoint is due at this step, or the run has an `ending`. A disk that fails is tried
    /// again at the next interval.
    ///
    /// # Errors
    /// Those of [`Records::count_save`]; at the end of the run and after a signal, those of [`Records::save`].
    pub fn save_if_due(&mut self, ending: Ending, observer: &mut dyn Observer) -> Result<(), TrainError> {
        if self.position.is_at_end() || ending.signal.is_some() || ending.is_early {
            return self.save(observer);
        }
        if self.records.as_ref().is_some_and(|records| records.checkpoint_is_due(&self.position)) {
            let saved = self.save(observer);
            if let Some(records) = &mut self.records {
                return records.count_save(saved, observer);
            }
        }
        Ok(())
    }

    /// Writes a checkpoint, unless this step has one.
    ///
    /// # Errors
    /// Those of [`Records::save`].
    pub fn save(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.save_as(Saved::Training, observer)
    }

    /// Writes the checkpoint of a run that ends with fitted heads.
    ///
    /// # Errors
    /// Those of [`Records::save`].
    pub fn save_fit(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.save_as(Saved::Fit, observer)
    }

    /// Writes a checkpoint beside which older ones stay, unless this step has one.
    ///
    /// # Errors
    /// Those of [`Records::save`].
    pub(super) fn save_rescue(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.save_as(Saved::Rescue, observer)
    }

    fn save_as(&mut self, saved: Saved, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let started = Instant::now();
        let progress = self.progress(saved);
        let Some(records) = self.records.as_mut().filter(|records| records.saved_step != Some(progress.step)) else {
            return Ok(());
        };
        let saved = records.save(&progress, self.learner.tensors()?, started, observer);
        if let Err(TrainError::Write { .. }) = saved {
            // Tensors are checked one by one as they are written: a disk that fails must not hide spoiled weights,
            // which no other try mends.
            self.learner.check_finite(progress.step)?;
        }
        saved
    }

    /// What a checkpoint of this step says of the run.
    pub(super) fn progress(&self, saved: Saved) -> Progress {
        Progress {
            step: self.position.step,
            samples_seen: self.position.samples_seen,
            total_steps: self.position.total_steps,
            data: self.data.fingerprint.clone(),
            pairs: Some(self.data.pair_counts()),
            locked: self.locked_fingerprints.all.clone(),
            towers: Some(self.tower_forms.clone()),
            teacher: self.teacher.as_ref().map(|teacher| teacher.fingerprint.clone()),
            threads: self.compute.threads,
            skipped_steps: self.learner.stages.skipped().to_vec(),
            bad_images: self.data.unreadable_images.found(self.position.step),
            is_rescue: saved == Saved::Rescue,
            is_fit: saved == Saved::Fit,
        }
    }

    /// Stops before an update that would spoil the weights: saves the state before the step, so that a run can go on
    /// from there, and lists the batch in a file.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] when loss or gradient norm are NaN or infinite.
    pub fn guard_finite(
        &mut self,
        numbers: StepNumbers,
        batch: &Batch,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let Some((what, value)) = numbers.not_finite() else { return Ok(()) };
        let step = self.position.step;
        self.forget_unfinished();
        let Some(dir) = self.records.as_ref().map(|records| records.dir.root().to_owned()) else {
            // The first rank saves, and then fails.
            self.agree_on_end(None)?;
            return Err(TrainError::Internal(format!("{what} is {value} at step {}, but not on rank 0", step + 1)));
        };
        let saved = if step == 0 {
            "there is no earlier state to save".to_owned()
        } else {
            match self.save_rescue(observer) {
                Ok(()) => format!("the state after step {step} is saved"),
                Err(error) => format!("the state after step {step} is not saved ({error})"),
            }
        };
        let samples = match numbers.dump(batch, &self.data.dataset, &dir) {
            Ok(path) => format!("are listed in `{}`", path.display()),
            Err(error) => format!("could not be listed ({error})"),
        };
        let StepNumbers { learning_rate, logit_scale, .. } = numbers;
        Err(TrainError::NotFinite { what, value, step: step + 1, learning_rate, logit_scale, saved, samples })
    }

    /// Goes past the next `count` steps without an update.
    ///
    /// # Errors
    /// Those of [`Records::log_warning`].
    pub(super) fn skip_steps(&mut self, count: u64, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let first = self.position.step;
        let end = first + count;
        self.learner.stages.skip([first, end]);
        self.position.step = end;
        let steps = if count == 1 { format!("step {end}") } else { format!("steps {} to {end}", first + 1) };
        let warning = WarningRecord {
            step: end,
            name: format!("skipped-steps-{}-{end}", first + 1),
            message: format!("`--skip-steps` skipped {steps}"),
        };
        self.records.as_mut().map_or(Ok(()), |records| records.log_warning(&warning, observer))
    }
}
