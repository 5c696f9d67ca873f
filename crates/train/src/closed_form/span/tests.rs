use dualenc_data::mix;

use super::*;
use crate::closed_form::canonical::Method;
use crate::closed_form::head_map::{HeadMap, HeadMaps};

/// Values of about 1 around 3.
fn values(seed: u64, count: usize) -> Vec<f32> {
    (0..count).map(|at| 3.0 + (mix(seed, &[at as u64]) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// `count` pairs, of which the last two are the first ones again, with what the spans say of them.
fn pairs(count: usize, widths: [usize; 2]) -> (Covariances, Spans) {
    let mut block = Block {
        images: values(1, (count - 2) * widths[0]),
        texts: values(2, (count - 2) * widths[1]),
        pairs: (0..count).map(|at| (at, 1.0)).collect(),
    };
    for (values, width) in [(&mut block.images, widths[0]), (&mut block.texts, widths[1])] {
        values.extend_from_within(..2 * width);
    }
    // Both sides share some values.
    for pair in 0..count {
        for at in 0..widths[1].min(widths[0]) / 2 {
            block.texts[pair * widths[1] + at] += block.images[pair * widths[0] + at];
        }
    }
    let shift = Shift::of(&block, count);
    let mut spans = Spans::new([count - 2; 2], &shift);
    spans.add(&block, &shift);
    // In f64: those of `Moments` have errors of f32 at a right angle to all inputs, which the spans leave out.
    let side = |values: &[f32], width: usize| {
        let mut rows = Matrix::of(values, width);
        let mean = rows.mean();
        rows.rows_mut().for_each(|row| add(row, &mean, -1.0));
        rows.values.iter_mut().for_each(|value| *value /= (count as f64).sqrt());
        (mean, rows.transposed())
    };
    let ((image_mean, images), (text_mean, texts)) = (side(&block.images, widths[0]), side(&block.texts, widths[1]));
    let within = [images.times_transposed(&images), texts.times_transposed(&texts)];
    let between = images.times_transposed(&texts);
    (Covariances { widths, means: [image_mean, text_mean], within, between }, spans)
}

/// `strengths` times what the maps of both sides give together, and what that of images gives with itself: directions
/// have either sign.
fn products(maps: [&Matrix; 2], strengths: &[f64]) -> [Matrix; 2] {
    let [images, texts] = maps.map(Matrix::transposed);
    let mut weighted = images.clone();
    for row in weighted.rows_mut() {
        row.iter_mut().zip(strengths).for_each(|(value, strength)| *value *= strength);
    }
    [weighted.times_transposed(&texts), images.times_transposed(&images)]
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    let scale = expected.iter().fold(0f64, |scale, value| scale.max(value.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-5 * scale, "{what}: {found}, expected {expected}");
    }
}

#[test]
fn solutions_are_those_of_all_values() {
    // Both sides are reduced, and one of them.
    for widths in [[60, 40], [60, 12]] {
        let (covariances, spans) = pairs(22, widths);
        assert_eq!(spans.side(1).is_some(), widths[1] > 20);
        for (method, ridge) in [(Method::Cca, 1e-1), (Method::Cca, 1e-3), (Method::Ridge, 1e-2)] {
            for without_means in [[false; 2], [true; 2]] {
                let what = format!("{widths:?} {method:?} {ridge} {without_means:?}");
                // As many as there are: those of nearly equal strengths turn into each other.
                let dims = spans.most_directions().min(widths[1] - usize::from(without_means[1]));
                let whole = covariances.clone().beside_means(without_means);
                let expected = whole.solve(method, ridge, dims).unwrap();
                let reduced = spans.reduced(covariances.clone()).beside_means(without_means);
                let found = reduced.solve(method, ridge, dims).unwrap();
                assert!(found.maps[0].columns <= 21, "as many values as distinct images, and the rounded mean");
                assert_close(&found.strengths, &expected.strengths, &what);
                let maps: [Matrix; 2] = std::array::from_fn(|side| match spans.side(side) {
                    Some(span) => span.expanded(&found.maps[side]),
                    None => found.maps[side].clone(),
                });
                let strengths = &expected.strengths;
                let found = products(maps.each_ref(), strengths);
                let expected = products(expected.maps.each_ref(), strengths);
                for (found, expected) in found.iter().zip(&expected) {
                    assert_close(&found.values, &expected.values, &what);
                }
            }
        }
    }
}

#[test]
fn heads_are_those_of_all_values() {
    let (covariances, spans) = pairs(22, [60, 40]);
    let whole = Spans { sides: [None, None], ..spans.clone() };
    let (dim, has_bias) = (spans.most_directions(), [true; 2]);
    // Cosines without their norms, of features and of the biases.
    let heads = |spans: &Spans| {
        let covariances = &spans.reduced(covariances.clone());
        let solution = &covariances.solve(Method::Cca, 1e-2, dim).unwrap();
        let maps = HeadMaps { covariances, solution, spans, power: 1.5, dim, has_bias, seed: 1 };
        let [images, texts] = [0, 1].map(|side| {
            let HeadMap { weight, bias } = maps.of(side);
            [Matrix::of(&weight, dim), Matrix::of(&bias, dim)]
        });
        images.each_ref().map(|image| texts.each_ref().map(|text| image.times_transposed(text)))
    };
    for (found, expected) in heads(&spans).iter().flatten().zip(heads(&whole).iter().flatten()) {
        assert_close(&found.values, &expected.values, "products");
    }
}

#[test]
fn span_has_one_direction_for_each_distinct_input() {
    let (_, spans) = pairs(22, [60, 40]);
    assert_eq!(spans.most_directions(), 19);
    for side in [0, 1] {
        let basis = &spans.side(side).unwrap().basis;
        // The mean that is subtracted is rounded to f32: it is hardly among what the inputs span.
        let rank = basis.num_rows();
        assert!([20, 21].contains(&rank), "{rank}");
        let products = basis.times_transposed(basis);
        for (at, value) in products.values.iter().enumerate() {
            let expected = if at.is_multiple_of(rank + 1) { 1.0 } else { 0.0 };
            assert!((value - expected).abs() < 1e-12, "{at}: {value}");
        }
    }
    let (_, spans) = pairs(64, [60, 70]);
    assert!(spans.side(0).is_none() && spans.side(1).is_some());
}

#[test]
fn repeated_rows_change_nothing() {
    let widths = [60, 40];
    let block = |repeated: usize| Block {
        images: values(1, 20 * widths[0]).repeat(repeated),
        texts: values(2, 20 * widths[1]).repeat(repeated),
        pairs: (0..20 * repeated).map(|at| (at, 1.0)).collect(),
    };
    let shift = Shift::of(&block(1), 20);
    let mut spans = Spans::new([20; 2], &shift);
    spans.add(&block(1), &shift);
    let once = spans.clone();
    spans.add(&block(3), &shift);
    assert!(spans == once, "rows that were added before are in the span");
    assert_eq!(spans.seen.each_ref().map(HashSet::len), [20, 20]);
}
