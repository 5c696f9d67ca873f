//! The loss of nested embeddings: the first values of an embedding are an embedding too (Matryoshka representation
//! learning, arXiv:2205.13147, sec. 3).

use burn::tensor::Tensor;
use dualenc_model::normalize;

/// The mean of the loss of whole embeddings and of those of their first `widths` values, each normalised.
///
/// `whole` are the whole embeddings, normalised; `features` what they were made of, un-normalised, `[rows, dim]`.
/// `loss` takes unit vectors of one width, and the number of the width: 0 for the whole. Without `widths` it is the
/// loss of whole embeddings, to the bit.
pub(crate) fn nested_loss(
    widths: &[usize],
    features: [&Tensor<2>; 2],
    whole: [&Tensor<2>; 2],
    loss: impl Fn([&Tensor<2>; 2], usize) -> Tensor<1>,
) -> Tensor<1> {
    let narrower = narrower(widths, features);
    let narrower: Vec<_> =
        narrower.iter().enumerate().map(|(number, embeds)| loss(embeds.each_ref(), number + 1)).collect();
    let whole = loss(whole, 0);
    match narrower.into_iter().reduce(|sum, loss| sum + loss) {
        Some(sum) => (whole + sum) / (widths.len() + 1) as f64,
        None => whole,
    }
}

/// The first `widths` values of un-normalised features, normalised.
pub(crate) fn narrower(widths: &[usize], features: [&Tensor<2>; 2]) -> Vec<[Tensor<2>; 2]> {
    widths.iter().map(|&width| features.map(|features| normalize(first_values(features, width)))).collect()
}

/// The first `width` values of each row.
fn first_values(features: &Tensor<2>, width: usize) -> Tensor<2> {
    let [rows, _] = features.dims();
    features.clone().slice([0..rows, 0..width])
}
