//! Cosine similarities between many rows and columns, and the ranks of the right columns. Scores are computed tile by
//! tile: the matrix of all scores is never in memory.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::parameters;

use crate::error::TrainError;
use crate::stop_flag::StopFlag;

/// Scores of a tile: 64 MiB of f32.
pub(crate) const TILE_SCORES: usize = 1 << 24;

/// Rows of a tile where a whole row has more scores than a tile may have: its columns are then read once for many rows.
const ROWS_OF_PARTIAL_TILES: usize = 64;

/// The rank of a score that is not a number: behind every place.
pub(crate) const NO_PLACE: usize = usize::MAX;

/// Similarities of rows with columns, where both are L2-normalised embeddings.
pub(crate) struct Scores<'a> {
    /// `[rows, dim]`, flat.
    pub rows: &'a [f32],
    /// `[columns, dim]`, flat.
    pub columns: &'a [f32],
    pub dim: usize,
    pub device: &'a Device,
    /// Ends the work early when it is set.
    pub stop: &'a StopFlag,
    /// Most scores in memory at once.
    pub tile: usize,
}

/// A column of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Answer {
    pub column: usize,
    pub score: f32,
}

impl Answer {
    /// Whether this is before `other` in descending order of scores. Ties are in order of columns; a score that is not
    /// a number comes last.
    pub fn is_before(self, other: Self) -> bool {
        self.score > other.score
            || (self.score == other.score && self.column < other.column)
            || (other.score.is_nan() && !self.score.is_nan())
    }

    /// How many `scores`, of the columns from `start` on, are before this answer.
    fn count_before(self, scores: &[f32], start: usize) -> usize {
        let (left, right) = scores.split_at(self.column.saturating_sub(start).min(scores.len()));
        let ties = left.iter().filter(|&&score| score >= self.score).count();
        ties + right.iter().filter(|&&score| score > self.score).count()
    }
}

impl Scores<'_> {
    /// For each row, the number of columns before the best of its right columns, in descending order of scores: 0 if a
    /// right column has the highest score. Ties are in order of columns. `None` for rows without a right column, and
    /// [`NO_PLACE`] where no right column has a number as its score. `right` returns the right columns of a row.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set.
    pub fn ranks<'r>(&self, right: impl Fn(usize) -> &'r [usize]) -> Result<Vec<Option<usize>>, TrainError> {
        let num_columns = self.num_columns();
        if num_columns == 0 {
            return Ok(vec![None; self.num_rows()]);
        }
        let mut ranks = Vec::with_capacity(self.num_rows());
        self.blocks(|tiles| {
            let rows = tiles.rows.clone();
            let mut block = Block { answers: vec![None; rows.len()], before: vec![0; rows.len()], rows, right: &right };
            if let Some(scores) = tiles.whole()? {
                block.find_answers(&scores, 0..num_columns);
                block.count_before(&scores, 0..num_columns);
            } else {
                // The best answer may be in any tile, so the scores are computed twice: once to find it.
                tiles.each(|scores, columns| block.find_answers(scores, columns))?;
                tiles.each(|scores, columns| block.count_before(scores, columns))?;
            }
            ranks.extend(block.ranks());
            Ok(())
        })?;
        Ok(ranks)
    }

    pub(crate) fn num_rows(&self) -> usize {
        self.rows.len() / self.dim.max(1)
    }

    pub(crate) fn num_columns(&self) -> usize {
        self.columns.len() / self.dim.max(1)
    }

    /// Passes consecutive blocks of rows to `on_block`, which computes their scores tile by tile.
    ///
    /// # Errors
    /// [`TrainError::Stopped`] when the stop flag is set; and those of `on_block`.
    pub(crate) fn blocks(
        &self,
        mut on_block: impl FnMut(&Tiles<'_>) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let num_columns = self.num_columns();
        let fits = num_columns <= self.tile;
        let columns_at_once = if fits { num_columns } else { (self.tile / ROWS_OF_PARTIAL_TILES).max(1) };
        let rows_at_once = (self.tile / columns_at_once.max(1)).max(1);
        let whole = fits.then(|| self.columns(0..num_columns));
        for rows in ranges(self.num_rows(), rows_at_once) {
            if let Some(signal) = self.stop.signal() {
                return Err(TrainError::Stopped { signal });
            }
            let tensor = tensor(self.rows, self.dim, rows.clone(), self.device);
            on_block(&Tiles { rows, tensor, whole: whole.as_ref(), columns_at_once, scores: self })?;
        }
        Ok(())
    }

    /// `[dim, columns]`
    fn columns(&self, columns: Range<usize>) -> Tensor<2> {
        tensor(self.columns, self.dim, columns, self.device).transpose()
    }
}

