//! A selection of the training images, stage by stage.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use dualenc_data::{CLASS_PLACEHOLDER, ContentId, DataError, Dataset, read_text_rows};

use crate::commands::select::classes::{by_class, class_counts};
use crate::commands::select::clusters::{Clustering, capped, sizes};
use crate::commands::select::images::{Rows, Towers, caption_scores, centre, mean};
use crate::commands::select::lists;
use crate::commands::select::near::Comparison;
use crate::commands::select::request::{ClassCount, ClassQuota, ScoreSummary, SelectRequest, Selected};
use crate::commands::select::selection::{Selection, gather};
use crate::commands::staged_output::{check_output_file, refuse_existing};
use crate::config::RunConfig;
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::evaluation::Evaluation;
use crate::eval::metrics::scores::{Scores, TILE_SCORES};
use crate::eval::metrics::top::Top;
use crate::eval::metrics::zero_shot::{classifier, prompts};
use crate::events::{Event, Observer};
use crate::features::absent::check_dataset;
use crate::features::image_index::ImageList;
use crate::features::locked_towers::check_cache_dir;
use crate::models::load::{LoadedModel, WithoutNotes};
use crate::pairs::Pairs;
use crate::stop_flag::StopFlag;

/// Percentiles of the scores that are reported.
const PERCENTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

