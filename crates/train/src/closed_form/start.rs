//! Fits the heads of a run before its first step.

use std::time::Instant;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use dualenc_data::counted;
use dualenc_kernels::is_remote;
use dualenc_model::{Head, LinearPart, parameters};

use crate::closed_form::canonical::{Method, Solution};
use crate::closed_form::fit_report::{Candidate, FitReport, HeldOutReport};
use crate::closed_form::head_map::{HeadMap, HeadMaps};
use crate::closed_form::held_out::HeldOut;
use crate::closed_form::moments::{Block, Covariances, Moments, Shift};
use crate::closed_form::paired_features::{BLOCK_IMAGES, BLOCK_TEXTS, NamedBlock, PairedFeatures};
use crate::closed_form::span::Spans;
use crate::closed_form::split::{Split, SplitImage};
use crate::closed_form::temperature::Pools;
use crate::config::{FitSection, HeadInit};
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::features::image_index::{ImageSet, Views};
use crate::features::images::ImageFeatures;
use crate::features::locked_towers::{LockedFingerprints, LockedTowers, feature_cache_of};
use crate::features::texts::TextFeatures;
use crate::stop_flag::StopFlag;
use crate::training::run::Run;

/// Ridges that are tried: two decades around the 1e-3 to 1e-2 that suit 10,000 to 100,000 pairs.
const RIDGES: [f64; 4] = [1e-1, 1e-2, 1e-3, 1e-4];

/// Powers that are tried: 0 is plain CCA, 1/2 that of CSA (arXiv:2410.07610).
const POWERS: [f64; 5] = [1.0, 0.5, 1.5, 0.0, 2.0];

/// Ridge and power without a choice: few pairs want more of the ridge.
const USUAL: (f64, f64) = (1e-1, 1.0);

/// The towers of a run before its first step, as if both were locked.
struct Towers {
    images: ImageFeatures,
    set: ImageSet,
    texts: TextFeatures,
}

/// Moments and held-out pairs of one pass over the data.
struct Gathered {
    /// Of the pairs that are not held out, and of those that are.
    moments: [Moments; 2],
    spans: Spans,
    held_out: HeldOut,
    /// Moments and pairs of those that are held out for the temperature; `None`: `held_out` serves for it.
    for_temperature: Option<(Moments, HeldOut)>,
    images: usize,
    captions_apart: bool,
}

impl Gathered {
    /// Of all pairs.
    fn all(&self) -> Moments {
        let [fitted, held] = &self.moments;
        let all = fitted.clone().with(held);
        match &self.for_temperature {
            Some((temperature, _)) => all.with(temperature),
            None => all,
        }
    }
}

/// What does not change between the fits of a run.
struct Fitting<'a> {
    method: Method,
    dim: usize,
    has_bias: [bool; 2],
    seed: u64,
    spans: &'a Spans,
    device: &'a Device,
    stop: &'a StopFlag,
}

