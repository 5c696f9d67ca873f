//! Inner products, in the widest vectors that the processor has.

use pulp::{Simd, WithSimd};

/// Rows in a block of products that are computed together.
const ROWS: usize = 4;

/// Queries in such a block: with [`ROWS`] rows, the sums fit the 16 registers of AVX2.
const QUERIES: usize = 2;

/// A tile of the product of rows and queries.
pub(crate) struct Tile<'a> {
    /// `[rows, dim]`, flat.
    pub rows: &'a [f32],
    /// `[queries, dim]`, flat.
    pub queries: &'a [f32],
    pub dim: usize,
    /// `[queries, rows]`, flat.
    pub products: &'a mut [f32],
}

impl Tile<'_> {
    /// Fills `products`.
    pub fn compute(self) {
        pulp::Arch::new().dispatch(self);
    }
}

impl WithSimd for Tile<'_> {
    type Output = ();

    // What is not inlined is compiled for the baseline of the architecture.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, queries, dim, products } = self;
        let count = rows.len() / dim;
        for (queries, products) in queries.chunks(QUERIES * dim).zip(products.chunks_mut(QUERIES * count)) {
            match queries.len() / dim {
                QUERIES => of_queries::<S, QUERIES>(simd, rows, queries, dim, products),
                _ => of_queries::<S, 1>(simd, rows, queries, dim, products),
            }
        }
    }
}

/// The products of all rows with `Q` queries.
#[inline(always)]
fn of_queries<S: Simd, const Q: usize>(simd: S, rows: &[f32], queries: &[f32], dim: usize, products: &mut [f32]) {
    let count = rows.len() / dim;
    let mut query = [&queries[..dim]; Q];
    for at in 1..Q {
        query[at] = &queries[at * dim..][..dim];
    }
    let mut first = 0;
    while first + ROWS <= count {
        let mut row = [&rows[first * dim..][..dim]; ROWS];
        for at in 1..ROWS {
            row[at] = &rows[(first + at) * dim..][..dim];
        }
        let found = products_of::<S, ROWS, Q>(simd, row, query);
        for at in 0..Q {
            products[at * count + first..][..ROWS].copy_from_slice(&found[at]);
        }
        first += ROWS;
    }
    for row in first..count {
        let found = products_of::<S, 1, Q>(simd, [&rows[row * dim..][..dim]], query);
        for at in 0..Q {
            products[at * count + row] = found[at][0];
        }
    }
}

/// The products of `R` rows with `Q` queries. Each is summed in the same order, whatever `R` and `Q` are.
#[inline(always)]
fn products_of<S: Simd, const R: usize, const Q: usize>(
    simd: S,
    rows: [&[f32]; R],
    queries: [&[f32]; Q],
) -> [[f32; R]; Q] {
    let parts = S::as_simd_f32s(queries[0]).0.len();
    let mut row_parts = [S::as_simd_f32s(rows[0]).0; R];
    let mut query_parts = [S::as_simd_f32s(queries[0]).0; Q];
    for row in 0..R {
        row_parts[row] = &S::as_simd_f32s(rows[row]).0[..parts];
    }
    for query in 0..Q {
        query_parts[query] = &S::as_simd_f32s(queries[query]).0[..parts];
    }
    let mut sums = [[simd.splat_f32s(0.0); R]; Q];
    for part in 0..parts {
        for query in 0..Q {
            for row in 0..R {
                sums[query][row] =
                    simd.mul_add_e_f32s(row_parts[row][part], query_parts[query][part], sums[query][row]);
            }
        }
    }
    let mut products = [[0.0; R]; Q];
    for query in 0..Q {
        let query_rest = simd.partial_load_f32s(S::as_simd_f32s(queries[query]).1);
        for row in 0..R {
            let row_rest = simd.partial_load_f32s(S::as_simd_f32s(rows[row]).1);
            products[query][row] = simd.reduce_sum_f32s(simd.mul_add_e_f32s(row_rest, query_rest, sums[query][row]));
        }
    }
    products
}
