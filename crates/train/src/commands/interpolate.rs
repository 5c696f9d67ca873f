//! `dualenc interpolate`: weights between those a run started from and those it came to (WiSE-FT, Wortsman et al.,
//! arXiv:2109.01903): often better than both, above all on data unlike the training data.

use std::collections::BTreeMap;

use dualenc_model::parameters::{self, ParamUpdate, Which};
use dualenc_model::{DualEncoder, HostTensor, TowerLock, is_of_pooler};

use burn::tensor::{Tensor, TensorData};

use crate::config::{RunConfig, Towers};
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::encoder::Encoder;
use crate::eval::evaluation::Evaluation;
use crate::events::{Event, Observer};
use crate::features::locked_towers::{LockedFingerprints, LockedTowers, cache_of};
use crate::models::load::Assembly;
use crate::optim::param_groups::part_of;
use crate::run_dir::metrics_log::EvalRecord;
use crate::stop_flag::StopFlag;

/// Two models of one form, and what of them is mixed.
pub struct Interpolation {
    trained: Assembly,
    /// The base's value of each parameter that is mixed, by path; that of every other one is the trained model's.
    base: BTreeMap<String, HostTensor>,
    /// Parts of the model that are mixed, such as `text tower`.
    pub mixed: Vec<String>,
    /// Parts that differ and are kept as trained, each with the reason.
    pub kept: Vec<String>,
}

impl Interpolation {
    /// Between `trained` and `base`, a whole model, of which everything that differs is mixed; or, without one, where the run of
    /// `trained` started. What started there at random has nothing to go back to, and stays as trained: fresh projections with
    /// their temperature, towers from scratch, poolers that the weights lacked. A run that started from a whole model
    /// (`model.init`) goes back to all of it.
    ///
    /// Averaged weights are mixed where the run averages them, and low-rank adapters after they were merged.
    ///
    /// # Errors
    /// When there is no start to be found, the models have different forms, or nothing is left to be mixed.
    pub fn new(
        mut trained: Assembly,
        base: Option<Assembly>,
        compute: &Compute,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let (base, config, fresh_poolers) = match base {
            Some(base) => (base, None, Vec::new()),
            None => {
                let config = trained.config.clone().ok_or_else(|| {
                    TrainError::Usage(
                        "no run tells where this model started; name the other end with `--base`".to_owned(),
                    )
                })?;
                let mut heard = Poolers { observer, missing: Vec::new() };
                let base = Assembly::from_config(&config, compute, &mut heard)?;
                (base, Some(config), heard.missing)
            }
        };
        trained.model = trained.model.with_adapters_merged();
        let base = base.model.with_adapters_merged();
        let (mut from, to) =
            (parameters::collect(&base, Which::All)?, parameters::collect(&trained.model, Which::All)?);
        // The sigmoid loss's, which a base trained by another loss does not have.
        if !from.contains_key("logit_bias") || !to.contains_key("logit_bias") {
            from.remove("logit_bias");
        }
        refuse_other_form(&from, &to)?;
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
            let kept = if kept.is_empty() { "the models are equal".to_owned() } else { kept.join(", ") };
            return Err(TrainError::Usage(format!(
                "there is nothing to interpolate between the trained model and where it started: {kept}; name another end with \
                 `--base`"
            )));
        }
        Ok(Self { trained, base: from, mixed, kept })
    }

    /// `(1 - alpha) base + alpha trained` of what is mixed: at 0 the base's values and at 1 the trained ones, to the bit.
    #[must_use]
    pub fn at(&self, alpha: f64) -> DualEncoder {
        parameters::update(self.trained.model.clone(), &mut Mix { base: &self.base, alpha })
    }

    /// The model at `alpha` with all that belongs to it, to be exported.
    #[must_use]
    pub fn into_assembly(self, alpha: f64) -> Assembly {
        Assembly { model: self.at(alpha), ..self.trained }
    }

    /// The figures of every one of `evaluations` at each of `alphas`. What a tower gives that is the same in both models is
    /// computed once, or taken from the cache of `config`.
    ///
    /// # Errors
    /// As [`Evaluation::run`].
    pub fn sweep(
        &self,
        alphas: &[f64],
        evaluations: &[Evaluation],
        config: Option<&RunConfig>,
        compute: &Compute,
        observer: &mut dyn Observer,
    ) -> Result<Vec<(f64, Vec<EvalRecord>)>, TrainError> {
        let (stop, workers, model) = (StopFlag::default(), compute.threads, self.trained.model.valid());
        let changes = |tower: &str| self.base.keys().any(|path| path.starts_with(tower));
        let locked = LockedTowers::new(&model, &self.trained.processor, compute, workers, &stop);
        let locked = LockedTowers {
            images: locked.images.filter(|_| !changes("image_tower.")),
            texts: locked.texts.filter(|_| !changes("text_tower.")),
        };
        let locked = match config.and_then(cache_of).filter(|(dir, _)| dir.is_dir()) {
            Some(cache) => locked.kept_in(Some(cache), &LockedFingerprints::of(&model)?)?,
            None => locked,
        };
        let step = self.trained.step.unwrap_or(0);
        let mut found = Vec::new();
        for &alpha in alphas {
            let model = self.at(alpha).valid();
            let record = |evaluation: &Evaluation| {
                let encoder = Encoder {
                    model: &model,
                    tokenizer: &self.trained.tokenizer,
                    locked: &locked,
                    compute,
                    workers,
                    stop: &stop,
                    batch_size: evaluation.batch_size,
                };
                evaluation.record(step, &encoder, &self.trained.processor, observer)
            };
            found.push((alpha, evaluations.iter().map(record).collect::<Result<_, _>>()?));
        }
        Ok(found)
    }
}

