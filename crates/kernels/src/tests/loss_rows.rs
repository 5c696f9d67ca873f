//! Rows of a batch that are computed apart add up to the loss of the batch, whatever computes them.

use super::*;

/// Parts from a later row on have several blocks.
const BATCH: usize = 270;
const DIM: usize = 20;

fn losses() -> [PairLoss; 2] {
    // The last target is masked too.
    let targets = (0..BATCH).map(|n| (n, n, 1.0 / BATCH as f32)).chain([(BATCH - 4, BATCH - 1, -0.01), (3, 60, 0.02)]);
    let mut targets: Vec<_> = targets.collect();
    targets.sort_unstable_by_key(|&(row, column, _)| (row, column));
    let others: Vec<_> = (0..BATCH - 3).map(|n| (n, n + 3)).collect();
    [
        PairLoss::Softmax { targets: targets.into(), masked: others.clone().into() },
        PairLoss::Sigmoid { positives: others.into(), masked: [(2, 9), (69, 0)].into() },
    ]
}

/// The loss, computed in ranges of rows that end at `ends`, and its gradients by all inputs.
fn of_rows(loss: &PairLoss, ends: &[usize]) -> Vec<Vec<f32>> {
    let (image, text, scale, bias) = (leaf(1, [BATCH, DIM]), leaf(2, [BATCH, DIM]), leaf(3, [1]), leaf(4, [1]));
    let biased = Some(&bias).filter(|_| matches!(loss, PairLoss::Sigmoid { .. }));
    let starts = std::iter::once(&0).chain(ends);
    let ranges: Vec<_> = starts.zip(ends).map(|(&start, &end)| start..end).collect();
    let own: Vec<Tensor<2>> = ranges.iter().map(|rows| image.clone().slice(rows.clone())).collect();
    let logits = Logits { image_embeds: &image, text_embeds: &text, logit_scale: &scale, logit_bias: biased };
    let column_log_sums = match loss {
        PairLoss::Softmax { masked, .. } => {
            let mut sums = Vec::new();
            for (own, rows) in own.iter().zip(&ranges) {
                sums.push(column_sums(Logits { image_embeds: own, ..logits }, masked, rows.start));
            }
            sums.into_iter().reduce(ColumnSums::join).map(|sums| sums.log_sums())
        }
        PairLoss::Sigmoid { .. } => None,
    };
    let mut parts = Vec::new();
    for (own, rows) in own.iter().zip(&ranges) {
        let rows = LossRows { first: rows.start, column_log_sums: column_log_sums.clone() };
        parts.push(pair_loss_of_rows(Logits { image_embeds: own, ..logits }, loss, &rows));
    }
    let sum = parts.into_iter().reduce(|sum, part| sum + part).unwrap();
    with_gradients(sum, [image, text], [scale, bias])
}

fn whole(loss: &PairLoss) -> Vec<Vec<f32>> {
    let (image, text, scale, bias) = (leaf(1, [BATCH, DIM]), leaf(2, [BATCH, DIM]), leaf(3, [1]), leaf(4, [1]));
    let logit_bias = Some(&bias).filter(|_| matches!(loss, PairLoss::Sigmoid { .. }));
    let logits = Logits { image_embeds: &image, text_embeds: &text, logit_scale: &scale, logit_bias };
    with_gradients(pair_loss(logits, loss), [image, text], [scale, bias])
}

fn with_gradients(loss: Tensor<1>, embeds: [Tensor<2>; 2], others: [Tensor<1>; 2]) -> Vec<Vec<f32>> {
    let mut gradients = loss.backward();
    let of_embeds = embeds.map(|leaf| values(leaf.grad_remove(&mut gradients).unwrap()));
    let of_others = others.map(|leaf| leaf.grad_remove(&mut gradients).map_or_else(Vec::new, values));
    [values(loss)].into_iter().chain(of_embeds).chain(of_others).collect()
}

#[test]
fn rows_add_up_to_the_batch() {
    for loss in losses() {
        let expected = whole(&loss);
        for ends in [&[BATCH][..], &[5, BATCH], &[1, 2, 269, BATCH], &[35, 70, 105, 140, 175, 210, 245, BATCH]] {
            let forms = [("kernel", of_rows(&loss, ends)), ("tiles", with_plain_forms(|| of_rows(&loss, ends)))];
            for (form, found) in forms {
                for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert_close(&format!("{form} {ends:?}: {at}"), LONG_SUM_TOLERANCE, found, expected);
                }
            }
        }
    }
}

#[test]
#[should_panic = "softmax over some rows needs the sums of the columns over all"]
fn rows_of_softmax_need_columns() {
    let [softmax, _] = losses();
    let (image, text, scale) = (constant(1, [3, DIM]), constant(2, [BATCH, DIM]), constant(3, [1]));
    let logits = Logits { image_embeds: &image, text_embeds: &text, logit_scale: &scale, logit_bias: None };
    pair_loss_of_rows(logits, &softmax, &LossRows { first: 0, column_log_sums: None });
}
