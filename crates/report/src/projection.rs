//! Embeddings in two dimensions: principal components by orthogonal iteration (Golub and Van Loan, Matrix Computations,
//! 4th ed., sec. 8.2.4), and the gap between the two kinds.

use crate::data::evaluation::{EmbeddingMap, MapPoint};

/// Vectors that are iterated: some more than the two that are sought, so that these converge as fast as the seventh
/// eigenvalue is smaller than the second.
const BLOCK: usize = 6;

/// Largest number of iterations. Two directions of nearly equal variance need not be distinguished: either is as good.
const MAX_ITERATIONS: usize = 300;

/// Relative change of the variances at which the iteration ends.
const TOLERANCE: f64 = 1e-12;

/// Rows along their two directions of most variance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Projection {
    /// The coordinates of each row; NaN for a row with a value that is not finite.
    pub points: Vec<[f64; 2]>,
    /// The fraction of the variance along each direction, from 0 to 1.
    pub explained: [f64; 2],
}

/// Projects embeddings `[rows, dim]`, flat, on their first two principal components. The result depends on nothing but
/// the values; the largest loading of each component is positive. Values after the last whole row are left out.
#[must_use]
pub fn pca_2d(values: &[f32], dim: usize) -> Projection {
    if dim == 0 {
        return Projection::default();
    }
    let rows: Vec<&[f32]> = values.chunks_exact(dim).collect();
    let finite: Vec<&[f32]> = rows.iter().copied().filter(|row| row.iter().all(|value| value.is_finite())).collect();
    let mean = mean(&finite, dim);
    let centred: Vec<Vec<f64>> = finite
        .iter()
        .map(|row| row.iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean).collect())
        .collect();
    let total: f64 = centred.iter().flatten().map(|value| value * value).sum();
    let (directions, variances) = components(&centred, dim);
    let explained = variances.map(|variance| if total > 0.0 { variance / total } else { 0.0 });
    let mut projected = centred.iter().map(|row| [dot(row, &directions[0]), dot(row, &directions[1])]);
    let is_finite = |row: &&[f32]| row.iter().all(|value| value.is_finite());
    let points = rows
        .iter()
        .map(|row| if is_finite(row) { projected.next().unwrap_or([f64::NAN; 2]) } else { [f64::NAN; 2] })
        .collect();
    Projection { points, explained }
}

/// The map of image and text embeddings, both `[rows, dim]` and flat, projected together. Titles and pairs belong to
/// the rows; a row without a title has an empty one.
#[must_use]
pub fn embedding_map(
    (images, image_titles): (&[f32], &[String]),
    (texts, text_titles): (&[f32], &[String]),
    pairs: Vec<[usize; 2]>,
    dim: usize,
) -> EmbeddingMap {
    let whole = |values: &[f32]| values.len() / dim.max(1) * dim;
    let both = [&images[..whole(images)], &texts[..whole(texts)]].concat();
    let projection = pca_2d(&both, dim);
    let points = |points: &[[f64; 2]], titles: &[String]| {
        let title = |at: usize| titles.get(at).cloned().unwrap_or(String::new());
        points.iter().enumerate().map(|(at, &[x, y])| MapPoint { x, y, title: title(at) }).collect()
    };
    let (image_points, text_points) = projection.points.split_at(images.len().checked_div(dim).unwrap_or(0));
    EmbeddingMap {
        images: points(image_points, image_titles),
        texts: points(text_points, text_titles),
        pairs,
        explained: Some(projection.explained),
        note: None,
    }
}

/// The modality gap: the distance between the mean image and the mean text embedding (Liang et al., arXiv:2203.02053,
/// sec. 2), both `[rows, dim]` and flat, L2-normalised. `None` without a finite row on either side.
#[must_use]
pub fn modality_gap(images: &[f32], texts: &[f32], dim: usize) -> Option<f64> {
    let side = |values: &[f32]| {
        let rows: Vec<&[f32]> =
            values.chunks_exact(dim.max(1)).filter(|row| row.iter().all(|value| value.is_finite())).collect();
        (!rows.is_empty()).then(|| mean(&rows, dim))
    };
    let (images, texts) = (side(images)?, side(texts)?);
    Some(images.iter().zip(&texts).map(|(image, text)| (image - text).powi(2)).sum::<f64>().sqrt())
}