/// A block of rows, of which the scores are computed when they are asked for.
pub(crate) struct Tiles<'a> {
    pub rows: Range<usize>,
    /// `[rows, dim]`
    tensor: Tensor<2>,
    /// `[dim, columns]`, if one tile holds all of them.
    whole: Option<&'a Tensor<2>>,
    columns_at_once: usize,
    scores: &'a Scores<'a>,
}

impl Tiles<'_> {
    /// All scores of the rows, shape `[rows, columns]`, flat, if they fit into one tile.
    fn whole(&self) -> Result<Option<Vec<f32>>, TrainError> {
        self.whole.map(|columns| self.of(columns.clone())).transpose()
    }

    /// Passes the scores of the rows with some columns, shape `[rows, columns]`, flat, to `on_tile`: from the first
    /// columns to the last.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data.
    pub(crate) fn each(&self, mut on_tile: impl FnMut(&[f32], Range<usize>)) -> Result<(), TrainError> {
        let num_columns = self.scores.num_columns();
        if let Some(scores) = self.whole()? {
            on_tile(&scores, 0..num_columns);
            return Ok(());
        }
        for columns in ranges(num_columns, self.columns_at_once) {
            on_tile(&self.of(self.scores.columns(columns.clone()))?, columns);
        }
        Ok(())
    }

    fn of(&self, columns: Tensor<2>) -> Result<Vec<f32>, TrainError> {
        Ok(parameters::host(self.tensor.clone().matmul(columns))?.values)
    }
}

/// Rows for which ranks are being gathered.
struct Block<'f, F> {
    rows: Range<usize>,
    right: &'f F,
    /// The right column of each row that has the highest score.
    answers: Vec<Option<Answer>>,
    /// Of each row, the columns before its answer so far.
    before: Vec<usize>,
}

impl<'r, F: Fn(usize) -> &'r [usize]> Block<'_, F> {
    /// Looks for better answers in the scores of some columns: shape `[rows, columns]`, flat.
    fn find_answers(&mut self, scores: &[f32], columns: Range<usize>) {
        for ((row, scores), best) in self.rows.clone().zip(scores.chunks_exact(columns.len())).zip(&mut self.answers) {
            for &column in (self.right)(row).iter().filter(|column| columns.contains(column)) {
                let answer = Answer { column, score: scores[column - columns.start] };
                if best.is_none_or(|best| answer.is_before(best)) {
                    *best = Some(answer);
                }
            }
        }
    }

    /// Counts the scores of some columns that are before the answers.
    fn count_before(&mut self, scores: &[f32], columns: Range<usize>) {
        let answers = self.answers.iter().zip(&mut self.before);
        for (scores, (answer, before)) in scores.chunks_exact(columns.len()).zip(answers) {
            *before += answer.map_or(0, |answer| answer.count_before(scores, columns.start));
        }
    }

    fn ranks(self) -> impl Iterator<Item = Option<usize>> {
        let place = |answer: Answer, before| if answer.score.is_nan() { NO_PLACE } else { before };
        self.answers.into_iter().zip(self.before).map(move |(answer, before)| Some(place(answer?, before)))
    }
}

/// Some rows of `values`, shape `[rows, dim]`, flat.
fn tensor(values: &[f32], dim: usize, rows: Range<usize>, device: &Device) -> Tensor<2> {
    let shape = [rows.len(), dim];
    Tensor::from_data(TensorData::new(values[rows.start * dim..rows.end * dim].to_vec(), shape), device)
}

/// Consecutive ranges of at most `size` that cover `0..all`.
fn ranges(all: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..all).step_by(size).map(move |start| start..start.saturating_add(size).min(all))
}