/// The seconds of each part.
struct Clock {
    started: Instant,
    parts: Vec<(&'static str, f64)>,
}

impl Clock {
    fn lap(&mut self, part: &'static str) {
        self.parts.push((part, self.started.elapsed().as_secs_f64()));
        self.started = Instant::now();
    }
}

impl Run {
    /// Fits the heads to the features of all training pairs, where `model.head_init` asks for it, and sets
    /// `logit_scale` and `logit_bias`.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when the features do not allow a fit; those of computing features; [`TrainError::Stopped`]
    /// when the stop flag is set.
    pub(crate) fn fit_heads(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let method = match self.config.model.head_init {
            HeadInit::Random => return Ok(()),
            HeadInit::Cca => Method::Cca,
            HeadInit::Ridge => Method::Ridge,
        };
        if self.learner.model.image_tokens.is_some() {
            return Err(TrainError::Usage(
                "a fit (`dualenc fit`, `model.head_init`) gives linear maps of features, but the image head of this \
                 model takes all tokens (`model.image_head.tokens`); start from the two towers, or train without a fit"
                    .to_owned(),
            ));
        }
        let mut clock = Clock { started: Instant::now(), parts: Vec::new() };
        let towers = self.towers_before_training()?;
        self.fill_image_features(&towers.images, &towers.set, observer)?;
        clock.lap("image features");
        let model = &self.learner.model;
        let (dim, device, stop) = (model.embed_dim(), model.device(), self.stop.clone());
        let mut old = [model.image_projection.clone(), model.text_projection.clone()];
        let [image, text] = &mut old;
        let parts = [linear_part(image)?, linear_part(text)?];
        let widths = parts.each_ref().map(|part| part.weight.val().dims()[0]);
        observer.on(Event::Note(format!(
            "fitting the heads in closed form to {} values of each image and {} of each text",
            widths[0], widths[1]
        )));
        let gathered = self.gather(&towers, &parts, observer)?;
        clock.lap("text features and covariances");
        let has_bias = parts.each_ref().map(|part| part.bias.is_some());
        let seed = self.config.run.seed;
        let spans = &gathered.spans;
        let fitting = Fitting { method, dim, has_bias, seed, spans, device: &device, stop: &stop };
        let fit = &self.config.fit;
        let (ridges, powers) = tried(method, fit);
        let (held_out, heads) = fitting.choose(&gathered, &ridges, &powers)?.unzip();
        if held_out.is_some() {
            clock.lap(match (ridges.len(), powers.len()) {
                (1, 1) => "recall of held-out pairs",
                (1, _) => "choice of power",
                (_, 1) => "choice of ridge",
                _ => "choice of ridge and power",
            });
        }
        let (ridge, power) = held_out.as_ref().map_or_else(
            || (fit.ridge.unwrap_or(USUAL.0), fit.power.unwrap_or(USUAL.1)),
            |chosen: &HeldOutReport| (chosen.best().ridge, chosen.best().power),
        );
        let max = self.config.train.logit_scale_max;
        let (mut logit_scale, mut logit_bias, mut scale_images) = (self.learner.logit_scale()?, None, 0);
        if let Some(heads) = heads {
            let (heads, held_out) = fitting.for_temperature(&gathered, heads, (ridge, power))?;
            let embeds = held_out.embed([&heads[0], &heads[1]], dim, &device)?;
            if let Some(pools) = Pools::of(held_out, &embeds) {
                scale_images = held_out.num_images;
                if self.learner.model.logit_bias.is_some() {
                    let (scale, bias) = pools.sigmoid_scale_and_bias(max);
                    (logit_scale, logit_bias) = (scale, Some(bias));
                } else {
                    logit_scale = pools.softmax_scale(max);
                }
            }
        }
        clock.lap("temperature");
        let all = gathered.all();
        let covariances = fitting.covariances(&all);
        let solution = fitting.solve(&covariances, ridge)?;
        let heads = fitting.heads(&covariances, &solution, power);
        self.set_heads(heads, (logit_scale, logit_bias), dim, &device, observer)?;
        clock.lap("final fit");
        let directions = solution.strengths.len();
        let widths = covariances.widths;
        let (correlations, covariances) = match method {
            Method::Cca => (solution.strengths, Vec::new()),
            Method::Ridge => (Vec::new(), solution.strengths),
        };
        let report = FitReport {
            method: method.name(),
            images: gathered.images,
            pairs: all.pairs,
            distinct: spans.distinct(),
            widths,
            embed_dim: dim,
            directions,
            ridge,
            power,
            logit_scale,
            logit_bias,
            scale_images,
            held_out,
            correlations,
            covariances,
            seconds: clock.parts,
        };
        report_fit(&report, observer);
        if let Some(records) = &mut self.records {
            records.log_fit(&report.record(), observer)?;
        }
        self.fitted = Some(report);
        Ok(())
    }

    /// The features of both towers as they are now, whether they train later or not.
    fn towers_before_training(&self) -> Result<Towers, TrainError> {
        let model = parameters::lock(self.learner.model.clone().with_adapters_merged());
        let towers = LockedTowers::new(&model, &self.data.processor, &self.compute, self.data.workers, &self.stop)
            .with_cache(feature_cache_of(&self.config), &LockedFingerprints::of(&model)?)?;
        // A tower that the run locks has its cache open already.
        let LockedTowers { images, texts } = self.locked.towers.clone();
        let lost = || TrainError::Internal("a locked model has a tower that trains".to_owned());
        let images = images.or(towers.images).ok_or_else(lost)?;
        let set = images.set(self.data.dataset.clone(), Views::One);
        Ok(Towers { set, images, texts: texts.or(towers.texts).ok_or_else(lost)? })
    }

