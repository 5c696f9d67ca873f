//! The rows of an embedding table that an update has to read: those with a gradient, and those with state that is not
//! 0. A rule only decays all others, so their gradients and state are neither read nor written.
//!
//! Decay is applied at every update, not when a row is next read: everything that reads a model (a forward pass, an
//! evaluation, a checkpoint, averages, other ranks) would have to catch up first.

use rayon::prelude::*;

use crate::optim::rules::update_rule::RowsWithGradient;

/// Minimum rows of a table per parallel task.
const ROWS_PER_TASK: usize = 64;

/// For each row of `width` values: whether any value of `state` is not +0, which an update without gradient keeps.
pub(super) fn rows_with_state<const N: usize>(state: [&[f32]; N], width: usize) -> Vec<bool> {
    let rows = state.first().map_or(0, |values| values.len() / width.max(1));
    let is_live = |row: usize| {
        state.iter().any(|values| values[row * width..][..width].iter().any(|&value| value.to_bits() != 0))
    };
    (0..rows).into_par_iter().with_min_len(ROWS_PER_TASK).map(is_live).collect()
}

/// Marks the rows that an update has to read.
pub(super) fn mark<'a, const N: usize>(
    live: &'a mut Option<Vec<bool>>,
    state: [&[f32]; N],
    with_gradient: &RowsWithGradient<'_>,
) -> &'a mut [bool] {
    let live = live.get_or_insert_with(|| rows_with_state(state, with_gradient.width));
    with_gradient.rows.iter().for_each(|&row| live[row] = true);
    live
}

/// Calls `update` with values, gradient and state of each row that `live` marks, and decays all others.
pub(super) fn update_rows<const N: usize>(
    live: &[bool],
    decay_factor: f32,
    (values, gradient): (&mut [f32], &[f32]),
    state: [&mut [f32]; N],
    update: impl Fn(&mut [f32], &[f32], [&mut [f32]; N]) + Sync,
) {
    let width = values.len() / live.len().max(1);
    // A row of each state array, for each row of the table.
    let mut rows_of_state: Vec<[&mut [f32]; N]> = Vec::with_capacity(live.len());
    let mut chunks = state.map(|values| values.chunks_exact_mut(width));
    while rows_of_state.len() < live.len() {
        rows_of_state.push(chunks.each_mut().map(|rows| rows.next().unwrap_or_default()));
    }
    let rows = values.par_chunks_mut(width).zip(gradient.par_chunks(width)).zip(live).zip(rows_of_state);
    rows.with_min_len(ROWS_PER_TASK).for_each(|(((values, gradient), live), state)| {
        if *live {
            update(values, gradient, state);
        } else if decay_factor != 1.0 {
            values.iter_mut().for_each(|value| *value *= decay_factor);
        }
    });
}
