//! Images that look like another one: the cosine of their features is high.

use std::ops::Range;

use burn::tensor::Device;

use crate::error::TrainError;
use crate::eval::metrics::scores::{Scores, TILE_SCORES};
use crate::events::{Event, Observer};
use crate::stop_flag::StopFlag;

/// Rows that are compared at once with all rows before them.
const BLOCK: usize = 2048;

/// Unit rows of one width, and what compares them.
pub(super) struct Comparison<'a> {
    pub width: usize,
    pub device: &'a Device,
    pub stop: &'a StopFlag,
    /// The cosine from which on two rows are near.
    pub near: f32,
}

impl Comparison<'_> {
    /// Which rows are near a row before them that is not left out itself: shape `[rows, width]`, flat. The cost grows
    /// with the square of the number of rows.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set.
    pub fn near_earlier(&self, rows: &[f32], observer: &mut dyn Observer) -> Result<Vec<bool>, TrainError> {
        let total = rows.len() / self.width.max(1);
        let mut left_out = vec![false; total];
        for start in (0..total).step_by(BLOCK) {
            let end = (start + BLOCK).min(total);
            // In the order of rows, so that whether an earlier row is left out is known.
            self.each_near(&rows[start * self.width..end * self.width], &rows[..end * self.width], |row, columns| {
                let row = start + row;
                left_out[row] = left_out[row] || columns.iter().any(|&column| column < row && !left_out[column]);
            })?;
            observer.on(Event::Work { name: "near images", done: end, total });
        }
        Ok(left_out)
    }

    /// Which `rows` are near one of `others`.
    ///
    /// # Errors
    /// As for [`Comparison::near_earlier`].
    pub fn near_any(&self, rows: &[f32], others: &[f32]) -> Result<Vec<bool>, TrainError> {
        let mut found = vec![false; rows.len() / self.width.max(1)];
        if others.is_empty() {
            return Ok(found);
        }
        self.each_near(rows, others, |row, columns| found[row] |= !columns.is_empty())?;
        Ok(found)
    }

    /// Passes the near columns of every row to `on_row`, rows in order.
    fn each_near(
        &self,
        rows: &[f32],
        columns: &[f32],
        mut on_row: impl FnMut(usize, &[usize]),
    ) -> Result<(), TrainError> {
        let &Self { width: dim, device, stop, near } = self;
        let scores = Scores { rows, columns, dim, device, stop, tile: TILE_SCORES };
        scores.blocks(|tiles| {
            let mut found: Vec<Vec<usize>> = vec![Vec::new(); tiles.rows.len()];
            tiles.each(|scores, columns: Range<usize>| {
                for (found, scores) in found.iter_mut().zip(scores.chunks_exact(columns.len().max(1))) {
                    let near = scores.iter().zip(columns.clone()).filter(|(score, _)| **score >= near);
                    found.extend(near.map(|(_, column)| column));
                }
            })?;
            tiles.rows.clone().zip(&found).for_each(|(row, columns)| on_row(row, columns));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Compute;
    use crate::events::Silent;

    /// Unit vectors at angles in degrees.
    fn rows(angles: impl IntoIterator<Item = f32>) -> Vec<f32> {
        angles.into_iter().flat_map(|angle| [angle.to_radians().cos(), angle.to_radians().sin()]).collect()
    }

    fn with_comparison<R>(degrees: f32, run: impl FnOnce(&Comparison<'_>) -> R) -> R {
        let compute = Compute::select("cpu", None).unwrap();
        let stop = StopFlag::default();
        run(&Comparison { width: 2, device: &compute.device, stop: &stop, near: degrees.to_radians().cos() })
    }

    #[test]
    fn chains_keep_every_second() {
        // 4 degrees apart, near within 5: each is near the one before, which is left out in turn.
        let found = with_comparison(5.0, |it| it.near_earlier(&rows((0..6).map(|it| it as f32 * 4.0)), &mut Silent));
        assert_eq!(found.unwrap(), [false, true, false, true, false, true]);
    }

    #[test]
    fn blocks_see_earlier_blocks() {
        // Three angles, of which each occurs in every block.
        let count = 2 * BLOCK + 7;
        let all = rows((0..count).map(|at| (at % 3) as f32 * 90.0));
        let found = with_comparison(5.0, |it| it.near_earlier(&all, &mut Silent)).unwrap();
        assert!(found.iter().enumerate().all(|(at, &left_out)| left_out == (at >= 3)));
    }

    #[test]
    fn other_images_count() {
        let found = with_comparison(5.0, |it| it.near_any(&rows([0.0, 50.0, 91.0]), &rows([90.0, 180.0, 54.0])));
        assert_eq!(found.unwrap(), [false, true, true]);
        assert_eq!(with_comparison(5.0, |it| it.near_any(&rows([0.0]), &[])).unwrap(), [false]);
    }
}
