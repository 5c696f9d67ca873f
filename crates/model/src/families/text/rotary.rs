//! Rotary positions as configs write them: `rope_parameters` since transformers 5, `rope_theta` and `rope_scaling`
//! before.

use serde_json::Value;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::text::token_relations::TokenRelations;
use crate::transformer::rotary::RotaryScaling;

/// The rotation that `parameters` describe; where they lack a key, `rope_scaling` and `rope_theta` of the config do,
/// and then `theta` is the base.
pub(super) fn of(keys: &Keys<'_>, parameters: &Value, theta: f64) -> Result<TokenRelations, ModelError> {
    let scaling = &keys.json["rope_scaling"];
    let parameters = if scaling.is_object() { scaling } else { parameters };
    of_parameters(keys, parameters, keys.or("rope_theta", theta)?)
}

/// The rotation that `parameters` alone describe; `theta` is the base if they have none.
pub(super) fn of_parameters(keys: &Keys<'_>, parameters: &Value, theta: f64) -> Result<TokenRelations, ModelError> {
    let number = |key: &str| match parameters.get(key).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => {
            let positive = value.as_f64().filter(|number| *number > 0.0);
            positive.map(Some).ok_or_else(|| {
                keys.problem(format!("`{key}` of the rotary positions is `{value}`; expected a number above 0"))
            })
        }
    };
    let needed = |key: &str| number(key)?.ok_or_else(|| keys.problem(format!("the rotary positions have no `{key}`")));
    let kind = parameters.get("rope_type").or(parameters.get("type")).and_then(Value::as_str).unwrap_or("default");
    let rotary_scaling = match kind {
        // The dynamic kind differs only for texts longer than `max_position_embeddings`, which are refused.
        "default" | "dynamic" => None,
        "linear" => Some(RotaryScaling::Linear { factor: needed("factor")? }),
        "llama3" => Some(RotaryScaling::Llama3 {
            factor: needed("factor")?,
            low: needed("low_freq_factor")?,
            high: needed("high_freq_factor")?,
            length: match number("original_max_position_embeddings")? {
                Some(length) => length,
                None => keys.or("max_position_embeddings", 2048.0)?,
            },
        }),
        "ntk" if parameters.get("mixed_b").is_none_or(Value::is_null) => {
            Some(RotaryScaling::Ntk { factor: needed("factor")? })
        }
        other => {
            return Err(keys.problem(format!(
                "`rope_type` is `{other}`; supported: default, dynamic, linear, llama3, ntk without `mixed_b`"
            )));
        }
    };
    let partial = match number("partial_rotary_factor")? {
        None => keys.or("partial_rotary_factor", 1.0)?,
        Some(factor) => factor,
    };
    if partial != 1.0 {
        return Err(keys.problem(format!("`partial_rotary_factor` is {partial}; supported: 1")));
    }
    let theta = number("rope_theta")?.unwrap_or(theta);
    Ok(TokenRelations { rotary_theta: Some(theta), rotary_scaling, ..TokenRelations::default() })
}
