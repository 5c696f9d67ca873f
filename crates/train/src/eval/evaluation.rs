//! One evaluation: what it needs is read and checked before training starts, and run as often as asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use dualenc_data::{Dataset, ImageProcessor, ImageRef, Source, class_folder};
use dualenc_model::parameters;
use serde_json::{Map, Value};

use crate::config::{EvalInterval, EvalSection, RunConfig, Task};
use crate::error::TrainError;
use crate::eval::encoder::{Embeddings, Encoder};
use crate::eval::pooled_loss::Pools;
use crate::eval::retrieval::RetrievalRanks;
use crate::eval::zero_shot::{classifier, figures, normalize_rows, prompts};
use crate::events::{Event, Observer};
use crate::features::image_index::ImageList;
use crate::loss::contrastive::Objective;
use crate::run_dir::metrics_log::EvalRecord;
use crate::text_lines::read_lines;

/// The template of CLIP_benchmark for no template at all.
const BARE_TEMPLATE: &str = "{c}";

/// Scores computed at once: 64 MiB of f32.
const SCORES_AT_ONCE: usize = 1 << 24;

/// An evaluation that is ready to run.
#[derive(Debug)]
pub struct Evaluation {
    /// Its name in the config, or the task's.
    pub name: String,
    /// When it runs, besides at the end.
    pub interval: EvalInterval,
    /// Images or texts a pass.
    pub batch_size: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    ZeroShot { images: Arc<Vec<ImageRef>>, labels: Vec<usize>, classes: Vec<String>, templates: Vec<String> },
    Retrieval(Arc<Dataset>),
    Loss { dataset: Arc<Dataset>, pool_size: usize, objective: Objective },
}

impl Evaluation {
    /// Reads what `[eval.NAME]` names.
    ///
    /// # Errors
    /// When a folder or file is missing, empty or malformed.
    pub fn open(name: &str, section: &EvalSection) -> Result<Self, TrainError> {
        let needed = |path: &Option<PathBuf>, key: &str| {
            path.clone().ok_or_else(|| TrainError::Usage(format!("evaluation `{name}` needs `{key}`")))
        };
        let data = || Ok::<_, TrainError>(Arc::new(Source::from_path(needed(&section.data, "data")?)?.read()?));
        let kind = match section.task {
            Task::ZeroShot => Kind::zero_shot(
                &needed(&section.images, "images")?,
                section.classnames.as_deref(),
                section.templates.as_deref(),
            )?,
            Task::Retrieval => Kind::Retrieval(data()?),
            Task::Loss => {
                let (dataset, pool_size) = (data()?, section.pool_size());
                too_few(name, dataset.captions.len(), pool_size)?;
                Kind::Loss { dataset, pool_size, objective: Objective::default() }
            }
        };
        Ok(Self { name: name.to_owned(), interval: section.interval(), batch_size: section.batch_size, kind })
    }

    /// Every evaluation of `config`, a loss being its own.
    ///
    /// # Errors
    /// As [`Evaluation::open`].
    pub fn open_all(config: &RunConfig) -> Result<Vec<Self>, TrainError> {
        let objective = Objective::from(config);
        config.eval.iter().map(|(name, section)| Ok(Self::open(name, section)?.with_objective(objective))).collect()
    }

    /// The same, a loss being that of `new`.
    #[must_use]
    pub fn with_objective(mut self, new: Objective) -> Self {
        if let Kind::Loss { objective, .. } = &mut self.kind {
            *objective = new;
        }
        self
    }

