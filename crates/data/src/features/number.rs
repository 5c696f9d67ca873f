//! The types of the numbers in a feature file, all little-endian.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Values that are converted at a time.
const AT_ONCE: usize = 64;

/// A type of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    F16,
    Bf16,
    F32,
    F64,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
}

impl Number {
    /// Bytes of one number.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// The name in messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I16 => "i16",
            Self::U16 => "u16",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::I64 => "i64",
            Self::U64 => "u64",
        }
    }

    /// Whether it is a floating-point type.
    pub(crate) const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// Reads as many floating-point numbers as `out` holds. `f64` is rounded; the others are exact.
    pub(crate) fn to_f32(self, bytes: &[u8], out: &mut [f32]) {
        fn each<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
            out.iter_mut().zip(bytes.as_chunks::<N>().0).for_each(|(out, bytes)| *out = value(*bytes));
        }
        match self {
            Self::F16 => {
                // Several at a time, for which processors have instructions.
                let mut halves = [f16::ZERO; AT_ONCE];
                for (bytes, out) in bytes.chunks(2 * AT_ONCE).zip(out.chunks_mut(AT_ONCE)) {
                    let halves = &mut halves[..out.len()];
                    let pairs = bytes.as_chunks::<2>().0;
                    halves.iter_mut().zip(pairs).for_each(|(half, bytes)| *half = f16::from_le_bytes(*bytes));
                    halves.convert_to_f32_slice(out);
                }
            }
            Self::Bf16 => each(bytes, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Self::F32 => each(bytes, out, f32::from_le_bytes),
            Self::F64 => each(bytes, out, |bytes| f64::from_le_bytes(bytes) as f32),
            // A table has floating-point numbers only.
            _ => out.fill(f32::NAN),
        }
    }

    /// Reads a whole number from its bytes; `None`: it is beyond `i64`, or a floating-point number.
    pub(crate) fn to_i64(self, bytes: &[u8]) -> Option<i64> {
        let bytes_of = |len| bytes.get(..len);
        match self {
            Self::I8 => bytes.first().map(|byte| i64::from(byte.cast_signed())),
            Self::U8 => bytes.first().map(|byte| i64::from(*byte)),
            Self::I16 => Some(i16::from_le_bytes(bytes_of(2)?.try_into().ok()?).into()),
            Self::U16 => Some(u16::from_le_bytes(bytes_of(2)?.try_into().ok()?).into()),
            Self::I32 => Some(i32::from_le_bytes(bytes_of(4)?.try_into().ok()?).into()),
            Self::U32 => Some(u32::from_le_bytes(bytes_of(4)?.try_into().ok()?).into()),
            Self::I64 => Some(i64::from_le_bytes(bytes_of(8)?.try_into().ok()?)),
            Self::U64 => i64::try_from(u64::from_le_bytes(bytes_of(8)?.try_into().ok()?)).ok(),
            Self::F16 | Self::Bf16 | Self::F32 | Self::F64 => None,
        }
    }
}
