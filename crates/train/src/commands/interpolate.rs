//! `dualenc interpolate`: mixes the weights a run started from with its trained weights (WiSE-FT, Wortsman et al.,
//! arXiv:2109.01903). The mixture is often better than both, above all on data unlike the training data.

use std::collections::BTreeMap;

use dualenc_model::parameters::{self, ParamFilter, ParamUpdate};
use dualenc_model::{DualEncoder, HostTensor, Tower, TowerLock, is_pooler_tensor};

use burn::tensor::{Tensor, TensorData};

use crate::config::{InitialWeights, RunConfig};
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::encoder::Encoder;
use crate::eval::evaluation::Evaluation;
use crate::events::{Event, Observer};
use crate::features::cut_texts::CutTexts;
use crate::features::locked_towers::{LockedFingerprints, LockedTowers, feature_cache_of};
use crate::models::load::LoadedModel;
use crate::optim::part_summary::part_of;
use crate::run_dir::metrics_log::EvalRecord;
use crate::stop_flag::StopFlag;

/// Two models with the same parameters, and which of these are mixed.
pub struct Interpolation {
    trained: LoadedModel,
    /// The base's value of each mixed parameter, by path. All other parameters are those of the trained model.
    base: BTreeMap<String, HostTensor>,
    /// The parts of the model that are mixed, such as `text tower`.
    pub mixed: Vec<String>,
    /// The parts that differ but stay as trained, each with the reason.
    pub kept: Vec<String>,
}

impl Interpolation {
    /// Prepares a mixture of `trained` and `base`. With a `base`, every parameter that differs is mixed.
    ///
    /// Without one, the base is the start of the run of `trained`. Parameters that were randomly initialised there have
    /// no pretrained value and stay as trained: new projections with their temperature, towers from scratch, and
    /// poolers that the weights lacked. A run that started from a whole model (`model.init`) mixes every parameter.
    ///
    /// If the run averages weights, the averaged ones are mixed. Low-rank adapters are merged first.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when the start is unknown, the models have different parameters, or there is nothing to
    /// mix; and as for [`LoadedModel::from_config`].
    pub fn new(
        mut trained: LoadedModel,
        base: Option<LoadedModel>,
        compute: &Compute,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let (base, config, fresh_poolers) = match base {
            Some(base) => (base, None, Vec::new()),
            None => {
                let config = trained.config.clone().ok_or_else(|| {
                    TrainError::Usage(
                        "this model does not record where its run started; give the other model with `--base`"
                            .to_owned(),
                    )
                })?;
                let mut audits = PoolerAudit { observer, missing: Vec::new() };
                let base = LoadedModel::from_config(&config, compute, &mut audits)?;
                (base, Some(config), audits.missing)
            }
        };
        trained.model = trained.model.with_adapters_merged();
        let base = base.model.with_adapters_merged();
        let (mut from, to) =
            (parameters::collect(&base, ParamFilter::All)?, parameters::collect(&trained.model, ParamFilter::All)?);
        // Only models of the sigmoid loss have a bias.
        if !from.contains_key("logit_bias") || !to.contains_key("logit_bias") {
            from.remove("logit_bias");
        }
        refuse_other_parameters(&from, &to)?;
        let (mut mixed, mut kept) = (Vec::new(), Vec::new());
        from.retain(|path, value| {
            if to.get(path).is_none_or(|trained| bits(trained) == bits(value)) {
                return false;
            }
            let reason = config.as_ref().and_then(|config| random_start(config, path, &fresh_poolers));
            let part = part_of(path);
            let (list, line) = match reason {
                None => (&mut mixed, part),
                Some(reason) => (&mut kept, format!("{part} ({reason})")),
            };
            if !list.contains(&line) {
                list.push(line);
            }
            reason.is_none()
        });
        if from.is_empty() {
            let reasons = if kept.is_empty() { "the models are equal".to_owned() } else { kept.join(", ") };
            return Err(TrainError::Usage(format!(
                "there is nothing to interpolate between the trained model and its start: {reasons}; give another \
                 model with `--base`"
            )));
        }
        Ok(Self { trained, base: from, mixed, kept })
    }

    /// The mixture `(1 - alpha) * base + alpha * trained`. At 0 and 1, the values are exactly those of the base and the
    /// trained model.
    #[must_use]
    pub fn at(&self, alpha: f64) -> DualEncoder {
        parameters::update(self.trained.model.clone(), &mut Mix { base: &self.base, alpha })
    }

    /// The mixture at `alpha` with its tokenizer and image processor, for export.
    #[must_use]
    pub fn into_loaded_model(self, alpha: f64) -> LoadedModel {
        LoadedModel { model: self.at(alpha), ..self.trained }
    }

