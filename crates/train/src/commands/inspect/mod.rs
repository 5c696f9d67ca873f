//! `dualenc inspect`: what a directory holds, told without loading it; problems are listed, the rest is told all the
//! same.

pub(crate) mod report;
mod run;
#[cfg(all(test, feature = "flex"))]
mod tests;

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use dualenc_data::{ImageProcessor, Tokenizer};
use dualenc_model::{Audit, ImageTower, ModelError, Outline, Pool, TextTower, is_of_pooler, outline};

use crate::commands::export::{check_text_pooling, exported_image_config};
use crate::error::TrainError;
use crate::models::load::{check_image_size, check_vocabulary};
use crate::run_dir::checkpoint::retention;
use crate::run_dir::layout::checkpoints_of;
use report::{HeadReport, Inspection, Kind, TowerReport, WeightsReport};
use run::inspect_run;

/// Tells what `dir` holds. Nothing is trained, written or downloaded.
///
/// # Errors
/// When it is no directory of any known kind, or its `config.json` is that of another model.
pub fn inspect(dir: &Path, device: &Device) -> Result<Inspection, TrainError> {
    if dir.join("manifest.json").is_file() {
        return Ok(inspect_run(dir, Kind::Checkpoint, vec![dir.to_owned()], device));
    }
    if checkpoints_of(dir).is_dir() {
        let checkpoints = retention::list(&checkpoints_of(dir)).into_iter().map(|(_, path)| path).collect();
        return Ok(inspect_run(dir, Kind::Run, checkpoints, device));
    }
    if is_model_dir(dir) {
        return inspect_model(dir, &Settings::default(), device);
    }
    Err(TrainError::Usage(format!(
        "`{}` holds no model: found {}; expected `config.json` and weights of a tower or a whole model, `checkpoints` of \
         a run, or `manifest.json` of a checkpoint",
        dir.display(),
        entries(dir)?
    )))
}

/// Whether `dir` has a config of transformers or of open_clip.
fn is_model_dir(dir: &Path) -> bool {
    ["config.json", "open_clip_config.json"].iter().any(|name| dir.join(name).is_file())
}

/// The names in a directory, for a message.
fn entries(dir: &Path) -> Result<String, TrainError> {
    /// Names that are listed.
    const MOST_NAMED: usize = 12;
    let entries = fs::read_dir(dir).map_err(TrainError::read(dir))?.flatten();
    let mut names: Vec<String> = entries.map(|entry| format!("`{}`", entry.file_name().to_string_lossy())).collect();
    names.sort();
    let more = names.len().saturating_sub(MOST_NAMED);
    names.truncate(MOST_NAMED);
    Ok(match (names.is_empty(), more) {
        (true, _) => "nothing".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    })
}

/// What a run's config says of a model directory.
#[derive(Debug, Clone, Copy)]
struct Settings {
    image_pool: Pool,
    text_pool: Pool,
    image_size: Option<usize>,
    max_tokens: usize,
    /// Whether weights are read at all.
    pretrained: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            image_pool: Pool::Auto,
            text_pool: Pool::Auto,
            image_size: None,
            max_tokens: usize::MAX,
            pretrained: true,
        }
    }
}

/// A tower's directory, or a whole model's.
fn inspect_model(dir: &Path, settings: &Settings, device: &Device) -> Result<Inspection, TrainError> {
    let Outline { model_type, image, text, head, weights, no_weights } =
        outline(dir, settings.image_pool, settings.text_pool, device)?;
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
    for file in &weights {
        match file {
            Ok(header) => found.weights.push(WeightsReport::new(header)),
            Err(error) => found.problems.push(chain(error)),
        }
    }
    if let Some(image) = found.usable(image) {
        let export = exported_image_config(&image.tower, &image.config).err();
        found.image_processing(dir, &image.tower, settings);
        found.unfit("image tower", &image.audit);
        found.image_tower = Some(TowerReport::image(dir, image, no_weights.is_some(), export));
    }
    if let Some(text) = found.usable(text) {
        let export = check_text_pooling(&text.tower, &text.config).err();
        found.tokenizer(dir, &text.tower, settings);
        found.unfit("text tower", &text.audit);
        found.text_tower = Some(TowerReport::text(dir, text, no_weights.is_some(), export));
    }
    found.problems.extend(
        head.iter().flat_map(|head| &head.problems).map(|problem| format!("the model cannot be loaded: {problem}")),
    );
    found.head = head.map(HeadReport::from);
    found.parameters = found.count();
    Ok(found)
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl Inspection {
    /// The part, if there is one; its error becomes a problem.
    fn usable<T>(&mut self, part: Option<Result<T, ModelError>>) -> Option<T> {
        part?.map_err(|error| self.problems.push(chain(&error))).ok()
    }

    /// Weights that no tower could be loaded from, a missing pooler aside.
    fn unfit(&mut self, part: &str, audit: &Audit) {
        let missing = audit.missing.iter().filter(|name| !is_of_pooler(name)).count();
        for (count, what) in [(missing, "missing"), (audit.mismatched.len(), "of another shape")] {
            if count > 0 {
                let tensors = if count == 1 { "1 tensor is".to_owned() } else { format!("{count} tensors are") };
                self.problems.push(format!("the {part} cannot be loaded: {tensors} {what}"));
            }
        }
    }

    fn image_processing(&mut self, dir: &Path, tower: &ImageTower, settings: &Settings) {
        let mut processor = match ImageProcessor::from_dir(dir) {
            Ok(processor) => processor,
            Err(error) => return self.problems.push(chain(&error)),
        };
        if let Some(size) = settings.image_size {
            processor = processor.with_image_size(u32::try_from(size).unwrap_or(u32::MAX));
        }
        self.problems.extend(check_image_size(&processor, tower).err().map(|error| error.to_string()));
        let source = if processor.is_default() { " (no file says so; its family usually does)" } else { "" };
        self.image_processing = Some(format!("{}{source}", processor.describe()));
    }

    fn tokenizer(&mut self, dir: &Path, tower: &TextTower, settings: &Settings) {
        let config = tower.config();
        let tokenizer = Tokenizer::from_dir(dir, settings.max_tokens.min(config.max_tokens()));
        let padded = tokenizer.and_then(|tokenizer| match config.pad_to {
            Some(len) => tokenizer.with_padding_to(len),
            None => Ok(tokenizer),
        });
        match padded {
            Ok(tokenizer) => {
                self.problems.extend(check_vocabulary(&tokenizer, tower, dir).err().map(|error| error.to_string()));
                self.tokenizer = Some(tokenizer.describe());
            }
            Err(error) => self.problems.push(chain(&error)),
        }
    }
}
