//! From the bytes of a stored tensor to f32.

use std::io::{self, Read};

use safetensors::tensor::Dtype;

/// Values that are converted at a time: 64 Ki, so that the bytes stay in a core's cache.
const CHUNK: usize = 1 << 16;

/// Whether the tensor `name` is a count: a 64-bit integer in files, a float in a
/// [`HostTensor`](crate::HostTensor).
pub fn is_count(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

/// Whether a tensor of this name and type is a weight. Other integers (`position_ids`) are not.
pub(crate) fn is_weight(name: &str, dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) || (dtype == Dtype::I64 && is_count(name))
}

/// Reads `count` values of a tensor, and converts them to f32. f32 goes straight into the result.
///
/// # Errors
/// Those of `from`, and [`io::ErrorKind::InvalidData`] unless [`is_weight`].
pub(crate) fn read_values(name: &str, dtype: Dtype, count: usize, from: &mut dyn Read) -> io::Result<Vec<f32>> {
    match dtype {
        Dtype::F32 => {
            let mut values = vec![0f32; count];
            from.read_exact(bytemuck::cast_slice_mut(&mut values))?;
            if cfg!(target_endian = "big") {
                values.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().swap_bytes()));
            }
            Ok(values)
        }
        Dtype::F16 => converted(count, from, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => converted(count, from, |b| half::bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => converted(count, from, |b| f64::from_le_bytes(b) as f32),
        Dtype::I64 if is_count(name) => converted(count, from, |b| i64::from_le_bytes(b) as f32),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{name}` has type {other}, not a float"))),
    }
}

fn converted<const BYTES: usize>(
    count: usize,
    from: &mut dyn Read,
    convert: impl Fn([u8; BYTES]) -> f32,
) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(count);
    let mut bytes = vec![[0; BYTES]; CHUNK.min(count)];
    while values.len() < count {
        let chunk = &mut bytes[..CHUNK.min(count - values.len())];
        from.read_exact(chunk.as_flattened_mut())?;
        values.extend(chunk.iter().map(|&bytes| convert(bytes)));
    }
    Ok(values)
}
