//! One evaluation of the config: its data are read and checked before training starts, and it runs as often as needed.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use dualenc_data::{Dataset, ImageProcessor, counted};
use dualenc_model::DualEncoder;
use serde_json::{Map, Value, json};

use crate::config::{EvalData, EvalInterval, EvalSection, RunConfig, Task, default};
use crate::device::read_scalar;
use crate::error::TrainError;
use crate::eval::data_report::DataReport;
use crate::eval::encoder::{Encoder, ImageRows};
use crate::eval::given_by::GivenBy;
use crate::eval::labelled_images::LabelledImages;
use crate::eval::measure;
use crate::eval::metrics::details::Details;
use crate::eval::metrics::scores::{Scores, TILE_SCORES, normalize_rows};
use crate::eval::metrics::zero_shot::classifier;
use crate::eval::narrower::{add_narrower, first_values};
use crate::eval::open_task::{OpenTask, check_pool_size};
use crate::eval::probes::measure::probe;
use crate::eval::probes::probe_data::ProbeData;
use crate::eval::usable::{UsableCaptions, UsableImages, loss_metrics};
use crate::events::{Event, Observer};
use crate::features::image_index::ImageList;
use crate::loss::contrastive::Objective;
use crate::pairs::{Pairs, data_at, read_eval_data};
use crate::run_dir::metrics_log::EvalRecord;

/// An evaluation that is ready to run.
#[derive(Debug)]
pub struct Evaluation {
    /// Its name in the config, or the name of the task.
    pub name: String,
    /// When it runs, besides at the end of training.
    pub interval: EvalInterval,
    /// Whether it runs before training, too.
    pub at_start: bool,
    /// Images or texts per forward pass.
    pub batch_size: usize,
    /// Maximum fraction of its images that may be unreadable, from 0 to 1: `data.max_bad_fraction`.
    pub max_bad_fraction: f64,
    pub(crate) given_by: GivenBy,
    pub(crate) task: OpenTask,
    /// Widths below the whole at which embeddings are measured too: `train.matryoshka`.
    narrower: Vec<usize>,
    fingerprint: OnceLock<String>,
    report: DataReport,
}

/// What an evaluation found.
#[derive(Debug, Clone)]
pub struct EvalOutcome {
    /// Metrics by name.
    pub metrics: Map<String, Value>,
    /// The answers behind them.
    pub details: Details,
}

impl Evaluation {
    /// Reads the data of `[eval.NAME]`. `validation`: the pairs to use if it names none.
    ///
    /// # Errors
    /// [`TrainError::Usage`], [`TrainError::Data`] or [`TrainError::Read`] when a folder or file is missing, empty or
    /// malformed.
    pub fn open(name: &str, section: &EvalSection, validation: Option<&Arc<Dataset>>) -> Result<Self, TrainError> {
        Self::open_given(GivenBy::Config, name, section, validation)
    }

    /// Reads the data of an evaluation that flags describe, named for its task. `root`: the folder at which relative
    /// paths of images in `section.data` start. Messages name flags in place of keys of a config.
    ///
    /// # Errors
    /// As for [`Evaluation::open`].
    pub fn from_flags(section: &EvalSection, root: Option<&Path>) -> Result<Self, TrainError> {
        let given_by = GivenBy::Flags(section.task);
        let open = || {
            if root.is_some() && section.data.is_none() && section.train_data.is_none() {
                return Err(TrainError::Usage(
                    "`--root` is the folder at which the image paths in `--data` start; give `--data`, or remove it"
                        .to_owned(),
                ));
            }
            let with_root = |data: &Option<EvalData>| match data {
                Some(EvalData::Path(path)) => Ok(Some(EvalData::Source(Box::new(data_at(path, root)?)))),
                other => Ok::<_, TrainError>(other.clone()),
            };
            let (data, train_data) = (with_root(&section.data)?, with_root(&section.train_data)?);
            let section = EvalSection { data, train_data, ..section.clone() };
            Self::open_given(given_by, section.task.name(), &section, None)
        };
        open().map_err(|error| given_by.error(error))
    }

