//! The loss of nested embeddings: the first values of an embedding are an embedding too (Matryoshka representation
//! learning, arXiv:2205.13147, sec. 3).

use burn::tensor::Tensor;
use dualenc_model::normalize;

use crate::loss::contrastive::BatchLoss;

/// The mean of the loss of whole embeddings and of those of their first `widths` values, each normalised. Statistics
/// are those of whole embeddings.
///
/// `image` and `text` are un-normalised features, `[rows, dim]`; `loss` takes unit vectors of one width. Without
/// `widths` it is the loss of whole embeddings, to the bit.
pub(crate) fn nested_loss(
    widths: &[usize],
    [image, text]: [Tensor<2>; 2],
    loss: impl Fn([Tensor<2>; 2]) -> BatchLoss,
) -> BatchLoss {
    let narrower: Vec<_> = widths
        .iter()
        .map(|&width| loss([&image, &text].map(|features| normalize(first_values(features, width)))).loss)
        .collect();
    let mut whole = loss([image, text].map(normalize));
    if let Some(sum) = narrower.into_iter().reduce(|sum, loss| sum + loss) {
        whole.loss = (whole.loss + sum) / (widths.len() + 1) as f64;
    }
    whole
}

/// The first `width` values of each row.
fn first_values(features: &Tensor<2>, width: usize) -> Tensor<2> {
    let [rows, _] = features.dims();
    features.clone().slice([0..rows, 0..width])
}
