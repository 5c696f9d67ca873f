//! Output buffers that are filled in parallel by groups of rows, without being zeroed first.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::cpu::chunks::{CHUNK_ROWS, chunk_ends};

/// Memory that is not initialised yet.
pub(crate) type Uninit = [MaybeUninit<f32>];

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

/// Fills several buffers in parallel, one task per group of rows; buffer `n` is `[rows, cols[n]]`.
///
/// `ends` holds the end row of each group, in ascending order. `fill` gets the index of the group's first row and its
/// memory in every buffer, and returns the same memory initialised.
///
/// # Panics
///
/// If `fill` returns other memory than it got.
#[expect(unsafe_code, reason = "sets the length to what has been written")]
pub(crate) fn par_groups<const N: usize, F>(ends: &[usize], cols: [usize; N], fill: F) -> [Vec<f32>; N]
where
    F: for<'a> Fn(usize, [&'a mut Uninit; N]) -> [&'a mut [f32]; N] + Sync,
{
    let rows = ends.last().copied().unwrap_or(0);
    let counts = cols.map(|cols| rows * cols);
    let mut outputs = counts.map(Vec::with_capacity);
    let mut rest = {
        let mut counts = counts.into_iter();
        outputs.each_mut().map(|values| &mut values.spare_capacity_mut()[..counts.next().unwrap_or(0)])
    };
    let mut groups = Vec::with_capacity(ends.len());
    let mut start = 0;
    for &end in ends {
        let mut cols = cols.into_iter();
        let mut others = Vec::with_capacity(N);
        let group = rest.map(|rest| {
            let (group, other) = rest.split_at_mut((end - start) * cols.next().unwrap_or(0));
            others.push(other);
            group
        });
        groups.push((start, group));
        let mut others = others.into_iter();
        rest = std::array::from_fn(|_| others.next().unwrap_or_default());
        start = end;
    }
    groups.into_par_iter().for_each(|(first, unfilled)| {
        let place = |start: usize, len: usize| (if len == 0 { 0 } else { start }, len);
        let places = unfilled.each_ref().map(|out| place(out.as_ptr().addr(), out.len()));
        let filled = fill(first, unfilled).map(|values| place(values.as_ptr().addr(), values.len()));
        assert!(filled == places, "a task must return the memory that it was given");
    });
    for (values, count) in outputs.iter_mut().zip(counts) {
        // SAFETY: the groups cover the first `count` slots, and each came back as initialised memory.
        unsafe { values.set_len(count) };
    }
    outputs
}

/// Sets element `i` to `value(i)`.
#[inline(always)]
pub(crate) fn write(out: &mut Uninit, value: impl Fn(usize) -> f32) -> &mut [f32] {
    for (i, slot) in out.iter_mut().enumerate() {
        slot.write(value(i));
    }
    assume_written(out)
}

/// Copies `values`, which are as many as `out` has room for.
pub(crate) fn write_copy<'a>(out: &'a mut Uninit, values: &[f32]) -> &'a mut [f32] {
    out.write_copy_of_slice(values)
}

/// Sets every row to `row`.
pub(crate) fn write_repeated<'a>(out: &'a mut Uninit, row: &[f32]) -> &'a mut [f32] {
    write_rows(out, row.len(), || row)
}

/// Sets each row of `width` values to the result of a call to `next_row`.
pub(crate) fn write_rows<'a, 'r>(
    out: &'a mut Uninit,
    width: usize,
    mut next_row: impl FnMut() -> &'r [f32],
) -> &'a mut [f32] {
    assert!(out.len().is_multiple_of(width), "the output ends within a row");
    for slots in out.chunks_exact_mut(width) {
        slots.write_copy_of_slice(next_row());
    }
    assume_written(out)
}

#[expect(unsafe_code, reason = "private to this file, whose functions write every value first")]
#[inline(always)]
fn assume_written(out: &mut Uninit) -> &mut [f32] {
    // SAFETY: every caller has written all values of `out`.
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
}
