//! WHAT A STEP MINIMISES: the contrastive loss, with what the config adds to it.

use std::ops::Range;

use burn::tensor::Tensor;
use dualenc_kernels::ColumnSums;
use dualenc_model::normalize;

use crate::config::RunConfig;
use crate::error::TrainError;
use crate::loss::contrastive::{BatchLoss, Objective, PairIds};
use crate::loss::matryoshka::{narrower, nested_loss};
use crate::loss::mixup::Mixing;
use crate::loss::structure::StructureTerm;
use crate::loss::targets::{Rows, Targets};
use crate::loss::teacher::TeacherTerm;

/// The loss of a run and its terms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LossTerms {
    pub objective: Objective,
    /// Widths below the whole at which embeddings are compared too.
    pub narrower: Vec<usize>,
    pub structure: Option<StructureTerm>,
    pub teacher: Option<TeacherTerm>,
    /// Shape of the distribution of shares; `None`: pairs are not blended.
    pub mixup_alpha: Option<f64>,
}

/// The loss of a step.
#[derive(Debug)]
pub(crate) struct StepLoss {
    /// What is differentiated, `[1]`.
    pub total: Tensor<1>,
    /// The contrastive loss, with statistics.
    pub contrastive: BatchLoss,
    /// The structure term without its weight, `[1]`, where the run has one.
    pub structure: Option<Tensor<1>>,
    /// The divergence from the teacher without its weight, `[1]`, where the run has one.
    pub teacher: Option<Tensor<1>>,
}

impl StepLoss {
    /// All losses, `[1]` each.
    pub fn tensors(&self) -> Vec<Tensor<1>> {
        let terms = [&self.structure, &self.teacher].into_iter().flatten();
        [&self.total, &self.contrastive.loss].into_iter().chain(terms).cloned().collect()
    }

    /// With each of [`StepLoss::tensors`], in order, replaced.
    ///
    /// # Errors
    /// Those of `replace`.
    pub fn try_map<E>(self, mut replace: impl FnMut(Tensor<1>) -> Result<Tensor<1>, E>) -> Result<Self, E> {
        let total = replace(self.total)?;
        let contrastive = BatchLoss { loss: replace(self.contrastive.loss)?, ..self.contrastive };
        let structure = self.structure.map(&mut replace).transpose()?;
        Ok(Self { total, contrastive, structure, teacher: self.teacher.map(replace).transpose()? })
    }
}

/// What the loss of a batch is computed from.
pub(crate) struct LossInputs<'a> {
    /// 0-based.
    pub step: u64,
    pub pairs: &'a PairIds,
    /// How the pairs are blended, where they are.
    pub mixing: Option<&'a Mixing>,
    /// What the heads of locked towers get, `[rows, width]`; of tokens, their summary.
    pub locked: [Option<&'a Tensor<2>>; 2],
    /// What the teacher embeds the images and texts to, L2-normalised, `[rows, teacher dim]`.
    pub teacher: Option<&'a [Tensor<2>; 2]>,
    /// Un-normalised image and text features, `[rows, dim]`.
    pub features: [Tensor<2>; 2],
    /// `[1]`, a logarithm.
    pub logit_scale: Tensor<1>,
    /// `[1]`.
    pub logit_bias: Option<Tensor<1>>,
}

impl LossTerms {
    /// Without a teacher, which is not loaded yet. `embed_dim`: width of the embeddings of the model.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when a width of `train.matryoshka` is larger.
    pub fn new(config: &RunConfig, embed_dim: usize) -> Result<Self, TrainError> {
        let (train, objective) = (&config.train, config.into());
        if let Some(&width) = train.matryoshka.first().filter(|&&width| width > embed_dim) {
            return Err(TrainError::Usage(format!(
                "`train.matryoshka` begins with {width}, but the embeddings of the model have {embed_dim} values; \
                 remove the widths above {embed_dim}"
            )));
        }
        let narrower = train.matryoshka.iter().copied().filter(|&width| width < embed_dim).collect();
        let mixup_alpha = (train.mixup_alpha > 0.0).then_some(train.mixup_alpha);
        Ok(Self { objective, narrower, structure: StructureTerm::of(config), teacher: None, mixup_alpha })
    }

    /// With the term of a teacher, if there is one.
    #[must_use]
    pub fn with_teacher(self, teacher: Option<TeacherTerm>) -> Self {
        Self { teacher, ..self }
    }

    /// The loss of a batch.
    pub fn loss(&self, inputs: LossInputs<'_>) -> StepLoss {
        let targets = self.targets(&inputs);
        self.loss_of_rows(&targets, inputs, &Rows::All)
    }

    /// What the contrastive loss of a batch needs besides embeddings.
    pub fn targets(&self, inputs: &LossInputs<'_>) -> Targets {
        Targets::of(self.objective, inputs.pairs, inputs.mixing)
    }

    /// The log-sum-exps of the columns over `rows` of the logits, of each width and slot, then of the teacher's logits
    /// of each slot; none for the sigmoid loss.
    pub fn column_sums(&self, targets: &Targets, inputs: &LossInputs<'_>, rows: &Range<usize>) -> Vec<ColumnSums> {
        let features = inputs.features.each_ref();
        let whole = features.map(|features| normalize(features.clone()));
        let embeds = std::iter::once(whole).chain(narrower(&self.narrower, features));
        let own = embeds.flat_map(|embeds| targets.column_sums(embeds.each_ref(), &inputs.logit_scale, rows));
        let teacher = self.teacher.iter().zip(inputs.teacher);
        own.chain(teacher.flat_map(|(term, embeds)| term.column_sums(targets, embeds.each_ref(), rows))).collect()
    }

    /// The part of the loss that some rows of the logits have: the parts add up to the loss.
    pub fn loss_of_rows(&self, targets: &Targets, inputs: LossInputs<'_>, rows: &Rows<'_>) -> StepLoss {
        let LossInputs { step, pairs, mixing: _, locked, teacher, features, logit_scale, logit_bias } = inputs;
        let features = features.each_ref();
        let embeds = features.map(|features| normalize(features.clone()));
        let structure = self.structure.and_then(|term| {
            let loss = term.loss(locked, features, &rows.range(pairs.known.len()))?;
            Some((term.weight_at(step), loss))
        });
        let logits = (&logit_scale, logit_bias.as_ref());
        let teacher = self.teacher.zip(teacher).map(|(term, teacher)| {
            let rows = (rows, self.narrower.len() + 1);
            (term.weight, term.loss(targets, teacher.each_ref(), embeds.each_ref(), logits, rows))
        });
        let loss = nested_loss(&self.narrower, features, embeds.each_ref(), |embeds, width| {
            targets.loss(embeds, logits, rows, width)
        });
        let contrastive = targets.with_statistics(loss, embeds.each_ref());
        let mut total = contrastive.loss.clone();
        if let Some((weight, teacher)) = &teacher {
            total = total * (1.0 - *weight) + teacher.clone() * *weight;
        }
        if let Some((weight, structure)) = &structure {
            total = total + structure.clone() * *weight;
        }
        StepLoss {
            total,
            contrastive,
            structure: structure.map(|(_, structure)| structure),
            teacher: teacher.map(|(_, teacher)| teacher),
        }
    }
}