    /// One pass over all pairs.
    fn gather(
        &self,
        towers: &Towers,
        [image, text]: &[LinearPart<'_>; 2],
        observer: &mut dyn Observer,
    ) -> Result<Gathered, TrainError> {
        let (dataset, device) = (&self.data.dataset, self.learner.model.device());
        let usable = towers.set.usable();
        let describe = |&image: &usize| SplitImage {
            content: towers.set.content(image),
            captions: dataset.captions_of(image).iter().map(|&it| dataset.caption_id(it as usize)).collect(),
        };
        let split = Split::of(&usable.iter().map(describe).collect::<Vec<_>>());
        let is_held_out = |place: usize| split.as_ref().is_some_and(|split| split.is_held_out[place]);
        let features = PairedFeatures {
            dataset,
            captions: self.config.data.captions,
            images: &towers.images,
            set: &towers.set,
            texts: &towers.texts,
            tokenizer: &self.data.tokenizer,
            inputs: [&|features| image.input(features).without_autodiff(), &|features| {
                text.input(features).without_autodiff()
            }],
            reads_ahead: !is_remote(&device) && rayon::current_thread_index().is_none(),
            stop: &self.stop,
        };
        let distinct = features.distinct(&usable);
        check_distinct(distinct)?;
        let for_temperature = split.as_ref().and_then(|split| split.for_temperature.as_ref());
        let is_for_temperature = |place: usize| for_temperature.is_some_and(|held_out| held_out[place]);
        let is_fitted = |place: usize| !is_held_out(place) && !is_for_temperature(place);
        let (mut moments, mut pairs) = (None::<(Shift, Spans, [Moments; 2])>, [HeldOut::default(), HeldOut::default()]);
        let mut of_temperature: Option<Moments> = None;
        // Few images of a block are held out: their products wait until they or their texts fill a block.
        let mut held_out_blocks = [Block::empty(), Block::empty()];
        features.for_each(&usable, |NamedBlock { block, images, captions }| {
            let (shift, spans, [fitted, held]) = moments.get_or_insert_with(|| {
                let shift = Shift::of(&block, images.len());
                let (spans, new) = (Spans::new(distinct, &shift), Moments::new(shift.clone()));
                of_temperature = for_temperature.map(|_| new.clone());
                (shift, spans, [new.clone(), new])
            });
            spans.add(&block, shift);
            fitted.add(&block, |row| is_fitted(images[row]), &device)?;
            let is_last = images.last().is_some_and(|last| last + 1 == usable.len());
            let mut add = |number: usize, moments: &mut Moments, is_in: &dyn Fn(usize) -> bool| {
                let apart = &mut held_out_blocks[number];
                let count = apart.append(&block, images.len(), |row| is_in(images[row]));
                if count < BLOCK_IMAGES && apart.pairs.len() < BLOCK_TEXTS && !is_last {
                    return Ok(());
                }
                moments.add(&std::mem::replace(apart, Block::empty()), |_| true, &device)
            };
            add(0, held, &is_held_out)?;
            if let Some(moments) = &mut of_temperature {
                add(1, moments, &is_for_temperature)?;
            }
            let id = |caption| dataset.caption_id(caption);
            pairs[0].add(&block, &captions, |row| is_held_out(images[row]), id);
            pairs[1].add(&block, &captions, |row| is_for_temperature(images[row]), id);
            let done = images.last().map_or(0, |last| last + 1);
            observer.on(Event::Work { name: "pairs of the fit", done, total: usable.len() });
            Ok(())
        })?;
        let (_, spans, moments) = moments.ok_or_else(|| {
            TrainError::Usage("no training image can be used, so nothing can be fitted; look at the data".to_owned())
        })?;
        let captions_apart = split.is_none_or(|split| split.captions_apart);
        let [held_out, others] = pairs;
        let for_temperature = of_temperature.map(|moments| (moments, others));
        Ok(Gathered { moments, spans, held_out, for_temperature, images: usable.len(), captions_apart })
    }

    /// Puts fitted heads into the model.
    fn set_heads(
        &mut self,
        heads: [HeadMap; 2],
        (logit_scale, logit_bias): (f64, Option<f64>),
        dim: usize,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let model = &mut self.learner.model;
        let old = [("image", &mut model.image_projection), ("text", &mut model.text_projection)];
        for ((side, head), map) in old.into_iter().zip(heads) {
            if head.clear_residual()? {
                observer.on(Event::Note(format!(
                    "the {side} head of `model.init` had learned what its linear map lacks; the fit gives it another \
                     map, so this starts at 0 again"
                )));
            }
            let width = map.weight.len() / dim;
            let weight = Tensor::<2>::from_data(TensorData::new(map.weight, [width, dim]), device);
            let part = linear_part(head)?;
            *part.weight = Param::from_tensor(weight.autodiff().require_grad());
            if let Some(bias) = part.bias {
                let value = Tensor::<1>::from_data(TensorData::new(map.bias, [dim]), device);
                *bias = Param::from_tensor(value.autodiff().require_grad());
            }
        }
        model.logit_scale = parameters::scalar(logit_scale, device);
        if let (Some(bias), Some(value)) = (&mut model.logit_bias, logit_bias) {
            *bias = parameters::scalar(value, device);
        }
        Ok(())
    }
}

/// Refuses pairs that do not differ on one side.
///
/// # Errors
/// [`TrainError::Usage`].
fn check_distinct([images, texts]: [usize; 2]) -> Result<(), TrainError> {
    let [what, other] = match (images, texts) {
        (1, _) => ["image", "images"],
        (_, 1) => ["text", "captions"],
        _ => return Ok(()),
    };
    Err(TrainError::Usage(format!(
        "a fit (`dualenc fit`, `model.head_init`) goes by what differs between pairs, but the training data have only \
         one distinct {what}, so there is nothing to fit; add {other} that differ, or train without a fit"
    )))
}

/// Ridges and powers that are tried.
pub(crate) fn tried(method: Method, fit: &FitSection) -> (Vec<f64>, Vec<f64>) {
    let ridges = fit.ridge.map_or(RIDGES.to_vec(), |ridge| vec![ridge]);
    let powers = match (method, fit.power) {
        (Method::Ridge, _) => vec![1.0],
        (Method::Cca, Some(power)) => vec![power],
        (Method::Cca, None) => POWERS.to_vec(),
    };
    (ridges, powers)
}

/// The linear map of a head.
///
/// # Errors
/// [`TrainError::Usage`] when it has none, as that of `model.init` may.
fn linear_part(head: &mut Head) -> Result<LinearPart<'_>, TrainError> {
    let form = head.form();
    let without = || {
        TrainError::Usage(format!(
            "a fit (`dualenc fit`, `model.head_init`) gives linear maps of features, but a head of this model is \
             `{form}`, without such a map; start from the two towers, set `kind` of the head to `linear` or \
             `residual`, or train without a fit"
        ))
    };
    head.linear_part().ok_or_else(without)
}

impl Fitting<'_> {
    /// In the spans.
    fn covariances(&self, moments: &Moments) -> Covariances {
        self.spans.reduced(moments.covariances()).beside_means(self.has_bias.map(|has_bias| !has_bias))
    }

