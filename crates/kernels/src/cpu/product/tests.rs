//! Products of packed factors are those of the `gemm` crate, whatever the sizes.

use super::blocked::{Block, Blocks, blocked_cols, each_panel, pack_block, pack_one};
use super::by_columns::ByColumns;
use super::output::Plus;
use super::panels::{Joined, Panels};
use super::row_sums::{add_row_sums, row_sums};
use super::rows::{Layout, Rows, product};
use super::tile::{ARCH, PANEL};
use super::weighted_rows::{WeightedRows, weighted_sum};
use crate::cpu::chunks::{CHUNK_ROWS, chunk_ends};
use crate::cpu::gemm::{Matrix, matmul};
use crate::cpu::uninit::{Buffer, Scratch, par_buffers};
use crate::tests::assert_close;

/// Sums of up to 1300 products of numbers below 1.
const TOLERANCE: f32 = 1e-5;

pub(crate) fn numbers(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|n| ((n * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
}

fn expected(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let count = a.num_rows() * b.num_cols();
    matmul(a, b, Scratch::new(count).uninit(count)).to_vec()
}

fn computed(x: Rows<'_>, rows: usize, matrix: &Panels, plus: Plus<'_>, layout: Layout) -> Vec<f32> {
    let cols = matrix.num_cols();
    let count = rows * if layout == Layout::Blocked { blocked_cols(cols) } else { cols };
    product(x, matrix, plus, layout, Scratch::new(count).uninit(count)).to_vec()
}

fn blocked(x: Matrix<'_>) -> Buffer {
    let width = blocked_cols(x.num_cols());
    let [values] = par_buffers(&chunk_ends(x.num_rows(), CHUNK_ROWS), [width], [true], |first, [out]| {
        [pack_block(x.rows(first, out.len() / width), out)]
    });
    values
}

#[test]
fn products_are_those_of_whole_matrices() {
    for (rows, depth, cols) in [(1, 1, 1), (5, 70, 64), (13, 600, 3), (128, 64, 130), (8, 1300, 200)] {
        let (x, w, bias) = (numbers(1, rows * depth), numbers(2, depth * cols), numbers(3, cols));
        let x = Matrix::new(&x, depth);
        let w = Matrix::new(&w, cols);
        let mut sums = expected(x, w);
        let turned: Vec<f32> = expected(w.t(), Matrix::new(&identity(depth), depth));
        let turned = Matrix::new(&turned, depth);
        let block = blocked(x);
        let forms = [
            (Rows::Plain(x), Panels::beside(&[w])),
            (Rows::Plain(x), Panels::below(&[turned.t()])),
            (Rows::Blocked(Block::new(block.get(), rows, depth)), Panels::beside(&[w])),
        ];
        let what = format!("{rows} x {depth} x {cols}");
        for (x, panels) in &forms {
            assert_close(&what, TOLERANCE, &computed(*x, rows, panels, Plus::Nothing, Layout::Plain), &sums);
        }
        sums.chunks_exact_mut(cols).flat_map(|row| row.iter_mut().zip(&bias)).for_each(|(sum, bias)| *sum += bias);
        for (x, panels) in &forms {
            let plain = computed(*x, rows, panels, Plus::Row(&bias), Layout::Plain);
            assert_close(&what, TOLERANCE, &plain, &sums);
            let in_block = computed(*x, rows, panels, Plus::Row(&bias), Layout::Blocked);
            assert_eq!(in_block, blocked(Matrix::new(&plain, cols)).get(), "{what}");
        }
    }
}

fn identity(size: usize) -> Vec<f32> {
    (0..size * size).map(|n| if n / size == n % size { 1.0 } else { 0.0 }).collect()
}

#[test]
fn joined_matrices_are_packed_in_order() {
    let (x, parts) = (numbers(1, 10 * 40), [2, 3, 4].map(|seed| numbers(seed, 40 * 70)));
    let (x, parts) = (Matrix::new(&x, 40), parts.each_ref().map(|part| Matrix::new(part, 70)));
    let beside = computed(Rows::Plain(x), 10, &Panels::beside(&parts), Plus::Nothing, Layout::Plain);
    let each = parts.map(|part| computed(Rows::Plain(x), 10, &Panels::beside(&[part]), Plus::Nothing, Layout::Plain));
    for row in 0..10 {
        let expected: Vec<f32> = each.iter().flat_map(|part| &part[row * 70..][..70]).copied().collect();
        assert_eq!(beside[row * 210..][..210], expected);
    }
    let below = computed(
        Rows::Plain(Matrix::new(&beside, 210)),
        10,
        &Panels::below(&parts.map(Matrix::t)),
        Plus::Nothing,
        Layout::Plain,
    );
    let mut sums = vec![0.0; 400];
    for (part, values) in parts.iter().zip(&each) {
        let product = expected(Matrix::new(values, 70), part.t());
        sums.iter_mut().zip(product).for_each(|(sum, value)| *sum += value);
    }
    assert_close("below", TOLERANCE, &below, &sums);
}

#[test]
fn sums_over_rows_are_those_of_whole_matrices() {
    for (rows, left, right) in [(1, 1, 1), (7, 70, 3), (128, 64, 64), (700, 13, 130), (1300, 5, 2), (0, 3, 4)] {
        let (x, y) = (numbers(1, rows * left), numbers(2, rows * right));
        let (x, y) = (Matrix::new(&x, left), Matrix::new(&y, right));
        let (of_x, of_y) = (blocked(x), blocked(y));
        let factors = [(&of_x, left), (&of_y, right)].map(|(it, cols)| Blocks::new(it.get(), rows, cols, [0, 1]));
        let what = format!("{rows} rows, {left} x {right}");
        let products = expected(x.t(), y);
        assert_close(&what, TOLERANCE, &row_sums(factors[0], factors[1]), &products);
        // Each block in a place of its own, added to other values.
        let apart: Vec<Vec<f32>> = of_x.get().chunks(CHUNK_ROWS * blocked_cols(left)).map(<[f32]>::to_vec).collect();
        let apart: Vec<&[f32]> = apart.iter().map(Vec::as_slice).collect();
        let before = numbers(3, left * right);
        let (mut sums, mut both) = (before.clone(), before);
        add_row_sums(Blocks::each(&apart, rows, left), factors[1], &mut sums);
        both.iter_mut().zip(&products).for_each(|(sum, product)| *sum += product);
        assert_close(&format!("{what}, added"), TOLERANCE, &sums, &both);
        let ones = vec![1.0; rows];
        let sums = expected(Matrix::new(&ones, 1).t(), y);
        assert_close(&what, TOLERANCE, &factors[1].column_sums(), &sums);
    }
}

/// A row's bits depend neither on how many rows are beside it nor on where its block starts.
#[test]
fn bits_of_a_row_are_its_own() {
    let (x, w) = (numbers(1, 20 * 600), numbers(2, 600 * 70));
    let (x, panels) = (Matrix::new(&x, 600), Panels::beside(&[Matrix::new(&w, 70)]));
    let whole = computed(Rows::Plain(x), 20, &panels, Plus::Nothing, Layout::Plain);
    for (first, count) in [(0, 1), (3, 2), (5, 3), (1, 4), (7, 5), (2, 7), (12, 8)] {
        let part = computed(Rows::Plain(x.rows(first, count)), count, &panels, Plus::Nothing, Layout::Plain);
        assert_eq!(part, whole[first * 70..][..count * 70], "{count} rows from {first}");
    }
}

/// Also where matrices are side by side, below each other or transposed, and with vectors that are narrower.
#[test]
fn columns_of_few_rows_have_the_bits_of_packed_matrices() {
    with_each_width(|| {
        let whole = [(1, 64, 64), (5, 128, 128), (13, 576, 64), (128, 1280, 192), (131, 640, 64), (512, 192, 64)];
        for (rows, depth, cols) in whole.into_iter().chain([(129, 64, 128), (13, 600, 64), (140, 607, 64)]) {
            let (x, bias) = (numbers(1, rows * 2 * depth), numbers(9, 2 * cols));
            let weights = [2, 3].map(|seed| numbers(seed, depth * cols));
            let weights = weights.each_ref().map(|w| Matrix::new(w, cols));
            let turned = [4, 5].map(|seed| numbers(seed, depth * cols));
            let turned = turned.each_ref().map(|w| Matrix::new(w, depth).t());
            let wide = Matrix::new(&x, 2 * depth);
            let narrow = Matrix::new(&x[..rows * depth], depth);
            let forms = [
                (narrow, &weights[..], Joined::Beside),
                (narrow, &turned[..1], Joined::Beside),
                (wide, &weights[..], Joined::Below),
                (wide, &turned[..], Joined::Below),
            ];
            for (x, matrices, joined) in forms {
                if matches!(joined, Joined::Below) && !depth.is_multiple_of(PANEL) {
                    continue;
                }
                let packed = match joined {
                    Joined::Beside => Panels::beside(matrices),
                    Joined::Below => Panels::below(matrices),
                };
                let count = rows * blocked_cols(x.num_cols());
                let mut block = Scratch::new(count);
                let block = &*pack_block(x, block.uninit(count));
                for x in [Rows::Plain(x), Rows::Blocked(Block::new(block, rows, x.num_cols()))] {
                    for plus in [Plus::Nothing, Plus::Row(&bias[..packed.num_cols()])] {
                        let products = ByColumns::new(x, matrices, joined, plus);
                        let what = format!("{rows} rows, {joined:?} {} x {depth} x {cols}", matrices.len());
                        let plain = computed(x, rows, &packed, plus, Layout::Plain);
                        assert_eq!(products.row_major(), plain, "{what}");
                        let panels = packed.num_cols() / PANEL;
                        let [of_panels] = each_panel([rows], [true], panels, |scratch, panel, [out]| {
                            [products.panel(panel, scratch, out)]
                        });
                        assert_eq!(of_panels.get(), computed(x, rows, &packed, plus, Layout::Blocked), "{what}");
                    }
                }
            }
        }
    });
}

/// A batch in one block gives the sums of one in blocks of 128 rows, to the bit.
#[test]
fn sums_over_one_block_are_those_of_several() {
    for rows in [1, 128, 129, 300, 512] {
        let (x, y) = (numbers(1, rows * 128), numbers(2, rows * 2 * 64));
        let (x, y) = (Matrix::new(&x, 128), Matrix::new(&y, 2 * 64));
        let (one_x, one_y, several_x) = (pack_one(x), pack_one(y), blocked(x));
        for n in [0, 1] {
            let several_y = blocked(y.cols(n * 64, 64));
            let several = Blocks::new(several_y.get(), rows, 64, [0, 1]);
            let one = Blocks::new(one_y.get(), rows, 64, [n, 2]).in_one();
            let expected = row_sums(Blocks::new(several_x.get(), rows, 128, [0, 1]), several);
            assert_eq!(row_sums(Blocks::new(one_x.get(), rows, 128, [0, 1]).in_one(), one), expected, "{rows} rows");
            assert_eq!(one.column_sums(), several.column_sums(), "{rows} rows");
        }
    }
}

#[test]
#[should_panic = "are not for products by columns"]
fn products_by_columns_need_whole_panels() {
    let (x, w) = (numbers(1, 64), numbers(2, 64 * 65));
    ByColumns::new(Rows::Plain(Matrix::new(&x, 64)), &[Matrix::new(&w, 65)], Joined::Beside, Plus::Nothing);
}

/// Runs `compute` on one thread with these vectors.
pub(crate) fn on_arch<T: Send>(arch: pulp::Arch, compute: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        ARCH.set(Some(arch));
        compute()
    })
}

