//! What `text_pool = "auto"` stands for: decided when a run starts, recorded in its config, and never decided again.
//!
//! Which pooling it is, is decided by [`auto_text_pool`]. A recorded `auto`, that of every run that started before the
//! answer was recorded included, is the pooled output of the reference.

use dualenc_model::{Pool, Tower, TowerLock, auto_text_pool};

use crate::config::RunConfig;
use crate::error::TrainError;
use crate::models::hub::resolve::resolve;

/// The config of a new run, with its `text_pool` settled. A tower from random weights was trained for no pooling, and a
/// whole model has its own.
///
/// # Errors
/// [`TrainError::Hub`] when the tower cannot be found.
pub fn settled(config: &RunConfig) -> Result<RunConfig, TrainError> {
    let mut config = config.clone();
    if config.model.text_pool == Pool::Auto
        && config.model.lock.text != TowerLock::Scratch
        && let (None, Some(text)) = (&config.model.init, &config.model.text_tower)
    {
        // In the order of loading: of two towers that cannot be found, the first is named.
        config.model.image_tower.as_deref().map(resolve).transpose()?;
        config.model.text_pool = auto_text_pool(&resolve(text)?, &config.model.taken_layers(Tower::Text));
    }
    Ok(config)
}

/// The config of a run that goes on, with the `text_pool` that `recorded` has for `auto`, and its micro-batches unless
/// the config sets them.
pub(crate) fn continued(config: &RunConfig, recorded: &RunConfig) -> RunConfig {
    let mut config = config.clone();
    if config.model.text_pool == Pool::Auto && recorded.model.text_pool == Pool::Sentence {
        config.model.text_pool = Pool::Sentence;
    }
    config.train.micro_batch_size = config.train.micro_batch_size.or(recorded.train.micro_batch_size);
    config
}