    /// Runs all `evaluations` at each of `alphas`. Features of a tower that is the same in both models are computed
    /// once, or read from the cache of `config`.
    ///
    /// # Errors
    /// As for [`Evaluation::run`]; [`TrainError::Stopped`] when `stop` is set.
    pub fn sweep(
        &self,
        alphas: &[f64],
        evaluations: &[Evaluation],
        config: Option<&RunConfig>,
        compute: &Compute,
        stop: &StopFlag,
        observer: &mut dyn Observer,
    ) -> Result<Vec<(f64, Vec<EvalRecord>)>, TrainError> {
        let (workers, model) = (compute.threads, self.trained.model.valid());
        let is_mixed = |tower| self.base.keys().any(|path| Tower::of(path) == Some(tower));
        let locked = LockedTowers::new(&model, &self.trained.processor, compute, workers, stop);
        let locked = LockedTowers {
            images: locked.images.filter(|_| !is_mixed(Tower::Image)),
            texts: locked.texts.filter(|_| !is_mixed(Tower::Text)),
        };
        let locked = match config.and_then(feature_cache_of).filter(|(dir, _)| dir.is_dir()) {
            Some(cache) => locked.with_cache(Some(cache), &LockedFingerprints::of(&model)?)?,
            None => locked,
        };
        let step = self.trained.step.unwrap_or(0);
        let mut records = Vec::new();
        for &alpha in alphas {
            let model = self.at(alpha).valid();
            let record = |evaluation: &Evaluation| {
                let encoder = Encoder {
                    model: &model,
                    tokenizer: &self.trained.tokenizer,
                    locked: &locked,
                    compute,
                    workers,
                    stop,
                    batch_size: evaluation.batch_size,
                    others: None,
                    cut: CutTexts::default(),
                };
                evaluation.record(step, &encoder, &self.trained.processor, observer)
            };
            records.push((alpha, evaluations.iter().map(record).collect::<Result<_, _>>()?));
        }
        Ok(records)
    }
}

fn bits(tensor: &HostTensor) -> Vec<u32> {
    tensor.values.iter().map(|value| value.to_bits()).collect()
}

/// Why the parameter at `path` was randomly initialised by the run of `config`; `None` if it was pretrained.
fn random_start(config: &RunConfig, path: &str, fresh_poolers: &[&str]) -> Option<&'static str> {
    if let InitialWeights::Init(_) = config.initial_weights() {
        return None;
    }
    let lock = match Tower::of(path) {
        Some(Tower::Image) => config.model.lock.image,
        Some(Tower::Text) => config.model.lock.text,
        None => return Some("it started afresh"),
    };
    let tower = part_of(path);
    match lock {
        TowerLock::Scratch => Some("it started from scratch"),
        _ if fresh_poolers.contains(&tower.as_str()) && is_pooler_tensor(path) => Some("its pooler started afresh"),
        _ => None,
    }
}

/// Refuses models with parameters of other names or shapes.
fn refuse_other_parameters(
    base: &BTreeMap<String, HostTensor>,
    trained: &BTreeMap<String, HostTensor>,
) -> Result<(), TrainError> {
    /// Differences that are listed.
    const MAX_LISTED: usize = 6;
    let shape_of =
        |tensor: Option<&HostTensor>| tensor.map_or("absent".to_owned(), |tensor| format!("{:?}", tensor.shape));
    let mut paths: Vec<&String> = base.keys().chain(trained.keys()).filter(|path| *path != "logit_bias").collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| base.get(*path).map(|tensor| &tensor.shape) != trained.get(*path).map(|tensor| &tensor.shape));
    if paths.is_empty() {
        return Ok(());
    }
    let line = |path: &&String| {
        format!("  {path}: {} in the base, {} in the model", shape_of(base.get(*path)), shape_of(trained.get(*path)))
    };
    let mut lines: Vec<String> = paths.iter().take(MAX_LISTED).map(line).collect();
    if paths.len() > MAX_LISTED {
        lines.push(format!("  and {} more", paths.len() - MAX_LISTED));
    }
    let lines = lines.join("\n");
    Err(TrainError::Usage(format!(
        "cannot interpolate: the base does not have the same parameters as the model:\n{lines}"
    )))
}

/// Mixes the parameters that `base` has.
struct Mix<'a> {
    base: &'a BTreeMap<String, HostTensor>,
    alpha: f64,
}

impl ParamUpdate for Mix<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        let Some(base) = self.base.get(path).filter(|_| self.alpha != 1.0) else { return value };
        let base: Tensor<D> =
            Tensor::from_data(TensorData::new(base.values.clone(), base.shape.clone()), &value.device());
        if self.alpha == 0.0 { base } else { base * (1.0 - self.alpha) + value * self.alpha }
    }
}

/// Records towers with weights that lack a pooler, which is then randomly initialised. Forwards warnings only.
struct PoolerAudit<'a> {
    observer: &'a mut dyn Observer,
    missing: Vec<&'static str>,
}

impl Observer for PoolerAudit<'_> {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Audit { part, audit } if !audit.missing.is_empty() => self.missing.push(part),
            Event::Warning(_) => self.observer.on(event),
            _ => {}
        }
    }
}
