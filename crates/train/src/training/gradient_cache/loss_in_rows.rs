//! The loss of a batch of which every rank has all features, each rank computing the rows of its own pairs.
//!
//! The rows of a rank are divided further, as its parts are in the tree in which they are added up, so that the result
//! does not depend on the number of ranks. Softmax over the columns needs sums over all rows before: they are exchanged
//! first.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use dualenc_kernels::{ColumnSums, upload};
use dualenc_model::parameters;

use crate::error::TrainError;
use crate::loss::targets::{Rows, Targets};
use crate::loss::terms::StepLoss;
use crate::optim::gradients::ParamGradients;
use crate::ranks::exchange::Exchange;
use crate::ranks::gradients::sum_of_all;
use crate::ranks::tree::{halvings_of_share, sum_in_tree, sum_of_branches};
use crate::training::step::{Known, StepContext};

/// Loss and gradients of some rows, or of all.
pub(super) struct LossInRows {
    pub loss: StepLoss,
    /// By image and text features, `[rows, dim]` of the whole batch.
    pub by_features: [Tensor<2>; 2],
    /// By what the loss itself learns: `logit_scale` and `logit_bias`.
    pub by_parameters: ParamGradients,
}

/// Computes the loss of `features`, un-normalised and of the whole batch, with the other ranks. `own`: the number of
/// pairs before those of this rank, and that of each of its parts.
///
/// # Errors
/// Those of the exchange; [`TrainError::Model`] when the device cannot return its data.
pub(super) fn loss_in_rows(
    context: &StepContext<'_>,
    known: &Known,
    features: [Tensor<2>; 2],
    own: (usize, &[usize]),
) -> Result<LossInRows, TrainError> {
    let (terms, ranks) = (context.terms, context.ranks);
    let targets = terms.targets(&known.with(features.clone()));
    let (parts, halvings) = (0..own.1.len(), halvings_of_share(ranks.ranks()));
    let rows = |parts: Range<usize>| {
        let pairs_before = |part: usize| own.0 + own.1[..part].iter().sum::<usize>();
        pairs_before(parts.start)..pairs_before(parts.end)
    };

    let mut columns = |parts| Ok(terms.column_sums(&targets, &known.with(features.clone()), &rows(parts)));
    let columns = sum_of_branches(parts.clone(), halvings, &mut columns, &mut add_columns)?;
    let columns = columns_of_all(ranks, columns)?;

    let mut of_rows = |parts| {
        let leaves = features.clone().map(|features| features.autodiff().require_grad());
        let rows = Rows::Some { rows: rows(parts), columns: &columns };
        LossInRows::of(context, &targets, known, leaves, &rows)
    };
    let own = sum_of_branches(parts, halvings, &mut of_rows, &mut LossInRows::add)?;
    own.of_all_ranks(ranks)
}

fn add_columns(first: Vec<ColumnSums>, second: Vec<ColumnSums>) -> Result<Vec<ColumnSums>, TrainError> {
    Ok(first.into_iter().zip(second).map(|(first, second)| first.join(second)).collect())
}

/// The log-sum-exps, `[1, batch]`, over the rows of all ranks, from sums over those of each.
fn columns_of_all(ranks: &dyn Exchange, own: Vec<ColumnSums>) -> Result<Vec<Tensor<2>>, TrainError> {
    let mut sums = own;
    if let Some(first) = sums.first().filter(|_| !ranks.is_alone()) {
        let (device, [_, batch]) = (first.sums.device(), first.sums.dims());
        let tensors = sums.into_iter().flat_map(|ColumnSums { largest, sums }| [largest, sums]);
        let values = parameters::host(Tensor::cat(tensors.collect(), 1))?.values;
        let count = values.len();
        let all = ranks.gather_values(values)?;
        if let Some(other) = all.iter().find(|other| other.len() != count) {
            let problem = format!("ranks have {count} and {} sums of the columns of a batch", other.len());
            return Err(TrainError::Internal(problem));
        }
        let tensor = |values: &[f32]| upload(TensorData::new(values.to_vec(), [1, batch]), &device);
        let mut of_rank = |rank: usize| -> Result<Vec<ColumnSums>, TrainError> {
            let both = all[rank].chunks_exact(2 * batch).map(|both| both.split_at(batch));
            Ok(both.map(|(largest, sums)| ColumnSums { largest: tensor(largest), sums: tensor(sums) }).collect())
        };
        sums = sum_in_tree(0..ranks.ranks(), u32::MAX, &mut of_rank, &mut add_columns)?;
    }
    Ok(sums.iter().map(ColumnSums::log_sums).collect())
}

impl LossInRows {
    fn of(
        context: &StepContext<'_>,
        targets: &Targets,
        known: &Known,
        leaves: [Tensor<2>; 2],
        rows: &Rows<'_>,
    ) -> Result<Self, TrainError> {
        let loss = context.terms.loss_of_rows(targets, known.with(leaves.clone()), rows);
        let mut all = loss.total.backward();
        let by_parameters = ParamGradients::take(context.model, &mut all, None, context.compute.on_host)?;
        let by_features = leaves.map(|leaf| leaf.grad_remove(&mut all).unwrap_or_else(|| leaf.zeros_like()));
        let by_features = by_features.map(Tensor::without_autodiff);
        let loss = loss.try_map(|tensor| Ok::<_, TrainError>(tensor.without_autodiff()))?;
        Ok(Self { loss, by_features, by_parameters })
    }

    fn add(mut self, other: Self) -> Result<Self, TrainError> {
        let mut others = other.loss.tensors().into_iter();
        let loss = self.loss.try_map(|tensor| others.next().map(|other| tensor + other).ok_or_else(too_few))?;
        let ([image, text], [other_image, other_text]) = (self.by_features, other.by_features);
        self.by_parameters.add(other.by_parameters)?;
        Ok(Self { loss, by_features: [image + other_image, text + other_text], ..self })
    }

    fn of_all_ranks(self, ranks: &dyn Exchange) -> Result<Self, TrainError> {
        if ranks.is_alone() {
            return Ok(self);
        }
        let device = self.by_features[0].device();
        let flat = self.by_features.each_ref().map(|gradient| gradient.clone().reshape([-1]));
        let tensors: Vec<Tensor<1>> = self.loss.tensors().into_iter().chain(flat).collect();
        let sums = ranks.sum(parameters::host(Tensor::cat(tensors, 0))?.values)?;
        let mut rest = &sums[..];
        let mut take = |count: usize| {
            let (taken, after) = rest.split_at_checked(count).ok_or_else(too_few)?;
            rest = after;
            Ok::<_, TrainError>(taken.to_vec())
        };
        let loss = self.loss.try_map(|_| Ok::<_, TrainError>(upload(TensorData::new(take(1)?, [1]), &device)))?;
        let mut gradient = |own: Tensor<2>| {
            let [rows, dim] = own.dims();
            Ok::<_, TrainError>(upload(TensorData::new(take(rows * dim)?, [rows, dim]), &device))
        };
        let [image, text] = self.by_features;
        let by_features = [gradient(image)?, gradient(text)?];
        Ok(Self { loss, by_features, by_parameters: sum_of_all(ranks, self.by_parameters)? })
    }
}

fn too_few() -> TrainError {
    TrainError::Internal("parts of a loss have unequal numbers of values".to_owned())
}