    fn solve(&self, covariances: &Covariances, ridge: f64) -> Result<Solution, TrainError> {
        covariances.solve(self.method, ridge, self.dim.min(self.spans.most_directions()))
    }

    fn heads(&self, covariances: &Covariances, solution: &Solution, power: f64) -> [HeadMap; 2] {
        let Self { dim, has_bias, seed, spans, .. } = *self;
        let maps = HeadMaps { covariances, solution, spans, power, dim, has_bias, seed };
        [0, 1].map(|side| maps.of(side))
    }

    /// Tries every ridge with every power on the pairs that are held out; returns the figures and the heads of the best
    /// one, which are not fitted to these pairs. Of equally good ones, the first is the best. `None`: no pair is held
    /// out.
    fn choose(
        &self,
        gathered: &Gathered,
        ridges: &[f64],
        powers: &[f64],
    ) -> Result<Option<(HeldOutReport, [HeadMap; 2])>, TrainError> {
        let Gathered { moments: [fitted, _], for_temperature, held_out, captions_apart, .. } = gathered;
        if held_out.num_images == 0 {
            return Ok(None);
        }
        let answers = held_out.right_answers();
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut best: Option<(usize, [HeadMap; 2])> = None;
        let covariances = match for_temperature {
            Some((temperature, _)) => self.covariances(&fitted.clone().with(temperature)),
            None => self.covariances(fitted),
        };
        for &ridge in ridges {
            let solution = self.solve(&covariances, ridge)?;
            for &power in powers {
                let heads = self.heads(&covariances, &solution, power);
                let embeds = held_out.embed([&heads[0], &heads[1]], self.dim, self.device)?;
                let candidate = embeds.recall((ridge, power), &answers, self.device, self.stop)?;
                if best.as_ref().is_none_or(|(at, _)| candidate.mean_recall() > candidates[*at].mean_recall()) {
                    best = Some((candidates.len(), heads));
                }
                candidates.push(candidate);
            }
        }
        Ok(best.map(|(chosen, heads)| {
            let (images, texts) = (held_out.num_images, held_out.caption_ids.len());
            let report = HeldOutReport { images, texts, captions_apart: *captions_apart, candidates, chosen };
            (report, heads)
        }))
    }

