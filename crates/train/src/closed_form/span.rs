//! The span of the features of few pairs. Where there are fewer distinct inputs than values of a feature, the
//! covariances of a side have no more directions than inputs, and everything is computed in these: the dual form of
//! kernel CCA (Hardoon, Szedmak and Shawe-Taylor, 2004, "Canonical Correlation Analysis: An Overview with Application
//! to Learning Methods", sec. 4: each map is a combination of the inputs), here with an orthonormal basis in place of
//! the inputs. With a ridge this leaves nothing out: no map has a part at a right angle to all inputs.

use std::collections::HashSet;

use rayon::prelude::*;

use crate::closed_form::moments::{Block, Covariances, Shift};
use crate::eval::probes::matrix::{Matrix, add, dot};

/// What is left of an input beside the others, as a fraction of its distance from the mean, when it is a combination of
/// them: features are f32, which has 7 digits.
const NEGLIGIBLE: f64 = 1e-6;

/// Gram-Schmidt steps: "twice is enough" (Giraud, Langou and Rozloznik, 2005) for a basis orthogonal to rounding.
const PASSES: usize = 2;

/// Values that a thread computes at once.
const CHUNK: usize = 256;

/// The span of some features.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    /// `[rank, width]`, orthonormal rows.
    basis: Matrix,
}

/// The spans of the features of both sides; `None` for a side with as many distinct inputs as values of a feature.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spans {
    sides: [Option<Span>; 2],
    /// Of each side, the features that were added: those of a class name are the same for every image.
    seen: [HashSet<blake3::Hash>; 2],
    /// Distinct images and distinct texts.
    distinct: [usize; 2],
}

impl Span {
    fn new(width: usize) -> Self {
        Self { basis: Matrix::zeros(0, width) }
    }

    /// Adds the direction of `row` that the span lacks, if there is one.
    fn add(&mut self, mut row: Vec<f64>) {
        let basis = &self.basis;
        let length = dot(&row, &row).sqrt();
        for _ in 0..PASSES {
            let units = basis.values.par_chunks_exact(basis.columns);
            let along: Vec<f64> = units.map(|unit| dot(unit, &row)).collect();
            row.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
                for (unit, along) in basis.rows().zip(&along) {
                    add(values, &unit[chunk * CHUNK..][..values.len()], -along);
                }
            });
        }
        let left = dot(&row, &row).sqrt();
        if left > NEGLIGIBLE * length {
            self.basis.values.extend(row.iter().map(|value| value / left));
        }
    }

    /// Rows of coordinates in the basis, as rows of features.
    pub fn expanded(&self, rows: &Matrix) -> Matrix {
        rows.times_transposed(&self.basis.transposed())
    }

    /// Rows of features, as rows of coordinates in the basis.
    fn reduced(&self, rows: &Matrix) -> Matrix {
        rows.times_transposed(&self.basis)
    }
}

impl Spans {
    /// Nothing but the shift of each side. `distinct`: images and texts.
    pub fn new(distinct: [usize; 2], shift: &Shift) -> Self {
        let shifts = shift.sides();
        let sides = std::array::from_fn(|side| {
            let shift = shifts[side];
            (distinct[side] < shift.len()).then(|| {
                let mut span = Span::new(shift.len());
                // The mean is a combination of the shift and what is added.
                span.add(shift.iter().map(|&value| f64::from(value)).collect());
                span
            })
        });
        Self { sides, seen: [HashSet::new(), HashSet::new()], distinct }
    }

    /// Adds the features of a block.
    pub fn add(&mut self, block: &Block, shift: &Shift) {
        let values = [&block.images, &block.texts];
        let sides = self.sides.iter_mut().zip(&mut self.seen);
        for (((span, seen), values), shift) in sides.zip(values).zip(shift.sides()) {
            let Some(span) = span else { continue };
            for row in values.chunks_exact(shift.len()) {
                if seen.insert(hash_of(row)) {
                    let centred = row.iter().zip(shift).map(|(&value, &shift)| f64::from(value) - f64::from(shift));
                    span.add(centred.collect());
                }
            }
        }
    }

    /// Distinct images and distinct texts.
    pub fn distinct(&self) -> [usize; 2] {
        self.distinct
    }

    /// The most directions that the pairs determine: they are about differences from the mean.
    pub fn most_directions(&self) -> usize {
        self.distinct[0].min(self.distinct[1]).saturating_sub(1)
    }

    /// The span of images (`side` 0) or texts (1).
    pub fn side(&self, side: usize) -> Option<&Span> {
        self.sides[side].as_ref()
    }

    /// Covariances of coordinates in the spans, for covariances of the features that were added.
    pub fn reduced(&self, mut covariances: Covariances) -> Covariances {
        for (side, span) in self.sides.iter().enumerate() {
            let Some(span) = span else { continue };
            let means = &mut covariances.means[side];
            *means = span.reduced(&Matrix { columns: means.len(), values: std::mem::take(means) }).values;
            let within = &mut covariances.within[side];
            *within = span.reduced(&span.reduced(within).transposed());
        }
        let [images, texts] = &self.sides;
        if let Some(texts) = texts {
            covariances.between = texts.reduced(&covariances.between);
        }
        if let Some(images) = images {
            covariances.between = images.reduced(&covariances.between.transposed()).transposed();
        }
        covariances
    }
}

fn hash_of(row: &[f32]) -> blake3::Hash {
    let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
    blake3::hash(&bytes)
}

#[cfg(test)]
mod tests;
