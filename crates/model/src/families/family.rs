//! What each family of towers declares.

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::weights::name_table::Names;

/// Whether a config says what a family asks for.
pub(crate) type Flag = fn(&Keys<'_>) -> Result<bool, ModelError>;

/// A family of towers with the architecture `C`.
pub(crate) struct Family<C: 'static> {
    /// Its `model_type`s.
    pub model_types: &'static [&'static str],
    /// What the config must say beside its `model_type`. Among families of one `model_type`, the first match applies.
    pub flag: Option<Flag>,
    /// The names of its tensors on disk.
    pub names: Names,
    /// Reads its `config.json`.
    pub config: fn(&Keys<'_>) -> Result<C, ModelError>,
}