/// Products and sums over rows with these vectors.
fn with_vectors(arch: pulp::Arch) -> [Vec<f32>; 2] {
    on_arch(arch, || {
        let (rows, depth, cols) = (139, 600, 203);
        let (x, w) = (numbers(1, rows * depth), numbers(2, depth * cols));
        let (x, w) = (Matrix::new(&x, depth), Matrix::new(&w, cols));
        let products = computed(Rows::Plain(x), rows, &Panels::beside(&[w]), Plus::Nothing, Layout::Plain);
        let (left, right) = (blocked(x), blocked(Matrix::new(&products, cols)));
        let sums = row_sums(Blocks::new(left.get(), rows, depth, [0, 1]), Blocks::new(right.get(), rows, cols, [0, 1]));
        [products, sums]
    })
}

/// Runs `check` with each kind of vectors that this processor has.
pub(crate) fn with_each_width(check: impl Fn() + Send + Sync) {
    #[cfg(target_arch = "x86_64")]
    let narrow = pulp::x86::V3::try_new().map(pulp::Arch::V3);
    #[cfg(not(target_arch = "x86_64"))]
    let narrow = None;
    for arch in [Some(pulp::Arch::Scalar), narrow, Some(pulp::Arch::new())].into_iter().flatten() {
        on_arch(arch, &check);
    }
}

