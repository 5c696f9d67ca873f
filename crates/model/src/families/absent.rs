//! Towers that are not there: their outputs come from files. The `config.json` of such a tower holds its width alone.

use serde_json::{Value, json};

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::weights::name_table::Names;

/// The `model_type` of a tower that is not there.
const ABSENT: &str = "dualenc-features";

/// No tensors.
pub(super) const NO_NAMES: Names = Names { rows: &[], prefixes: &[""], probe: "" };

/// The `config.json` of a tower with outputs of `width` values.
pub(crate) fn absent_config(width: usize) -> Value {
    json!({ "model_type": ABSENT, "hidden_size": width })
}

/// The width of the outputs, if the config is that of such a tower.
///
/// # Errors
/// [`ModelError::Config`] if it is and has no width.
pub(super) fn absent_width(keys: &Keys<'_>) -> Result<Option<usize>, ModelError> {
    if keys.json["model_type"] != ABSENT {
        return Ok(None);
    }
    keys.or("hidden_size", 0).map(Some)
}
