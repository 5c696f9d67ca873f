//! `dualenc init`: looks at data, and writes a commented config that trains on them.
//!
//! This file has [`init`]. The others:
//! - `survey`: the files and folders at a path
//! - `candidate`: something that can be trained on
//! - `look`: which candidate to train on, and what to evaluate on
//! - `request`: what the user asks for
//! - `settings`: batch size, epochs and limits that fit the data
//! - `render`: the config as text

mod candidate;
mod look;
mod render;
pub(crate) mod request;
mod settings;
mod survey;

use std::io::Write;

use crate::commands::init::look::look;
use crate::commands::init::render::render;
use crate::commands::init::request::InitRequest;
use crate::commands::init::settings::Settings;
use crate::commands::staged_output::StagedFile;
use crate::config::{ConfigError, RunConfig};
use crate::error::TrainError;
use crate::run_dir::atomic_file::parent;

/// Writes a config for `request.data`, after loading it as a run would. Returns what was found, a line each.
///
/// # Errors
/// [`TrainError::Usage`] when the config exists already, or there is nothing to train on, with what is there instead;
/// [`TrainError::Data`] or [`TrainError::Read`] when the data cannot be read; [`TrainError::Config`] when an option of
/// the request is wrong; [`TrainError::Write`].
pub fn init(request: &InitRequest) -> Result<Vec<String>, TrainError> {
    let out = &request.out;
    if out.exists() {
        return Err(TrainError::Usage(format!(
            "`{}` exists already, and is not overwritten; name another file with `--out`, or delete it",
            out.display()
        )));
    }
    let directory = parent(out);
    let directory = directory.canonicalize().map_err(TrainError::read(directory))?;
    let found = look(&request.data)?;
    let settings = Settings::for_data(&found);
    let text = render(request, &found, &settings, &directory);
    RunConfig::from_bytes(text.as_bytes(), out, &directory, &[])
        .map_err(|problems| ConfigError::Invalid { path: out.clone(), problems })?;
    let staged = StagedFile::new(out)?;
    staged.file().write_all(text.as_bytes()).map_err(TrainError::write(out))?;
    staged.commit()?;
    let mut lines = found.lines;
    lines.extend(settings.lines);
    Ok(lines)
}