/// Selects training images of `config` and writes the lists.
///
/// # Errors
/// [`TrainError::Usage`] when the request asks for nothing, for scores without a model, or leaves no image, or when a
/// list exists already;
/// [`TrainError::Data`], [`TrainError::Model`] or [`TrainError::Hub`] when data, towers or evaluations cannot be read;
/// [`TrainError::NotFiniteOutput`] when a tower computes NaN or an infinity; [`TrainError::Write`];
/// [`TrainError::Stopped`] when `stop` is set.
pub fn select(
    request: &SelectRequest<'_>,
    config: &RunConfig,
    compute: &Compute,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Selected, TrainError> {
    check(request)?;
    let keys: Vec<String> = config.data.train.tables().into_iter().map(|(key, _)| key).collect();
    // A list may be what a run trains on, or have taken hours.
    (0..keys.len()).try_for_each(|number| refuse_existing(&lists::path_of(&request.out, number, keys.len())))?;
    check_cache_dir(config)?;
    let earlier = request.union.map(earlier_list).transpose()?;
    let Pairs { train: dataset, validation } = Pairs::read(config)?;
    let evaluations =
        if request.keep_overlap { Vec::new() } else { Evaluation::open_all(config, validation.as_ref())? };
    let towers =
        Towers::new(LoadedModel::from_config(config, compute, &mut WithoutNotes(observer))?, config, compute, stop)?;
    let rows = towers.features(Arc::clone(&dataset) as Arc<dyn ImageList>, observer)?;
    for image in &rows.bad {
        observer.on(Event::Skipped { image, of: "the training data", listed_in: None });
    }
    let evaluated =
        evaluations.iter().map(|it| towers.features(it.images(), observer)).collect::<Result<Vec<Rows>, _>>()?;
    let work = Work { request, compute, stop, dataset: &dataset };
    let aligned = match request.model {
        Some(model) => Some(work.embed(model, config, &rows, observer)?),
        None => None,
    };
    let scores = aligned.as_ref().map(|aligned| aligned.scores.clone());
    let scores_of_all = scores.as_deref().map(summary);

    let mut selection = Selection::new(&dataset, &rows, scores);
    let all: Vec<usize> = (0..rows.images.len()).collect();
    let contents: HashSet<ContentId> = evaluated.iter().flat_map(|rows| &rows.contents).copied().collect();
    let overlap: Vec<bool> = rows.contents.iter().map(|content| contents.contains(content)).collect();
    selection.leave_out("overlap", &all, &overlap);
    let looks = Looks::of(&rows, towers.width);
    if let Some(near) = request.near {
        work.leave_out_near(near, &looks, &evaluated, &mut selection, observer)?;
    }
    work.leave_out_by_score(&mut selection);
    let classes = match (&request.classes, &aligned) {
        (Some(quota), Some(aligned)) => work.take_by_class(quota, aligned, &mut selection, observer)?,
        _ => Vec::new(),
    };
    let cluster_sizes = work.limit_clusters(config.run.seed, &looks, &mut selection, observer)?;
    let added = earlier.as_ref().map_or(0, |names| selection.add(&names.iter().map(String::as_str).collect()));

    let selected = selection.taken.iter().filter(|&&taken| taken).count();
    if selected == 0 {
        let stages = selection.left_out.iter().filter(|it| it.images > 0);
        let stages: Vec<String> = stages.map(|it| format!("{} since {}", it.images, it.reason())).collect();
        return Err(TrainError::Usage(format!(
            "no image is left: of {}, {} cannot be used, and these are left out: {}; nothing was written, ask for more \
             images",
            dataset.num_images(),
            rows.bad.len(),
            stages.join(", ")
        )));
    }
    let threshold = selection.scores.iter().flatten().zip(&selection.taken).filter(|(_, taken)| **taken);
    let threshold = threshold.map(|(score, _)| *score).min_by(f32::total_cmp);
    let lists = lists::write(&request.out, &keys, &dataset, &selection.of_images(), validation.as_deref())?;
    Ok(Selected {
        images: dataset.num_images(),
        selected,
        held_out: validation.map_or(0, |validation| validation.num_images()),
        unreadable: rows.bad.len(),
        left_out: selection.left_out,
        added,
        scores: scores_of_all.map(|scores| ScoreSummary { threshold, ..scores }),
        classes,
        cluster_sizes,
        lists,
    })
}

/// Refuses requests that cannot be met, before anything is computed.
fn check(request: &SelectRequest<'_>) -> Result<(), TrainError> {
    let refuse = |problem: &str| Err(TrainError::Usage(problem.to_owned()));
    let by_score = request.min_score.is_some() || request.keep.is_some();
    if !by_score && request.near.is_none() && request.classes.is_none() && request.clusters.is_none() {
        return refuse(
            "there is nothing to select by; give `--near`, `--keep`, `--min-score`, `--per-class` or `--clusters`",
        );
    }
    if request.model.is_none() && (by_score || request.classes.is_some()) {
        return refuse(
            "images are scored by an aligned model, and none is given; add `--model`: a run, or a CLIP or SigLIP model",
        );
    }
    if request.classes.as_ref().is_some_and(|quota| quota.per_class == 0 || quota.names.is_empty()) {
        return refuse("`--per-class` takes no image for no class; give at least 1, and `--classnames` with a name");
    }
    if request.clusters.is_some_and(|limit| limit.clusters < 2 || limit.cap == 0) {
        return refuse("`--clusters` needs at least 2 clusters, and `--cap` at least 1 image of each");
    }
    check_output_file(&request.out)
}

/// The names in a list that a selection wrote.
fn earlier_list(path: &Path) -> Result<Vec<String>, TrainError> {
    let lines = read_text_rows(path).map_err(DataError::of_key("--union"))?;
    match lines.split_first() {
        Some((first, names)) if first == lists::FIRST_LINE => Ok(names.to_vec()),
        _ => Err(TrainError::Usage(format!(
            "`{}` is no list of `dualenc select`: its first line is not `{}`",
            path.display(),
            lists::FIRST_LINE
        ))),
    }
}

/// Centred features of the training images, for comparisons among them.
struct Looks {
    width: usize,
    mean: Vec<f32>,
    /// `[rows, width]`, flat.
    values: Vec<f32>,
}

impl Looks {
    fn of(rows: &Rows, width: usize) -> Self {
        let mut looks = Self { width, mean: mean(&rows.values, width), values: Vec::new() };
        looks.values = looks.centred(rows);
        looks
    }

    fn centred(&self, rows: &Rows) -> Vec<f32> {
        let mut values = rows.values.clone();
        centre(&mut values, &self.mean);
        values
    }
}

/// What an aligned model says of the training images.
struct Aligned {
    towers: Towers,
    dim: usize,
    /// `[rows, dim]`, flat, L2-normalised.
    embeds: Vec<f32>,
    scores: Vec<f32>,
}

/// What every stage needs.
struct Work<'a> {
    request: &'a SelectRequest<'a>,
    compute: &'a Compute,
    stop: &'a StopFlag,
    dataset: &'a Arc<Dataset>,
}

