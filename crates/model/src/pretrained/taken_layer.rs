//! A tower that pools other layers than its last, and ends with the highest: what its `config.json` says is shortened,
//! so that everything after it, export included, has a tower with as many blocks.

use serde_json::Value;

use crate::error::ModelError;
use crate::families::{image_config, text_config};
use crate::pooled_layers::{LayerNumbers, Taken, TakenLayers};
use crate::pretrained::tower_files::TowerFiles;
use crate::tower::Tower;
use crate::transformer::config::NormOrder;
use crate::vision::image_tower::ImageTowerConfig;
use crate::vision::vit_config::FinalNorm;

/// Keys that say which layers a backbone returns. transformers derives them from the number of layers.
const BACKBONE_KEYS: [&str; 3] = ["out_features", "out_indices", "stage_names"];

impl TowerFiles {
    /// The files of a tower that pools the layers of `asked`, and ends with the highest.
    ///
    /// # Errors
    /// [`ModelError::Config`] if the tower has no such layer; [`ModelError::UnsupportedFamily`] if it is no `tower`.
    pub fn taking(mut self, asked: &TakenLayers, tower: Tower) -> Result<Self, ModelError> {
        if *asked == TakenLayers::default() {
            return Ok(self);
        }
        let TakenLayers { numbers, norm } = asked;
        let key = tower.layer_key();
        let family = self.config["model_type"].as_str().unwrap_or_default().to_owned();
        let given = match *numbers == TakenLayers::default().numbers {
            true => format!("`{key}_norm` is {norm}"),
            false => format!("`{key}` is {numbers}"),
        };
        let (of, has_final_norm) = self.layers(tower, &given)?;
        let taken = Taken { layers: self.numbered(numbers, of, tower)?, of, norm: *norm };
        if !norm && !has_final_norm {
            return Err(self.problem(format!(
                "`{key}_norm` is false, but a `{family}` has no norm after its last block: the output of a layer is \
                 taken as it is; remove the key"
            )));
        }
        let last = taken.last();
        let groups = self.config["num_hidden_groups"].as_u64().unwrap_or(1);
        if family == "albert" && last < of && groups > 1 {
            return Err(self.problem(format!(
                "`{key}` is {numbers}, but the layers of this tower share {groups} groups of weights, and which group \
                 a layer has depends on their number; remove the key"
            )));
        }
        if last < of {
            shorten(&mut self.config, last);
            if self.layers(tower, &given)?.0 != last {
                return Err(self.problem(format!("`{key}` is not supported for a `{family}` tower; remove the key")));
            }
        }
        self.taken = Some(taken);
        Ok(self)
    }

    /// The layers of `asked` from 1, in their order. `of`: the number of layers of `tower`.
    fn numbered(&self, asked: &LayerNumbers, of: usize, tower: Tower) -> Result<Vec<usize>, ModelError> {
        let key = tower.layer_key();
        let from_end =
            |number: i64| usize::try_from(number.unsigned_abs()).ok().and_then(|it| (of + 1).checked_sub(it));
        let mut layers = Vec::new();
        for &number in asked.numbers() {
            let layer = if number < 0 { from_end(number) } else { usize::try_from(number).ok() };
            let layer = layer.filter(|layer| (1..=of).contains(layer)).ok_or_else(|| {
                let layers = if of == 1 { "layer" } else { "layers" };
                let has = if asked.numbers().len() > 1 { "lists" } else { "is" };
                self.problem(format!(
                    "`{key}` {has} {number}, but this {tower} has {of} {layers}; choose one from 1 to {of}, or from \
                     -{of} to -1, which is the last"
                ))
            })?;
            if layers.contains(&layer) {
                return Err(self.problem(format!(
                    "`{key}` is {asked}, which lists layer {layer} of {of} twice; list each layer once"
                )));
            }
            layers.push(layer);
        }
        if layers.is_empty() {
            return Err(self.problem(format!("`{key}` lists no layer; remove the key to pool the last one")));
        }
        Ok(layers)
    }

    /// Number of layers of `tower`, and whether a norm follows the last one. `given`: the key that asks for layers.
    fn layers(&self, tower: Tower, given: &str) -> Result<(usize, bool), ModelError> {
        match tower {
            Tower::Image => match image_config(&self.config, &self.config_path)?.1 {
                ImageTowerConfig::Transformer(config) => {
                    Ok((config.encoder.num_layers(), config.final_norm != FinalNorm::None))
                }
                ImageTowerConfig::Absent { .. } => Ok((1, false)),
                ImageTowerConfig::Convolutional(_) | ImageTowerConfig::Windowed(_) => Err(self.problem(format!(
                    "{given}, but a `{}` has stages of blocks of different widths, of which only the last is pooled; \
                     remove the key, or choose a vision transformer",
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
