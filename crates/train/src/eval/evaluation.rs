//! One evaluation of the config: its data are read and checked before training starts, and it runs as often as needed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::{Dataset, ImageProcessor, ImageRef, Source, class_folder};
use serde_json::{Map, Value};

use crate::config::{EvalInterval, EvalSection, RunConfig, Task};
use crate::error::TrainError;
use crate::eval::encoder::{Embeddings, Encoder};
use crate::eval::pooled_loss::Pools;
use crate::eval::retrieval::RetrievalRanks;
use crate::eval::scores::{BLOCK_SCORES, Scores, blocks};
use crate::eval::zero_shot::{self, CLASS_PLACEHOLDER, classifier, prompts};
use crate::events::{Event, Observer};
use crate::features::image_index::ImageList;
use crate::loss::contrastive::Objective;
use crate::run_dir::metrics_log::EvalRecord;
use crate::text_lines::read_lines;

/// An evaluation that is ready to run.
#[derive(Debug)]
pub struct Evaluation {
    /// Its name in the config, or the name of the task.
    pub name: String,
    /// When it runs, besides at the end of training.
    pub interval: EvalInterval,
    /// Images or texts per forward pass.
    pub batch_size: usize,
    task: OpenTask,
}

/// A task with its data.
#[derive(Debug)]
enum OpenTask {
    ZeroShot { images: Arc<Vec<ImageRef>>, labels: Vec<usize>, classes: Vec<String>, templates: Vec<String> },
    Retrieval(Arc<Dataset>),
    Loss { dataset: Arc<Dataset>, pool_size: usize, objective: Objective },
}

/// Embeddings of the images that can be used.
struct UsableImages {
    /// Their numbers, ascending.
    numbers: Vec<usize>,
    embeds: Embeddings,
}

/// Captions of the images that can be used.
struct UsableCaptions {
    /// Their numbers in the data set, ascending.
    numbers: Vec<usize>,
    /// The row of each caption's image among the usable images.
    image_rows: Vec<usize>,
    embeds: Embeddings,
}

impl Evaluation {
    /// Reads the data of `[eval.NAME]`.
    ///
    /// # Errors
    /// [`TrainError::Usage`], [`TrainError::Data`] or [`TrainError::Read`] when a folder or file is missing, empty or
    /// malformed.
    pub fn open(name: &str, section: &EvalSection) -> Result<Self, TrainError> {
        let required = |path: &Option<PathBuf>, key: &str| {
            path.clone().ok_or_else(|| TrainError::Usage(format!("evaluation `{name}` needs `{key}`")))
        };
        let dataset = || Ok::<_, TrainError>(Arc::new(Source::from_path(required(&section.data, "data")?)?.read()?));
        let task = match section.task {
            Task::ZeroShot => OpenTask::zero_shot(
                &required(&section.images, "images")?,
                section.classnames.as_deref(),
                section.templates.as_deref(),
            )?,
            Task::Retrieval => OpenTask::Retrieval(dataset()?),
            Task::Loss => {
                let (dataset, pool_size) = (dataset()?, section.pool_size());
                check_pool_size(name, dataset.captions.len(), pool_size)?;
                OpenTask::Loss { dataset, pool_size, objective: Objective::default() }
            }
        };
        Ok(Self { name: name.to_owned(), interval: section.interval(), batch_size: section.batch_size, task })
    }

    /// Opens every evaluation of `config`. Those of the task `loss` compute the loss that the config trains.
    ///
    /// # Errors
    /// As for [`Evaluation::open`].
    pub fn open_all(config: &RunConfig) -> Result<Vec<Self>, TrainError> {
        let objective = Objective::from(config);
        config.eval.iter().map(|(name, section)| Ok(Self::open(name, section)?.with_objective(objective))).collect()
    }

    /// Sets the loss that an evaluation of the task `loss` computes.
    #[must_use]
    pub fn with_objective(mut self, new: Objective) -> Self {
        if let OpenTask::Loss { objective, .. } = &mut self.task {
            *objective = new;
        }
        self
    }

