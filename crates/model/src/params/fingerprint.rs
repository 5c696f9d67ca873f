//! A hash of the values of a model's parameters: caches and checkpoints are keyed by it, so it must never change.

use std::borrow::Cow;

use burn::module::Module;

use crate::error::ModelError;
use crate::params::inventory::ParamFilter;
use crate::params::values::readers;

/// blake3 over path, shape and f32 bits of each selected parameter, in the order of their paths; in hex.
///
/// # Errors
/// [`ModelError::Device`] if the device cannot copy a tensor to the host.
pub fn fingerprint(model: &impl Module, which: ParamFilter) -> Result<String, ModelError> {
    let [whole] = fingerprints(model, which, [""])?;
    Ok(whole)
}

/// The [`fingerprint`] of each part of `model` below one of `prefixes`, as if the part were a model of its own: the
/// prefix is removed from the paths. Every parameter is read once, even if several parts contain it.
///
/// # Errors
/// As [`fingerprint`].
pub fn fingerprints<const N: usize>(
    model: &impl Module,
    which: ParamFilter,
    prefixes: [&str; N],
) -> Result<[String; N], ModelError> {
    let mut hashers = prefixes.map(|prefix| (prefix, blake3::Hasher::new()));
    for (path, reader) in readers(model, which) {
        let values = reader.values()?;
        let bits: Cow<'_, [u32]> = if cfg!(target_endian = "little") {
            bytemuck::cast_slice(&values).into()
        } else {
            values.iter().map(|value| value.to_bits().to_le()).collect()
        };
        for (prefix, hasher) in &mut hashers {
            let Some(path) = path.strip_prefix(*prefix) else { continue };
            hasher.update(path.as_bytes());
            for size in &reader.shape {
                hasher.update(&(*size as u64).to_le_bytes());
            }
            hasher.update_rayon(bytemuck::cast_slice(&bits));
        }
    }
    Ok(hashers.map(|(_, hasher)| hasher.finalize().to_hex().to_string()))
}
