//! Products of a batch that a core's cache holds, such as the tokens of 64 captions, on all threads of the pool: each
//! task computes some columns of all rows. It packs what it reads of the matrix just before, into its core's cache; of
//! a row-major matrix, only for many rows.

use rayon::prelude::*;

use crate::cpu::chunks::CHUNK_ROWS;
use crate::cpu::gemm::Matrix;
use crate::cpu::product::blocked::panel_scratch;
use crate::cpu::product::output::{Memory, Place, Plus};
use crate::cpu::product::panels::{Joined, pack_columns};
use crate::cpu::product::rows::{Piece, Rows, add_columns};
use crate::cpu::product::tile::{Columns, DEPTH, PANEL, Strips, strip_width};
use crate::cpu::uninit::{Scratch, Uninit};

/// The most rows of such a batch, which is one block: a sum over rows adds up this many from 0.
///
/// With 384 values each, they take 768 KiB.
const MOST_ROWS: usize = DEPTH;

/// Whether a batch is a block of its own, so that [`ByColumns`] computes its products with matrices of whole panels.
pub(crate) fn are_few(rows: usize, widths: &[usize]) -> bool {
    (1..=MOST_ROWS).contains(&rows) && widths.iter().all(|width| *width > 0 && width.is_multiple_of(PANEL))
}

/// `x matrices + plus`. The values are those of products with packed matrices, to the bit.
pub(crate) struct ByColumns<'a> {
    x: Rows<'a>,
    /// Of one shape, all row-major or all transposed.
    matrices: &'a [Matrix<'a>],
    joined: Joined,
    plus: Plus<'a>,
    /// Rows and columns of each matrix.
    each: [usize; 2],
}

impl<'a> ByColumns<'a> {
    /// # Panics
    ///
    /// If the shapes do not fit, or are not for this form.
    pub fn new(x: Rows<'a>, matrices: &'a [Matrix<'a>], joined: Joined, plus: Plus<'a>) -> Self {
        let shape = |matrix: &Matrix<'_>| [matrix.num_rows(), matrix.num_cols()];
        let each = matrices.first().map_or([0, 0], shape);
        assert!(matrices.iter().all(|matrix| shape(matrix) == each), "shapes of matrices joined to a factor");
        let ([rows, depth], [each_depth, cols]) = (x.shape(), each);
        let (sum, widths) = match joined {
            Joined::Beside => (each_depth, [cols, cols]),
            Joined::Below => (each_depth * matrices.len(), [cols, each_depth]),
        };
        assert_eq!(depth, sum, "inner dimensions of a product");
        assert!(are_few(rows, &widths), "{rows} rows and matrices of {each:?} are not for products by columns");
        let is_whole = |matrix: &Matrix<'_>| !matrix.is_row_major() || matrix.row_stride() == cols;
        assert!(matrices.iter().all(is_whole), "a factor is part of a matrix");
        Self { x, matrices, joined, plus, each }
    }

    /// Panels of columns.
    fn num_panels(&self) -> usize {
        let cols = match self.joined {
            Joined::Beside => self.matrices.len() * self.each[1],
            Joined::Below => self.each[1],
        };
        cols / PANEL
    }

    /// All products, row-major.
    #[expect(unsafe_code, reason = "the first block writes every value, before values are added to")]
    pub fn row_major(&self) -> Vec<f32> {
        let ([rows, depth], panels) = (self.x.shape(), self.num_panels());
        let count = rows * panels * PANEL;
        let mut values = Vec::with_capacity(count);
        let mut columns: Vec<Vec<&mut Uninit>> = (0..panels).map(|_| Vec::with_capacity(rows)).collect();
        for row in values.spare_capacity_mut()[..count].chunks_exact_mut((panels * PANEL).max(1)) {
            columns.iter_mut().zip(row.chunks_exact_mut(PANEL)).for_each(|(columns, part)| columns.push(part));
        }
        columns.into_par_iter().enumerate().for_each_init(panel_scratch, |scratch, (panel, rows)| {
            let mut out = Memory::FreshColumns(rows, self.plus);
            self.add(panel, 0, scratch, &mut out);
            for start in (DEPTH..depth).step_by(DEPTH) {
                // SAFETY: the first block has written all columns of every row.
                out = unsafe { out.written() };
                self.add(panel, start, scratch, &mut out);
            }
        });
        // SAFETY: the panels have all columns, and each of them has written its columns of every row.
        unsafe { values.set_len(count) };
        values
    }

    /// The products with a panel's columns. `scratch`: from [`panel_scratch`].
    #[expect(unsafe_code, reason = "the first block writes every value of the output")]
    pub fn panel<'o>(&self, panel: usize, scratch: &mut Scratch, out: &'o mut Uninit) -> &'o mut [f32] {
        let [rows, depth] = self.x.shape();
        assert_eq!(Some(out.len()), rows.checked_mul(PANEL), "size of the output of a product");
        self.add(panel, 0, scratch, &mut Memory::Fresh(&mut *out, self.plus));
        // SAFETY: the place is the whole output, and the first block has written all columns of every row.
        let out = unsafe { out.assume_init_mut() };
        for start in (DEPTH..depth).step_by(DEPTH) {
            self.add(panel, start, scratch, &mut Memory::Filled(&mut *out));
        }
        out
    }

    /// Computes the part of the products of which the inner dimension starts at `start`.
    fn add(&self, panel: usize, start: usize, scratch: &mut Scratch, out: &mut Memory<'_>) {
        let ([rows, depth], [each_depth, each_cols]) = (self.x.shape(), self.each);
        let (first, end) = (panel * PANEL, depth.min(start + DEPTH));
        let place = Place { start: 0, stride: PANEL, first, count: PANEL };
        let (mut pieces, mut count) = ([Piece::default(); DEPTH / PANEL], 0);
        let mut rest = scratch.at_line((end - start) * PANEL);
        let mut at = start;
        while at < end {
            let (matrix, column, row) = match self.joined {
                Joined::Beside => (self.matrices[first / each_cols], first % each_cols, at),
                Joined::Below => (self.matrices[at / each_depth], first, at % each_depth),
            };
            let length = (end - at).min(each_depth - row);
            let matrix = matrix.cols(column, PANEL);
            let columns = if rows <= CHUNK_ROWS && matrix.is_row_major() {
                // Packing costs more than it saves.
                Columns::InPlace(matrix.values_from_row(row), matrix.row_stride())
            } else {
                let (out, others) = rest.split_at_mut(length * PANEL);
                rest = others;
                let values = &*pack_columns(&[matrix.rows(row, length)], 0..PANEL, out);
                Columns::Packed(Strips { values, width: strip_width(), depth: length, row: 0 })
            };
            pieces[count] = Piece { depth: length, columns };
            (count, at) = (count + 1, at + length);
        }
        add_columns(self.x, start, &pieces[..count], out, place);
    }
}