fn mean(rows: &[&[f32]], dim: usize) -> Vec<f64> {
    let mut mean = vec![0.0; dim];
    for row in rows {
        mean.iter_mut().zip(*row).for_each(|(mean, value)| *mean += f64::from(*value));
    }
    mean.iter_mut().for_each(|mean| *mean /= rows.len().max(1) as f64);
    mean
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// The two directions of most variance with their sums of squares.
fn components(rows: &[Vec<f64>], dim: usize) -> ([Vec<f64>; 2], [f64; 2]) {
    let size = BLOCK.min(dim);
    let mut basis: Vec<Vec<f64>> = (0..size).map(|place| start(place, dim)).collect();
    orthonormalise(&mut basis);
    let mut last = [f64::INFINITY; 2];
    for _ in 0..MAX_ITERATIONS {
        let mut next = vec![vec![0.0; dim]; size];
        for row in rows {
            for (next, direction) in next.iter_mut().zip(&basis) {
                let along = dot(row, direction);
                next.iter_mut().zip(row).for_each(|(next, value)| *next += along * value);
            }
        }
        let mut lengths: Vec<f64> = next.iter().zip(&basis).map(|(next, direction)| dot(next, direction)).collect();
        basis = next;
        orthonormalise(&mut basis);
        lengths.resize(2, 0.0);
        let largest = lengths[0].max(f64::MIN_POSITIVE);
        let change = (lengths[0] - last[0]).abs().max((lengths[1] - last[1]).abs());
        last = [lengths[0], lengths[1]];
        if change <= TOLERANCE * largest {
            break;
        }
    }
    let variance = |direction: &[f64]| rows.iter().map(|row| dot(row, direction).powi(2)).sum::<f64>();
    basis.resize(2.max(size), vec![0.0; dim]);
    basis.truncate(2);
    basis.iter_mut().for_each(|direction| turn(direction));
    let second = basis.pop().unwrap_or(vec![0.0; dim]);
    let first = basis.pop().unwrap_or(vec![0.0; dim]);
    let variances = [variance(&first), variance(&second)];
    ([first, second], variances)
}

/// A start vector: equal on every machine, and in no special direction.
fn start(place: usize, dim: usize) -> Vec<f64> {
    let value = |at: usize| {
        // splitmix64 (Steele et al., Fast splittable pseudorandom number generators, 2014).
        let mut state = ((place * dim + at + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((state ^ (state >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    (0..dim).map(value).collect()
}

/// Gram-Schmidt, twice, since once loses orthogonality where vectors are nearly parallel. A vector that depends on
/// those before it becomes zero.
fn orthonormalise(basis: &mut [Vec<f64>]) {
    for place in 0..basis.len() {
        let (before, rest) = basis.split_at_mut(place);
        let Some(vector) = rest.first_mut() else { return };
        let length = dot(vector, vector).sqrt();
        for _ in 0..2 {
            for other in before.iter() {
                let along = dot(vector, other);
                vector.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
            }
        }
        let left = dot(vector, vector).sqrt();
        let factor = if left > 1e-12 * length && left > 0.0 { 1.0 / left } else { 0.0 };
        vector.iter_mut().for_each(|value| *value *= factor);
    }
}

/// Makes the largest loading positive, so that the sign does not depend on the start.
fn turn(direction: &mut [f64]) {
    let largest = direction
        .iter()
        .copied()
        .fold(0.0, |largest: f64, value| if value.abs() > largest.abs() * (1.0 + 1e-9) { value } else { largest });
    if largest < 0.0 {
        direction.iter_mut().for_each(|value| *value = -*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_a_known_answer() {
        // Points on two orthogonal axes of R^3, (3, 4, 0) / 5 with +-10 and (0, 0, 1) with +-2, around (1, 1, 1): the
        // sums of squares are 200 and 8.
        let values = [7.0, 9.0, 1.0, -5.0, -7.0, 1.0, 1.0, 1.0, 3.0, 1.0, 1.0, -1.0];
        let found = pca_2d(&values, 3);
        let expected = [[10.0, 0.0], [-10.0, 0.0], [0.0, 2.0], [0.0, -2.0]];
        for (point, expected) in found.points.iter().zip(expected) {
            assert!((point[0] - expected[0]).abs() < 1e-6 && (point[1] - expected[1]).abs() < 1e-6, "{point:?}");
        }
        assert!((found.explained[0] - 200.0 / 208.0).abs() < 1e-9 && (found.explained[1] - 8.0 / 208.0).abs() < 1e-9);
    }

    #[test]
    fn distances_are_those_of_the_plane() {
        // 60 points of a plane in R^16: two dimensions hold all of their distances.
        let axis = |place: usize| start(place, 16);
        let (first, second) = (axis(20), axis(21));
        let weight = |at: usize| (f64::sin(at as f64), 0.3 * f64::cos(1.7 * at as f64));
        let row = |at: usize| {
            let (a, b) = weight(at);
            first.iter().zip(&second).map(move |(x, y)| (a * x + b * y) as f32).collect::<Vec<f32>>()
        };
        let values: Vec<f32> = (0..60).flat_map(row).collect();
        let found = pca_2d(&values, 16);
        assert!((found.explained[0] + found.explained[1] - 1.0).abs() < 1e-6);
        for other in 1..60 {
            let flat: f64 = (0..2).map(|axis| (found.points[0][axis] - found.points[other][axis]).powi(2)).sum();
            let full: f64 = (0..16).map(|at| f64::from(values[at] - values[other * 16 + at]).powi(2)).sum();
            assert!((flat.sqrt() - full.sqrt()).abs() < 1e-5, "{other}");
        }
    }

    #[test]
    fn rows_that_are_not_finite_have_no_place() {
        let found = pca_2d(&[0.0, 0.0, f32::NAN, 1.0, 2.0, 0.0], 2);
        assert!(found.points[1][0].is_nan() && found.points[0][0].is_finite());
        assert!((found.points[2][0] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn degenerate_input_does_not_fail() {
        assert!(pca_2d(&[], 4).points.is_empty());
        assert!(pca_2d(&[1.0], 0).points.is_empty());
        assert_eq!(pca_2d(&[1.0, 2.0], 2).points, [[0.0, 0.0]]);
        assert_eq!(pca_2d(&[1.0, 2.0, 1.0, 2.0], 2).explained, [0.0, 0.0]);
        let one_wide = pca_2d(&[1.0, 2.0, 3.0], 1);
        assert_eq!(one_wide.points, [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]);
        assert!(embedding_map((&[], &[]), (&[], &[]), Vec::new(), 0).images.is_empty());
    }

    #[test]
    fn map_keeps_images_and_texts_apart() {
        let titles = ["a".to_owned(), "b".to_owned()];
        let map = embedding_map((&[1.0, 0.0, 0.9, 0.1], &titles), (&[0.0, 1.0], &[]), vec![[0, 0]], 2);
        assert_eq!((map.images.len(), map.texts.len()), (2, 1));
        assert_eq!((map.images[1].title.as_str(), map.texts[0].title.as_str()), ("b", ""));
    }

    #[test]
    fn gap_is_the_distance_of_the_means() {
        assert_eq!(modality_gap(&[1.0, 0.0, 0.0, 1.0], &[-0.5, -0.5], 2), Some(2.0_f64.sqrt()));
        assert_eq!(modality_gap(&[], &[1.0, 0.0], 2), None);
        assert_eq!(modality_gap(&[f32::NAN, 0.0], &[1.0, 0.0], 2), None);
    }
}
