//! `dualenc export`: writes a model as a directory that other programs load, with a model card.
//!
//! - this file: the directory that each format fills.
//! - `request`: the formats, and what a caller asks for.
//! - `heads`: the heads alone, for any model.
//! - `dual_encoder`: a VisionTextDualEncoder of transformers; `reference_limits` says what it can compute.
//! - `head_limits`: which heads a format can express.
//! - `sentence_transformers`: a SentenceTransformer of stock modules; `routes` says how each tower is pooled there, and
//!   `stock_modules` makes the head.
//! - `model_card`: `README.md`.
//! - `parts`: the tensors of a model by their names in transformers; `head_part`: those of a head.
//! - `tokenizer_copy`: the files of the tokenizer.
//! - `json_files`: reading and writing JSON files.
//! - `obstacles`: all that keeps a format from expressing a model, and the layers of towers.

use std::path::Path;

use crate::commands::export::model_card::origin::Origin;
use crate::commands::export::model_card::write_card;
use crate::commands::export::request::{ExportFormat, ExportRequest};
use crate::commands::staged_output::StagedDir;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

mod dual_encoder;
mod head_limits;
mod head_part;
mod heads;
mod json_files;
pub(crate) mod model_card;
mod obstacles;
mod parts;
pub(crate) mod reference_limits;
pub(crate) mod request;
mod routes;
mod sentence_transformers;
mod stock_modules;
#[cfg(test)]
mod tests;
mod tokenizer_copy;

/// Writes a model to `request.dir`, which is untouched until every file is written. `observer` is notified of every way
/// in which the exported model differs.
///
/// # Errors
/// [`TrainError::Usage`] when the directory is not empty or the format cannot express the model; [`TrainError::Read`]
/// when the log of the run cannot be read; [`TrainError::Write`] when a file cannot be written;
/// [`TrainError::Stopped`] when `stop` is set.
pub fn export(
    loaded: &LoadedModel,
    request: &ExportRequest<'_>,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let dir = request.dir;
    // Refused before anything is written or said.
    let plan = match request.format {
        ExportFormat::Transformers => {
            heads::check_towers(loaded, "transformers")?;
            Plan::DualEncoder(dual_encoder::ImagePart::new(loaded)?)
        }
        ExportFormat::SentenceTransformers => {
            heads::check_towers(loaded, "sentence-transformers")?;
            Plan::Routes(routes::Routes::new(loaded)?)
        }
        ExportFormat::Heads => Plan::Heads,
    };
    let is_processed = !matches!(plan, Plan::Heads);
    if let Some(difference) = loaded.processor.export_difference().filter(|_| is_processed) {
        observer.on(Event::Warning(format!(
            "transformers has no image processor that matches this tower's exactly, and will process images a little \
             differently: {difference}"
        )));
    }
    if !is_processed {
        heads::missing_towers(loaded).into_iter().for_each(|missing| observer.on(Event::Warning(missing)));
    }
    let staged = StagedDir::new(dir)?;
    let fill = |observer: &mut dyn Observer| {
        match plan {
            Plan::DualEncoder(image) => dual_encoder::write(loaded, image, staged.path(), stop, observer)?,
            Plan::Heads => heads::write(loaded, staged.path(), stop)?,
            Plan::Routes(routes) => sentence_transformers::write(loaded, &routes, staged.path(), stop, observer)?,
        }
        let origin = Origin::new(loaded, request.origin, request.alpha)?;
        write_card(loaded, request, &origin, staged.path())
    };
    fill(observer).map_err(|error| as_of(error, staged.path(), dir))?;
    stop.signal().map_or(Ok(()), |signal| Err(TrainError::Stopped { signal }))?;
    staged.commit(match request.format {
        ExportFormat::Transformers => dual_encoder::CONFIG,
        ExportFormat::SentenceTransformers => sentence_transformers::MODULES,
        ExportFormat::Heads => heads::CONFIG,
    })
}

/// What the format needs to know of the model.
enum Plan {
    DualEncoder(dual_encoder::ImagePart),
    Routes(routes::Routes),
    Heads,
}

/// An error about a file in `staged`, as one about the same file of `dir`.
fn as_of(error: TrainError, staged: &Path, dir: &Path) -> TrainError {
    match error {
        TrainError::Write { path, source } => {
            let path = path.strip_prefix(staged).map_or_else(|_| path.clone(), |rest| dir.join(rest));
            TrainError::Write { path, source }
        }
        other => other,
    }
}
