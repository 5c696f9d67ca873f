//! Typed access to the JSON of processor files, with errors that name the file and the key.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::DataError;
use crate::foreign_file::{json_problem, without_bom};
use crate::image_processor::steps::Statistics;

/// Longest side accepted in a file, equal to the decoder's limit: a longer one is a mistake or an attack.
pub(crate) const MAX_SIDE_PX: u64 = 16_384;

/// Crop fractions accepted. Far outside this range nothing is left of an image, or it becomes enormous.
const CROP_FRACTIONS: std::ops::RangeInclusive<f64> = 0.01..=100.0;

/// The JSON object in `path`; `None` if the file does not exist.
pub(crate) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, DataError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataError::Read { path: path.to_owned(), source }),
    };
    serde_json::from_slice(without_bom(&bytes)).map(Some).map_err(|error| {
        let reason = json_problem(&bytes, &error).replacen("not JSON", "not a JSON object", 1);
        DataError::Malformed { path: path.to_owned(), reason }
    })
}

/// The object of a processor file, or an object inside it.
pub(crate) struct JsonReader<'a> {
    /// The file, for errors.
    pub(crate) path: &'a Path,
    pub(crate) object: &'a Map<String, Value>,
}

impl JsonReader<'_> {
    /// The value of a key; `null` counts as absent, as in transformers.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// The error that `key` has the value `found`, which is not supported.
    pub(crate) fn error(&self, key: &str, found: &Value, expected: &str) -> DataError {
        DataError::Processor {
            path: self.path.to_owned(),
            key: key.to_owned(),
            found: format!("`{found}`"),
            expected: expected.to_owned(),
        }
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, DataError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.error(key, other, "true or false")),
        }
    }

    /// `value` as a length in pixels; `key` names it in the error.
    pub(crate) fn side(&self, key: &str, value: &Value) -> Result<u32, DataError> {
        let side = value.as_u64().filter(|side| (1..=MAX_SIDE_PX).contains(side));
        side.map(|side| side as u32).ok_or_else(|| self.error(key, value, "a whole number of pixels from 1 to 16384"))
    }

    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64, DataError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => {
                value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| self.error(key, value, "a number"))
            }
        }
    }

    /// `crop_pct`: the fraction of the resized image's side that the crop keeps.
    pub(crate) fn crop_fraction(&self, default: f64) -> Result<f64, DataError> {
        let fraction = self.number("crop_pct", default)?;
        if CROP_FRACTIONS.contains(&fraction) {
            Ok(fraction)
        } else {
            let expected = format!("the fraction of the image to keep, such as {default}");
            Err(self.error("crop_pct", &json!(fraction), &expected))
        }
    }

    /// One number per channel, or one for all.
    fn channels(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3], DataError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let numbers: Option<Vec<f64>> = match value {
            Value::Array(values) => values.iter().map(Value::as_f64).collect(),
            other => other.as_f64().map(|number| vec![number; 3]),
        };
        numbers
            .and_then(|numbers| <[f64; 3]>::try_from(numbers).ok())
            .filter(|numbers| numbers.iter().all(|number| number.is_finite()))
            .ok_or_else(|| self.error(key, value, "three numbers"))
    }

    /// Mean and standard deviation of each channel; no standard deviation is 0.
    pub(crate) fn statistics(
        &self,
        mean_key: &str,
        std_key: &str,
        (mean, std): Statistics,
    ) -> Result<Statistics, DataError> {
        let (mean, std) = (self.channels(mean_key, mean)?, self.channels(std_key, std)?);
        if std.contains(&0.0) {
            return Err(self.error(std_key, &json!(std), "numbers other than 0"));
        }
        Ok((mean, std))
    }
}