impl Work<'_> {
    fn embed(
        &self,
        model: &Path,
        config: &RunConfig,
        rows: &Rows,
        observer: &mut dyn Observer,
    ) -> Result<Aligned, TrainError> {
        let loaded = LoadedModel::from_dir(model, self.compute, observer)?;
        check_dataset(self.dataset, &loaded.model, "the training data")?;
        let towers = Towers::new(loaded, config, self.compute, self.stop)?;
        let list = Arc::clone(self.dataset) as Arc<dyn ImageList>;
        let run = (self.compute, self.stop, self.request.batch_size);
        let (images, embeds) = towers.embeds(list, run, observer)?;
        if images != rows.images {
            return Err(TrainError::Usage(format!(
                "{} training images can be used by the towers of the config, but {} by `{}`: images changed \
                 meanwhile, or the limits of pixels differ; run it again",
                rows.images.len(),
                images.len(),
                model.display()
            )));
        }
        let encoder = towers.encoder(self.compute, self.stop, self.request.batch_size);
        let scores = caption_scores(self.dataset, (&images, &embeds), &encoder, observer)?;
        let dim = towers.loaded.model.embed_dim();
        Ok(Aligned { towers, dim, embeds, scores })
    }

    /// Leaves out what looks like an image of an evaluation, then what looks like a better or earlier image.
    fn leave_out_near(
        &self,
        near: f64,
        looks: &Looks,
        evaluated: &[Rows],
        selection: &mut Selection<'_>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let comparison =
            Comparison { width: looks.width, device: &self.compute.device, stop: self.stop, near: near as f32 };
        let mut like_evaluated = vec![false; selection.taken.len()];
        for rows in evaluated {
            let found = comparison.near_any(&looks.values, &looks.centred(rows))?;
            like_evaluated.iter_mut().zip(found).for_each(|(any, found)| *any |= found);
        }
        let all: Vec<usize> = (0..selection.taken.len()).collect();
        selection.leave_out("near_evaluation", &all, &like_evaluated);
        let order = selection.best_first();
        let found = comparison.near_earlier(&gather(&looks.values, &order, looks.width), observer)?;
        selection.leave_out("near", &order, &found);
        Ok(())
    }

    fn leave_out_by_score(&self, selection: &mut Selection<'_>) {
        let Some(scores) = selection.scores.clone() else { return };
        let order = selection.best_first();
        let most = self.request.keep.map_or(order.len(), |keep| (keep * order.len() as f64).round() as usize);
        let least = self.request.min_score.map_or(f32::NEG_INFINITY, |score| score as f32);
        if self.request.keep.is_some() || self.request.min_score.is_some() {
            let out: Vec<bool> = order.iter().enumerate().map(|(at, &row)| at >= most || scores[row] < least).collect();
            selection.leave_out("score", &order, &out);
        }
    }

    fn take_by_class(
        &self,
        quota: &ClassQuota,
        aligned: &Aligned,
        selection: &mut Selection<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<ClassCount>, TrainError> {
        let dim = aligned.dim;
        let whole = [CLASS_PLACEHOLDER.to_owned()];
        let templates = if quota.templates.is_empty() { &whole[..] } else { &quota.templates };
        let texts = prompts(&quota.names, templates);
        let encoder = aligned.towers.encoder(self.compute, self.stop, self.request.batch_size);
        let texts = encoder.texts(&texts, |_| {})?.into_normalized();
        encoder.report_cut("prompt", observer);
        let prototypes = classifier(&texts, &vec![templates.len(); quota.names.len()], dim);
        let order = selection.best_first();
        let embeds = gather(&aligned.embeds, &order, dim);
        let scores = Scores {
            rows: &embeds,
            columns: &prototypes,
            dim,
            device: &self.compute.device,
            stop: self.stop,
            tile: TILE_SCORES,
        };
        let nearest = Top::of(&scores, 1, 1.0)?;
        let mut supply = vec![0; quota.names.len()];
        (0..nearest.len()).for_each(|row| supply[nearest.row(row)[0].column] += 1);
        let total = quota.names.len();
        let found = by_class(&embeds, &prototypes, &supply, (dim, quota.per_class), |done| {
            observer.on(Event::Work { name: "classes", done, total });
        });
        let out: Vec<bool> = found.taken.iter().map(|&taken| !taken).collect();
        selection.leave_out("classes", &order, &out);
        Ok(class_counts(&quota.names, &found.counts, &supply))
    }

    fn limit_clusters(
        &self,
        seed: u64,
        looks: &Looks,
        selection: &mut Selection<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<usize>, TrainError> {
        let Some(limit) = self.request.clusters else { return Ok(Vec::new()) };
        let order: Vec<usize> = (0..selection.taken.len()).filter(|&row| selection.taken[row]).collect();
        if limit.clusters > order.len() {
            observer.on(Event::Warning(format!(
                "{} clusters are asked for, but only {} left to group: each is a cluster of its own",
                limit.clusters,
                if order.len() == 1 { "1 image is".to_owned() } else { format!("{} images are", order.len()) }
            )));
        }
        let clustering = Clustering { width: looks.width, device: &self.compute.device, stop: self.stop, seed };
        let assigned = clustering.assign(&gather(&looks.values, &order, looks.width), limit.clusters, observer)?;
        let scores = selection.scores.as_ref().map(|scores| gather(scores, &order, 1));
        let out: Vec<bool> =
            capped(&assigned, scores.as_deref(), limit.cap, seed).into_iter().map(|kept| !kept).collect();
        selection.leave_out("clusters", &order, &out);
        Ok(sizes(&assigned))
    }
}

/// Mean and percentiles of scores; the threshold comes later.
fn summary(scores: &[f32]) -> ScoreSummary {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f32::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    let percentile = |share: f64| sorted.get((share * last).round() as usize).copied().unwrap_or(f32::NAN);
    let mean = scores.iter().map(|&score| f64::from(score)).sum::<f64>() / scores.len().max(1) as f64;
    ScoreSummary { mean, percentiles: PERCENTILES.map(percentile), threshold: None }
}
