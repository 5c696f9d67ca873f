//! `dualenc init`: looks at data, and writes a commented config that trains on them.
//!
//! This file has [`init`]. The others:
//! - `survey`: the files and folders at a path
//! - `split`: the splits that names say
//! - `candidate`: something that can be trained on
//! - `found`: training data, and what belongs to them
//! - `look`, `folder`, `shards`: which candidate to train on, and what to evaluate on
//! - `request`: what the user asks for
//! - `settings`: batch size and epochs that fit the data
//! - `held_out`: the validation split
//! - `caption_length`: the limit of captions
//! - `run_name`: the directory of the run
//! - `render`: the config as text

mod candidate;
mod caption_length;
mod folder;
mod found;
mod held_out;
mod look;
mod render;
pub(crate) mod request;
mod run_name;
mod settings;
mod shards;
mod split;
mod survey;

use std::io::Write;

use dualenc_model::Tower;

use crate::commands::init::look::look;
use crate::commands::init::render::render;
use crate::commands::init::request::{InitReport, InitRequest, TEXT_TOWER, in_config};
use crate::commands::init::run_name::run_dir;
use crate::commands::init::settings::Settings;
use crate::commands::staged_output::{StagedFile, refuse_existing};
use crate::config::{ConfigError, RunConfig};
use crate::error::TrainError;
use crate::models::named_tower::check_named_tower;
use crate::run_dir::atomic_file::parent;

/// Writes a config for `request.data`, after loading it as a run would. Returns what was found and chosen.
///
/// # Errors
/// [`TrainError::Usage`] when the config exists already, a tower or a column is not what it is named for, or there is
/// nothing to train on, with what is there instead; [`TrainError::Model`] when a directory is no such tower;
/// [`TrainError::Data`] or [`TrainError::Read`] when the data cannot be read; [`TrainError::Config`] when an option of
/// the request is wrong; [`TrainError::Write`].
pub fn init(request: &InitRequest) -> Result<InitReport, TrainError> {
    let out = &request.out;
    refuse_existing(out)?;
    let directory = parent(out);
    let directory = directory.canonicalize().map_err(TrainError::read(directory))?;
    let towers =
        [(&request.image_tower, Tower::Image, "--image-tower"), (&request.text_tower, Tower::Text, "--text-tower")];
    let mut tower_notes = Vec::new();
    for (reference, tower, flag) in towers {
        if let Some(reference) = reference {
            tower_notes.extend(check_named_tower(reference, tower, flag)?);
        }
    }
    let found = look(&request.data, &request.columns)?;
    let mut settings = Settings::for_data(&found, request.text_tower.as_deref().unwrap_or(TEXT_TOWER));
    settings.lines.extend(tower_notes);
    let run_dir = match &request.run_dir {
        Some(dir) => in_config(dir, &directory).display().to_string(),
        None => {
            let (run_dir, is_renamed) = run_dir(&request.data, &directory);
            if is_renamed {
                settings.lines.push(format!("the run goes to `{run_dir}`: the name without a number is taken"));
            }
            run_dir
        }
    };
    let text = render(request, &found, &settings, &run_dir, &directory);
    RunConfig::from_bytes(text.as_bytes(), out, &directory, &[])
        .map_err(|problems| ConfigError::Invalid { path: out.clone(), problems })?;
    let staged = StagedFile::new(out)?;
    staged.file().write_all(text.as_bytes()).map_err(TrainError::write(out))?;
    staged.commit()?;
    let mut lines = found.lines;
    let has_few_pairs = settings.has_few_pairs();
    lines.extend(settings.lines);
    Ok(InitReport { lines, pairs: settings.pairs, has_few_pairs })
}
