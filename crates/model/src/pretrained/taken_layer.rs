//! A tower that ends at an earlier layer: what its `config.json` says is shortened, so that everything after it, export
//! included, has a tower with as many blocks.

use serde_json::Value;

use crate::error::ModelError;
use crate::families::{image_config, text_config};
use crate::pooling::{Taken, TakenLayer};
use crate::pretrained::tower_files::TowerFiles;
use crate::tower::Tower;
use crate::transformer::config::NormOrder;
use crate::vision::image_tower::ImageTowerConfig;
use crate::vision::vit_config::FinalNorm;

/// Keys that say which layers a backbone returns. transformers derives them from the number of layers.
const BACKBONE_KEYS: [&str; 3] = ["out_features", "out_indices", "stage_names"];

impl TowerFiles {
    /// The files of a tower that ends with `layer`.
    ///
    /// # Errors
    /// [`ModelError::Config`] if the tower has no such layer; [`ModelError::UnsupportedFamily`] if it is no `tower`.
    pub fn taking(mut self, layer: TakenLayer, tower: Tower) -> Result<Self, ModelError> {
        if layer == TakenLayer::default() {
            return Ok(self);
        }
        let key = tower.layer_key();
        let family = self.config["model_type"].as_str().unwrap_or_default().to_owned();
        let (of, has_final_norm) = self.layers(tower)?;
        let from_end =
            |number: i64| usize::try_from(number.unsigned_abs()).ok().and_then(|it| (of + 1).checked_sub(it));
        let number = if layer.number < 0 { from_end(layer.number) } else { usize::try_from(layer.number).ok() };
        let taken = number.filter(|number| (1..=of).contains(number)).ok_or_else(|| {
            self.problem(format!(
                "`{key}` is {}, but this {tower} has {of} layers; choose one from 1 to {of}, or from -{of} to -1, \
                 which is the last",
                layer.number
            ))
        })?;
        if !layer.norm && !has_final_norm {
            return Err(self.problem(format!(
                "`{key}_norm` is false, but a `{family}` has no norm after its last block: the output of a layer is \
                 taken as it is; remove the key"
            )));
        }
        let groups = self.config["num_hidden_groups"].as_u64().unwrap_or(1);
        if family == "albert" && taken < of && groups > 1 {
            return Err(self.problem(format!(
                "`{key}` is {}, but the layers of this tower share {groups} groups of weights, and which group a layer \
                 has depends on their number; remove the key",
                layer.number
            )));
        }
        if taken < of {
            shorten(&mut self.config, taken);
            if self.layers(tower)?.0 != taken {
                return Err(self.problem(format!("`{key}` is not supported for a `{family}` tower; remove the key")));
            }
        }
        self.taken = Some(Taken { layer: taken, of, norm: layer.norm });
        Ok(self)
    }

    /// Number of layers of `tower`, and whether a norm follows the last one.
    fn layers(&self, tower: Tower) -> Result<(usize, bool), ModelError> {
        match tower {
            Tower::Image => match image_config(&self.config, &self.config_path)?.1 {
                ImageTowerConfig::Transformer(config) => {
                    Ok((config.encoder.num_layers(), config.final_norm != FinalNorm::None))
                }
                ImageTowerConfig::Absent { .. } => Ok((1, false)),
                ImageTowerConfig::Convolutional(_) | ImageTowerConfig::Windowed(_) => Err(self.problem(format!(
                    "`image_layer` or `image_layer_norm` is set, but the blocks of a `{}` have different widths and \
                     only the last can be pooled; remove the key, or choose a vision transformer",
                    self.config["model_type"].as_str().unwrap_or_default()
                ))),
            },
            Tower::Text => {
                let config = text_config(&self.config, &self.config_path)?.1;
                Ok((config.encoder.num_layers(), config.encoder.norm_order == NormOrder::Pre))
            }
        }
    }
}

/// Leaves the first `layers` layers of a tower's `config.json`.
fn shorten(config: &mut Value, layers: usize) {
    let key = match config["model_type"].as_str() {
        Some("distilbert") => "n_layers",
        Some("t5") => "num_layers",
        _ => "num_hidden_layers",
    };
    config[key] = layers.into();
    if let Some(types) = config.get_mut("layer_types").and_then(Value::as_array_mut) {
        types.truncate(layers);
    }
    if let Some(keys) = config.as_object_mut() {
        for key in BACKBONE_KEYS {
            keys.remove(key);
        }
    }
}