    /// `zero-shot`, `retrieval` or `loss`.
    pub fn task(&self) -> &'static str {
        match self.task {
            OpenTask::ZeroShot { .. } => Task::ZeroShot,
            OpenTask::Retrieval(_) => Task::Retrieval,
            OpenTask::Loss { .. } => Task::Loss,
        }
        .name()
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
        let metrics = self.run(encoder, processor, observer)?;
        Ok(EvalRecord { step, name: self.name.clone(), task: self.task().to_owned(), metrics })
    }

    /// Whether the evaluation is due after `step` updates.
    pub fn is_due(&self, step: u64, steps_per_epoch: u64, total_steps: u64) -> bool {
        step == total_steps
            || match self.interval {
                EvalInterval::Steps(steps) => step.is_multiple_of(steps.max(1)),
                EvalInterval::Epochs(epochs) => step.is_multiple_of((epochs * steps_per_epoch).max(1)),
                EvalInterval::End => false,
            }
    }

    /// The images it encodes.
    pub(crate) fn images(&self) -> Arc<dyn ImageList> {
        match &self.task {
            OpenTask::ZeroShot { images, .. } => Arc::clone(images) as Arc<dyn ImageList>,
            OpenTask::Retrieval(dataset) | OpenTask::Loss { dataset, .. } => Arc::clone(dataset) as Arc<dyn ImageList>,
        }
    }

    /// The texts it encodes: prompts or captions.
    pub fn texts(&self) -> Vec<String> {
        match &self.task {
            OpenTask::ZeroShot { classes, templates, .. } => prompts(classes, templates),
            OpenTask::Retrieval(dataset) | OpenTask::Loss { dataset, .. } => {
                dataset.captions.iter().map(|caption| caption.text.clone()).collect()
            }
        }
    }

    /// Computes the metrics for the model of `encoder`.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when no image can be used, or too few pairs remain for one pool; [`TrainError::Data`] when
    /// images or texts cannot be read; [`TrainError::Model`] when the device cannot return its data.
    pub fn run(
        &self,
        encoder: &Encoder<'_>,
        processor: &Arc<ImageProcessor>,
        observer: &mut dyn Observer,
    ) -> Result<Map<String, Value>, TrainError> {
        let images = self.encode_images(encoder, processor, observer)?;
        match &self.task {
            OpenTask::ZeroShot { labels, classes, templates, .. } => {
                let prompts = prompts(classes, templates);
                let texts = self.encode_texts("prompts", &prompts, encoder, observer)?;
                let weights = classifier(&texts.normalized(), templates.len(), texts.dim);
                let scores = Scores::new(images.embeds.normalized(), weights, texts.dim, &encoder.compute.device);
                let mut all = Vec::with_capacity(images.numbers.len() * classes.len());
                for block in blocks(images.numbers.len(), classes.len()) {
                    all.extend(scores.of_rows(block)?);
                }
                let labels: Vec<usize> = images.numbers.iter().map(|&image| labels[image]).collect();
                Ok(zero_shot::metrics(&all, &labels, classes.len()))
            }
            OpenTask::Retrieval(dataset) => {
                let captions = self.encode_captions(dataset, &images, encoder, observer)?;
                retrieval_metrics(&images, captions, encoder)
            }
            OpenTask::Loss { dataset, pool_size, objective } => {
                let captions = self.encode_captions(dataset, &images, encoder, observer)?;
                check_pool_size(&self.name, captions.numbers.len(), *pool_size)?;
                loss_metrics(dataset, &images, &captions, *pool_size, *objective, encoder)
            }
        }
    }

    fn encode_images(
        &self,
        encoder: &Encoder<'_>,
        processor: &Arc<ImageProcessor>,
        observer: &mut dyn Observer,
    ) -> Result<UsableImages, TrainError> {
        let images = self.images();
        let total = images.images().len();
        let name = format!("{}: images", self.name);
        let (numbers, embeds, bad) = encoder.images(images, processor, |done| {
            observer.on(Event::Work { name: &name, done, total });
        })?;
        for skipped in &bad {
            observer.on(Event::Skipped(skipped));
        }
        if numbers.is_empty() {
            return Err(TrainError::Usage(format!("evaluation `{}`: none of {total} images can be used", self.name)));
        }
        Ok(UsableImages { numbers, embeds })
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
        let mut row_of_image = vec![None; dataset.images.len()];
        images.numbers.iter().enumerate().for_each(|(row, &image)| row_of_image[image] = Some(row));
        let captions = dataset.captions.iter().enumerate();
        let usable = captions.filter_map(|(number, caption)| Some((number, row_of_image[caption.image]?)));
        let (numbers, image_rows): (Vec<usize>, Vec<usize>) = usable.unzip();
        let texts: Vec<&str> = numbers.iter().map(|&number| dataset.captions[number].text.as_str()).collect();
        let embeds = self.encode_texts("captions", &texts, encoder, observer)?;
        Ok(UsableCaptions { numbers, image_rows, embeds })
    }
}

