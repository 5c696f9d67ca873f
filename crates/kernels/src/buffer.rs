//! Outputs that are written once: memory that is not cleared first, filled by groups of rows on all threads.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Memory that holds no values yet.
pub(crate) type Blank = [MaybeUninit<f32>];

/// Rows that one task works on: the activations of a common MLP (1536 wide) then stay in a core's cache, and a product this
/// tall is as fast as a taller one. It does not depend on the number of threads, so neither do the results.
pub(crate) const CHUNK_ROWS: usize = 128;

/// `rows * cols` values, of which `fill` makes [`CHUNK_ROWS`] rows at a time: it gets the number of the first row and their
/// memory, and gives the same memory back with values in it.
pub(crate) fn by_rows<F>(rows: usize, cols: usize, fill: F) -> Vec<f32>
where
    F: for<'a> Fn(usize, &'a mut Blank) -> &'a mut [f32] + Sync,
{
    let [values] = by_groups(&chunk_ends(rows), [cols], |first, [blank]| [fill(first, blank)]);
    values
}

/// Where the chunks of `rows` rows end.
pub(crate) fn chunk_ends(rows: usize) -> Vec<usize> {
    ends_of(rows, CHUNK_ROWS)
}

/// Where pieces of `each` out of `count` end.
pub(crate) fn ends_of(count: usize, each: usize) -> Vec<usize> {
    (0..count.div_ceil(each)).map(|piece| ((piece + 1) * each).min(count)).collect()
}

/// Several outputs with `cols` values a row each, filled together by groups of rows that end where `ends` says.
#[expect(unsafe_code, reason = "the length is set to what has been written")]
pub(crate) fn by_groups<const N: usize, F>(ends: &[usize], cols: [usize; N], fill: F) -> [Vec<f32>; N]
where
    F: for<'a> Fn(usize, [&'a mut Blank; N]) -> [&'a mut [f32]; N] + Sync,
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
    groups.into_par_iter().for_each(|(first, blanks)| {
        let place = |start: usize, len: usize| (if len == 0 { 0 } else { start }, len);
        let places = blanks.each_ref().map(|blank| place(blank.as_ptr().addr(), blank.len()));
        let filled = fill(first, blanks).map(|values| place(values.as_ptr().addr(), values.len()));
        assert!(filled == places, "a group of rows was not filled whole");
    });
    for (values, count) in outputs.iter_mut().zip(counts) {
        // SAFETY: the groups cover the first `count` slots, and each came back as initialised memory.
        unsafe { values.set_len(count) };
    }
    outputs
}

/// `value(i)` in every slot.
#[inline(always)]
pub(crate) fn write(blank: &mut Blank, value: impl Fn(usize) -> f32) -> &mut [f32] {
    for (i, slot) in blank.iter_mut().enumerate() {
        slot.write(value(i));
    }
    written(blank)
}

/// `row` again and again.
pub(crate) fn repeat<'a>(blank: &'a mut Blank, row: &[f32]) -> &'a mut [f32] {
    assert!(blank.len().is_multiple_of(row.len()), "whole rows");
    for slots in blank.chunks_exact_mut(row.len()) {
        slots.write_copy_of_slice(row);
    }
    written(blank)
}

/// Memory for a worker's own use.
pub(crate) struct Scratch(Vec<f32>);

impl Scratch {
    /// Of `count` values.
    pub fn new(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// `count` slots, at most those it was made for.
    pub fn blank(&mut self, count: usize) -> &mut Blank {
        self.0.clear();
        &mut self.0.spare_capacity_mut()[..count]
    }
}

/// Memory that has been written.
#[expect(unsafe_code, reason = "private to this file, whose functions write every slot first")]
#[inline(always)]
fn written(blank: &mut Blank) -> &mut [f32] {
    // SAFETY: see the callers.
    unsafe { blank.assume_init_mut() }
}

/// The same values again.
pub(crate) fn copy<'a>(blank: &'a mut Blank, values: &[f32]) -> &'a mut [f32] {
    blank.write_copy_of_slice(values)
}

/// Rows of `width` values, in the order in which `row` gives them.
pub(crate) fn fill_rows<'a, 'r>(
    blank: &'a mut Blank,
    width: usize,
    mut row: impl FnMut() -> &'r [f32],
) -> &'a mut [f32] {
    assert!(blank.len().is_multiple_of(width), "whole rows");
    for slots in blank.chunks_exact_mut(width) {
        slots.write_copy_of_slice(row());
    }
    written(blank)
}
