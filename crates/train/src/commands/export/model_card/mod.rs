//! The model card: a `README.md` that says what the model is, from what and how it was trained, what was measured, and
//! how to load it. It holds what the model and its run record, and nothing else. Paths of this machine are shortened to
//! their last component.
//!
//! - this file: the sections in order, and the front matter that the hub reads.
//! - `origin`: what the log of the run says.
//! - `towers`: the two towers.
//! - `training`: data and recipe.
//! - `figures`: evaluations.
//! - `usage`: how to load the model; `head_usage`: how to apply the heads alone; `token_usage`: those over tokens.
//! - `markdown`: escaping and tables.

mod figures;
mod head_usage;
mod markdown;
pub(crate) mod origin;
#[cfg(test)]
mod tests;
mod token_usage;
mod towers;
mod training;
mod usage;

use std::path::Path;

use crate::commands::export::heads::missing_towers;
use crate::commands::export::request::{ExportFormat, ExportRequest};
use crate::config::InitialWeights;
use crate::config::tower_reference::is_hub_id;
use crate::error::TrainError;
use crate::models::load::LoadedModel;
use crate::run_dir::atomic_file::write_whole;

use markdown::{escape, quoted};
use origin::Origin;

/// The library of heads alone, and a tag of every card.
const PROGRAM: &str = "dualenc";

/// The file of the card.
const CARD: &str = "README.md";

/// Writes the card of `loaded` into `dir`.
///
/// # Errors
/// [`TrainError::Write`].
pub(crate) fn write_card(
    loaded: &LoadedModel,
    request: &ExportRequest<'_>,
    origin: &Origin,
    dir: &Path,
) -> Result<(), TrainError> {
    let text = card(loaded, request, origin);
    write_whole(&dir.join(CARD), |file| file.write_all(text.as_bytes()))
}

/// The text of the card.
fn card(loaded: &LoadedModel, request: &ExportRequest<'_>, origin: &Origin) -> String {
    let mut sections = vec![
        front_matter(loaded, request.format),
        format!("# {}", escape(origin.name.as_deref().unwrap_or("model"))),
        introduction(loaded, request, origin),
        format!("## Use\n\n{}", usage::section(loaded, request.format)),
        format!("## Model\n\n{}", towers::section(loaded)),
    ];
    if let Some(config) = &loaded.config {
        sections.push(format!("## Training data\n\n{}", training::data(config, origin)));
        sections.push(format!("## Recipe\n\n{}", training::recipe(config, origin)));
    }
    if !origin.figures.is_empty() {
        sections.push(format!("## Evaluation\n\n{}", figures::section(&origin.figures, origin.step)));
    }
    sections.push(format!("## Limits\n\n{}", limits(loaded, request, origin)));
    sections.push("## Licence\n\nTo fill in: here, and as `license` at the top of this file.".to_owned());
    sections.join("\n\n") + "\n"
}

/// The metadata that the hub reads: YAML between two lines of dashes. A JSON string is a YAML string.
fn front_matter(loaded: &LoadedModel, format: ExportFormat) -> String {
    let (library, task, tag) = match format {
        ExportFormat::Transformers => ("transformers", "zero-shot-image-classification", "vision-text-dual-encoder"),
        ExportFormat::SentenceTransformers => ("sentence-transformers", "sentence-similarity", "feature-extraction"),
        ExportFormat::Heads => (PROGRAM, "feature-extraction", "features"),
    };
    let mut lines = vec![
        "---".to_owned(),
        "# To fill in: an identifier of https://huggingface.co/docs/hub/repositories-licenses".to_owned(),
        "# license: apache-2.0".to_owned(),
        format!("library_name: {library}"),
        format!("pipeline_tag: {task}"),
        "tags:".to_owned(),
    ];
    let tags = [library, tag, "image-text-retrieval", "contrastive-learning"];
    let of_program = (library != PROGRAM).then_some(PROGRAM);
    lines.extend(tags.into_iter().chain(of_program).map(|tag| format!("- {tag}")));
    let bases = base_models(loaded);
    if !bases.is_empty() {
        lines.push("base_model:".to_owned());
        lines.extend(bases.iter().map(|base| format!("- {}", quoted(base))));
    }
    lines.push("---".to_owned());
    lines.join("\n")
}

