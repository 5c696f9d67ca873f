//! Output buffers that are filled in parallel by groups of rows, without being zeroed first.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::cpu::chunks::{CHUNK_ROWS, chunk_ends};

/// Memory that is not initialised yet.
pub(crate) type Uninit = [MaybeUninit<f32>];

/// Values in a cache line, which is also the widest vector.
pub(crate) const LINE: usize = 16;

/// Fills a `[rows, cols]` buffer in parallel, [`CHUNK_ROWS`] rows per task.
///
/// `fill` gets the index of its first row and the memory of its rows, and returns the same memory initialised.
///
/// # Panics
///
/// If `fill` returns other memory than it got.
pub(crate) fn par_rows<F>(rows: usize, cols: usize, fill: F) -> Vec<f32>
where
    F: for<'a> Fn(usize, &'a mut Uninit) -> &'a mut [f32] + Sync,
{
    let [values] = par_groups(&chunk_ends(rows, CHUNK_ROWS), [cols], |first, [out]| [fill(first, out)]);
    values
}

/// Fills `count` values: `fill` gets their memory, and returns it initialised.
///
/// # Panics
///
/// If `fill` returns other memory than it got.
#[expect(unsafe_code, reason = "sets the length to what has been written")]
pub(crate) fn filled(count: usize, fill: impl for<'a> FnOnce(&'a mut Uninit) -> &'a mut [f32]) -> Vec<f32> {
    let mut values = Vec::with_capacity(count);
    let slots = &mut values.spare_capacity_mut()[..count];
    let place = slots.as_ptr().addr();
    let written = fill(slots);
    assert!((written.as_ptr().addr(), written.len()) == (place, count), "other memory was returned than was given");
    // SAFETY: the slots came back as initialised memory.
    unsafe { values.set_len(count) };
    values
}

/// Fills several buffers in parallel, one task per group of rows; buffer `n` is `[rows, cols[n]]`.
///
/// `ends` holds the end row of each group, in ascending order. `fill` gets the index of the group's first row and its
/// memory in every buffer, and returns the same memory initialised.
///
/// # Panics
///
/// If `fill` returns other memory than it got, `ends` do not ascend, or a buffer is larger than memory can be.
pub(crate) fn par_groups<const N: usize, F>(ends: &[usize], cols: [usize; N], fill: F) -> [Vec<f32>; N]
where
    F: for<'a> Fn(usize, [&'a mut Uninit; N]) -> [&'a mut [f32]; N] + Sync,
{
    par_buffers(ends, cols, [false; N], fill).map(|buffer| buffer.values)
}

/// Values that may start at a cache line.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    values: Vec<f32>,
    /// Index of the first value: what is before only fills up a cache line.
    start: usize,
}

impl Buffer {
    pub fn get(&self) -> &[f32] {
        &self.values[self.start..]
    }

    /// Without a copy.
    ///
    /// # Panics
    ///
    /// If the buffer was aligned.
    pub fn into_vec(self) -> Vec<f32> {
        assert_eq!(self.start, 0, "the values of an aligned buffer start within its memory");
        self.values
    }
}

