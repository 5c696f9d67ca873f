//! Memory of one task.

use crate::cpu::uninit::LINE;

/// Parts of memory, each from the start of a cache line on.
pub(crate) struct Memory<const N: usize> {
    values: Vec<f32>,
    /// Index of the first value that is used, at the start of a cache line.
    start: usize,
    sizes: [usize; N],
}

impl<const N: usize> Memory<N> {
    /// Zeros.
    pub fn new(sizes: [usize; N]) -> Self {
        let sizes = sizes.map(|size| size.next_multiple_of(LINE));
        let values = vec![0.0; sizes.iter().sum::<usize>() + LINE];
        let start = values.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        Self { values, start, sizes }
    }

    pub fn parts(&mut self) -> [&mut [f32]; N] {
        let mut rest = &mut self.values[self.start..];
        self.sizes.map(|size| {
            let (part, others) = std::mem::take(&mut rest).split_at_mut(size);
            rest = others;
            part
        })
    }
}
