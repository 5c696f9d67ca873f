//! Reads keys of a `config.json`, with errors that name file, key and value. It knows no family.

use std::path::Path;

use dualenc_kernels::Activation;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ModelError;

/// Largest number of a size. The largest vocabularies have about 256 thousand tokens. It keeps a damaged config from
/// asking for memory without bound, and products of two sizes from overflowing.
const MAX_SIZE: u64 = 1 << 24;

/// Largest number of layers.
const MAX_LAYERS: u64 = 1024;

/// Keys that count layers.
const LAYERS: [&str; 5] = ["num_hidden_layers", "n_layers", "num_layers", "num_hidden_groups", "depths"];

fn limit_of(key: &str) -> u64 {
    if LAYERS.contains(&key) { MAX_LAYERS } else { MAX_SIZE }
}

/// Whether `value`, or a number in this list, is a whole number above `limit`.
fn exceeds(value: &Value, limit: u64) -> bool {
    match value {
        Value::Array(values) => values.iter().any(|value| exceeds(value, limit)),
        value => value.as_u64().is_some_and(|number| number > limit),
    }
}

/// The keys of one config. Defaults apply to absent and `null` keys, and are those of the family's config class in
/// transformers 5.23.
pub(crate) struct Keys<'a> {
    pub json: &'a Value,
    /// The file, for errors.
    pub path: &'a Path,
}

impl<'a> Keys<'a> {
    /// The value of `key`; `None` if it is absent or `null`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ModelError> {
        match self.json.get(key).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) if exceeds(value, limit_of(key)) => Err(self
                .problem(format!("`{key}` is {value}, but no supported model has more than {} there", limit_of(key)))),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|error| self.problem(format!("`{key}` is `{value}`: {error}"))),
        }
    }

    /// The value of `key`, or `default`.
    pub fn or<T: DeserializeOwned>(&self, key: &str, default: T) -> Result<T, ModelError> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    /// The string at `key`, or `default`.
    pub fn text(&self, key: &str, default: &'static str) -> Result<&'a str, ModelError> {
        match self.json.get(key).filter(|value| !value.is_null()) {
            None => Ok(default),
            Some(value) => {
                value.as_str().ok_or_else(|| self.problem(format!("`{key}` is `{value}`; expected a string")))
            }
        }
    }

    /// The side of a square at `key`, written as one number or as two equal ones.
    pub fn square(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        match self.json.get(key) {
            Some(Value::Array(_)) => {
                let pair: [usize; 2] = self.or(key, [default, default])?;
                match pair {
                    [height, width] if height == width => Ok(height),
                    _ => Err(self.problem(format!("`{key}` is {pair:?}; only squares are supported"))),
                }
            }
            _ => self.or(key, default),
        }
    }

    /// The nonlinearity at `key`.
    pub fn activation(&self, key: &str, default: Activation) -> Result<Activation, ModelError> {
        self.or(key, default)
    }

    /// The width, by default 768, and the number of heads, by default 12, which must divide it.
    pub fn width_and_heads(&self, width_key: &str, heads_key: &str) -> Result<(usize, usize), ModelError> {
        self.width_and_heads_or((width_key, 768), (heads_key, 12))
    }

    /// As [`width_and_heads`](Self::width_and_heads), with other defaults.
    pub fn width_and_heads_or(
        &self,
        (width_key, width): (&str, usize),
        (heads_key, heads): (&str, usize),
    ) -> Result<(usize, usize), ModelError> {
        let (width, heads): (usize, usize) = (self.or(width_key, width)?, self.or(heads_key, heads)?);
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(self.problem(format!("`{width_key}` {width} is not a multiple of `{heads_key}` {heads}")));
        }
        Ok((width, heads))
    }

    /// The side of images and the side of patches, in pixels.
    pub fn image_and_patch(&self, image_size: usize, patch_size: usize) -> Result<(usize, usize), ModelError> {
        let (image, patch) = (self.square("image_size", image_size)?, self.square("patch_size", patch_size)?);
        if patch == 0 || image < patch {
            return Err(self.problem(format!("`image_size` {image} is smaller than `patch_size` {patch}")));
        }
        match self.or("num_channels", 3)? {
            3 => Ok((image, patch)),
            other => Err(self.problem(format!("`num_channels` is {other}; images have 3"))),
        }
    }

    /// `drop_path_rate`, the probability with which a branch is left out in training.
    pub fn drop_path(&self, default: f64) -> Result<f64, ModelError> {
        let rate: f64 = self.or("drop_path_rate", default)?;
        if (0.0..1.0).contains(&rate) {
            return Ok(rate);
        }
        Err(self.problem(format!("`drop_path_rate` is {rate}, expected 0 or more and less than 1")))
    }

    /// An error about this file.
    pub fn problem(&self, problem: String) -> ModelError {
        ModelError::Config { path: self.path.to_owned(), problem }
    }
}
