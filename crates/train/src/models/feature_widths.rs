//! The widths of features that stand in place of towers.

use crate::config::RunConfig;
use crate::error::TrainError;

/// The widths of the features of images and of texts: those that the config notes, else those in the files of the first
/// source. `None`: that side has a tower.
///
/// # Errors
/// [`TrainError::Data`] when a file cannot be read or is not features.
pub(crate) fn feature_widths(config: &RunConfig) -> Result<[Option<usize>; 2], TrainError> {
    let (sides, noted) = (config.feature_sides(), [config.model.image_width, config.model.text_width]);
    let is_unknown = |side: usize| sides[side] && noted[side].is_none();
    let tables = config.data.train.tables();
    let features = tables.first().and_then(|(_, table)| table.features.as_ref());
    let in_files = match features.filter(|_| is_unknown(0) || is_unknown(1)) {
        Some(features) => features.widths()?,
        None => [None; 2],
    };
    Ok(std::array::from_fn(|side| noted[side].or(in_files[side]).filter(|_| sides[side])))
}

/// `config` with the widths of the features, by which a checkpoint is loaded without the data.
///
/// # Errors
/// As for [`feature_widths`].
pub(crate) fn with_feature_widths(config: &RunConfig) -> Result<RunConfig, TrainError> {
    let mut config = config.clone();
    [config.model.image_width, config.model.text_width] = feature_widths(&config)?;
    Ok(config)
}
