//! The rows of a mapped file as `f32`.

use std::borrow::Cow;
use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;

/// How a value is stored, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    F32,
}

impl Element {
    /// Bytes of a value.
    pub fn size(self) -> usize {
        match self {
            Self::F16 => size_of::<u16>(),
            Self::F32 => size_of::<f32>(),
        }
    }
}

/// A matrix in a mapped file.
#[derive(Debug)]
pub(crate) struct Vectors {
    map: Mmap,
    /// Where the matrix starts, in bytes.
    start: usize,
    element: Element,
    pub rows: usize,
    pub dim: usize,
}

impl Vectors {
    /// The matrix of shape `[rows, dim]` that starts at byte `start`. `None` if the file is too short.
    pub fn new(map: Mmap, start: usize, element: Element, rows: usize, dim: usize) -> Option<Self> {
        let bytes = rows.checked_mul(dim)?.checked_mul(element.size())?;
        (start.checked_add(bytes)? <= map.len()).then_some(Self { map, start, element, rows, dim })
    }

    /// The whole file.
    pub fn file(&self) -> &[u8] {
        &self.map
    }

    /// Rows `range`, flat. `buffer` keeps its memory from call to call.
    pub fn rows<'a>(&'a self, range: Range<usize>, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let width = self.dim * self.element.size();
        let bytes = &self.map[self.start + range.start * width..self.start + range.end * width];
        match self.element {
            Element::F32 => match native::<f32>(bytes) {
                Some(values) => values,
                None => {
                    let (values, _) = bytes.as_chunks();
                    buffer.clear();
                    buffer.extend(values.iter().map(|&value| f32::from_le_bytes(value)));
                    buffer
                }
            },
            Element::F16 => {
                let halves: Cow<'_, [f16]> = match native::<u16>(bytes) {
                    Some(bits) => Cow::Borrowed(half::slice::HalfBitsSliceExt::reinterpret_cast(bits)),
                    None => {
                        let (values, _) = bytes.as_chunks();
                        values.iter().map(|&value| f16::from_le_bytes(value)).collect()
                    }
                };
                buffer.resize(halves.len(), 0.0);
                halves.convert_to_f32_slice(buffer);
                buffer
            }
        }
    }
}

/// The values in place, where the machine stores them as the file does and they are aligned.
fn native<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Option<&[T]> {
    if cfg!(target_endian = "big") { None } else { bytemuck::try_cast_slice(bytes).ok() }
}