    /// The heads and the pairs that the temperature goes by, which the heads are not fitted to. `heads`: those of the
    /// choice.
    fn for_temperature<'a>(
        &self,
        gathered: &'a Gathered,
        heads: [HeadMap; 2],
        (ridge, power): (f64, f64),
    ) -> Result<([HeadMap; 2], &'a HeldOut), TrainError> {
        let Some((_, pairs)) = &gathered.for_temperature else { return Ok((heads, &gathered.held_out)) };
        let [fitted, held] = &gathered.moments;
        let covariances = self.covariances(&fitted.clone().with(held));
        let solution = self.solve(&covariances, ridge)?;
        Ok((self.heads(&covariances, &solution, power), pairs))
    }
}

/// Says what was fitted, in a line or two.
fn report_fit(report: &FitReport, observer: &mut dyn Observer) {
    let FitReport { pairs, distinct, directions, embed_dim, ridge, power, widths: [image, text], .. } = report;
    let chosen = match &report.held_out {
        Some(held_out) => format!(
            "mean recall {:.4} on {} that were held out",
            held_out.best().mean_recall(),
            counted(held_out.images, "image")
        ),
        None => "no images held out, since there are too few to choose by".to_owned(),
    };
    observer.on(Event::Note(format!(
        "heads fitted in closed form ({}) to {} in {}: ridge {ridge}, power {power}, {chosen}",
        report.method,
        counted(*pairs, "pair"),
        report.duration()
    )));
    if let Some(hint) = report.held_out.as_ref().and_then(HeldOutReport::edge_hint) {
        observer.on(Event::Note(hint));
    }
    let others = embed_dim.saturating_sub(*directions);
    if others > 0 && distinct.iter().min() <= report.widths.iter().min() {
        let [images, texts] = [counted(distinct[0], "distinct image"), counted(distinct[1], "distinct text")];
        observer.on(Event::Warning(format!(
            "{images} and {texts} determine {directions} directions of the shared space, so the last {others} of \
             `model.embed_dim` = {embed_dim} outputs are random and tell nothing; set it to {directions} or less, or \
             take more pairs"
        )));
    } else if others > 0 {
        observer.on(Event::Note(format!(
            "features of {image} and {text} values have {directions} directions in common: the other {others} of \
             `model.embed_dim` = {embed_dim} are small and random; set it to {directions} for smaller embeddings"
        )));
    }
    if let Some(held_out) = report.held_out.as_ref().filter(|held_out| !held_out.captions_apart) {
        observer.on(Event::Note(format!(
            "captions are shared so widely that {} held out share some with the others",
            counted(held_out.images, "image")
        )));
    }
}
