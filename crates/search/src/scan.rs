//! Passes over all rows, in parallel.

use std::ops::RangeInclusive;

use rayon::prelude::*;

use crate::kernel::Tile;
use crate::nearest::{Nearest, Neighbour};
use crate::vectors::Vectors;

/// Rows of a task.
const TASK_ROWS: usize = 4096;

/// Bytes of the rows of a tile as `f32`: they stay in the cache of a core.
const TILE_BYTES: usize = 128 << 10;

/// Most rows of a tile.
const MAX_TILE_ROWS: usize = 64;

/// Queries of a pass: they fit a cache beside a tile.
const PASS_QUERIES: usize = 128;

/// Norms of a row that a product of `f32` can be divided by.
const NORMS: RangeInclusive<f64> = 1e-15..=1e15;

/// Why a vector has no direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum BadVector {
    /// It holds this value.
    NotFinite(f32),
    /// It has this norm.
    Norm(f64),
}

impl BadVector {
    /// What the vector does: `holds NaN`.
    pub fn describe(self) -> String {
        match self {
            Self::NotFinite(value) => format!("holds {value}"),
            Self::Norm(0.0) => "is all zeros".to_owned(),
            Self::Norm(norm) => format!("has the norm {norm:.0e}, outside of {:e} to {:e}", NORMS.start(), NORMS.end()),
        }
    }
}

fn tile_rows(dim: usize) -> usize {
    (TILE_BYTES / size_of::<f32>() / dim.max(1)).clamp(1, MAX_TILE_ROWS)
}

/// Calls `work` with each tile of a task, by its first row.
fn tiles(vectors: &Vectors, task: usize, mut work: impl FnMut(usize, &[f32])) {
    let (start, end) = (task * TASK_ROWS, vectors.rows.min((task + 1) * TASK_ROWS));
    let mut buffer = Vec::new();
    for first in (start..end).step_by(tile_rows(vectors.dim)) {
        let last = end.min(first + tile_rows(vectors.dim));
        work(first, vectors.rows(first..last, &mut buffer));
    }
}

/// One divided by the norm of each row; or the first row that has no direction.
pub(crate) fn inverse_norms(vectors: &Vectors) -> Result<Vec<f32>, (usize, BadVector)> {
    let mut norms = vec![0.0; vectors.rows];
    let bad = norms.par_chunks_mut(TASK_ROWS).enumerate().filter_map(|(task, norms)| {
        let mut bad = None;
        tiles(vectors, task, |first, rows| {
            let place = first - task * TASK_ROWS;
            for ((row, values), norm) in (first..).zip(rows.chunks_exact(vectors.dim)).zip(&mut norms[place..]) {
                match inverse_norm(values) {
                    Ok(inverse) => *norm = inverse,
                    Err(problem) => bad = bad.or(Some((row, problem))),
                }
            }
        });
        bad
    });
    match bad.min_by_key(|(row, _)| *row) {
        Some(bad) => Err(bad),
        None => Ok(norms),
    }
}

/// One divided by the norm of `values`.
pub(crate) fn inverse_norm(values: &[f32]) -> Result<f32, BadVector> {
    /// Partial sums, which do not wait for each other.
    const SUMS: usize = 8;
    let mut sums = [0.0f64; SUMS];
    let (parts, rest) = values.as_chunks::<SUMS>();
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, &value)| *sum += f64::from(value) * f64::from(value));
    }
    sums.iter_mut().zip(rest).for_each(|(sum, &value)| *sum += f64::from(value) * f64::from(value));
    // The square of a finite `f32` is finite, and so is their sum.
    let norm = sums.iter().sum::<f64>().sqrt();
    match values.iter().find(|value| !norm.is_finite() && !value.is_finite()) {
        Some(&value) => Err(BadVector::NotFinite(value)),
        None if NORMS.contains(&norm) => Ok((1.0 / norm) as f32),
        None => Err(BadVector::Norm(norm)),
    }
}

/// The `top` nearest rows of each query. `queries`: normalised, `[queries, dim]`, flat.
pub(crate) fn nearest(vectors: &Vectors, norms: &[f32], queries: &[f32], top: usize) -> Vec<Vec<Neighbour>> {
    let pass = |queries: &[f32]| {
        let count = queries.len() / vectors.dim;
        let none = || (0..count).map(|_| Nearest::new(top)).collect::<Vec<_>>();
        let add_task = |mut best: Vec<Nearest>, task: usize| {
            let mut products = Vec::new();
            tiles(vectors, task, |first, rows| {
                let in_tile = rows.len() / vectors.dim;
                products.resize(count * in_tile, 0.0);
                Tile { rows, queries, dim: vectors.dim, products: &mut products }.compute();
                for (best, products) in best.iter_mut().zip(products.chunks_exact(in_tile)) {
                    for ((row, product), norm) in (first..).zip(products).zip(&norms[first..]) {
                        best.offer(row, product * norm);
                    }
                }
            });
            best
        };
        let both = |mut left: Vec<Nearest>, right: Vec<Nearest>| {
            left.iter_mut().zip(right).for_each(|(left, right)| left.merge(right));
            left
        };
        let tasks = (0..vectors.rows.div_ceil(TASK_ROWS)).into_par_iter().with_max_len(1);
        tasks.fold(none, add_task).reduce(none, both)
    };
    let passes = queries.chunks(PASS_QUERIES * vectors.dim).flat_map(pass);
    passes.map(Nearest::into_sorted).collect()
}