/// As [`par_groups`]. Buffers that are `aligned` start at a cache line, so that no vector of them crosses one.
pub(crate) fn par_buffers<const N: usize, F>(
    ends: &[usize],
    cols: [usize; N],
    aligned: [bool; N],
    fill: F,
) -> [Buffer; N]
where
    F: for<'a> Fn(usize, [&'a mut Uninit; N]) -> [&'a mut [f32]; N] + Sync,
{
    par_buffers_with(ends, cols, aligned, || (), |_, first, out| fill(first, out))
}

/// As [`par_buffers`], with what `init` makes for some tasks that follow each other on a thread.
#[expect(unsafe_code, reason = "sets the length to what has been written")]
pub(crate) fn par_buffers_with<const N: usize, T, F>(
    ends: &[usize],
    cols: [usize; N],
    aligned: [bool; N],
    init: impl Fn() -> T + Sync + Send,
    fill: F,
) -> [Buffer; N]
where
    F: for<'a> Fn(&mut T, usize, [&'a mut Uninit; N]) -> [&'a mut [f32]; N] + Sync,
{
    assert!(ends.is_sorted(), "the ends of the groups do not ascend");
    let rows = ends.last().copied().unwrap_or(0);
    let counts = cols.map(|cols| match rows.checked_mul(cols).filter(|count| count.checked_add(LINE).is_some()) {
        Some(count) => count,
        None => panic!("a buffer of {rows} rows and {cols} columns is too large"),
    });
    let mut buffers = std::array::from_fn(|n| {
        let mut values: Vec<f32> = Vec::with_capacity(counts[n] + if aligned[n] { LINE - 1 } else { 0 });
        if aligned[n] {
            values.resize(values.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE - 1), 0.0);
        }
        Buffer { start: values.len(), values }
    });
    let mut rest = buffers.each_mut().map(|buffer| buffer.values.spare_capacity_mut());
    let mut groups = Vec::with_capacity(ends.len());
    let mut start = 0;
    for &end in ends {
        let group = std::array::from_fn(|n| {
            // Below `counts[n]`, so the product does not overflow.
            let (group, others) = std::mem::take(&mut rest[n]).split_at_mut((end - start) * cols[n]);
            rest[n] = others;
            group
        });
        groups.push((start, group));
        start = end;
    }
    groups.into_par_iter().for_each_init(init, |kept, (first, unfilled)| {
        let place = |start: usize, len: usize| (if len == 0 { 0 } else { start }, len);
        let places = unfilled.each_ref().map(|out| place(out.as_ptr().addr(), out.len()));
        let filled = fill(kept, first, unfilled).map(|values| place(values.as_ptr().addr(), values.len()));
        assert!(filled == places, "a task must return the memory that it was given");
    });
    for (buffer, count) in buffers.iter_mut().zip(counts) {
        // SAFETY: the ends ascend to `rows`, so the groups follow each other and cover the first `count` slots after
        // those that are initialised already; each came back as initialised memory.
        unsafe { buffer.values.set_len(buffer.start + count) };
    }
    buffers
}

/// Sets element `i` to `value(i)`.
#[expect(unsafe_code, reason = "every value is written first")]
#[inline(always)]
pub(crate) fn write(out: &mut Uninit, mut value: impl FnMut(usize) -> f32) -> &mut [f32] {
    for (i, slot) in out.iter_mut().enumerate() {
        slot.write(value(i));
    }
    // SAFETY: the loop has written every value.
    unsafe { out.assume_init_mut() }
}

/// Copies `values`, which are as many as `out` has room for.
pub(crate) fn write_copy<'a>(out: &'a mut Uninit, values: &[f32]) -> &'a mut [f32] {
    out.write_copy_of_slice(values)
}

/// Sets each row of `width` values to the result of a call to `next_row`.
///
/// # Panics
///
/// If a row has another length, or `out` ends within one.
#[expect(unsafe_code, reason = "every value is written first")]
pub(crate) fn write_rows<'a, 'r>(
    out: &'a mut Uninit,
    width: usize,
    mut next_row: impl FnMut() -> &'r [f32],
) -> &'a mut [f32] {
    assert!(out.len().is_multiple_of(width), "the output ends within a row");
    for slots in out.chunks_exact_mut(width) {
        slots.write_copy_of_slice(next_row());
    }
    // SAFETY: `out` is whole rows, and the loop has written each: a row of another length panics.
    unsafe { out.assume_init_mut() }
}

/// Writes block after block, each as long as `block` or, at the end, shorter: `fill` gets its index and sets `block`,
/// which is copied. That is cheap while `block` stays in the nearest cache.
#[expect(unsafe_code, reason = "every value is written first")]
pub(crate) fn write_blocks<'o>(
    out: &'o mut Uninit,
    block: &mut [f32],
    mut fill: impl FnMut(usize, &mut [f32]),
) -> &'o mut [f32] {
    for (n, slots) in out.chunks_mut(block.len()).enumerate() {
        let block = &mut block[..slots.len()];
        fill(n, block);
        slots.write_copy_of_slice(block);
    }
    // SAFETY: the blocks follow each other up to the end, and each has been written.
    unsafe { out.assume_init_mut() }
}

/// Fills each part of `size` values by a call, which gets the next of `inputs` and returns the part initialised.
///
/// # Panics
///
/// If there are not as many inputs as parts, `out` ends within a part, or `fill` returns other memory than it got.
#[expect(unsafe_code, reason = "every part is filled first")]
pub(crate) fn write_parts<T>(
    out: &mut Uninit,
    size: usize,
    inputs: impl ExactSizeIterator<Item = T>,
    fill: impl for<'a> Fn(T, &'a mut Uninit) -> &'a mut [f32],
) -> &mut [f32] {
    assert_eq!(Some(out.len()), size.checked_mul(inputs.len()), "the parts of an output are not as many as its inputs");
    let mut rest = &mut *out;
    for input in inputs {
        let (part, others) = rest.split_at_mut(size);
        let place = (part.as_ptr().addr(), part.len());
        let filled = fill(input, part);
        assert!((filled.as_ptr().addr(), filled.len()) == place, "a part must be returned as it was given");
        rest = others;
    }
    assert!(rest.is_empty(), "fewer inputs than there were said to be");
    // SAFETY: the parts follow each other up to the end, and each came back as initialised memory.
    unsafe { out.assume_init_mut() }
}