    fn open_given(
        given_by: GivenBy,
        name: &str,
        section: &EvalSection,
        validation: Option<&Arc<Dataset>>,
    ) -> Result<Self, TrainError> {
        let dataset = || read_eval_data(name, section.data.as_ref(), validation);
        let task = match section.task {
            Task::ZeroShot => {
                let images = LabelledImages::open(section, validation)?;
                OpenTask::ZeroShot(images.ok_or_else(|| given_by.no_labelled_data(name))?)
            }
            Task::Knn | Task::LinearProbe => {
                let probe = ProbeData::open(name, section, validation, given_by)?;
                OpenTask::Probe(probe.ok_or_else(|| given_by.no_labelled_data(name))?)
            }
            Task::Retrieval => OpenTask::Retrieval(dataset()?),
            Task::Loss => {
                let (dataset, pool_size) = (dataset()?, section.pool_size());
                check_pool_size(name, dataset.num_captions(), pool_size, given_by)?;
                OpenTask::Loss { dataset, pool_size, objective: Objective::default() }
            }
        };
        Ok(Self {
            name: name.to_owned(),
            interval: section.interval(),
            at_start: section.at_start,
            batch_size: section.batch_size,
            max_bad_fraction: default::max_bad_fraction(),
            given_by,
            task,
            narrower: Vec::new(),
            fingerprint: OnceLock::new(),
            report: DataReport::new(),
        })
    }

    /// Opens every evaluation of `config`. Those of the task `loss` compute the loss that the config trains, and all
    /// tolerate as many unreadable images as training does. `validation`: the pairs of evaluations that name no data.
    ///
    /// # Errors
    /// As for [`Evaluation::open`].
    pub fn open_all(config: &RunConfig, validation: Option<&Arc<Dataset>>) -> Result<Vec<Self>, TrainError> {
        let objective = Objective::from(config);
        let max_bad_fraction = config.data.max_bad_fraction;
        let open = |(name, section): (&String, &EvalSection)| {
            let narrower = config.train.matryoshka.clone();
            let opened = Self { max_bad_fraction, narrower, ..Self::open(name, section, validation)? };
            Ok(opened.with_objective(objective))
        };
        let mut evaluations = config.eval.iter().map(open).collect::<Result<Vec<Self>, TrainError>>()?;
        // Several evaluations may read the same data.
        let mut told: Vec<String> = Vec::new();
        for evaluation in &mut evaluations {
            let own = evaluation.data_warnings();
            evaluation.mute(&told);
            told.extend(own);
        }
        Ok(evaluations)
    }

    /// Opens every evaluation of `config`, without the training data unless one needs their validation split.
    ///
    /// # Errors
    /// As for [`Evaluation::open`].
    pub fn open_alone(config: &RunConfig) -> Result<Vec<Self>, TrainError> {
        let needs_split = config.eval.values().any(EvalSection::uses_split);
        let validation = if needs_split { Pairs::read(config)?.validation } else { None };
        Self::open_all(config, validation.as_ref())
    }

    /// Sets which fraction of its images, from 0 to 1, may be unreadable.
    #[must_use]
    pub fn with_max_bad_fraction(self, max_bad_fraction: f64) -> Self {
        Self { max_bad_fraction, ..self }
    }

    /// Sets the loss that an evaluation of the task `loss` computes.
    #[must_use]
    pub fn with_objective(mut self, new: Objective) -> Self {
        if let OpenTask::Loss { objective, .. } = &mut self.task {
            *objective = new;
            self.fingerprint = OnceLock::new();
        }
        self
    }

    /// What may make the figures other than the model is.
    pub fn warnings(&self) -> Vec<String> {
        self.data_warnings()
            .iter()
            .map(|it| format!("evaluation `{}`: {}", self.name, self.given_by.message(it)))
            .collect()
    }

    /// Leaves out warnings about its data that were given before.
    pub(crate) fn mute(&mut self, told: &[String]) {
        self.report.mute(told);
    }

    /// As [`Evaluation::warnings`], without the name of the evaluation.
    pub(crate) fn data_warnings(&self) -> Vec<String> {
        self.report.unmuted(self.task.warnings())
    }