impl OpenTask {
    fn zero_shot(images: &Path, classnames: Option<&Path>, templates: Option<&Path>) -> Result<Self, TrainError> {
        let folder = class_folder(images)?;
        let classes = match classnames {
            Some(path) => read_class_names(path, images, folder.classes.len())?,
            None => folder.classes,
        };
        let templates = match templates {
            Some(path) => read_templates(path)?,
            None => vec![CLASS_PLACEHOLDER.to_owned()],
        };
        let (images, labels) = folder.images.into_iter().unzip();
        Ok(Self::ZeroShot { images: Arc::new(images), labels, classes, templates })
    }
}

fn read_class_names(path: &Path, images: &Path, num_folders: usize) -> Result<Vec<String>, TrainError> {
    let names = read_lines(path)?;
    if names.len() == num_folders {
        return Ok(names);
    }
    Err(TrainError::Usage(format!(
        "`{}` has {} class names, but `{}` has {num_folders} class folders; expected one name per line, in the sorted \
         order of the folders",
        path.display(),
        names.len(),
        images.display(),
    )))
}

fn read_templates(path: &Path) -> Result<Vec<String>, TrainError> {
    let templates = read_lines(path)?;
    match templates.iter().find(|template| !template.contains(CLASS_PLACEHOLDER)) {
        None => Ok(templates),
        Some(wrong) => Err(TrainError::Usage(format!(
            "`{}`: the template `{wrong}` has no `{CLASS_PLACEHOLDER}` where the class name goes",
            path.display()
        ))),
    }
}

fn retrieval_metrics(
    images: &UsableImages,
    captions: UsableCaptions,
    encoder: &Encoder<'_>,
) -> Result<Map<String, Value>, TrainError> {
    let (dim, device) = (images.embeds.dim, &encoder.compute.device);
    let (num_images, num_texts) = (images.numbers.len(), captions.numbers.len());
    let (image_embeds, text_embeds) = (images.embeds.normalized(), captions.embeds.normalized());
    let by_text = Scores::new(text_embeds.clone(), image_embeds.clone(), dim, device);
    let mut ranks = RetrievalRanks::new(captions.image_rows, num_images);
    for block in blocks(num_texts, num_images) {
        ranks.add_texts(&by_text.of_rows(block)?);
    }
    drop(by_text);
    let by_image = Scores::new(image_embeds, text_embeds, dim, device);
    ranks.metrics(|images| by_image.of_rows(images), BLOCK_SCORES / num_texts.max(1))
}

fn loss_metrics(
    dataset: &Dataset,
    images: &UsableImages,
    captions: &UsableCaptions,
    pool_size: usize,
    objective: Objective,
    encoder: &Encoder<'_>,
) -> Result<Map<String, Value>, TrainError> {
    let Some(pools) = Pools::new(&captions.numbers, pool_size) else { return Ok(Map::new()) };
    let dim = images.embeds.dim;
    let (image_embeds, text_embeds) = (images.embeds.normalized(), captions.embeds.normalized());
    let image_row = |image: usize| images.numbers.partition_point(|&other| other < image);
    let text_row = |caption: usize| captions.numbers.partition_point(|&other| other < caption);
    let image_embed = |image: usize| &image_embeds[image_row(image) * dim..][..dim];
    let text_embed = |caption: usize| &text_embeds[text_row(caption) * dim..][..dim];
    pools.metrics(encoder.model, objective, dataset, image_embed, text_embed)
}

/// Refuses pools that are larger than the data.
fn check_pool_size(name: &str, num_pairs: usize, pool_size: usize) -> Result<(), TrainError> {
    if num_pairs >= pool_size {
        return Ok(());
    }
    Err(TrainError::Usage(format!(
        "evaluation `{name}`: {num_pairs} pairs do not fill one pool of {pool_size}; set `pool_size` to at most \
         {num_pairs}, or add data"
    )))
}
