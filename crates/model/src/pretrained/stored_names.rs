//! The names of parameters in a file of the reference, for exporting a model.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::ModelError;
use crate::families::{image_config, text_config};
use crate::pretrained::whole_models::HEAD;
use crate::tower::Tower;
use crate::weights::host_tensor::HostTensor;
use crate::weights::name_table::NameTable;

/// The reference's names of the parameters of a model, for exporting it.
pub struct StoredNames {
    image: NameTable,
    text: NameTable,
    head: NameTable,
}

impl StoredNames {
    /// The names for the families of these `config.json`s.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedFamily`] or [`ModelError::Config`].
    pub fn new(image: &Value, text: &Value) -> Result<Self, ModelError> {
        let here = Path::new("config.json");
        Ok(Self {
            image: NameTable::new(image_config(image, here)?.0),
            text: NameTable::new(text_config(text, here)?.0),
            head: NameTable::new(&HEAD),
        })
    }

    /// Converts parameters by path to tensors by name, as the reference stores them.
    ///
    /// # Errors
    /// [`ModelError::Export`] if the reference has no such parameter.
    pub fn stored(&self, parameters: BTreeMap<String, HostTensor>) -> Result<BTreeMap<String, HostTensor>, ModelError> {
        let mut stored = BTreeMap::new();
        for (path, tensor) in parameters {
            let tower = Tower::of(&path);
            let table = match tower {
                Some(Tower::Image) => &self.image,
                Some(Tower::Text) => &self.text,
                None => &self.head,
            };
            let rest = &path[tower.map_or(0, |tower| tower.prefix().len())..];
            let prefix = tower.map_or("", Tower::stored_prefix);
            let (name, layout) = table
                .stored(rest)
                .ok_or_else(|| ModelError::Export(format!("`{path}` has no name in the files of the reference")))?;
            layout.encode(&tensor.shape, tensor.values, stored.entry(format!("{prefix}{name}")).or_default());
        }
        Ok(stored.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect())
    }
}