/// Matrices side by side and below each other, row-major and transposed, in whole strips and with columns left over.
#[test]
fn strips_have_all_columns_of_all_matrices() {
    with_each_width(|| {
        for (depth, cols) in [(3, 1), (17, 15), (512, 16), (40, 17), (33, 64), (5, 65), (513, 130)] {
            let values = [1, 2].map(|seed| numbers(seed, depth * cols));
            let turned = values.each_ref().map(|values| -> Vec<f32> {
                (0..depth * cols).map(|n| values[n % depth * cols + n / depth]).collect()
            });
            let matrices = values.each_ref().map(|values| Matrix::new(values, cols));
            let transposed = turned.each_ref().map(|values| Matrix::new(values, depth).t());
            let x = numbers(3, 7 * 2 * depth);
            let x = Matrix::new(&x, 2 * depth);
            let halves = [x.cols(0, depth), x.cols(depth, depth)];
            let [first, other] = matrices.map(|matrix| expected(halves[0], matrix));
            let beside: Vec<f32> =
                first.chunks(cols).zip(other.chunks(cols)).flat_map(|(a, b)| a.iter().chain(b)).copied().collect();
            let below: Vec<f32> = first.iter().zip(expected(halves[1], matrices[1])).map(|(a, b)| a + b).collect();
            let product = |x, panels| computed(Rows::Plain(x), 7, &panels, Plus::Nothing, Layout::Plain);
            let what = format!("{depth} x {cols}");
            assert_close(&what, TOLERANCE, &product(halves[0], Panels::beside(&matrices)), &beside);
            assert_close(&what, TOLERANCE, &product(x, Panels::below(&matrices)), &below);
            assert_close(&what, TOLERANCE, &product(x, Panels::below(&transposed)), &below);
        }
        for cols in [1, 20, 70, 128] {
            let empty = Matrix::new(&[], cols);
            let panels = Panels::beside(&[empty, empty]);
            assert_eq!([panels.depth(), panels.num_cols()], [0, 2 * cols]);
        }
    });
}