/// The models of the hub that the run started from.
fn base_models(loaded: &LoadedModel) -> Vec<&str> {
    let Some(config) = &loaded.config else { return Vec::new() };
    let mut found = match config.initial_weights() {
        InitialWeights::Pair { image, text } => image.into_iter().chain(text).collect(),
        InitialWeights::Init(init) => vec![init],
    };
    found.retain(|reference| is_hub_id(reference));
    found.dedup();
    found
}

fn introduction(loaded: &LoadedModel, request: &ExportRequest<'_>, origin: &Origin) -> String {
    let dim = loaded.model.embed_dim();
    let mut text = format!(
        "A dual encoder: it embeds images and texts as vectors of {dim} values, so that an image and a text that \
         belong together have a high cosine similarity. Use it for zero-shot classification and for retrieval."
    );
    if let Some(whole) = loaded.truncated_from {
        text += &format!(" They are the first {dim} of the {whole} values that the model was trained with.");
    }
    if loaded.config.is_some() {
        let step = origin.step.map_or_else(String::new, |step| format!(" of step {step}"));
        text += &format!(
            "\n\nTrained and exported with dualenc {}; the weights are those{step}",
            env!("CARGO_PKG_VERSION")
        );
        text += &match request.alpha {
            Some(alpha) => format!(
                ", mixed with those of the start of training (WiSE-FT): `(1 - alpha) * start + alpha * trained`, at \
                 alpha = {alpha}."
            ),
            None => ".".to_owned(),
        };
    } else {
        text +=
            &format!("\n\nExported with dualenc {}. How it was trained is not recorded.", env!("CARGO_PKG_VERSION"));
    }
    text
}

fn limits(loaded: &LoadedModel, request: &ExportRequest<'_>, origin: &Origin) -> String {
    let (height, width) = loaded.processor.output_size();
    let mut lines = Vec::new();
    if !loaded.model.text_tower.is_absent() {
        let limit = loaded.tokenizer.max_tokens();
        lines.push(format!("Texts are cut after {limit} tokens, special tokens included."));
    }
    if !loaded.model.image_tower.is_absent() {
        lines.push(format!("Images are seen at {width} x {height} pixels."));
    }
    // Of a model with both towers, one line.
    lines = if lines.len() == 2 { vec![lines.join(" ")] } else { lines };
    let prompt = loaded.tokenizer.prompt();
    if !prompt.is_empty() {
        lines.push(format!(
            "It was trained with {prompt:?} before every text: sentence-transformers adds it, with transformers texts \
             have to be passed with it."
        ));
    }
    if request.format == ExportFormat::Transformers && usage::is_processed_by_pillow(loaded) {
        lines.push(
            "Images are processed as by transformers with `backend=\"pil\"`, also for the figures here. No file of \
             this directory can say so: without that argument, transformers 5 resizes with torchvision where it is \
             installed, which rounds differently, and embeddings differ a little."
                .to_owned(),
        );
    }
    if let Some(difference) = loaded.processor.export_difference() {
        lines.push(format!("Images are processed a little differently than in training: {difference}."));
    }
    if request.format == ExportFormat::Heads {
        lines.extend(missing_towers(loaded).into_iter().map(|missing| format!("Note that {missing}.")));
    }
    lines.push(match (origin.figures.is_empty(), request.alpha) {
        (true, None) if loaded.truncated_from.is_some() => {
            "No evaluation of embeddings of this width is recorded.".to_owned()
        }
        (true, Some(_)) => "The figures of the run are not those of this mixture, and are left out.".to_owned(),
        (true, None) => "No evaluation of this model is recorded.".to_owned(),
        (false, _) => {
            "Nothing but the figures above was measured: neither other data and languages, nor bias.".to_owned()
        }
    });
    lines.iter().map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n")
}