/// Divides each row of `embeds`, shape `[rows, dim]`, flat, by its L2 norm.
pub(crate) fn normalize_rows(embeds: &mut [f32], dim: usize) {
    for row in embeds.chunks_exact_mut(dim.max(1)) {
        let norm = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt().max(1e-12);
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
}

#[cfg(test)]
mod tests {
    use dualenc_data::mix;

    use super::*;
    use crate::device::Compute;

    /// Small integers: their products and sums are exact in any order, and many scores are equal.
    fn integers(seed: u64, rows: usize, dim: usize) -> Vec<f32> {
        (0..rows * dim).map(|at| (mix(seed, &[at as u64]) % 5) as f32 - 2.0).collect()
    }

    fn ranks(rows: &[f32], columns: &[f32], dim: usize, tile: usize, right: &[Vec<usize>]) -> Vec<Option<usize>> {
        let compute = Compute::select("cpu", None).unwrap();
        let scores = Scores { rows, columns, dim, device: &compute.device, stop: &StopFlag::default(), tile };
        scores.ranks(|row| &right[row]).unwrap()
    }

    /// By the definition, from the whole matrix.
    fn expected(rows: &[f32], columns: &[f32], dim: usize, right: &[Vec<usize>]) -> Vec<Option<usize>> {
        let of_row = |(row, right): (&[f32], &Vec<usize>)| {
            let dot = |column: &[f32]| row.iter().zip(column).map(|(a, b)| a * b).sum::<f32>();
            let scores: Vec<f32> = columns.chunks_exact(dim).map(dot).collect();
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap().then(a.cmp(&b)));
            order.iter().position(|column| right.contains(column))
        };
        rows.chunks_exact(dim).zip(right).map(of_row).collect()
    }

    #[test]
    fn tiles_rank_as_the_whole_matrix() {
        let dim = 3;
        for (case, (num_rows, num_columns)) in [(37, 41), (1, 200), (200, 1), (130, 7)].into_iter().enumerate() {
            let seed = case as u64;
            let (rows, columns) = (integers(seed, num_rows, dim), integers(seed + 100, num_columns, dim));
            // None, one, or several right columns.
            let right: Vec<Vec<usize>> = (0..num_rows as u64)
                .map(|row| {
                    let count = mix(seed, &[row, 7]) % 4;
                    (0..count).map(|n| (mix(seed, &[row, n, 9]) % num_columns as u64) as usize).collect()
                })
                .collect();
            let expected = expected(&rows, &columns, dim, &right);
            assert!(num_rows.min(num_columns) == 1 || expected.iter().flatten().any(|&rank| rank > 0));
            // Tiles of less than a row, of one row, of rows that do not divide their number, and of everything.
            let mut tiles: Vec<usize> = (1..=3).chain([63, 64, 65, 127, 128, 129, 1000, usize::MAX]).collect();
            tiles.extend([num_columns - 1, num_columns, num_columns + 1, 2 * num_columns, 3 * num_columns + 1]);
            for tile in tiles {
                assert_eq!(ranks(&rows, &columns, dim, tile, &right), expected, "{num_rows}x{num_columns}, {tile}");
            }
        }
    }

    #[test]
    fn nan_ranks_last() {
        // One value per embedding, so that scores are the products.
        let columns = [0.5, f32::NAN, 0.9, f32::NAN, 0.5];
        let right = |columns: &[usize]| vec![columns.to_vec()];
        for tile in [1, 2, 4, 5, 1000] {
            let rank = |row: f32, right: &[Vec<usize>]| ranks(&[row], &columns, 1, tile, right)[0];
            // NaN scores of others never come before, and one of its own never wins.
            assert_eq!(rank(1.0, &right(&[2])), Some(0));
            assert_eq!(rank(1.0, &right(&[0])), Some(1));
            assert_eq!(rank(1.0, &right(&[4])), Some(2));
            assert_eq!(rank(1.0, &right(&[1])), Some(NO_PLACE));
            assert_eq!(rank(1.0, &right(&[1, 4, 3])), Some(2));
            assert_eq!(rank(1.0, &right(&[])), None);
            assert_eq!(rank(f32::NAN, &right(&[0])), Some(NO_PLACE));
        }
    }

    #[test]
    fn stops_between_tiles() {
        let compute = Compute::select("cpu", None).unwrap();
        let stop = StopFlag::default();
        stop.request(15);
        let scores =
            Scores { rows: &[1.0; 4], columns: &[1.0; 4], dim: 2, device: &compute.device, stop: &stop, tile: 1 };
        assert!(matches!(scores.ranks(|_| &[0]), Err(TrainError::Stopped { signal: 15 })));
    }

    /// Measured: 153 MB; the matrix of all scores alone is 8 GB.
    /// `cargo test -p dualenc-train ranks_in_bounded_memory -- --ignored --nocapture`
    #[test]
    #[ignore = "computes 2e9 scores and measures memory"]
    fn ranks_in_bounded_memory() {
        use std::io::Write;
        const ROWS: usize = 100_000;
        const COLUMNS: usize = 20_000;
        const DIM: usize = 16;
        let random = |seed, rows: usize| -> Vec<f32> {
            let mut values: Vec<f32> =
                (0..rows * DIM).map(|at| (mix(seed, &[at as u64]) % 1000) as f32 / 500.0 - 1.0).collect();
            normalize_rows(&mut values, DIM);
            values
        };
        let (rows, columns) = (random(1, ROWS), random(2, COLUMNS));
        let compute = Compute::select("cpu", None).unwrap();
        let labels: Vec<usize> = (0..ROWS).map(|row| row % COLUMNS).collect();
        let (device, stop) = (&compute.device, &StopFlag::default());
        let scores = Scores { rows: &rows, columns: &columns, dim: DIM, device, stop, tile: TILE_SCORES };
        let ranks = scores.ranks(|row| std::slice::from_ref(&labels[row])).unwrap();
        let mean = ranks.iter().flatten().sum::<usize>() as f64 / ROWS as f64;
        assert!((mean / (COLUMNS as f64 / 2.0) - 1.0).abs() < 0.02, "{mean}");
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        writeln!(std::io::stderr(), "{ROWS} x {COLUMNS}: {peak}").unwrap();
    }
}
