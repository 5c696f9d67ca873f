//! Inspects the directory of one tower or of a whole model. Weights are read, but not loaded, to find values that are
//! not finite.

use std::path::Path;

use burn::tensor::Device;
use dualenc_data::{ImageProcessor, Tokenizer};
use dualenc_model::{
    Audit, ImageTower, ModelError, ModelSummary, TakenLayers, TextTower, Tower, TowerOptions, auto_text_pool, dry_load,
    is_pooler_tensor,
};

use crate::commands::export::reference_limits::{check_text_pooling, exported_image_config};
use crate::commands::inspect::report::{HeadReport, Inspection, Kind, TowerReport, WeightsReport};
use crate::config::ModelSection;
use crate::error::TrainError;
use crate::models::compatibility::{check_image_size, check_vocabulary};
use crate::models::inputs::recorded_limit;
use crate::models::text_prompt::{prompt_of, recorded_prompt, unused_default_prompt};

/// The settings of a run's config that change how a model directory is loaded.
#[derive(Debug, Clone)]
pub(crate) struct LoadSettings {
    pub image: TowerOptions,
    pub text: TowerOptions,
    pub image_size: Option<usize>,
    pub max_tokens: usize,
    /// The config's section, for its prompt; `None` outside of a run.
    pub model: Option<ModelSection>,
    /// Whether weights are loaded at all.
    pub pretrained: bool,
    /// The one tower that is taken from the directory, which may hold a whole model; `None`: all that it holds.
    pub part: Option<Tower>,
}

impl LoadSettings {
    /// As a new run would load `dir`.
    pub fn of_new_run(dir: &Path) -> Self {
        Self {
            image: TowerOptions::default(),
            text: TowerOptions { pool: auto_text_pool(dir, &TakenLayers::default()), ..TowerOptions::default() },
            image_size: None,
            max_tokens: usize::MAX,
            model: None,
            pretrained: true,
            part: None,
        }
    }

    /// Whether this tower is taken from the directory.
    fn takes(&self, tower: Tower) -> bool {
        self.part.is_none_or(|part| part == tower)
    }
}

/// Inspects the directory of a tower or of a whole model.
///
/// # Errors
/// [`TrainError::Model`] when its `config.json` is unreadable or belongs to an unknown model.
pub(crate) fn inspect_model(dir: &Path, settings: &LoadSettings, device: &Device) -> Result<Inspection, TrainError> {
    let ModelSummary { model_type, image, text, head, weights, no_weights } =
        dry_load(dir, &settings.image, &settings.text, device)?;
    let kind = match (&head, &image) {
        (Some(_), _) => Kind::WholeModel,
        (None, Some(_)) => Kind::ImageTower,
        (None, None) => Kind::TextTower,
    };
    let mut found = Inspection::new(dir, kind);
    found.model_type = Some(model_type);
    if settings.pretrained {
        found.problems.extend(no_weights.as_ref().map(ModelError::to_string));
    }
    let all_read = weights.iter().all(Result::is_ok);
    let unread = match (&no_weights, all_read) {
        (Some(_), _) => Some("There are no weights."),
        (None, false) => Some("Not all weights can be read."),
        (None, true) => None,
    };
    for file in &weights {
        match file {
            Ok(header) => found.weights.push(WeightsReport::new(header)),
            Err(error) => found.problems.push(with_causes(error)),
        }
    }
    if let Some(image) = found.usable(image.filter(|_| settings.takes(Tower::Image))) {
        let export = exported_image_config(&image.tower, &image.config).err();
        found.inspect_image_processor(dir, &image.tower, settings);
        found.list_unfit_weights("image tower", &image.audit, all_read);
        found.list_not_finite("image tower", &image.not_finite);
        found.image_tower = Some(TowerReport::image(dir, image, unread, export));
    }
    if let Some(text) = found.usable(text.filter(|_| settings.takes(Tower::Text))) {
        let export = check_text_pooling(&text.tower, &text.config).err();
        let is_whole = kind == Kind::WholeModel && settings.model.is_none() && settings.part.is_none();
        let limit = if is_whole { recorded_limit(dir, &text.tower) } else { Ok(settings.max_tokens) };
        match limit {
            Ok(limit) => found.inspect_tokenizer(dir, &text.tower, limit, settings),
            Err(error) => found.problems.push(with_causes(&error)),
        }
        found.list_unfit_weights("text tower", &text.audit, all_read);
        found.list_not_finite("text tower", &text.not_finite);
        found.text_tower = Some(TowerReport::text(dir, text, unread, export));
    }
    let head = head.filter(|_| settings.part.is_none());
    if let Some(head) = &head {
        found.list_not_finite("model", &head.not_finite);
    }
    found.problems.extend(
        head.iter().flat_map(|head| &head.problems).map(|problem| format!("the model cannot be loaded: {problem}")),
    );
    found.problems.extend(head.iter().flat_map(|head| head.warnings.iter().cloned()));
    found.head = head.map(HeadReport::from);
    found.parameters = found.count_parameters();
    Ok(found)
}