/// Temporary memory of one task, allocated once and reused.
pub(crate) struct Scratch(Vec<f32>);

impl Scratch {
    /// Allocates room for `capacity` values.
    pub fn new(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Borrows `count` values, uninitialised; at most the capacity.
    pub fn uninit(&mut self, count: usize) -> &mut Uninit {
        self.0.clear();
        &mut self.0.spare_capacity_mut()[..count]
    }

    /// Allocates room for `capacity` values from the start of a cache line on.
    pub fn aligned(capacity: usize) -> Self {
        Self::new(capacity + LINE - 1)
    }

    /// As [`Scratch::uninit`], from the start of a cache line on; at most the capacity of [`Scratch::aligned`].
    pub fn at_line(&mut self, count: usize) -> &mut Uninit {
        self.0.clear();
        let slots = self.0.spare_capacity_mut();
        let start = slots.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE - 1);
        &mut slots[start..][..count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_cover_every_row() {
        for ends in [vec![], vec![0], vec![3], vec![1, 4, 4, 9], chunk_ends(300, CHUNK_ROWS)] {
            let rows = ends.last().copied().unwrap_or(0);
            let [narrow, none, wide] = par_groups(&ends, [2, 0, 5], |first, [narrow, none, wide]| {
                let narrow = write(narrow, |i| (first * 2 + i) as f32);
                [narrow, write(none, |_| 0.0), write(wide, |i| (first * 5 + i) as f32)]
            });
            let counted = |count: usize| (0..count).map(|n| n as f32).collect::<Vec<_>>();
            assert_eq!((narrow, none, wide), (counted(rows * 2), Vec::new(), counted(rows * 5)), "{ends:?}");
        }
    }

    #[test]
    fn rows_and_copies_write_every_value() {
        assert_eq!(par_rows(3, 2, |_, out| write_rows(out, 2, || &[1.0, 2.0])), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
        assert_eq!(par_rows(2, 2, |_, out| write_copy(out, &[1.0, 2.0, 3.0, 4.0])), [1.0, 2.0, 3.0, 4.0]);
        let mut scratch = Scratch::new(4);
        assert_eq!(write(scratch.uninit(3), |i| i as f32), [0.0, 1.0, 2.0]);
        assert_eq!(write(scratch.uninit(4), |_| 7.0), [7.0; 4]);
    }

    #[test]
    #[should_panic = "the ends of the groups do not ascend"]
    fn descending_ends_panic() {
        par_groups(&[4, 2, 6], [1], |_, [out]| [write(out, |_| 0.0)]);
    }

    #[test]
    #[should_panic = "is too large"]
    fn overflowing_size_panics() {
        par_groups(&[usize::MAX / 2], [4], |_, [out]| [write(out, |_| 0.0)]);
    }

    #[test]
    fn values_are_filled() {
        assert_eq!(filled(3, |out| write(out, |i| i as f32)), [0.0, 1.0, 2.0]);
        assert_eq!(filled(0, |out| write(out, |_| 1.0)), [0.0; 0]);
    }

    #[test]
    #[should_panic = "other memory was returned"]
    fn fewer_values_panic() {
        filled(3, |out| write(&mut out[..2], |i| i as f32));
    }

    #[test]
    #[should_panic = "a task must return the memory that it was given"]
    fn other_memory_panics() {
        par_groups(&[2], [1, 1], |_, [first, second]| [write(second, |_| 0.0), write(first, |_| 0.0)]);
    }

    #[test]
    #[should_panic = "the output ends within a row"]
    fn torn_row_panics() {
        par_rows(1, 3, |_, out| write_rows(out, 2, || &[1.0, 2.0]));
    }

    #[test]
    #[should_panic]
    fn row_of_another_length_panics() {
        par_rows(1, 4, |_, out| write_rows(out, 2, || &[1.0]));
    }

    #[test]
    #[should_panic]
    fn scratch_beyond_capacity_panics() {
        let mut scratch = Scratch::new(1);
        let capacity = scratch.0.capacity();
        scratch.uninit(capacity + 1);
    }
}
