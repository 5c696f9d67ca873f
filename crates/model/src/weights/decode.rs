//! From the bytes of a stored tensor to f32.

use std::io::{self, Read};

use safetensors::tensor::Dtype;

/// Values that are read at a time: 64 Ki, so that they stay in a core's cache.
pub(crate) const VALUES_AT_ONCE: usize = 1 << 16;

/// Whether the tensor `name` is a count: a 64-bit integer in files, a float in a
/// [`HostTensor`](crate::HostTensor).
pub fn is_count(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

/// Whether a tensor of this name and type is a weight. Other integers (`position_ids`) are not.
pub(crate) fn is_weight(name: &str, dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) || (dtype == Dtype::I64 && is_count(name))
}

/// Reads the next values of a tensor into `out`, and converts them to f32. f32 goes straight there.
///
/// # Errors
/// Those of `from`, and [`io::ErrorKind::InvalidData`] unless [`is_weight`].
pub(crate) fn read_values(name: &str, dtype: Dtype, out: &mut [f32], from: &mut dyn Read) -> io::Result<()> {
    match dtype {
        Dtype::F32 => {
            from.read_exact(bytemuck::cast_slice_mut(out))?;
            if cfg!(target_endian = "big") {
                out.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().swap_bytes()));
            }
            Ok(())
        }
        Dtype::F16 => convert(out, from, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => convert(out, from, |b| half::bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => convert(out, from, |b| f64::from_le_bytes(b) as f32),
        Dtype::I64 if is_count(name) => convert(out, from, |b| i64::from_le_bytes(b) as f32),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{name}` has type {other}, not a float"))),
    }
}

fn convert<const BYTES: usize>(
    out: &mut [f32],
    from: &mut dyn Read,
    convert: impl Fn([u8; BYTES]) -> f32,
) -> io::Result<()> {
    let mut bytes = vec![[0; BYTES]; VALUES_AT_ONCE.min(out.len())];
    for out in out.chunks_mut(VALUES_AT_ONCE) {
        let bytes = &mut bytes[..out.len()];
        from.read_exact(bytes.as_flattened_mut())?;
        out.iter_mut().zip(bytes).for_each(|(value, bytes)| *value = convert(*bytes));
    }
    Ok(())
}
