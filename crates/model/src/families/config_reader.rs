//! Reading the keys of a `config.json`, with errors that name file, key and value. It knows no family.

use std::path::Path;

use dualenc_kernels::Activation;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ModelError;

/// The keys of one config; an absent or `null` key has the default that the caller gives, the one of the family's
/// config class in transformers 5.23.
pub(crate) struct Keys<'a> {
    pub json: &'a Value,
    /// Named in errors.
    pub path: &'a Path,
}

impl<'a> Keys<'a> {
    /// The value of `key`; `None` where it is absent or `null`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ModelError> {
        match self.json.get(key).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|error| self.problem(format!("`{key}` is `{value}`: {error}"))),
        }
    }

    /// The value of `key`, or `default`.
    pub fn or<T: DeserializeOwned>(&self, key: &str, default: T) -> Result<T, ModelError> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    /// The text of `key`, or `default`.
    pub fn text(&self, key: &str, default: &'static str) -> Result<&'a str, ModelError> {
        match self.json.get(key).filter(|value| !value.is_null()) {
            None => Ok(default),
            Some(value) => {
                value.as_str().ok_or_else(|| self.problem(format!("`{key}` is `{value}`, which is no text")))
            }
        }
    }

    /// One side of a square, given as one number or as two equal ones.
    pub fn square(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        match self.json.get(key) {
            Some(Value::Array(sides)) => {
                let pair: [usize; 2] = serde_json::from_value(Value::Array(sides.clone()))
                    .map_err(|error| self.problem(format!("`{key}`: {error}")))?;
                match pair {
                    [height, width] if height == width => Ok(height),
                    _ => Err(self.problem(format!("`{key}` is {pair:?}; only square ones are supported"))),
                }
            }
            _ => self.or(key, default),
        }
    }

    /// The nonlinearity under `key`.
    pub fn activation(&self, key: &str, default: Activation) -> Result<Activation, ModelError> {
        self.or(key, default)
    }

    /// Width and heads, which must divide it; 768 and 12 where nothing is said, as in most config classes.
    pub fn width_and_heads(&self, width_key: &str, heads_key: &str) -> Result<(usize, usize), ModelError> {
        self.width_and_heads_or((width_key, 768), (heads_key, 12))
    }

    /// The same with other defaults.
    pub fn width_and_heads_or(
        &self,
        (width_key, width): (&str, usize),
        (heads_key, heads): (&str, usize),
    ) -> Result<(usize, usize), ModelError> {
        let (width, heads): (usize, usize) = (self.or(width_key, width)?, self.or(heads_key, heads)?);
        match heads == 0 || !width.is_multiple_of(heads) {
            true => Err(self.problem(format!("`{width_key}` {width} is not a multiple of `{heads_key}` {heads}"))),
            false => Ok((width, heads)),
        }
    }

    /// Side of the images and of their patches, in pixels.
    pub fn image_and_patch(&self, image_size: usize, patch_size: usize) -> Result<(usize, usize), ModelError> {
        let (image, patch) = (self.square("image_size", image_size)?, self.square("patch_size", patch_size)?);
        if patch == 0 || image < patch {
            return Err(self.problem(format!("`image_size` {image} holds no patch of `patch_size` {patch}")));
        }
        match self.or("num_channels", 3)? {
            3 => Ok((image, patch)),
            other => Err(self.problem(format!("`num_channels` is {other}; images have 3"))),
        }
    }

    /// An error about this file.
    pub fn problem(&self, problem: String) -> ModelError {
        ModelError::Config { path: self.path.to_owned(), problem }
    }
}
