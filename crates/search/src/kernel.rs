//! Inner products, in the widest vectors that the processor has.

/// Partial sums of a product: one AVX-512 register. They are the same on every processor, and so are the scores.
const LANES: usize = 16;

/// Rows whose products are computed together.
const ROWS: usize = 4;

/// Queries whose products are computed together.
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

impl pulp::NullaryFnOnce for Tile<'_> {
    type Output = ();

    // What is not inlined is compiled for the baseline of the architecture.
    #[inline(always)]
    fn call(self) {
        let Self { rows, queries, dim, products } = self;
        let count = rows.len() / dim;
        let pairs = queries.chunks(QUERIES * dim).zip(products.chunks_mut(QUERIES * count));
        for (queries, products) in pairs {
            match queries.len() / dim {
                QUERIES => of_queries::<QUERIES>(rows, queries, dim, count, products),
                _ => of_queries::<1>(rows, queries, dim, count, products),
            }
        }
    }
}

/// The products of all rows with `Q` queries.
#[inline(always)]
fn of_queries<const Q: usize>(rows: &[f32], queries: &[f32], dim: usize, count: usize, products: &mut [f32]) {
    let queries: [&[f32]; Q] = std::array::from_fn(|query| &queries[query * dim..][..dim]);
    let mut first = 0;
    while first + ROWS <= count {
        let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &rows[(first + row) * dim..][..dim]);
        let found = products_of(rows, queries);
        for (query, found) in found.iter().enumerate() {
            products[query * count + first..][..ROWS].copy_from_slice(found);
        }
        first += ROWS;
    }
    for row in first..count {
        for (query, [found]) in products_of([&rows[row * dim..][..dim]], queries).into_iter().enumerate() {
            products[query * count + row] = found;
        }
    }
}

/// The products of `R` rows with `Q` queries. Each is summed in the same order, whatever `R` and `Q` are.
#[inline(always)]
fn products_of<const R: usize, const Q: usize>(rows: [&[f32]; R], queries: [&[f32]; Q]) -> [[f32; R]; Q] {
    let (query_parts, query_rests) = split(queries);
    let (row_parts, row_rests) = split(rows);
    let parts = query_parts.first().map_or(0, |parts| parts.len());
    let query_parts = query_parts.map(|query| &query[..parts]);
    let row_parts = row_parts.map(|row| &row[..parts]);
    let mut sums = [[[0.0f32; LANES]; R]; Q];
    for part in 0..parts {
        for query in 0..Q {
            for row in 0..R {
                let (a, b) = (&row_parts[row][part], &query_parts[query][part]);
                let sum = &mut sums[query][row];
                for lane in 0..LANES {
                    sum[lane] = a[lane].mul_add(b[lane], sum[lane]);
                }
            }
        }
    }
    let mut products = [[0.0; R]; Q];
    for query in 0..Q {
        for row in 0..R {
            let mut sum = sums[query][row];
            for (lane, (a, b)) in row_rests[row].iter().zip(query_rests[query]).enumerate() {
                sum[lane] = a.mul_add(*b, sum[lane]);
            }
            products[query][row] = total(sum);
        }
    }
    products
}

/// Whole parts of [`LANES`] values, and what is left.
#[inline(always)]
fn split<const N: usize>(vectors: [&[f32]; N]) -> ([&[[f32; LANES]]; N], [&[f32]; N]) {
    (vectors.map(|vector| vector.as_chunks().0), vectors.map(|vector| vector.as_chunks::<LANES>().1))
}

/// The sum of all lanes, half to half.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}