/// Sums over rows are one chain of multiply-adds over each 512 rows, from 0 on, wherever the rows are cut.
#[test]
fn sums_over_rows_are_chains() {
    for rows in [63, 64, 65, 511, 512, 513, 1100] {
        let (x, y) = (numbers(1, rows * 7), numbers(2, rows * 70));
        let (left, right) = (blocked(Matrix::new(&x, 7)), blocked(Matrix::new(&y, 70)));
        let found = row_sums(Blocks::new(left.get(), rows, 7, [0, 1]), Blocks::new(right.get(), rows, 70, [0, 1]));
        for (n, found) in found.iter().enumerate() {
            let (a, b) = (n / 70, n % 70);
            let rows: Vec<usize> = (0..rows).collect();
            let chain = |rows: &[usize]| rows.iter().fold(0.0, |sum, row| x[row * 7 + a].mul_add(y[row * 70 + b], sum));
            let expected = rows.chunks(512).map(chain).reduce(|all, sum| all + sum).unwrap();
            let has_fma = !matches!(pulp::Arch::new(), pulp::Arch::Scalar);
            assert!(!has_fma || *found == expected, "{a}, {b} of {} rows: {found}, expected {expected}", rows.len());
        }
    }
}

/// AVX2 and processors without vectors take other tiles than AVX-512, which tests run with where it is.
#[test]
fn narrow_vectors_compute_the_same() {
    let widest = with_vectors(pulp::Arch::new());
    let scalar = with_vectors(pulp::Arch::Scalar);
    for (scalar, widest) in scalar.iter().zip(&widest) {
        // Two roundings in place of one.
        assert_close("without vectors", TOLERANCE, scalar, widest);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = pulp::x86::V3::try_new() {
        assert_eq!(with_vectors(pulp::Arch::V3(avx2)), widest, "the same multiply-adds in the same order");
    }
}

#[test]
fn weighted_rows_sum_as_in_f64() {
    for (rows, cols) in [(1, 1), (7, 70), (300, 130), (1100, 65)] {
        let (features, shift) = (numbers(5, rows * cols), numbers(6, cols));
        // Each third row is left out, and each fifth is the sum of two.
        let (mut terms, mut ends) = (Vec::new(), Vec::new());
        for row in (0..rows).filter(|row| row % 3 != 1) {
            terms.push((row, 0.5 + row as f64 / rows as f64));
            terms.extend((row % 5 == 0).then_some((rows - 1 - row, -0.25)));
            ends.push(terms.len());
        }
        let value = |(row, factor): (usize, f64), col: usize| {
            factor * (f64::from(features[row * cols + col]) - f64::from(shift[col]))
        };
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let sum = |(start, &end): (usize, &usize), col| terms[start..end].iter().map(|term| value(*term, col)).sum();
        let expected: Vec<Vec<f64>> =
            starts.zip(&ends).map(|row| (0..cols).map(|col| sum(row, col)).collect()).collect();
        let what = format!("{rows} x {cols}");
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-5 * rows as f64, "{what}: {found}, expected {expected}");
        };
        let packed = WeightedRows::new(&features, &shift, &terms, &ends);
        let (mut squares, mut products) = (vec![1.0; cols * cols], vec![2.0; cols * cols]);
        packed.add_squares(&mut squares);
        packed.add_products(&packed, &mut products);
        let sums = weighted_sum(&features, &shift, &terms);
        for col in 0..cols {
            let of_all: f64 = expected.iter().map(|row| row[col]).sum();
            assert!((sums[col] - of_all).abs() < 1e-9, "{what}: {}, expected {of_all}", sums[col]);
            for other in 0..cols {
                let expected: f64 = expected.iter().map(|row| row[col] * row[other]).sum();
                close(products[col * cols + other], 2.0 + expected);
                if other <= col {
                    close(squares[col * cols + other], 1.0 + expected);
                }
            }
        }
    }
}
