//! One evaluation of the config: its data are read and checked before training starts, and it runs as often as needed.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Once, OnceLock};

use dualenc_data::{Dataset, ImageProcessor, Skipped};
use serde_json::{Map, Value, json};

use crate::config::{EvalData, EvalInterval, EvalSection, RunConfig, Task, default};
use crate::counted::counted;
use crate::device::read_scalar;
use crate::error::TrainError;
use crate::eval::details::Details;
use crate::eval::encoder::{Embeddings, Encoder, ImageRows};
use crate::eval::given_by::GivenBy;
use crate::eval::labelled_images::LabelledImages;
use crate::eval::measure;
use crate::eval::open_task::OpenTask;
use crate::eval::probes::measure::probe;
use crate::eval::probes::probe_data::ProbeData;
use crate::eval::scores::{Scores, TILE_SCORES, normalize_rows};
use crate::eval::usable::{UsableCaptions, UsableImages, loss_metrics};
use crate::eval::zero_shot::classifier;
use crate::events::{Event, Observer};
use crate::features::image_index::ImageList;
use crate::loss::contrastive::Objective;
use crate::pairs::{Pairs, data_at, read_eval_data};
use crate::run_dir::metrics_log::EvalRecord;

/// Unreadable images that an error names.
const NAMED_IMAGES: usize = 10;

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
    given_by: GivenBy,
    task: OpenTask,
    fingerprint: OnceLock<String>,
    /// Whether the rows that its data leave out were reported.
    data_reported: Once,
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
                OpenTask::ZeroShot(images.ok_or_else(|| no_labelled_data(name, given_by))?)
            }
            Task::Knn | Task::LinearProbe => {
                let probe = ProbeData::open(name, section, validation, given_by)?;
                OpenTask::Probe(probe.ok_or_else(|| no_labelled_data(name, given_by))?)
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
            fingerprint: OnceLock::new(),
            data_reported: Once::new(),
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
            Ok(Self { max_bad_fraction, ..Self::open(name, section, validation)? }.with_objective(objective))
        };
        config.eval.iter().map(open).collect()
    }

    /// Opens every evaluation of `config`, without the training data unless one needs their validation split.
    ///
    /// # Errors
    /// As for [`Evaluation::open`].
    pub fn open_alone(config: &RunConfig) -> Result<Vec<Self>, TrainError> {
        let needs_split = config.eval.values().any(|section| section.images.is_none() && section.data.is_none());
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
        let warnings = self.task.warnings();
        warnings.iter().map(|it| format!("evaluation `{}`: {}", self.name, self.given_by.message(it))).collect()
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

    /// Looks for missing and empty files, and checks that enough images remain; no image is decoded.
    ///
    /// # Errors
    /// As for [`Evaluation::run`], of the images.
    pub(crate) fn check_files(&self) -> Result<(), TrainError> {
        let absent = self.task.absent()?;
        if absent.is_empty() {
            return Ok(());
        }
        self.check_unreadable(self.images().num_images(), &absent)?;
        let numbers: HashSet<usize> = absent.iter().map(|skipped| skipped.image).collect();
        self.check_usable(|image| !numbers.contains(&image))
    }

    /// Checks that enough images remain of those for which `is_usable` is true.
    ///
    /// # Errors
    /// [`TrainError::Usage`] as for [`Evaluation::run`]: without an image, with a class without one, or with too few
    /// pairs for one pool.
    pub(crate) fn check_usable(&self, is_usable: impl Fn(usize) -> bool) -> Result<(), TrainError> {
        let total = self.images().num_images();
        if !(0..total).any(&is_usable) {
            return Err(TrainError::Usage(format!(
                "evaluation `{}`: none of {} can be used",
                self.name,
                counted(total, "image")
            )));
        }
        match &self.task {
            OpenTask::ZeroShot(images) => self.check_classes(images, &is_usable),
            OpenTask::Probe(probe) => {
                let (train, test): (Vec<usize>, Vec<usize>) =
                    (0..total).filter(|&image| is_usable(image)).partition(|&image| probe.is_train[image]);
                probe.check(&self.name, &train, &test, self.given_by)
            }
            OpenTask::Loss { dataset, pool_size, .. } => {
                let usable = dataset.captions().filter(|caption| is_usable(caption.image));
                check_pool_size(&self.name, usable.count(), *pool_size, self.given_by)
            }
            OpenTask::Retrieval(_) => Ok(()),
        }
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
        self.report_data(observer);
        if let OpenTask::Probe(probe) = &self.task {
            let metrics = self.run_probe(probe, encoder, processor, observer)?;
            return Ok(EvalOutcome { metrics, details: Details::None });
        }
        let mut images = self.encode_images(encoder, processor, observer)?;
        let (device, stop, dim) = (&encoder.compute.device, encoder.stop, images.dim);
        let scores = |rows, columns| Scores { rows, columns, dim, device, stop, tile: TILE_SCORES };
        let (mut metrics, details) = match &self.task {
            OpenTask::ZeroShot(labelled) => {
                let read: HashSet<usize> = images.numbers.iter().copied().collect();
                self.check_classes(labelled, |image| read.contains(&image))?;
                let prompts = labelled.prompts();
                let texts = self.encode_texts("prompts", &prompts.concat(), encoder, observer)?.into_normalized();
                let num_prompts: Vec<usize> = prompts.iter().map(Vec::len).collect();
                let weights = classifier(&texts, &num_prompts, dim);
                let scale = read_scalar(encoder.model.logit_scale.val())?.exp();
                measure::classification(&scores(&images.embeds, &weights), labelled, &images.numbers, scale, in_detail)?
            }
            OpenTask::Probe(_) => return Err(TrainError::Internal("a probe measures no embeddings".to_owned())),
            OpenTask::Retrieval(dataset) => {
                images = images.merge_copies();
                let captions = self.encode_captions(dataset, &images, encoder, observer)?;
                let ids: Vec<u64> = captions.numbers.iter().map(|&caption| dataset.caption_id(caption)).collect();
                measure::retrieval(&scores(&captions.embeds, &images.embeds), &images, (&captions, &ids), in_detail)?
            }
            OpenTask::Loss { dataset, pool_size, objective } => {
                images = images.merge_copies();
                let captions = self.encode_captions(dataset, &images, encoder, observer)?;
                check_pool_size(&self.name, captions.numbers.len(), *pool_size, self.given_by)?;
                let metrics = loss_metrics(dataset, &images, &captions, *pool_size, *objective, encoder)?;
                (metrics, Details::None)
            }
        };
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
        data.check(&self.name, &numbers(&sides.train), &numbers(&sides.test), self.given_by)?;
        let (width, device) = (encoder.model.image_tower.width(), &encoder.compute.device);
        let mut metrics = probe(data, &images, &sides, width, device, encoder.stop)?;
        metrics.insert("num_images".to_owned(), json!(sides.test.len()));
        metrics.insert("num_unreadable".to_owned(), json!(images.num_unreadable));
        if let skipped @ 1.. = self.task.data().skipped.count {
            metrics.insert("num_skipped_rows".to_owned(), json!(skipped));
        }
        Ok(metrics)
    }

    /// Names the rows that its data leave out, and classes with one name, once.
    fn report_data(&self, observer: &mut dyn Observer) {
        self.data_reported.call_once(|| {
            let skipped = Some(&self.task.data().skipped).filter(|rows| rows.count > 0);
            let rows = skipped.map(|skipped| {
                let (rows, causes) = (counted(skipped.count, "row"), skipped.by_cause());
                format!("evaluation `{}`: {rows} could not be used: {causes}; such as {}", self.name, skipped.first(1))
            });
            for note in &self.task.data().notes {
                observer.on(Event::Note(format!("evaluation `{}`: {note}", self.name)));
            }
            for warning in rows.into_iter().chain(self.warnings()) {
                observer.on(Event::Warning(warning));
            }
        });
    }

    /// Refuses a set of images of which too many are unreadable.
    fn check_unreadable(&self, total: usize, bad: &[Skipped]) -> Result<(), TrainError> {
        if bad.len() as f64 <= self.max_bad_fraction * total as f64 {
            return Ok(());
        }
        let first = bad.iter().take(NAMED_IMAGES).map(|skipped| format!("  {}: {}", skipped.key, skipped.reason));
        let limit = self.given_by.name("data.max_bad_fraction");
        Err(TrainError::Usage(format!(
            "evaluation `{}`: {} of {total} images cannot be used, more than {limit} = {} allows: {}\n{}\nrepair or \
             remove them, or raise {limit}",
            self.name,
            bad.len(),
            self.max_bad_fraction,
            Skipped::by_cause(bad),
            first.collect::<Vec<_>>().join("\n")
        )))
    }

    /// Refuses data with a class of which no image can be used. `is_usable`: of an image.
    fn check_classes(&self, images: &LabelledImages, is_usable: impl Fn(usize) -> bool) -> Result<(), TrainError> {
        let labels = &images.labels;
        let mut has_image = vec![false; labels.names.len()];
        let usable = (0..labels.num_images()).filter(|&image| is_usable(image));
        usable.for_each(|image| labels.of(image).iter().for_each(|&class| has_image[class] = true));
        // A class without an image in the data is the user's choice, and in the warnings.
        let lost = labels.names.iter().zip(labels.sizes().into_iter().zip(has_image));
        let without = lost.filter(|(_, (images, has_image))| *images > 0 && !has_image);
        let names: Vec<String> = without.map(|(class, _)| format!("the class `{class}`")).collect();
        let Some(first) = names.first() else { return Ok(()) };
        let more = if names.len() > 1 { format!(" and of {} other classes", names.len() - 1) } else { String::new() };
        Err(TrainError::Usage(format!(
            "evaluation `{}`: no image of {first}{more} can be read; repair them, or remove the folder and \
             its class name",
            self.name
        )))
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
        let (numbers, embeds, contents, bad) = encoder.images_with_contents(images, processor, rows, |done| {
            observer.on(Event::Work { name: &name, done, total });
        })?;
        for skipped in &bad {
            observer.on(Event::Skipped(skipped));
        }
        self.check_unreadable(total, &bad)?;
        if numbers.is_empty() {
            return Err(TrainError::Usage(format!(
                "evaluation `{}`: none of {} can be used",
                self.name,
                counted(total, "image")
            )));
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

    /// `what`: `prompts` or `captions`, for progress reports.
    fn encode_texts<T: AsRef<str> + Sync>(
        &self,
        what: &str,
        texts: &[T],
        encoder: &Encoder<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Embeddings, TrainError> {
        let name = format!("{}: {what}", self.name);
        encoder.texts(texts, |done| observer.on(Event::Work { name: &name, done, total: texts.len() }))
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
        let texts: Vec<&str> = numbers.iter().map(|&number| dataset.caption(number).text).collect();
        let embeds = self.encode_texts("captions", &texts, encoder, observer)?.into_normalized();
        Ok(UsableCaptions { numbers, image_rows, embeds })
    }
}

/// The error of labelled data that are not named.
fn no_labelled_data(name: &str, given_by: GivenBy) -> TrainError {
    let (images, data) = (given_by.name("images"), given_by.name("data"));
    TrainError::Usage(format!("evaluation `{name}` needs {images} or {data}"))
}

/// Refuses pools that are larger than the data.
fn check_pool_size(name: &str, num_pairs: usize, pool_size: usize, given_by: GivenBy) -> Result<(), TrainError> {
    if num_pairs >= pool_size {
        return Ok(());
    }
    let way_out = match num_pairs {
        // A pair has no negatives in a pool of its own.
        0 | 1 => "add data".to_owned(),
        _ => format!("set {} to at most {num_pairs}, or add data", given_by.name("pool_size")),
    };
    Err(TrainError::Usage(format!(
        "evaluation `{name}`: {} fill one pool of {pool_size}; {way_out}",
        if num_pairs == 1 { "1 pair does not".to_owned() } else { format!("{num_pairs} pairs do not") }
    )))
}