    /// The name of its task in a config.
    pub fn task(&self) -> &'static str {
        self.task.task().name()
    }

    /// Runs the evaluation after `step` updates, and returns the line for the metrics log.
    ///
    /// # Errors
    /// As for [`Evaluation::run`].
    pub fn record(
        &self,
        step: u64,
        encoder: &Encoder<'_>,
        processor: &Arc<ImageProcessor>,
        observer: &mut dyn Observer,
    ) -> Result<EvalRecord, TrainError> {
        self.record_of(step, self.run(encoder, processor, observer)?)
    }

    /// As [`Evaluation::record`], with the answers behind the metrics.
    ///
    /// # Errors
    /// As for [`Evaluation::run`].
    pub fn record_in_detail(
        &self,
        step: u64,
        encoder: &Encoder<'_>,
        processor: &Arc<ImageProcessor>,
        observer: &mut dyn Observer,
    ) -> Result<(EvalRecord, Details), TrainError> {
        let EvalOutcome { metrics, details } = self.run_in_detail(encoder, processor, observer)?;
        Ok((self.record_of(step, metrics)?, details))
    }

    fn record_of(&self, step: u64, metrics: Map<String, Value>) -> Result<EvalRecord, TrainError> {
        let (name, task, fingerprint) = (self.name.clone(), self.task().to_owned(), self.fingerprint()?);
        Ok(EvalRecord { step, name, task, fingerprint, metrics })
    }

    /// A hash of everything that decides what is measured: the task, the paths (relative to the data set's root) and
    /// the sizes of the images, classes, templates, captions, the pool size and the loss. Figures with the same
    /// fingerprint can be compared. The files are looked at once, and images are not read.
    ///
    /// # Errors
    /// [`TrainError::Data`] when the size of an image cannot be read.
    pub fn fingerprint(&self) -> Result<String, TrainError> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known.clone());
        }
        let fingerprint = self.task.fingerprint()?;
        Ok(self.fingerprint.get_or_init(|| fingerprint).clone())
    }

    /// Whether the evaluation is due after `step` updates; 0: before training.
    pub fn is_due(&self, step: u64, steps_per_epoch: u64, total_steps: u64) -> bool {
        if step == 0 {
            return self.at_start;
        }
        step == total_steps
            || match self.interval {
                EvalInterval::Steps(steps) => step.is_multiple_of(steps.max(1)),
                EvalInterval::Epochs(epochs) => step.is_multiple_of((epochs * steps_per_epoch).max(1)),
                EvalInterval::End => false,
            }
    }

    /// Refuses data that the towers of `model` cannot take: features where there is a tower, and the reverse.
    ///
    /// # Errors
    /// [`TrainError::Usage`].
    pub(crate) fn check_towers(&self, model: &DualEncoder) -> Result<(), TrainError> {
        self.task.check_towers(model, &format!("evaluation `{}`", self.name))
    }

    /// The images it encodes.
    pub(crate) fn images(&self) -> Arc<dyn ImageList> {
        self.task.images()
    }

    /// Its pairs, unless it classifies.
    pub(crate) fn dataset(&self) -> Option<&Dataset> {
        self.task.dataset()
    }

    /// The names of its classes and how many images each has, if it classifies.
    pub(crate) fn class_sizes(&self) -> Option<Vec<(&str, usize)>> {
        let (names, sizes) = match &self.task {
            OpenTask::ZeroShot(images) => (&images.labels.names, images.labels.sizes()),
            OpenTask::Probe(probe) => (&probe.classes, probe.sizes()),
            OpenTask::Retrieval(_) | OpenTask::Loss { .. } => return None,
        };
        Some(names.iter().map(String::as_str).zip(sizes).collect())
    }

    /// The texts it encodes: prompts or captions.
    pub fn texts(&self) -> Vec<String> {
        self.task.texts()
    }

    /// Computes the metrics for the model of `encoder`. For every task, `num_images` is the number of images that they
    /// are computed from, and `num_unreadable` the number of those that could not be read. For retrieval and loss,
    /// `num_skipped_rows` is the number of rows of the data without an image or a caption. Files with the same bytes
    /// are one image there, which has the captions of all of them; `num_copies` is the number of files beyond the
    /// first, if there are any.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when no image can be used, or none of a class, when more images are unreadable than
    /// `max_bad_fraction` allows, or too few pairs remain for one pool; [`TrainError::Data`] when images or texts
    /// cannot be read; [`TrainError::NotFiniteOutput`] when the model computes NaN or an infinity;
    /// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set.
    pub fn run(
        &self,
        encoder: &Encoder<'_>,
        processor: &Arc<ImageProcessor>,
        observer: &mut dyn Observer,
    ) -> Result<Map<String, Value>, TrainError> {
        Ok(self.run_with(encoder, processor, observer, false)?.metrics)
    }

    /// As [`Evaluation::run`], with the answers behind the metrics.
    ///
    /// # Errors
    /// As for [`Evaluation::run`].
    pub fn run_in_detail(
        &self,
        encoder: &Encoder<'_>,
        processor: &Arc<ImageProcessor>,
        observer: &mut dyn Observer,
    ) -> Result<EvalOutcome, TrainError> {
        self.run_with(encoder, processor, observer, true)
    }

    fn run_with(
        &self,
        encoder: &Encoder<'_>,
        processor: &Arc<ImageProcessor>,
        observer: &mut dyn Observer,
        in_detail: bool,
    ) -> Result<EvalOutcome, TrainError> {
        self.check_towers(encoder.model)?;
        let (of, data) = (format!("evaluation `{}`", self.name), self.task.data());
        self.report.report_data(&of, data, || self.warnings(), observer);
        if let OpenTask::Probe(probe) = &self.task {
            let metrics = self.run_probe(probe, encoder, processor, observer)?;
            return Ok(EvalOutcome { metrics, details: Details::None });
        }
        let mut images = self.encode_images(encoder, processor, observer)?;
        let (device, stop, dim) = (&encoder.compute.device, encoder.stop, images.dim);
        let (mut metrics, details) = match &self.task {
            OpenTask::ZeroShot(labelled) => {
                let read: HashSet<usize> = images.numbers.iter().copied().collect();
                self.check_classes(labelled, |image| read.contains(&image))?;
                let name = format!("{}: prompts", self.name);
                let (texts, num_prompts) = labelled.encode_classes(encoder, |done, total| {
                    observer.on(Event::Work { name: &name, done, total });
                })?;
                let scale = read_scalar(encoder.model.logit_scale.val())?.exp();
                let measure = |rows: &[f32], texts: &[f32], dim, in_detail| {
                    let weights = classifier(texts, &num_prompts, dim);
                    let scores = Scores { rows, columns: &weights, dim, device, stop, tile: TILE_SCORES };
                    measure::classification(&scores, labelled, &images.numbers, scale, in_detail)
                };
                let (mut metrics, details) = measure(&images.embeds, &texts, dim, in_detail)?;
                add_narrower(&mut metrics, (&self.narrower, dim), |width| {
                    let [images, texts] = [&images.embeds, &texts].map(|embeds| first_values(embeds, dim, width));
                    Ok(measure(&images, &texts, width, false)?.0)
                })?;
                (metrics, details)
            }
            OpenTask::Probe(_) => return Err(TrainError::Internal("a probe measures no embeddings".to_owned())),
            OpenTask::Retrieval(dataset) => {
                images = images.merge_copies();
                let captions = self.encode_captions(dataset, &images, encoder, observer)?;
                let ids: Vec<u64> = captions.numbers.iter().map(|&caption| dataset.caption_id(caption)).collect();
                let measure = |rows: &[f32], columns: &[f32], dim, in_detail| {
                    let scores = Scores { rows, columns, dim, device, stop, tile: TILE_SCORES };
                    measure::retrieval(&scores, &images, (&captions, &ids), in_detail)
                };
                let (mut metrics, details) = measure(&captions.embeds, &images.embeds, dim, in_detail)?;
                add_narrower(&mut metrics, (&self.narrower, dim), |width| {
                    let embeds = [&captions.embeds, &images.embeds].map(|embeds| first_values(embeds, dim, width));
                    Ok(measure(&embeds[0], &embeds[1], width, false)?.0)
                })?;
                (metrics, details)
            }
            OpenTask::Loss { dataset, pool_size, objective } => {
                images = images.merge_copies();
                let captions = self.encode_captions(dataset, &images, encoder, observer)?;
                check_pool_size(&self.name, captions.numbers.len(), *pool_size, self.given_by)?;
                let metrics = loss_metrics(dataset, &images, &captions, *pool_size, *objective, encoder)?;
                (metrics, Details::None)
            }
        };
        self.report.report_texts(&of, self.task.dataset().is_none(), encoder, observer);
        let skipped = self.task.data().skipped.count;
        if skipped > 0 || self.task.dataset().is_some() {
            metrics.insert("num_skipped_rows".to_owned(), json!(skipped));
        }
        if let copies @ 1.. = images.numbers.len() - images.num_distinct() {
            metrics.insert("num_copies".to_owned(), json!(copies));
        }
        metrics.insert("num_images".to_owned(), json!(images.num_distinct()));
        metrics.insert("num_unreadable".to_owned(), json!(images.num_unreadable));
        Ok(EvalOutcome { metrics, details })
    }

    /// Fits a classifier to the train side, and measures it on the test side.
    fn run_probe(
        &self,
        data: &ProbeData,
        encoder: &Encoder<'_>,
        processor: &Arc<ImageProcessor>,
        observer: &mut dyn Observer,
    ) -> Result<Map<String, Value>, TrainError> {
        let images = self.encode_rows(ImageRows::FeaturesAndEmbeds, encoder, processor, observer)?;
        let sides = data.sides(&images.numbers, &images.contents);
        let numbers = |places: &[usize]| places.iter().map(|&place| images.numbers[place]).collect::<Vec<_>>();
        let (train, copies) = (numbers(&sides.train), numbers(&sides.copies));
        data.check(&self.name, (&train, &copies), &numbers(&sides.test), self.given_by)?;
        let (width, device) = (encoder.model.image_summary_width(), &encoder.compute.device);
        let mut metrics = probe(data, &images, &sides, width, device, encoder.stop)?;
        metrics.insert("num_images".to_owned(), json!(sides.test.len()));
        metrics.insert("num_unreadable".to_owned(), json!(images.num_unreadable));
        if let skipped @ 1.. = self.task.data().skipped.count {
            metrics.insert("num_skipped_rows".to_owned(), json!(skipped));
        }
        Ok(metrics)
    }

    fn encode_images(
        &self,
        encoder: &Encoder<'_>,
        processor: &Arc<ImageProcessor>,
        observer: &mut dyn Observer,
    ) -> Result<UsableImages, TrainError> {
        let mut images = self.encode_rows(ImageRows::Embeds, encoder, processor, observer)?;
        normalize_rows(&mut images.embeds, images.dim);
        Ok(images)
    }

    /// As [`Evaluation::encode_images`], but not normalised.
    fn encode_rows(
        &self,
        rows: ImageRows,
        encoder: &Encoder<'_>,
        processor: &Arc<ImageProcessor>,
        observer: &mut dyn Observer,
    ) -> Result<UsableImages, TrainError> {
        let images = self.images();
        let total = images.num_images();
        let name = format!("{}: images", self.name);
        let (numbers, embeds, contents, bad) = encoder.images_of(&self.name, images, processor, rows, |done| {
            observer.on(Event::Work { name: &name, done, total });
        })?;
        let of = format!("evaluation `{}`", self.name);
        self.report.report_images(&of, (&bad, total), self.given_by, observer);
        self.check_unreadable(total, &bad)?;
        if numbers.is_empty() {
            return Err(TrainError::Usage(format!("{of}: none of {} can be used", counted(total, "image"))));
        }
        if numbers.len() + bad.len() != total {
            let problem = format!("{} embedded and {} unreadable images of {total}", numbers.len(), bad.len());
            return Err(TrainError::Internal(problem));
        }
        let dim = embeds.dim;
        Ok(UsableImages {
            rows: (0..numbers.len()).collect(),
            numbers,
            contents,
            embeds: embeds.features,
            dim,
            num_unreadable: bad.len(),
        })
    }

    /// Encodes the captions of the images that can be used.
    fn encode_captions(
        &self,
        dataset: &Dataset,
        images: &UsableImages,
        encoder: &Encoder<'_>,
        observer: &mut dyn Observer,
    ) -> Result<UsableCaptions, TrainError> {
        let mut row_of_image = vec![None; dataset.num_images()];
        images.numbers.iter().zip(&images.rows).for_each(|(&image, &row)| row_of_image[image] = Some(row));
        let captions = dataset.captions().enumerate();
        let usable = captions.filter_map(|(number, caption)| Some((number, row_of_image[caption.image]?)));
        let (numbers, image_rows): (Vec<usize>, Vec<usize>) = usable.unzip();
        let (name, total) = (format!("{}: captions", self.name), numbers.len());
        let embeds = encoder.captions(dataset, &numbers, |done| {
            observer.on(Event::Work { name: &name, done, total });
        })?;
        Ok(UsableCaptions { numbers, image_rows, embeds: embeds.into_normalized() })
    }
}
