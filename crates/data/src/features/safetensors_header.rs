//! The header of a safetensors file: the length of the header in 8 bytes, little-endian, JSON of that length, then the
//! values (<https://huggingface.co/docs/safetensors>).

use serde_json::{Map, Value};

use crate::features::number::Number;

/// Longest header (`MAX_HEADER_SIZE` of the safetensors library).
pub(crate) const MAX_HEADER: u64 = 100_000_000;

/// Bytes before the header.
pub(crate) const LENGTH_BYTES: u64 = 8;

/// An array of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// `None`: a type that is not read, with its name.
    pub(crate) number: Result<Number, String>,
    pub(crate) shape: Vec<u64>,
    /// Position of the values behind the header, and their length, in bytes.
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// Reads the JSON of a header, sorted by name.
///
/// # Errors
/// What is wrong.
pub(crate) fn parse(json: &[u8]) -> Result<Vec<Entry>, String> {
    let header: Map<String, Value> =
        serde_json::from_slice(json).map_err(|error| format!("its safetensors header is not JSON: {error}"))?;
    let entries = header.into_iter().filter(|(name, _)| name != "__metadata__");
    entries
        .map(|(name, value)| {
            let wrong = || format!("tensor `{name}` has no valid `dtype`, `shape` and `data_offsets`");
            let numbers =
                |key: &str| -> Option<Vec<u64>> { value[key].as_array()?.iter().map(Value::as_u64).collect() };
            let (Some(dtype), Some(shape), Some(offsets)) =
                (value["dtype"].as_str(), numbers("shape"), numbers("data_offsets"))
            else {
                return Err(wrong());
            };
            let &[start, end] = &offsets[..] else { return Err(wrong()) };
            let len = end.checked_sub(start).ok_or_else(wrong)?;
            Ok(Entry { number: number(dtype).ok_or_else(|| dtype.to_owned()), shape, start, len, name })
        })
        .collect()
}

fn number(dtype: &str) -> Option<Number> {
    Some(match dtype {
        "F16" => Number::F16,
        "BF16" => Number::Bf16,
        "F32" => Number::F32,
        "F64" => Number::F64,
        "I8" => Number::I8,
        "U8" => Number::U8,
        "I16" => Number::I16,
        "U16" => Number::U16,
        "I32" => Number::I32,
        "U32" => Number::U32,
        "I64" => Number::I64,
        "U64" => Number::U64,
        _ => return None,
    })
}