/// An error and its causes on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl Inspection {
    /// The part, if it is present and valid; an error becomes a problem.
    fn usable<T>(&mut self, part: Option<Result<T, ModelError>>) -> Option<T> {
        part?.map_err(|error| self.problems.push(with_causes(&error))).ok()
    }

    /// Lists weights that make a tower unloadable. A missing pooler does not. Missing ones are listed only if all files
    /// could be read.
    fn list_unfit_weights(&mut self, part: &str, audit: &Audit, all_read: bool) {
        let missing = audit.missing.iter().filter(|name| all_read && !is_pooler_tensor(name)).count();
        for (count, what) in [(missing, "missing"), (audit.mismatched.len(), "of another shape")] {
            if count > 0 {
                let tensors = if count == 1 { "1 tensor is".to_owned() } else { format!("{count} tensors are") };
                self.problems.push(format!("the {part} cannot be loaded: {tensors} {what}"));
            }
        }
    }

    /// Lists tensors that hold NaN or infinite values, which are refused when the tower is loaded.
    fn list_not_finite(&mut self, part: &str, lines: &[String]) {
        self.problems.extend(lines.iter().map(|line| format!("the {part} holds NaN or infinite values: {line}")));
    }

    fn inspect_image_processor(&mut self, dir: &Path, tower: &ImageTower, settings: &LoadSettings) {
        let mut processor = match ImageProcessor::from_dir(dir) {
            Ok(processor) => processor,
            Err(error) => return self.problems.push(with_causes(&error)),
        };
        if let Some(size) = settings.image_size {
            processor = processor.with_image_size(u32::try_from(size).unwrap_or(u32::MAX));
        }
        self.problems.extend(check_image_size(&processor, tower).err().map(|error| error.to_string()));
        let source = if processor.is_default() { " (no file says so; its family usually does)" } else { "" };
        self.image_processing = Some(format!("{}{source}", processor.describe()));
    }

    fn inspect_tokenizer(&mut self, dir: &Path, tower: &TextTower, max_tokens: usize, settings: &LoadSettings) {
        let config = tower.config();
        let tokenizer = Tokenizer::from_dir(dir, max_tokens.min(config.max_tokens()));
        let padded = tokenizer.and_then(|tokenizer| match config.pad_to {
            Some(len) => tokenizer.with_padding_to(len),
            None => Ok(tokenizer),
        });
        let prompt = match &settings.model {
            Some(model) => prompt_of(model, dir),
            None => recorded_prompt(dir),
        };
        let prompt = prompt.unwrap_or_else(|error| {
            self.problems.push(error.to_string());
            None
        });
        let prompted = padded.and_then(|tokenizer| tokenizer.with_prompt(prompt.as_deref().unwrap_or_default()));
        match prompted {
            Ok(tokenizer) => {
                self.problems.extend(check_vocabulary(&tokenizer, tower, dir).err().map(|error| error.to_string()));
                let unused = unused_default_prompt(dir).ok().flatten().filter(|_| prompt.is_none());
                let unused = unused.map_or_else(String::new, |note| format!("; {note}"));
                self.tokenizer = Some(format!("{}{unused}", tokenizer.describe()));
            }
            Err(error) => self.problems.push(with_causes(&error)),
        }
    }
}
