//! Which kind of model a directory holds.

use std::path::{Path, PathBuf};

use dualenc_model::{directory_hint, dual_encoder_types, is_dual_encoder_dir, refuse_heads_alone};

use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::run_dir::checkpoint::{self, Checkpoint, Newest};
use crate::run_dir::layout::{checkpoints_of, exists};

/// The file of sentence-transformers that leads each input to the model of its kind.
const ROUTER: &str = "router_config.json";

/// A directory that holds a whole model, or the checkpoint found in it.
pub(crate) enum ModelDir {
    WholeModel(PathBuf),
    Checkpoint(Box<Checkpoint>),
}

impl ModelDir {
    /// Accepts a run directory (its newest valid checkpoint), a checkpoint, or the directory of a whole model.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when `dir` is none of these or the run has no valid checkpoint; [`TrainError::Model`] when
    /// it holds the heads of a model alone; [`TrainError::Read`] when it may not be read; [`TrainError::Checkpoint`] or
    /// [`TrainError::NewerFormat`] when the checkpoint cannot be used.
    pub fn find(dir: &Path, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        // A directory that may not be read is no other kind of directory.
        if exists(&dir.join("manifest.json"))? && dir.join("manifest.json").is_file() {
            return Ok(Self::Checkpoint(Box::new(checkpoint::load(dir)?)));
        }
        if checkpoints_of(dir).is_dir() {
            let newest = newest_checkpoint(dir, observer)?
                .ok_or_else(|| TrainError::Usage(format!("the run `{}` has no checkpoint yet", dir.display())))?;
            return Ok(Self::Checkpoint(Box::new(newest)));
        }
        if is_dual_encoder_dir(dir) {
            return Ok(Self::WholeModel(dir.to_owned()));
        }
        refuse_heads_alone(dir)?;
        if !dir.exists() {
            return Err(TrainError::Usage(format!(
                "`{}` does not exist; expected a run directory, a checkpoint or a model, on this machine",
                dir.display()
            )));
        }
        if dir.join(ROUTER).is_file() {
            return Err(TrainError::Usage(format!(
                "`{}` holds an image and a text model of sentence-transformers, which are not loaded together; give \
                 the run, one of its checkpoints, or an export with `--format transformers`",
                dir.display()
            )));
        }
        Err(TrainError::Usage(format!(
            "`{}` is not a model: expected a run directory (with `checkpoints/`), a checkpoint (with `manifest.json`) \
             or the directory of a whole model, with one of these values of `model_type` in its `config.json`: {}{}",
            dir.display(),
            dual_encoder_types(),
            directory_hint(dir)
        )))
    }
}

/// The newest valid checkpoint of the run in `dir`; `None`: it has no checkpoint. Each damaged one that is newer
/// becomes a warning.
///
/// # Errors
/// [`TrainError::NoValidCheckpoint`] when all are damaged; [`TrainError::NewerFormat`]; [`TrainError::Read`].
pub(crate) fn newest_checkpoint(dir: &Path, observer: &mut dyn Observer) -> Result<Option<Checkpoint>, TrainError> {
    let Some(Newest { checkpoint, damaged }) = checkpoint::newest_valid(&checkpoints_of(dir))? else { return Ok(None) };
    for error in damaged {
        observer.on(Event::Warning(format!("{error}; the checkpoint of step {} is used", checkpoint.progress.step)));
    }
    Ok(Some(checkpoint))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::events::Silent;

    // A link to itself stands for a directory that may not be read, which is no obstacle to a test that runs as root.
    #[test]
    fn unreadable_model_is_no_other_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("manifest.json", dir.path().join("manifest.json")).unwrap();
        let error = ModelDir::find(dir.path(), &mut Silent).err().unwrap();
        assert!(matches!(&error, TrainError::Read { path, .. } if path.ends_with("manifest.json")), "{error}");
    }
}
