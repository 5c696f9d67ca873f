//! Rows of logits in blocks, which are a factor of both products of the backward pass without being packed. Other
//! losses over `[batch, batch]` matrices of products use them too.

use std::ops::Range;

use rayon::prelude::*;

use crate::contrastive::log_sums::{Columns, multiply_add, row_log_sums, within};
use crate::cpu::chunks::{CHUNK, CHUNK_ROWS};
use crate::cpu::gemm::Matrix;
use crate::cpu::product::blocked::{Block, Blocks, blocked_cols, pack_block};
use crate::cpu::product::output::Plus;
use crate::cpu::product::panels::Panels;
use crate::cpu::product::row_sums::add_row_sums;
use crate::cpu::product::rows::{Layout, Rows, product};
use crate::cpu::product::tile::PANEL;
use crate::cpu::uninit::{filled, par_rows};

/// Rows of a panel over which `f32` lanes sum up values, before they are added in `f64`: more rows lose digits.
pub(crate) const SUM_ROWS: usize = 16;

/// Adds up the lanes of [`SUM_ROWS`] rows of a panel.
#[inline(always)]
pub(crate) fn add_lanes<const N: usize>(totals: &mut [f64; N], lanes: [[f32; PANEL]; N]) {
    for (total, lanes) in totals.iter_mut().zip(lanes) {
        *total += f64::from(lanes.into_iter().sum::<f32>());
    }
}

/// What logits are computed from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factors<'a> {
    /// `[rows, dim]`.
    pub image: Matrix<'a>,
    /// `[batch, dim]`.
    pub text: Matrix<'a>,
    /// What cosines are multiplied by: the student's is `exp(logit_scale)`.
    pub scale: f32,
    pub bias: f32,
}

/// How rows of logits are cut into tiles, of which one is in memory at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tiles {
    rows: usize,
    /// Rows of a tile.
    size: usize,
}

impl Tiles {
    /// Tiles of at most `most` logits, but at least one row. Several have whole blocks, unless a block is too large.
    pub fn new(rows: usize, batch: usize, most: usize) -> Self {
        let size = (most / batch.max(1)).clamp(1, rows.max(1));
        let of_blocks = size - size % CHUNK_ROWS;
        Self { rows, size: if size < rows && of_blocks > 0 { of_blocks } else { size } }
    }

    /// Whether all rows are in one tile.
    pub fn is_one(self) -> bool {
        self.size >= self.rows
    }

    /// The images of each tile.
    pub fn images(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.rows).step_by(self.size).map(move |first| first..self.rows.min(first + self.size))
    }
}

/// Some rows of the logits of a batch.
#[derive(Debug)]
pub(crate) struct LogitRows<'a> {
    factors: Factors<'a>,
    /// The text embeddings, transposed.
    texts: Panels,
    /// The row of the first image in the batch.
    first: usize,
    /// What logits that are left out become: masked ones, and those that fill up the last panel.
    left_out: f32,
}

impl<'a> LogitRows<'a> {
    /// # Panics
    ///
    /// If there are not `batch` text embeddings, as wide as those of the images.
    pub fn new(factors: Factors<'a>, batch: usize, first: usize, left_out: f32) -> Self {
        let shapes = [factors.text.num_rows(), factors.text.num_cols()];
        assert_eq!(shapes, [batch, factors.image.num_cols()], "shape of the text embeddings of a batch");
        Self { factors, texts: Panels::beside(&[factors.text.t()]), first, left_out }
    }

    /// Computes the logits of some images, which are counted from the first. `then` is called with each block while it
    /// is in a cache.
    pub fn blocks<T: Send>(
        &self,
        images: Range<usize>,
        then: impl Fn(&mut LogitBlock) -> T + Sync,
    ) -> (Vec<LogitBlock>, Vec<T>) {
        let batch = self.texts.num_cols();
        let starts = images.clone().into_par_iter().step_by(CHUNK_ROWS);
        let blocks = starts.map(|start| {
            let rows = CHUNK_ROWS.min(images.end - start);
            let factor = Rows::Plain(self.factors.image.rows(start, rows));
            let mut values = filled(rows * blocked_cols(batch), |out| {
                product(factor, &self.texts, Plus::Nothing, Layout::Blocked, out)
            });
            multiply_add(&mut values, self.factors.scale, self.factors.bias);
            let mut block = LogitBlock { first: self.first + start, rows, batch, left_out: self.left_out, values };
            block.leave_out_padding();
            let result = then(&mut block);
            (block, result)
        });
        blocks.unzip()
    }
}

/// At most [`CHUNK_ROWS`] rows of logits, `[rows, batch]`.
#[derive(Debug)]
pub(crate) struct LogitBlock {
    /// The first row in the batch.
    pub first: usize,
    pub rows: usize,
    batch: usize,
    left_out: f32,
    /// `[panels, rows, PANEL]`.
    pub values: Vec<f32>,
}

