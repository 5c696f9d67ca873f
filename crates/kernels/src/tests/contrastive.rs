//! The contrastive losses as a whole: tiles, faults in their inputs.

use std::sync::Arc;

use super::*;
use crate::contrastive::fused;

#[test]
fn loss_is_independent_of_tiling() {
    // One block of the fused form, whole panels, and with columns that fill up a panel; several blocks in a tile.
    [64, 70, 260].into_iter().for_each(assert_independent_of_tiling);
}

fn assert_independent_of_tiling(batch: usize) {
    // The last target is masked too.
    let targets = (0..batch).map(|n| (n, n, 1.0 / batch as f32)).chain([(batch - 4, batch - 1, -0.01)]);
    let mut targets: Vec<_> = targets.collect();
    targets.sort_unstable_by_key(|&(row, column, _)| (row, column));
    let others: Vec<_> = (0..batch - 3).map(|n| (n, n + 3)).collect();
    let losses = [
        PairLoss::Softmax { targets: targets.into(), masked: others.clone().into() },
        PairLoss::Sigmoid { positives: others.clone().into(), masked: [(2, 9), (batch - 1, 0)].into() },
    ];
    for loss in losses {
        let run = |fused: bool, tile_logits: usize| {
            let (image, text, scale, bias) = (leaf(1, [batch, 20]), leaf(2, [batch, 20]), leaf(3, [1]), leaf(4, [1]));
            let has_bias = matches!(loss, PairLoss::Sigmoid { .. });
            let logits = Logits {
                image_embeds: &image,
                text_embeds: &text,
                logit_scale: &scale,
                logit_bias: Some(&bias).filter(|_| has_bias),
            };
            let loss = if fused {
                fused::pair_loss(logits, &loss, None, tile_logits).unwrap()
            } else {
                tiled_pair_loss(logits, &loss, None, tile_logits)
            };
            let mut gradients = loss.backward();
            let embeds = [image, text].map(|leaf| values(leaf.grad_remove(&mut gradients).unwrap()));
            let of_scale = values(scale.grad_remove(&mut gradients).unwrap());
            let of_bias = bias.grad_remove(&mut gradients).map(values);
            assert_eq!(of_bias.is_some(), has_bias);
            let named = ["loss", "image", "text", "scale", "bias"].into_iter();
            named.zip([values(loss)].into_iter().chain(embeds).chain([of_scale]).chain(of_bias)).collect::<Vec<_>>()
        };
        let assert_close = |what: &str, found: &[(&str, Vec<f32>)], expected: &[(&str, Vec<f32>)]| {
            assert_eq!(found.len(), expected.len(), "{what}");
            for ((name, found), (_, expected)) in found.iter().zip(expected) {
                assert_close(&format!("{what}, {name}"), LONG_SUM_TOLERANCE, found, expected);
            }
        };
        let whole = run(true, usize::MAX);
        for rows in [1, 7, 64, 130, 200] {
            assert_close(&format!("fused, {rows} rows per tile"), &run(true, rows * batch), &whole);
        }
        for rows in [1, 9, 33, batch] {
            assert_close(&format!("plain, {rows} rows per tile"), &run(false, rows * batch), &whole);
        }
    }
}

/// A value that is not a number, wherever it is, reaches the loss and the sums of the columns.
#[test]
fn nan_is_never_hidden() {
    let (batch, dim) = (70, 20);
    let masked: Arc<[(usize, usize)]> = [(3, 9), (66, 2)].into();
    let targets = (0..batch).map(|n| (n, n, 1.0 / batch as f32)).collect();
    let losses = [
        PairLoss::Softmax { targets, masked: masked.clone() },
        PairLoss::Sigmoid { positives: [].into(), masked: masked.clone() },
    ];
    let scale = constant(3, [1]);
    let embeds = |seed, fault: Option<usize>| {
        let tensor = constant(seed, [batch, dim]);
        match fault {
            Some(row) => tensor.slice_fill([row..row + 1, 4..5], f32::NAN),
            None => tensor,
        }
    };
    for (in_image, in_text) in [(Some(3), None), (Some(batch - 1), None), (None, Some(66)), (None, Some(0))] {
        let (image_embeds, text_embeds) = (&embeds(1, in_image), &embeds(2, in_text));
        let logits = Logits { image_embeds, text_embeds, logit_scale: &scale, logit_bias: None };
        for loss in &losses {
            for tile_logits in [usize::MAX, 7 * batch] {
                let found = values(fused::pair_loss(logits, loss, None, tile_logits).unwrap());
                assert!(found[0].is_nan(), "{loss:?}, {in_image:?}, {in_text:?}: {found:?}");
            }
        }
        let found = values(fused::column_sums(logits, &masked, 0, usize::MAX).unwrap().log_sums());
        let is_faulty = |column| match in_image {
            Some(row) => !masked.contains(&(row, column)),
            None => in_text == Some(column),
        };
        let faulty: Vec<bool> = (0..batch).map(is_faulty).collect();
        assert_eq!(found.iter().map(|sum| sum.is_nan()).collect::<Vec<_>>(), faulty, "{in_image:?}, {in_text:?}");
    }
}

#[test]
#[should_panic = "width of the text embeddings of a batch"]
fn widths_must_agree() {
    let (image, text, scale) = (constant(1, [4, 6]), constant(2, [6, 4]), constant(3, [1]));
    let logits = Logits { image_embeds: &image, text_embeds: &text, logit_scale: &scale, logit_bias: None };
    column_sums(logits, &[], 0);
}

#[test]
#[should_panic = "number of log-sum-exps of columns"]
fn column_sums_must_be_of_the_batch() {
    let (image, text, scale) = (constant(1, [3, 6]), constant(2, [7, 6]), constant(3, [1]));
    let logits = Logits { image_embeds: &image, text_embeds: &text, logit_scale: &scale, logit_bias: None };
    let loss = PairLoss::Softmax { targets: [].into(), masked: [].into() };
    pair_loss_of_rows(logits, &loss, &LossRows { first: 0, column_log_sums: Some(constant(4, [1, 6])) });
}
