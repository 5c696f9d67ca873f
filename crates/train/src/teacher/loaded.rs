//! A teacher that was read, before anything is computed or cached.

use std::sync::Arc;

use dualenc_data::{Dataset, ImageProcessor, Tokenizer, counted};
use dualenc_kernels::TeacherLoss;
use dualenc_model::{DualEncoder, Tower, parameters};

use crate::config::{Loss, RunConfig, TeacherSection};
use crate::device::{Compute, read_scalar};
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::features::absent::check_dataset;
use crate::features::locked_towers::LockedFingerprints;
use crate::loss::teacher::TeacherTerm;
use crate::models::hub::resolve::resolve;
use crate::models::load::LoadedModel;

/// The key of the config that names it.
const KEY: &str = "train.teacher.model";

/// Starts the fingerprint of a teacher.
const FINGERPRINT: &[u8] = b"dualenc teacher 1";

/// A teacher with everything that turns files into its inputs.
pub(crate) struct LoadedTeacher {
    /// As the config names it.
    pub name: String,
    /// Without gradients.
    pub model: DualEncoder,
    pub tokenizer: Arc<Tokenizer>,
    pub processor: Arc<ImageProcessor>,
    pub fingerprints: LockedFingerprints,
    /// Of everything that its logits depend on, as hexadecimal digits: a resumed run must find the same.
    pub fingerprint: String,
    /// How its logits enter the loss.
    pub term: TeacherTerm,
}

impl LoadedTeacher {
    /// The teacher of `config`; `None`: it has none.
    ///
    /// # Errors
    /// [`TrainError::OfKey`] when it cannot be found or loaded; [`TrainError::Usage`] when it lacks a tower, or the
    /// bias that the loss needs.
    pub fn of(config: &RunConfig, compute: &Compute, observer: &mut dyn Observer) -> Result<Option<Self>, TrainError> {
        let Some(section) = &config.train.teacher else { return Ok(None) };
        let name = section.model.clone();
        let dir = resolve(&name).map_err(TrainError::of_key(KEY))?;
        let loaded = LoadedModel::from_dir(&dir, compute, &mut OfTeacher { observer, name: &name });
        let mut loaded = loaded.map_err(TrainError::of_key(KEY))?;
        loaded.set_decoding(&config.data);
        let LoadedModel { model, tokenizer, processor, .. } = loaded;
        let model = model.valid();
        for (tower, is_absent) in
            [(Tower::Image, model.image_tower.is_absent()), (Tower::Text, model.text_tower.is_absent())]
        {
            if is_absent {
                return Err(TrainError::Usage(format!(
                    "the teacher `{name}` has no {tower}: it was trained on features from files; set \
                     `train.teacher.model` to a model with both towers"
                )));
            }
        }
        let term = term_of(section, config.train.loss, &model)?;
        let fingerprints = LockedFingerprints::of(&model)?;
        let fingerprint = fingerprint_of(&fingerprints, &model, &tokenizer, &processor);
        Ok(Some(Self { name, model, tokenizer, processor, fingerprints, fingerprint, term }))
    }

    /// Refuses data that it cannot look at.
    ///
    /// # Errors
    /// [`TrainError::Usage`] for features in place of images or texts.
    pub fn check_dataset(&self, dataset: &Dataset) -> Result<(), TrainError> {
        check_dataset(dataset, &self.model, &format!("the training data, for the teacher `{}`", self.name))
    }

    /// The teacher in one sentence.
    pub fn describe(&self) -> String {
        let TeacherTerm { weight, scale, loss } = self.term;
        let bias = match loss {
            TeacherLoss::Softmax => String::new(),
            TeacherLoss::Sigmoid { bias } => format!(", bias {bias:.4}"),
        };
        format!(
            "teacher: `{}` with {} and embeddings of {} values; weight {weight}, scale {scale:.4}{bias}",
            self.name,
            counted(parameters::count(&self.model), "parameter"),
            self.model.embed_dim()
        )
    }
}

/// Forwards the warnings about a teacher under its name, and drops the notes.
struct OfTeacher<'a> {
    observer: &'a mut dyn Observer,
    name: &'a str,
}

impl Observer for OfTeacher<'_> {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Warning(text) = event {
            self.observer.on(Event::Warning(format!("teacher `{}`: {text}", self.name)));
        }
    }
}

/// The keys of the config, with the teacher's own scale and bias where the sigmoid loss takes them.
fn term_of(section: &TeacherSection, loss: Loss, model: &DualEncoder) -> Result<TeacherTerm, TrainError> {
    let own_scale = || Ok::<f64, TrainError>(read_scalar(model.logit_scale.val())?.exp());
    let scale = section.scale.map_or_else(own_scale, Ok)?;
    let loss = match (loss, section.bias, &model.logit_bias) {
        (Loss::Softmax, ..) => TeacherLoss::Softmax,
        (Loss::Sigmoid, Some(bias), _) => TeacherLoss::Sigmoid { bias },
        (Loss::Sigmoid, None, Some(bias)) => TeacherLoss::Sigmoid { bias: read_scalar(bias.val())? },
        (Loss::Sigmoid, None, None) => {
            return Err(TrainError::Usage(format!(
                "`train.loss` is `sigmoid`, but the teacher `{}` has no `logit_bias`: it was trained with a softmax; \
                 choose a teacher such as SigLIP, set `train.teacher.bias`, or set `train.loss = \"softmax\"`",
                section.model
            )));
        }
    };
    Ok(TeacherTerm { weight: section.weight, scale, loss })
}

/// Weights, architecture, pooling and heads, and how images and texts are processed. Precision is a key of the config.
fn fingerprint_of(
    fingerprints: &LockedFingerprints,
    model: &DualEncoder,
    tokenizer: &Tokenizer,
    processor: &ImageProcessor,
) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(FINGERPRINT);
    let forms = [
        fingerprints.all.clone(),
        model.image_tower.form(),
        model.text_tower.form(),
        model.image_projection.form().to_string(),
        model.text_projection.form().to_string(),
    ];
    let tokens = model.image_tokens.as_ref().map(|tokens| tokens.form().to_string());
    for form in forms.into_iter().chain(tokens) {
        hasher.update(&(form.len() as u64).to_le_bytes()).update(form.as_bytes());
    }
    hasher.update(&processor.fingerprint()).update(&tokenizer.fingerprint());
    hasher.finalize().to_hex().to_string()
}