impl LogitBlock {
    fn leave_out_padding(&mut self) {
        let last = self.batch - self.batch % PANEL;
        for row in self.values[last * self.rows..].as_chunks_mut::<PANEL>().0 {
            row[self.batch - last..].fill(self.left_out);
        }
    }

    /// Leaves out logits, named as (row, column), sorted.
    pub fn mask(&mut self, masked: &[(usize, usize)]) {
        let left_out = self.left_out;
        for &(row, column) in within(masked, |&(row, _)| row, self.first, self.rows) {
            *self.at(row, column) = left_out;
        }
    }

    /// The logit of a row and a column.
    pub fn at(&mut self, row: usize, column: usize) -> &mut f32 {
        assert!(column < self.batch, "column of a logit");
        &mut self.values[(column / PANEL * self.rows + row - self.first) * PANEL + column % PANEL]
    }

    /// Memory for a row, `[batch]`.
    pub fn new_row(&self) -> Vec<f32> {
        vec![0.0; self.batch]
    }

    /// Copies row `row` of the block.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        for (panel, out) in out.chunks_mut(PANEL).enumerate() {
            out.copy_from_slice(&self.values[(panel * self.rows + row) * PANEL..][..out.len()]);
        }
    }

    /// Replaces row `row` of the block.
    pub fn write_row(&mut self, row: usize, values: &[f32]) {
        for (panel, values) in values.chunks(PANEL).enumerate() {
            self.values[(panel * self.rows + row) * PANEL..][..values.len()].copy_from_slice(values);
        }
    }

    /// The log-sum-exp of each row.
    pub fn row_log_sums(&self) -> Vec<f32> {
        let mut sums = vec![0.0; self.rows];
        row_log_sums(&self.values, &mut sums);
        sums
    }

    /// The columns over its rows.
    pub fn columns(&self) -> Columns {
        Columns::of_block(&self.values, self.rows)
    }
}

/// Gradients of the embeddings, from slopes: the derivatives of the loss by the logits.
#[derive(Debug)]
pub(crate) struct EmbedGradients<'a> {
    factors: Factors<'a>,
    /// The text embeddings.
    texts: Panels,
    /// `[rows, dim]`, as far as they have been computed.
    image: Vec<f32>,
    /// `[batch, dim]`, sums over the rows so far.
    text: Vec<f32>,
}

impl<'a> EmbedGradients<'a> {
    pub fn new(factors: Factors<'a>) -> Self {
        let [images, texts] = [factors.image, factors.text].map(|embeds| embeds.num_rows() * embeds.num_cols());
        let (image, text) = (Vec::with_capacity(images), vec![0.0; texts]);
        Self { texts: Panels::beside(&[factors.text]), factors, image, text }
    }

    /// Adds the next rows, of the slopes of their logits.
    pub fn add(&mut self, slopes: &[LogitBlock]) {
        let Factors { image: images, text: texts, .. } = self.factors;
        let (batch, dim) = (texts.num_rows(), texts.num_cols());
        let rows = slopes.iter().map(|block| block.rows).sum();
        let images = images.rows(self.image.len() / dim.max(1), rows);
        self.image.extend(par_rows(rows, dim, |start, out| {
            let LogitBlock { rows, values, .. } = &slopes[start / CHUNK_ROWS];
            product(Rows::Blocked(Block::new(values, *rows, batch)), &self.texts, Plus::Nothing, Layout::Plain, out)
        }));
        let images = par_rows(rows, blocked_cols(dim), |start, out| {
            pack_block(images.rows(start, CHUNK_ROWS.min(rows - start)), out)
        });
        let slopes: Vec<&[f32]> = slopes.iter().map(|block| &block.values[..]).collect();
        add_row_sums(Blocks::each(&slopes, rows, batch), Blocks::new(&images, rows, dim, [0, 1]), &mut self.text);
    }

    /// The gradients of the image embeddings, `[rows, dim]`, and of the text embeddings, `[batch, dim]`, times
    /// `factor`.
    pub fn finish(self, factor: f32) -> [Vec<f32>; 2] {
        [self.image, self.text].map(|mut gradients| {
            gradients.par_chunks_mut(CHUNK).for_each(|values| multiply_add(values, factor, 0.0));
            gradients
        })
    }
}

/// Log-sum-exps of the `batch` columns, with zeros for the columns that fill up the last panel.
///
/// # Panics
///
/// If `column_sums` does not have `batch` values.
pub(crate) fn padded(column_sums: &[f32], batch: usize) -> Vec<f32> {
    assert_eq!(column_sums.len(), batch, "number of log-sum-exps of columns");
    let mut padded = column_sums.to_vec();
    padded.resize(blocked_cols(batch), 0.0);
    padded
}
