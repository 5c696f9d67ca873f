//! A block of the encoder.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use dualenc_kernels::{PackedBlock, packed_block, residual};

use crate::layers::dropout::Dropout;
use crate::layers::linear::LinearVisitor;
use crate::layers::norm::Norm;
use crate::params::builder::{Init, ParamBuilder};
use crate::transformer::attention::Attention;
use crate::transformer::config::{EncoderConfig, NormOrder, RelativeTable};
use crate::transformer::mlp::Mlp;
use crate::transformer::relations::Relations;
use crate::transformer::relative_bias::RelativeBias;
use crate::transformer::sequence_layout::SequenceLayout;

/// Attention and MLP, each in a residual branch.
#[derive(Module, Debug)]
pub(crate) struct Block {
    attention_norm: Option<Norm>,
    attention: Attention,
    relative_bias: Option<RelativeBias>,
    attention_branch_norm: Option<Norm>,
    attention_scale: Option<Param<Tensor<1>>>,
    mlp_norm: Norm,
    mlp: Mlp,
    mlp_branch_norm: Option<Norm>,
    mlp_scale: Option<Param<Tensor<1>>>,
    #[module(skip)]
    norm_order: NormOrder,
    attention_dropout: f64,
    mlp_dropout: f64,
    drop_path: f64,
}

impl Block {
    /// The block at index `n` of the encoder.
    pub fn new(at: &ParamBuilder<'_>, config: &EncoderConfig, n: usize) -> Self {
        let EncoderConfig { width, norm_kind, norm_bias, norm_epsilon, branch_norms, .. } = *config;
        let norm = |name| Norm::new(&at.at(name), width, norm_kind, norm_bias, norm_epsilon);
        let scale = |name| config.layer_scale.map(|value| at.param(name, [config.width], Init::Constant(value as f32)));
        let relative_bias = match config.relative {
            RelativeTable::EachBlock(rows) => {
                Some(RelativeBias::new(&at.at("relative_bias"), rows, config.heads, config.init_std))
            }
            _ => None,
        };
        Self {
            attention_norm: (n > 0 || config.first_norm).then(|| norm("attention_norm")),
            attention: Attention::new(&at.at("attention"), config),
            relative_bias,
            attention_branch_norm: branch_norms.then(|| norm("attention_branch_norm")),
            attention_scale: scale("attention_scale"),
            mlp_norm: norm("mlp_norm"),
            mlp: Mlp::new(&at.at("mlp"), config),
            mlp_branch_norm: branch_norms.then(|| norm("mlp_branch_norm")),
            mlp_scale: scale("mlp_scale"),
            norm_order: config.norm_order,
            attention_dropout: if config.drops_attention_branch { config.hidden_dropout } else { 0.0 },
            mlp_dropout: if config.drops_mlp_branch { config.hidden_dropout } else { 0.0 },
            drop_path: config.drop_path_of(n),
        }
    }

    /// Calls `visit` for each linear of the block; `path` is the block's own.
    pub fn visit_linears(&mut self, path: &str, visit: &mut LinearVisitor<'_>) {
        self.attention.visit_linears(&format!("{path}.attention"), visit);
        self.mlp.visit_linears(&format!("{path}.mlp"), visit);
    }

    /// Maps `[rows, width]` to the same shape. `shared_bias` is `[1, heads, seq, seq]`.
    pub fn forward(
        &self,
        x: Tensor<2>,
        layout: &SequenceLayout,
        relations: &Relations,
        shared_bias: Option<Tensor<4>>,
        dropout: &Dropout,
    ) -> Tensor<2> {
        let bias = self.relative_bias.as_ref().and_then(|bias| bias.forward(relations)).or(shared_bias);
        if bias.is_none()
            && let Some(x) = self.forward_packed(&x, layout, relations)
        {
            return x;
        }
        let normed = |norm: &Option<Norm>, x| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let attend = |x| {
            let branch = self.attention.forward(x, layout, relations, bias, dropout);
            normed(&self.attention_branch_norm, branch)
        };
        let mlp = |x| normed(&self.mlp_branch_norm, self.mlp.forward(x));
        let add = |x, branch, probability, scale: &Option<Param<Tensor<1>>>| {
            let branch = dropout.apply_to_sequences(branch, &layout.lengths(), self.drop_path);
            let mask = dropout.mask(&branch, probability);
            residual(x, branch, scale.as_ref().map(Param::val), mask)
        };
        let add_attention = |x, branch| add(x, branch, self.attention_dropout, &self.attention_scale);
        let add_mlp = |x, branch| add(x, branch, self.mlp_dropout, &self.mlp_scale);
        let attention_norm = |x| normed(&self.attention_norm, x);
        match self.norm_order {
            NormOrder::Pre => {
                let x = add_attention(x.clone(), attend(attention_norm(x)));
                add_mlp(x.clone(), mlp(self.mlp_norm.forward(x)))
            }
            NormOrder::Post => {
                let x = attention_norm(add_attention(x.clone(), attend(x)));
                self.mlp_norm.forward(add_mlp(x.clone(), mlp(x)))
            }
        }
    }

    /// The same by one kernel, with the same bits: for a locked block with packed layers and norms before its branches.
    fn forward_packed(&self, x: &Tensor<2>, layout: &SequenceLayout, relations: &Relations) -> Option<Tensor<2>> {
        let is_plain =
            self.norm_order == NormOrder::Pre && self.attention_branch_norm.is_none() && self.mlp_branch_norm.is_none();
        if !is_plain {
            return None;
        }
        let (projections, output, sequences) = self.attention.packed(x, layout, relations)?;
        let (up, activation, down) = self.mlp.packed()?;
        let block = PackedBlock {
            attention_norm: self.attention_norm.as_ref()?.packed()?,
            projections,
            output,
            attention_scale: self.attention_scale.as_ref().map(Param::val),
            mlp_norm: self.mlp_norm.packed()?,
            up,
            activation,
            down,
            mlp_scale: self.mlp_scale.as_ref().map(Param::val),
        };
        packed_block(x, &block, &sequences)
    }
}
