//! Multi-head attention pooling, SigLIP's head (Zhai et al., 2022, "Scaling Vision Transformers", app. B).

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::LinearVisitor;
use crate::params::builder::{Init, ParamBuilder};
use crate::transformer::attention::Attention;
use crate::transformer::config::EncoderConfig;
use crate::transformer::mlp::Mlp;
use crate::transformer::sequence_layout::SequenceLayout;

/// A learned query attends to all tokens of a sequence, followed by an MLP.
#[derive(Module, Debug)]
pub struct AttentionPool {
    probe: Param<Tensor<2>>,
    attention: Attention,
    norm: LayerNorm,
    mlp: Mlp,
}

impl AttentionPool {
    /// With the width, heads and MLP of the encoder.
    pub(crate) fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        Self {
            probe: at.param("probe", [1, config.width], Init::Normal(config.init_std)),
            attention: Attention::new(&at.at("attention"), config),
            norm: LayerNorm::new(&at.at("norm"), config.width, config.norm_bias, config.norm_epsilon),
            mlp: Mlp::new(&at.at("mlp"), config),
        }
    }

    /// Calls `visit` for each linear; `path` is the pool's own.
    pub(crate) fn visit_linears(&mut self, path: &str, visit: &mut LinearVisitor<'_>) {
        self.attention.visit_linears(&format!("{path}.attention"), visit);
        self.mlp.visit_linears(&format!("{path}.mlp"), visit);
    }

    /// Pools `[rows, width]` to `[batch, width]`.
    pub(crate) fn forward(&self, x: Tensor<2>, layout: &SequenceLayout) -> Tensor<2> {
        let seen = self.attention.pool(self.probe.val(), x, layout);
        seen.clone() + self.mlp.forward(self.norm.forward(seen))
    }
}
