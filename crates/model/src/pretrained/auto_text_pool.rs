//! What `text_pool = "auto"` stands for in a new model.

use std::path::Path;

use crate::dual_encoder::lock::TowerLock;
use crate::error::ModelError;
use crate::families::text_config;
use crate::pooled_layers::{Taken, TakenLayers};
use crate::pooling::Pool;
use crate::pretrained::config_file::is_dual_encoder_dir;
use crate::pretrained::sentence_transformers::sentence_pooling;
use crate::pretrained::tower_files::TowerFiles;
use crate::tower::Tower;

/// What `text_pool = "auto"` stands for in a new model with the pretrained text tower in `dir`. The one place that
/// decides it; a run records the answer, and its checkpoints are never asked again.
///
/// [`Pool::Sentence`] if the directory says how sentence-transformers pools it, and holds no pooler that can follow
/// `layers`. A pooler in the weights comes first, though sentence-transformers did not train with it: only a model with
/// a pooler can be exported to transformers. Otherwise, for a pooling that is not supported, and for a whole model:
/// [`Pool::Auto`], that of the reference.
pub fn auto_text_pool(dir: &Path, layers: &TakenLayers) -> Pool {
    match sentence_pooling(dir) {
        // What cannot be read is an error when the tower is loaded.
        Ok(Some(_)) if !is_dual_encoder_dir(dir) && matches!(has_pooler(dir, layers), Ok(false)) => Pool::Sentence,
        _ => Pool::Auto,
    }
}

/// Whether there is a pooler that was trained for what `layers` gives.
fn has_pooler(dir: &Path, layers: &TakenLayers) -> Result<bool, ModelError> {
    let files = TowerFiles::open(dir, TowerLock::Locked, Tower::Text)?.taking(layers, Tower::Text)?;
    let (names, config) = text_config(&files.config, &files.config_path)?;
    Ok(files.has_pooler(names, &config) && files.taken.as_ref().is_none_or(Taken::is_whole))
}