    /// `zero-shot`, `retrieval` or `loss`.
    pub fn task(&self) -> &'static str {
        match self.kind {
            Kind::ZeroShot { .. } => Task::ZeroShot,
            Kind::Retrieval(_) => Task::Retrieval,
            Kind::Loss { .. } => Task::Loss,
        }
        .name()
    }

    /// [`Evaluation::run`] as a line of the log, of a model that has seen `step` updates.
    ///
    /// # Errors
    /// As [`Evaluation::run`].
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

    /// Whether it is due after `step` updates.
    pub fn is_due(&self, step: u64, steps_per_epoch: u64, total_steps: u64) -> bool {
        step == total_steps
            || match self.interval {
                EvalInterval::Steps(steps) => step.is_multiple_of(steps.max(1)),
                EvalInterval::Epochs(epochs) => step.is_multiple_of((epochs * steps_per_epoch).max(1)),
                EvalInterval::End => false,
            }
    }

    /// The images it looks at.
    pub fn images(&self) -> Arc<dyn ImageList> {
        match &self.kind {
            Kind::ZeroShot { images, .. } => Arc::clone(images) as Arc<dyn ImageList>,
            Kind::Retrieval(dataset) | Kind::Loss { dataset, .. } => Arc::clone(dataset) as Arc<dyn ImageList>,
        }
    }

    /// The texts it encodes: prompts or captions.
    pub fn texts(&self) -> Vec<String> {
        match &self.kind {
            Kind::ZeroShot { classes, templates, .. } => prompts(classes, templates),
            Kind::Retrieval(dataset) | Kind::Loss { dataset, .. } => {
                dataset.captions.iter().map(|caption| caption.text.clone()).collect()
            }
        }
    }

    /// Its figures for the model of `encoder`.
    ///
    /// # Errors
    /// When images or texts cannot be read, or none can be used.
    pub fn run(
        &self,
        encoder: &Encoder<'_>,
        processor: &Arc<ImageProcessor>,
        observer: &mut dyn Observer,
    ) -> Result<Map<String, Value>, TrainError> {
        let total = self.images().images().len();
        let name = format!("{}: images", self.name);
        let (usable, image_embeds, bad) = encoder.images(self.images(), processor, |done| {
            observer.on(Event::Work { name: &name, done, total });
        })?;
        for skipped in &bad {
            observer.on(Event::Skipped(skipped));
        }
        if usable.is_empty() {
            return Err(TrainError::Usage(format!("evaluation `{}`: none of {total} images can be used", self.name)));
        }
        match &self.kind {
            Kind::ZeroShot { labels, classes, templates, .. } => {
                let prompts = prompts(classes, templates);
                let name = format!("{}: prompts", self.name);
                let texts = encoder.texts(&prompts, |done| {
                    observer.on(Event::Work { name: &name, done, total: prompts.len() });
                })?;
                let weights = classifier(&texts.normalized(), templates.len(), texts.dim);
                let scores = Scores::new(&image_embeds, weights, encoder);
                let mut all = Vec::with_capacity(usable.len() * classes.len());
                for block in blocks(usable.len(), classes.len()) {
                    all.extend(scores.of_rows(block)?);
                }
                let labels: Vec<usize> = usable.iter().map(|&image| labels[image]).collect();
                Ok(figures(&all, &labels, classes.len()))
            }
            Kind::Retrieval(dataset) => {
                let captions = self.captions(dataset, &usable, encoder, observer)?;
                let (text_embeds, image_of_text) = (captions.embeds, captions.image_rows);
                let num_texts = image_of_text.len();
                let by_text = Scores::new(&text_embeds, image_embeds.normalized(), encoder);
                let mut ranks = RetrievalRanks::new(image_of_text, usable.len());
                for block in blocks(num_texts, usable.len()) {
                    ranks.add_texts(&by_text.of_rows(block)?);
                }
                let by_image = Scores::new(&image_embeds, text_embeds.normalized(), encoder);
                let block = SCORES_AT_ONCE / num_texts.max(1);
                ranks.figures(|images| by_image.of_rows(images), block)
            }
            Kind::Loss { dataset, pool_size, objective } => {
                let captions = self.captions(dataset, &usable, encoder, observer)?;
                too_few(&self.name, captions.numbers.len(), *pool_size)?;
                let pools = Pools::new(&captions.numbers, *pool_size);
                let dim = image_embeds.dim;
                let (images, texts) = (image_embeds.normalized(), captions.embeds.normalized());
                let row_of = |caption: usize| captions.numbers.partition_point(|&number| number < caption);
                let image_row = |image: usize| &images[usable.partition_point(|&other| other < image) * dim..][..dim];
                let text_row = |caption: usize| &texts[row_of(caption) * dim..][..dim];
                pools.map_or_else(
                    || Ok(Map::new()),
                    |pools| pools.figures(encoder.model, *objective, dataset, image_row, text_row),
                )
            }
        }
    }

    /// The captions of `dataset` whose images are `usable`.
    fn captions(
        &self,
        dataset: &Dataset,
        usable: &[usize],
        encoder: &Encoder<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Captions, TrainError> {
        let mut position = vec![None; dataset.images.len()];
        usable.iter().enumerate().for_each(|(row, &image)| position[image] = Some(row));
        let asked = dataset.captions.iter().enumerate();
        let asked = asked.filter_map(|(number, caption)| Some((number, position[caption.image]?)));
        let (numbers, image_rows): (Vec<usize>, Vec<usize>) = asked.unzip();
        let texts: Vec<&str> = numbers.iter().map(|&number| dataset.captions[number].text.as_str()).collect();
        let name = format!("{}: captions", self.name);
        let embeds = encoder.texts(&texts, |done| {
            observer.on(Event::Work { name: &name, done, total: texts.len() });
        })?;
        Ok(Captions { numbers, image_rows, embeds })
    }
}