fn bits(tensor: &HostTensor) -> Vec<u32> {
    tensor.values.iter().map(|value| value.to_bits()).collect()
}

/// Why the run of `config` did not start from a learned value at `path`, if it did not.
fn random_start(config: &RunConfig, path: &str, fresh_poolers: &[&str]) -> Option<&'static str> {
    if let Towers::Init(_) = config.towers() {
        return None;
    }
    let lock = match path.split('.').next()? {
        "image_tower" => config.model.lock.image,
        "text_tower" => config.model.lock.text,
        _ => return Some("it started afresh"),
    };
    let tower = part_of(path);
    match lock {
        TowerLock::Scratch => Some("it started from scratch"),
        _ if fresh_poolers.contains(&tower.as_str()) && is_of_pooler(path) => Some("its pooler started afresh"),
        _ => None,
    }
}

/// Parameters of the same names and shapes on both sides.
fn refuse_other_form(
    base: &BTreeMap<String, HostTensor>,
    trained: &BTreeMap<String, HostTensor>,
) -> Result<(), TrainError> {
    /// Differences that are named.
    const MOST_NAMED: usize = 6;
    let shown =
        |tensor: Option<&HostTensor>| tensor.map_or("absent".to_owned(), |tensor| format!("{:?}", tensor.shape));
    let mut paths: Vec<&String> = base.keys().chain(trained.keys()).filter(|path| *path != "logit_bias").collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| base.get(*path).map(|tensor| &tensor.shape) != trained.get(*path).map(|tensor| &tensor.shape));
    if paths.is_empty() {
        return Ok(());
    }
    let line = |path: &&String| {
        format!("  {path}: {} in the base, {} in the model", shown(base.get(*path)), shown(trained.get(*path)))
    };
    let mut lines: Vec<String> = paths.iter().take(MOST_NAMED).map(line).collect();
    if paths.len() > MOST_NAMED {
        lines.push(format!("  and {} more", paths.len() - MOST_NAMED));
    }
    let lines = lines.join("\n");
    Err(TrainError::Usage(format!("the base is not of the model's form, so there is no way between them:\n{lines}")))
}

struct Mix<'a> {
    base: &'a BTreeMap<String, HostTensor>,
    alpha: f64,
}

impl ParamUpdate for Mix<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        let Some(base) = self.base.get(path).filter(|_| self.alpha != 1.0) else { return value };
        let base: Tensor<D> =
            Tensor::from_data(TensorData::new(base.values.clone(), base.shape.clone()), &value.device());
        match self.alpha == 0.0 {
            true => base,
            false => base * (1.0 - self.alpha) + value * self.alpha,
        }
    }
}

/// Hears of towers whose weights lack a pooler, which then started at random.
struct Poolers<'a> {
    observer: &'a mut dyn Observer,
    missing: Vec<&'static str>,
}

impl Observer for Poolers<'_> {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Audit { part, audit } if !audit.missing.is_empty() => self.missing.push(part),
            Event::Warning(_) => self.observer.on(event),
            _ => {}
        }
    }
}
