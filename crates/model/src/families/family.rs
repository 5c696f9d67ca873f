//! What a family of towers is: its `model_type`s, its names on disk, and how its config is read.

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::weights::name_table::Names;

/// A family of towers whose config is `C`.
pub(crate) struct Family<C: 'static> {
    /// The `model_type`s that are of this family.
    pub model_types: &'static [&'static str],
    /// A flag of the config that must be set: of families of one `model_type`, the first one listed whose flag is set
    /// is meant.
    pub flag: Option<&'static str>,
    /// Its tensors on disk.
    pub names: Names,
    /// Reads its `config.json`.
    pub config: fn(&Keys<'_>) -> Result<C, ModelError>,
}
