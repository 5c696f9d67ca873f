//! From the bytes of a stored tensor to f32.

use safetensors::tensor::Dtype;

/// Whether the tensor `name` is a count: a 64-bit integer in files, a float in a
/// [`HostTensor`](crate::HostTensor).
pub fn is_count(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

/// Whether a tensor of this name and type is a weight. Other integers (`position_ids`) are not.
pub(crate) fn is_weight(name: &str, dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) || (dtype == Dtype::I64 && is_count(name))
}

/// The values of a tensor, converted to f32; `None` unless [`is_weight`].
pub(crate) fn decode_values(name: &str, dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    match (dtype, is_count(name)) {
        (Dtype::I64, true) => Some(eight_bytes(bytes).map(|b| i64::from_le_bytes(b) as f32).collect()),
        _ => decode_floats(dtype, bytes),
    }
}

fn decode_floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match dtype {
        Dtype::F32 => Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::F16 => Some(pairs().map(|b| half::f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Some(pairs().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect()),
        Dtype::F64 => Some(eight_bytes(bytes).map(|b| f64::from_le_bytes(b) as f32).collect()),
        _ => None,
    }
}

fn eight_bytes(bytes: &[u8]) -> impl Iterator<Item = [u8; 8]> {
    bytes.chunks_exact(8).map(|b| [b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
}