/// Captions whose images can be used.
struct Captions {
    /// Their numbers in the data set, rising.
    numbers: Vec<usize>,
    /// The row of each one's image.
    image_rows: Vec<usize>,
    embeds: Embeddings,
}

/// Refuses pools that are larger than all there is.
fn too_few(name: &str, num_pairs: usize, pool_size: usize) -> Result<(), TrainError> {
    match num_pairs < pool_size {
        false => Ok(()),
        true => Err(TrainError::Usage(format!(
            "evaluation `{name}`: {num_pairs} pairs do not fill one pool of {pool_size}; set `pool_size` to at most \
             {num_pairs}, or add data"
        ))),
    }
}

impl Kind {
    fn zero_shot(images: &Path, classnames: Option<&Path>, templates: Option<&Path>) -> Result<Self, TrainError> {
        let folder = class_folder(images)?;
        let classes = match classnames {
            None => folder.classes,
            Some(path) => {
                let names = read_lines(path)?;
                if names.len() != folder.classes.len() {
                    return Err(TrainError::Usage(format!(
                        "`{}` has {} class names, but `{}` has {} class folders; expected one name a line, in the sorted \
                         order of the folders",
                        path.display(),
                        names.len(),
                        images.display(),
                        folder.classes.len()
                    )));
                }
                names
            }
        };
        let templates = match templates {
            None => vec![BARE_TEMPLATE.to_owned()],
            Some(path) => {
                let templates = read_lines(path)?;
                if let Some(wrong) = templates.iter().find(|template| !template.contains(BARE_TEMPLATE)) {
                    return Err(TrainError::Usage(format!(
                        "`{}`: the template `{wrong}` has no `{{c}}` where the class name goes",
                        path.display()
                    )));
                }
                templates
            }
        };
        let (images, labels) = folder.images.into_iter().unzip();
        Ok(Self::ZeroShot { images: Arc::new(images), labels, classes, templates })
    }
}

/// Ranges that cover `rows`, each with about [`SCORES_AT_ONCE`] scores of `columns` a row.
fn blocks(rows: usize, columns: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let size = (SCORES_AT_ONCE / columns.max(1)).max(1);
    (0..rows).step_by(size).map(move |start| start..(start + size).min(rows))
}

/// Cosines of some rows with all columns.
struct Scores {
    rows: Vec<f32>,
    /// `[dim, columns]`
    columns: Tensor<2>,
    dim: usize,
}

impl Scores {
    /// `columns` `[columns, dim]` are normalised.
    fn new(rows: &Embeddings, columns: Vec<f32>, encoder: &Encoder<'_>) -> Self {
        let dim = rows.dim;
        let mut normalized = rows.features.clone();
        normalize_rows(&mut normalized, dim);
        let count = columns.len() / dim.max(1);
        let columns = Tensor::<2>::from_data(TensorData::new(columns, [count, dim]), &encoder.compute.device);
        Self { rows: normalized, columns: columns.transpose(), dim }
    }

    /// `[rows in block, columns]`, flat.
    fn of_rows(&self, block: std::ops::Range<usize>) -> Result<Vec<f32>, TrainError> {
        let values = self.rows[block.start * self.dim..block.end * self.dim].to_vec();
        let rows = Tensor::<2>::from_data(TensorData::new(values, [block.len(), self.dim]), &self.columns.device());
        Ok(parameters::host(rows.matmul(self.columns.clone()))?.values)
    }
}
